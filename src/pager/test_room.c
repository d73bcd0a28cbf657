/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A full disk, on a tmpfs of a few MiB: the cache makes way, then readers wait
 */
#include "pager/test_stream.h"

#include "base/guard.h"
#include "image/cache.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#define DISK_CHUNKS 4u
#define DISK_PAGES (DISK_CHUNKS * INDEX_CHUNK_PAGES)
#define DEADLINE (20 * NS_PER_SEC)
#define SHORT (2 * NS_PER_SEC)
/* All of the disk's data, 13 MiB, and some. */
#define SMALL "size=20m"
#define CACHED_BYTES (1u << 20)

static char small[256];

static void small_mount(void)
{
	test_dir(small, sizeof(small));
	if (unshare(CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", small, "tmpfs", 0, SMALL) < 0) {
		rmdir(small);
		test_skip("this user cannot mount a small disk");
	}
}

/* The disk of @s is on it, its store is not. */
static void small_stream(struct stream *s, uint32_t seed)
{
	char path[300];

	stream_new(s, seed, INDEX_CHUNK_PAGES, DISK_PAGES);
	close(s->disk_fd);
	snprintf(path, sizeof(path), "%s/disk.part", small);
	s->disk_fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	check(s->disk_fd >= 0);
	check(ftruncate(s->disk_fd, (off_t)(DISK_PAGES * PAGE)) == 0);
}

static uint64_t small_free(void)
{
	struct statvfs v;

	check(statvfs(small, &v) == 0);
	return (uint64_t)v.f_bfree * v.f_frsize;
}

/* All but some pages of what is free. */
static void small_fill(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	check(fd >= 0);
	check(posix_fallocate(fd, 0, (off_t)(small_free() - 16 * PAGE)) == 0);
	close(fd);
}

static void read_all(struct rig *r, const struct stream *s)
{
	for (unsigned i = 0; i < DISK_CHUNKS; i++) {
		rig_need_page(r, s, i, true);
		rig_need_page(r, s, i, false);
	}
}

/* The cache holds most of the disk: it gives it up. */
static void test_cache_makes_way(void)
{
	guard_free uint8_t *p = calloc(1, CACHED_BYTES);
	struct cache *c = NULL;
	struct err e = ERR_NULL;
	char dir[300];
	struct stream s;
	struct rig r;
	uint64_t n = 0;

	small_stream(&s, 1);
	snprintf(dir, sizeof(dir), "%s/cache", small);
	check(p && cache_open(dir, 1u << 30, &c, &e) == 0);
	while (small_free() > 2 * CACHED_BYTES)
		cache_put(c, "im77", n++, CACHED_BYTES, p);
	rig_new(&r, DEADLINE, c, 2);
	rig_layer(&r, 0, &s, true);
	rig_start(&r);
	read_all(&r, &s);
	check(cache_counts(c).evicted_bytes > 8 * CACHED_BYTES);
	/* No more than was needed, and the oldest. */
	check(cache_counts(c).bytes > 0);
	check(!cache_get(c, "im77", 0, CACHED_BYTES, p));
	check(cache_get(c, "im77", n - 1, CACHED_BYTES, p));
	rig_stop(&r);
	cache_free(c);
	check(io_remove_tree(dir, &e) == 0);
	stream_end(&s);
}

static void *reader_main(void *arg)
{
	struct rig *r = arg;

	check(layer_need_disk(r->engine, 0, 0, DISK_PAGES * PAGE) == 0);
	return NULL;
}

/* Nothing is left to give up: readers wait, and nothing is fetched meanwhile,
 * until there is room again. */
static void test_room_comes_back(void)
{
	const struct pager_layer_stats *l;
	uint64_t fetched;
	char path[300];
	struct stream s;
	struct rig r;
	pthread_t thread;

	small_stream(&s, 2);
	snprintf(path, sizeof(path), "%s/ballast", small);
	small_fill(path);
	rig_new(&r, DEADLINE, NULL, 2);
	l = &r.stats->layer[0];
	rig_layer(&r, 0, &s, true);
	rig_start(&r);
	check(!pthread_create(&thread, NULL, reader_main, &r));
	while (!rig_stat(&l->fetched_bytes))
		usleep(1000);
	usleep(500000);
	fetched = rig_stat(&l->fetched_bytes);
	usleep(2500000);
	check(rig_stat(&l->fetched_bytes) == fetched);
	check(rig_stat(&l->frames_demand) == 0);
	check(unlink(path) == 0);
	check(!pthread_join(thread, NULL));
	read_all(&r, &s);
	rig_stop(&r);
	stream_end(&s);
}

static void test_full(void)
{
	char path[300];
	struct stream s;
	struct rig r;
	uint64_t start;

	small_stream(&s, 3);
	snprintf(path, sizeof(path), "%s/ballast", small);
	small_fill(path);
	rig_new(&r, SHORT, NULL, 2);
	rig_layer(&r, 0, &s, true);
	rig_start(&r);
	start = clock_mono_ns();
	check(rig_read_page(&r, &s, 0, true) == -ENOSPC);
	check(clock_mono_ns() - start > SHORT - SHORT / 5);
	check(unlink(path) == 0);
	rig_need_page(&r, &s, 0, true);
	rig_stop(&r);
	stream_end(&s);
}

int main(void)
{
	small_mount();
	test_cache_makes_way();
	test_room_comes_back();
	test_full();
	check(umount(small) == 0 && rmdir(small) == 0);
	return 0;
}
