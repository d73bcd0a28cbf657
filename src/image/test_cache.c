/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache: what it keeps, what it lets go, and what a bad disk does to it
 */
#include "image/cache.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define ID "im00112233445566778899aabbccddeeff"
#define OTHER "imffee"
/* 40 digits and "im": more than an id can have. */
#define LONG "im0123456789012345678901234567890123456789"

static char top[200];
static struct err e;

static struct cache *test_open(uint64_t budget)
{
	struct cache *c = NULL;

	check(cache_open(top, budget, &c, &e) == 0);
	return c;
}

static void test_fill(uint8_t *p, size_t len, uint64_t seed)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)(seed * 131 + i * 7 + (i >> 8));
}

static void test_put(struct cache *c, const char *id, uint64_t offset,
		     uint32_t len)
{
	guard_free uint8_t *p = malloc(len);

	check(p);
	test_fill(p, len, offset + len);
	cache_put(c, id, offset, len, p);
}

/* Is it there, and is it what was put? */
static bool test_get(struct cache *c, const char *id, uint64_t offset,
		     uint32_t len)
{
	guard_free uint8_t *p = malloc(2 * (size_t)len);

	check(p);
	if (!cache_get(c, id, offset, len, p))
		return false;
	test_fill(p + len, len, offset + len);
	check(!memcmp(p, p + len, len));
	return true;
}

static const char *test_path(const char *name)
{
	static char path[400];

	snprintf(path, sizeof(path), "%s/%s", top, name);
	return path;
}

static bool test_exists(const char *name)
{
	return access(test_path(name), F_OK) == 0;
}

static void test_clean(void)
{
	check(io_remove_tree(top, &e) == 0);
	check(mkdir(top, 0700) == 0);
}

static void test_keeps(void)
{
	struct cache *c = test_open(1 << 20);

	check(!test_get(c, ID, 0, 100));
	test_put(c, ID, 0, 100);
	test_put(c, ID, 0, 5000); /* another frame: lengths are names */
	test_put(c, OTHER, 0, 100);
	check(test_get(c, ID, 0, 100) && test_get(c, ID, 0, 5000));
	check(test_get(c, OTHER, 0, 100) && !test_get(c, OTHER, 1, 100));
	check(test_exists(ID "/0-5000"));
	test_put(c, ID, 0, 100); /* again: nothing */
	check(cache_counts(c).bytes == 4096 + 8192 + 4096);
	check(cache_counts(c).written_bytes == 5200);
	check(cache_counts(c).hits == 3 && cache_counts(c).misses == 2);
	cache_forget(c, ID, 0, 100);
	check(!test_exists(ID "/0-100") && !test_get(c, ID, 0, 100));
	check(cache_counts(c).bad == 1 && cache_counts(c).bytes == 12288);
	check(cache_counts(c).budget == 1 << 20 && !cache_counts(c).errors);
	cache_free(c);
	test_clean();
}

static void test_names(void)
{
	static const char *const bad[] = {
		"",     "im",     "..",     "im/../..", "imAB",
		"xx00", "im0/..", "im00zz", "im 0",     "../im00",
		"im.",  "im0\n",  LONG,
	};
	struct cache *c = test_open(1 << 20);
	uint8_t p[16] = "x";

	for (size_t i = 0; i < nitems(bad); i++) {
		cache_put(c, bad[i], 0, sizeof(p), p);
		check(!cache_get(c, bad[i], 0, sizeof(p), p));
		cache_forget(c, bad[i], 0, sizeof(p));
	}
	cache_put(c, ID, 0, 0, p);
	cache_put(c, ID, 0, 64u << 20, p); /* refused before it is read */
	check(cache_counts(c).bytes == 0 && cache_counts(c).errors == 0);
	cache_free(c);
	test_clean();
}

/* Least recently used goes first, and the budget holds. */
static void test_evicts(void)
{
	struct cache *c = test_open(10 * 4096);

	for (uint64_t i = 0; i < 10; i++)
		test_put(c, ID, i, 4000);
	check(test_get(c, ID, 0, 4000)); /* the youngest now */
	test_put(c, ID, 10, 4096 + 1);
	check(!test_get(c, ID, 1, 4000) && !test_get(c, ID, 2, 4000));
	check(test_get(c, ID, 0, 4000) && test_get(c, ID, 3, 4000));
	check(test_get(c, ID, 10, 4097));
	check(!test_exists(ID "/1-4000"));
	check(cache_counts(c).bytes == 10 * 4096);
	check(cache_counts(c).evicted_bytes == 2 * 4096);
	/* More than all of it. */
	test_put(c, ID, 11, 11 * 4096);
	check(cache_counts(c).bytes == 10 * 4096);
	cache_free(c);
	test_clean();
}

static void test_age(const char *name, time_t seconds)
{
	struct timespec t[2] = { { .tv_sec = seconds }, { .tv_sec = seconds } };

	check(utimensat(AT_FDCWD, test_path(name), t, 0) == 0);
}

static void test_write(const char *name, size_t len)
{
	guard_free char *p = calloc(1, len);

	check(p && io_write_file(test_path(name), p, len, 0600, &e) == 0);
}

static void test_reopens(void)
{
	struct cache *c = test_open(1 << 20), *second = NULL;

	check(cache_open(top, 1, &second, &e) == -EBUSY);
	for (uint64_t i = 0; i < 4; i++)
		test_put(c, ID, i, 4000);
	test_put(c, OTHER, 7, 50);
	cache_free(c);
	test_age(ID "/0-4000", 4000);
	test_age(ID "/1-4000", 1000);
	test_age(ID "/2-4000", 3000);
	test_age(ID "/3-4000", 2000);
	/* A half, one that is short, and what is not ours. */
	test_write(ID "/9-100.tmp", 10);
	test_write(ID "/8-100", 99);
	test_write(ID "/007-100", 100);
	test_write("notes", 100);
	check(mkdir(test_path("im77"), 0700) == 0);
	c = test_open(3 * 4096);
	check(cache_counts(c).bytes == 3 * 4096);
	check(!test_get(c, ID, 1, 4000) && !test_get(c, ID, 3, 4000));
	check(test_get(c, ID, 0, 4000) && test_get(c, ID, 2, 4000));
	check(test_get(c, OTHER, 7, 50));
	check(!test_exists(ID "/9-100.tmp") && !test_exists(ID "/8-100"));
	check(test_exists(ID "/007-100") && test_exists("notes"));
	check(!test_exists("im77"));
	cache_free(c);
	/* The hits above are in the files' times. */
	test_age(OTHER "/7-50", 5000);
	c = test_open(2 * 4096);
	check(!test_get(c, OTHER, 7, 50) && test_get(c, ID, 0, 4000));
	cache_free(c);
	c = test_open(0);
	check(cache_counts(c).bytes == 0 && !test_exists(ID "/0-4000"));
	test_put(c, ID, 0, 100);
	check(!test_get(c, ID, 0, 100) && !test_exists(ID "/0-100"));
	cache_free(c);
	test_clean();
}

/* Files that vanish or are cut under us are misses. */
static void test_tampered(void)
{
	struct cache *c = test_open(1 << 20);

	test_put(c, ID, 0, 4000);
	test_put(c, ID, 1, 4000);
	check(unlink(test_path(ID "/0-4000")) == 0);
	check(truncate(test_path(ID "/1-4000"), 10) == 0);
	check(!test_get(c, ID, 0, 4000) && !test_get(c, ID, 1, 4000));
	check(cache_counts(c).bytes == 0);
	check(cache_counts(c).misses == 2 && cache_counts(c).errors == 1);
	test_put(c, ID, 0, 4000);
	check(test_get(c, ID, 0, 4000));
	cache_free(c);
	test_clean();
}

/* A full disk: counted, nothing half left, and a rest. */
static void test_full_disk(void)
{
	struct cache *c = NULL;

	if (unshare(CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", top, "tmpfs", 0, "size=64k") < 0)
		return;
	c = test_open(1 << 20);
	test_put(c, ID, 0, 8000);
	test_put(c, ID, 1, 100000);
	check(cache_counts(c).errors == 1 && cache_counts(c).bytes == 8192);
	check(!test_exists(ID "/1-100000") && !test_exists(ID "/1-100000.tmp"));
	test_put(c, ID, 2, 100); /* it rests */
	check(!test_get(c, ID, 2, 100) && test_get(c, ID, 0, 8000));
	check(cache_counts(c).errors == 1);
	cache_free(c);
	check(umount(top) == 0);
}

/* Room for others: the oldest go, as many as are needed, and nothing comes in
 * their place; not for who is on another disk. */
static void test_makes_way(void)
{
	struct cache *c = test_open(1 << 20);
	int here = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int elsewhere = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	check(here >= 0 && elsewhere >= 0);
	for (uint64_t i = 0; i < 6; i++)
		test_put(c, ID, i, 4000);
	check(test_get(c, ID, 0, 4000));
	check(cache_make_way(c, elsewhere, 1) == 0);
	check(cache_counts(c).bytes == 6 * 4096);
	check(cache_make_way(c, here, 4097) == 2 * 4096);
	check(!test_exists(ID "/1-4000") && !test_exists(ID "/2-4000"));
	check(test_get(c, ID, 0, 4000) && test_get(c, ID, 3, 4000));
	check(cache_counts(c).evicted_bytes == 2 * 4096);
	test_put(c, ID, 9, 4000);
	check(!test_get(c, ID, 9, 4000));
	check(cache_make_way(c, here, 1 << 20) == 4 * 4096);
	check(cache_make_way(c, here, 1) == 0);
	check(cache_counts(c).bytes == 0 && cache_counts(c).errors == 0);
	close(here);
	close(elsewhere);
	cache_free(c);
	test_clean();
}

struct test_user {
	struct cache *c;
	unsigned seed;
};

static void *test_use(void *arg)
{
	struct test_user *u = arg;
	unsigned x = u->seed;

	for (int i = 0; i < 1500; i++) {
		uint64_t offset;
		uint32_t len;

		x = x * 1103515245 + 12345;
		offset = (x >> 16) % 40;
		len = (uint32_t)(1000 + offset * 300);
		if (x % 97 == 0)
			cache_forget(u->c, ID, offset, len);
		else if (!test_get(u->c, ID, offset, len))
			test_put(u->c, ID, offset, len);
		check(cache_counts(u->c).bytes <= 20 * 4096);
	}
	return NULL;
}

static void test_threads(void)
{
	struct test_user user[4];
	pthread_t thread[nitems(user)];
	struct cache *c = test_open(20 * 4096);

	for (unsigned i = 0; i < nitems(user); i++) {
		user[i] = (struct test_user){ c, i * 77 + 1 };
		check(!pthread_create(&thread[i], NULL, test_use, &user[i]));
	}
	for (unsigned i = 0; i < nitems(user); i++)
		check(!pthread_join(thread[i], NULL));
	check(cache_counts(c).hits > 100 && cache_counts(c).evicted_bytes > 0);
	check(cache_counts(c).errors == 0);
	cache_free(c);
	/* The table and the disk agree. */
	c = test_open(20 * 4096);
	check(cache_counts(c).bytes > 0 && !cache_counts(c).evicted_bytes);
	cache_free(c);
	test_clean();
}

int main(void)
{
	test_dir(top, sizeof(top));
	test_keeps();
	test_names();
	test_evicts();
	test_reopens();
	test_tampered();
	test_makes_way();
	test_threads();
	test_full_disk();
	check(io_remove_tree(top, &e) == 0);
	return 0;
}
