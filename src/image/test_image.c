/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images: sealed and opened; every file cut, flipped, gone, replaced; the
 * cache of what was verified; the largest memory
 */
#include "image/image.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/test.h"
#include "image/chunk.h"
#include "image/file.h"
#include "image/verified.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#define HEX "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
/* Three chunks and a bit; the third one is empty. */
#define MEMORY (3 * IMAGE_CHUNK + 7 * IMAGE_PAGE)
#define PAGES (MEMORY / IMAGE_PAGE)

static char top[200];

static struct image_manifest sample(void)
{
	struct image_manifest m = { .name = "sample",
				    .created = "2024-05-01T12:34:56Z",
				    .driver = "qemu",
				    .version = "7.2.9",
				    .accel = "tcg",
				    .kernel_sha256 = HEX,
				    .rootfs_sha256 = HEX,
				    .memory_bytes = MEMORY,
				    .vcpus = 1 };

	return m;
}

static int file_at(const char *dir, const char *name, int flags)
{
	guard_free char *path = io_path("%s/%s", dir, name);
	int fd = open(path, flags | O_CLOEXEC, 0600);

	check(fd >= 0);
	return fd;
}

static void put_text(const char *dir, const char *name, const char *text)
{
	guard_fd int fd = file_at(dir, name, O_WRONLY | O_CREAT | O_TRUNC);

	check(io_write_full(fd, text, strlen(text)) == 0);
}

static void put_byte(const char *dir, const char *name, uint64_t at, char byte)
{
	guard_fd int fd = file_at(dir, name, O_WRONLY | O_CREAT);

	check(io_pwrite_full(fd, &byte, 1, at) == 0);
}

static void flip(const char *dir, const char *name, uint64_t at)
{
	guard_fd int fd = file_at(dir, name, O_RDWR);
	char byte;

	/* Where change times are coarse, into the next tick. */
	usleep(20000);
	check(io_pread_full(fd, &byte, 1, at) == 1);
	byte ^= 1;
	check(io_pwrite_full(fd, &byte, 1, at) == 0);
}

static void put_memory(const char *dir, uint64_t bytes)
{
	guard_fd int fd = file_at(dir, "memory", O_RDWR | O_CREAT | O_TRUNC);
	guard_free char *map = io_path("%s/zeromap", dir);
	guard(bitmap_deinit) struct bitmap b = BITMAP_NULL;

	check(ftruncate(fd, (off_t)bytes) == 0);
	check(io_pwrite_full(fd, "a", 1, 5 * IMAGE_PAGE) == 0);
	check(io_pwrite_full(fd, "b", 1, IMAGE_CHUNK) == 0);
	check(io_pwrite_full(fd, "c", 1, bytes - 1) == 0);
	check(image_find_zero(fd, bytes, &b, NULL) == 0);
	check(bitmap_write(&b, map, NULL) == 0);
	bitmap_deinit(&b);
	check(bitmap_init(&b, bytes / IMAGE_PAGE) == 0);
	bitmap_set(&b, 5);
	free(take(map));
	map = io_path("%s/workingset", dir);
	check(bitmap_write(&b, map, NULL) == 0);
}

/* A directory with all files, sealed. The caller frees the path. */
static char *image_make(const char *name, uint64_t bytes)
{
	struct image_manifest m = sample();
	char *dir = io_path("%s/%s", top, name);
	struct err e = ERR_NULL;

	check(dir && io_mkdirs(dir, 0700, &e) == 0);
	put_memory(dir, bytes);
	put_text(dir, "state", "device state");
	put_text(dir, "disk", "root disk");
	put_text(dir, "overlay", "overlay");
	m.memory_bytes = bytes;
	if (image_seal(dir, &m, &e) != 0) {
		fprintf(stderr, "%s\n", e.msg);
		exit(1);
	}
	check(m.zero_bytes == bytes - 3 * IMAGE_PAGE);
	check(m.workingset_bytes == IMAGE_PAGE);
	return dir;
}

static void refuse(const char *dir, int code, const char *part)
{
	struct image *i = NULL;
	struct err e = ERR_NULL;
	int r = image_open(dir, &i, &e);

	if (r != -code || e.code != code || !strstr(e.msg, part) ||
	    strncmp(e.msg, "image ", 6) || !strstr(e.msg, dir)) {
		fprintf(stderr, "%d, \"%s\" has no \"%s\"\n", r, e.msg, part);
		exit(1);
	}
	check(!i);
}

static struct image *accept(const char *dir)
{
	struct image *i = NULL;
	struct err e = ERR_NULL;

	if (image_open(dir, &i, &e) != 0) {
		fprintf(stderr, "%s\n", e.msg);
		exit(1);
	}
	return i;
}

static unsigned open_fds(void)
{
	guard_dir DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	check(d);
	while (readdir(d))
		n++;
	return n;
}

static void test_round(void)
{
	unsigned fds = open_fds();
	guard_free char *dir = image_make("round", MEMORY);
	struct image *i = accept(dir);
	struct err e = ERR_NULL;
	char byte;

	check_str(image_dir(i), dir);
	check_str(image_manifest(i)->name, "sample");
	check(image_zeromap(i)->n == PAGES && image_workingset(i)->n == PAGES);
	check(bitmap_run(image_zeromap(i), 0) == 5);
	check(bitmap_get(image_workingset(i), 5));
	check(io_pread_full(image_fd(i, IMAGE_MEMORY), &byte, 1, IMAGE_CHUNK) ==
	      1);
	check(byte == 'b');
	/* A borrowed fd cannot be written. */
	check(pwrite(image_fd(i, IMAGE_DISK), "x", 1, 0) < 0);
	check(image_unchanged(i, &e) == 0);
	check(image_ref(i) == i);
	check(!image_unref(i));
	check(image_unchanged(i, &e) == 0);
	check(!image_unref(i));
	check(!image_unref(NULL));
	check(open_fds() == fds);
}

/* memory.digests has no entry of its own: only who verifies memory reads it. */
static const char *const names[] = { "memory",  "state",   "disk",
				     "overlay", "zeromap", "workingset" };

static void test_flipped(void)
{
	guard_free char *dir = image_make("flipped", MEMORY);
	char part[100];

	for (size_t n = 1; n < nitems(names); n++) {
		flip(dir, names[n], 3);
		snprintf(part, sizeof(part),
			 "%s: digest differs from the manifest", names[n]);
		refuse(dir, EBADMSG, part);
		refuse(dir, EBADMSG, part);
		flip(dir, names[n], 3);
		image_unref(accept(dir));
	}
	/* A byte that was used, one in a hole, one behind the last chunk. */
	flip(dir, "memory", IMAGE_CHUNK);
	refuse(dir, EBADMSG,
	       ": memory: chunk at 4194304: digest differs from the manifest");
	flip(dir, "memory", IMAGE_CHUNK);
	flip(dir, "memory", 2 * IMAGE_CHUNK + 12345);
	refuse(dir, EBADMSG, ": memory: chunk at 8388608: digest differs");
	/* Written zeros are as good as holes. */
	flip(dir, "memory", 2 * IMAGE_CHUNK + 12345);
	image_unref(accept(dir));
	flip(dir, "memory", MEMORY - 1);
	refuse(dir, EBADMSG, ": memory: chunk at 12582912: digest differs");
	flip(dir, "memory.digests", 70);
	refuse(dir, EBADMSG, "memory.digests: digest differs");
	flip(dir, "memory.digests", 70);
	flip(dir, "memory", MEMORY - 1);
	image_unref(accept(dir));
}

static void test_sizes(void)
{
	guard_free char *dir = image_make("sizes", MEMORY);
	char part[100];

	for (size_t n = 0; n < nitems(names); n++) {
		guard_fd int fd = file_at(dir, names[n], O_RDWR);
		struct stat st = { 0 };

		check(fstat(fd, &st) == 0);
		for (int d = -1; d < 2; d += 2) {
			check(ftruncate(fd, st.st_size + d) == 0);
			snprintf(part, sizeof(part),
				 ": %s: %lld bytes, the manifest says %lld",
				 names[n], (long long)st.st_size + d,
				 (long long)st.st_size);
			refuse(dir, EBADMSG, part);
		}
		check(ftruncate(fd, st.st_size) == 0);
	}
	/* All were cut, so all differ now; memory first. */
	refuse(dir, EBADMSG, "memory: chunk at 12582912");
}

static void test_gone(void)
{
	guard_free char *dir = image_make("gone", MEMORY);
	guard_free char *aside = io_path("%s/aside", dir);
	char part[100];

	for (size_t n = 0; n <= nitems(names); n++) {
		const char *name = n < nitems(names) ? names[n]
						     : IMAGE_MANIFEST_NAME;
		guard_free char *path = io_path("%s/%s", dir, name);

		check(rename(path, aside) == 0);
		snprintf(part, sizeof(part), ": %s: open: No such file", name);
		refuse(dir, ENOENT, part);
		check(symlink(aside, path) == 0);
		refuse(dir, ELOOP, name);
		check(unlink(path) == 0);
		check(mkfifo(path, 0600) == 0);
		refuse(dir, EBADMSG, "not a plain file");
		check(unlink(path) == 0);
		check(rename(aside, path) == 0);
	}
	/* Memory's change time moved, so its list is needed. */
	free(take(aside));
	aside = io_path("%s/" IMAGE_DIGESTS_NAME, dir);
	check(truncate(aside, 65) == 0);
	flip(dir, "memory", 0);
	refuse(dir, EBADMSG, "memory.digests: 65 bytes");
	check(unlink(aside) == 0);
	refuse(dir, ENOENT, "memory.digests: open: ");
	refuse("/nowhere", ENOENT, "open: No such file");
}

static void test_manifest(void)
{
	guard_free char *dir = image_make("manifest", MEMORY);
	guard_free char *path = io_path("%s/" IMAGE_MANIFEST_NAME, dir);
	guard_free char *text = NULL, *bad = NULL;
	size_t len;

	check(io_read_file(path, IMAGE_MANIFEST_MAX, &text, &len, NULL) == 0);
	bad = malloc(len + 100);
	check(bad);
	strcpy(bad, "{ \"later\": 1,");
	strcat(bad, text + 1);
	check(io_write_file(path, bad, strlen(bad), 0600, NULL) == 0);
	refuse(dir, EINVAL, "manifest.json: key later: unknown");
	/* Another digest for a file that is verified: the cache does not help. */
	strcpy(bad, text);
	memcpy(strstr(strstr(bad, "\"disk\""), "sha256\": \"") + 10, HEX, 64);
	check(io_write_file(path, bad, strlen(bad), 0600, NULL) == 0);
	refuse(dir, EBADMSG, ": disk: digest differs");
	strcpy(bad, text);
	memcpy(strstr(strstr(bad, "\"memory\""), "sha256\": \"") + 10, HEX, 64);
	check(io_write_file(path, bad, strlen(bad), 0600, NULL) == 0);
	refuse(dir, EBADMSG, "memory.digests: digest differs");
	/* Counts that the maps do not bear out. */
	strcpy(bad, text);
	memcpy(strstr(bad, "workingset_bytes\": 4096") + 19, "8192", 4);
	check(io_write_file(path, bad, strlen(bad), 0600, NULL) == 0);
	refuse(dir, EBADMSG,
	       "workingset: marks 4096 bytes, the manifest says 8192");
	check(truncate(path, IMAGE_MANIFEST_MAX + 1) == 0);
	refuse(dir, EFBIG, "manifest.json: 262145 bytes");
	check(truncate(path, 0) == 0);
	refuse(dir, EINVAL, "manifest.json: not JSON");
}

/* Who knows the manifest's digest sees every bit of it. */
static void test_known(void)
{
	guard_free char *dir = image_make("known", MEMORY);
	guard_free char *path = io_path("%s/" IMAGE_MANIFEST_NAME, dir);
	guard_free char *text = NULL;
	char known[DIGEST_HEX], now[DIGEST_HEX];
	struct image *i = NULL;
	struct err e = ERR_NULL;
	size_t len;

	check(image_manifest_digest(dir, known, &e) == 0);
	check(image_open_known(dir, known, &i, &e) == 0);
	check_str(image_manifest_sha256(i), known);
	i = image_unref(i);
	check(io_read_file(path, IMAGE_MANIFEST_MAX, &text, &len, NULL) == 0);
	check(chmod(path, 0600) == 0);
	for (size_t at = 0; at < len; at++) {
		put_byte(dir, IMAGE_MANIFEST_NAME, at, (char)(text[at] ^ 2));
		check(image_open_known(dir, known, &i, &e) == -EBADMSG && !i);
		check(strstr(e.msg, ": manifest.json: its digest is not the "
				    "recorded one"));
		put_byte(dir, IMAGE_MANIFEST_NAME, at, text[at]);
	}
	e = (struct err)ERR_NULL;
	check(image_open_known(dir, known, &i, &e) == 0);
	image_unref(i);
	check(unlink(path) == 0);
	check(image_manifest_digest(dir, now, &e) == -ENOENT);
	check(strstr(e.msg, dir) && strstr(e.msg, IMAGE_MANIFEST_NAME));
}

static void stale(const struct image *i, int code, const char *part)
{
	struct err e = ERR_NULL;

	check(image_unchanged(i, &e) == -code);
	if (!strstr(e.msg, part) || strncmp(e.msg, "image ", 6)) {
		fprintf(stderr, "\"%s\" has no \"%s\"\n", e.msg, part);
		exit(1);
	}
}

static void test_unchanged(void)
{
	guard_free char *dir = image_make("unchanged", MEMORY);
	guard_free char *other = io_path("%s/elsewhere", top);
	guard_free char *disk = io_path("%s/disk", dir);
	guard_free char *state = io_path("%s/state", dir);
	struct image *i = accept(dir);
	struct err e = ERR_NULL;

	flip(dir, "memory", 5 * IMAGE_PAGE);
	stale(i, ESTALE, ": memory: changed since it was verified");
	/* Putting it back does not put the time back. */
	flip(dir, "memory", 5 * IMAGE_PAGE);
	stale(i, ESTALE, ": memory: changed since it was verified");
	image_unref(i);
	i = accept(dir);
	check(image_unchanged(i, &e) == 0);
	check(rename(dir, other) == 0);
	stale(i, ENOENT, "open: No such file");
	check(rename(other, dir) == 0);
	check(image_unchanged(i, &e) == 0);
	put_text(dir, "disk", "root disks");
	stale(i, ESTALE, ": disk: changed from 9 to 10 bytes");
	put_text(dir, "disk", "root disk");
	image_unref(i);
	i = accept(dir);
	check(io_write_file(disk, "root disk", 9, 0600, &e) == 0);
	stale(i, ESTALE, ": disk: replaced by another file");
	image_unref(i);
	i = accept(dir);
	check(unlink(state) == 0);
	stale(i, ENOENT, ": state: stat: No such file");
	image_unref(i);
}

static void test_verified(void)
{
	struct file_id id = { .dev = 1, .ino = 1, .bytes = 1 }, other;
	char flipped[] = HEX;

	flipped[0] = 'c';
	check(!verified_has(&id, HEX));
	verified_add(&id, HEX);
	verified_add(&id, HEX);
	check(verified_has(&id, HEX) && !verified_has(&id, flipped));
	other = id;
	other.dev++;
	check(!verified_has(&other, HEX));
	other = id;
	other.ino++;
	check(!verified_has(&other, HEX));
	other = id;
	other.bytes++;
	check(!verified_has(&other, HEX));
	other = id;
	other.ctim.tv_sec++;
	check(!verified_has(&other, HEX));
	other = id;
	other.ctim.tv_nsec++;
	check(!verified_has(&other, HEX));
	/* The oldest goes, and only it. */
	for (unsigned n = 1; n < VERIFIED_MAX; n++) {
		id.ino = n + 1;
		verified_add(&id, HEX);
	}
	id.ino = 1;
	check(verified_has(&id, HEX));
	id.ino = VERIFIED_MAX + 1;
	verified_add(&id, HEX);
	check(verified_has(&id, HEX));
	id.ino = 1;
	check(!verified_has(&id, HEX));
	id.ino = 2;
	check(verified_has(&id, HEX));
}

static void test_cache(void)
{
	guard_free char *dir = image_make("cache", 2048ull << 20);
	guard_free char *list = io_path("%s/" IMAGE_DIGESTS_NAME, dir);
	uint64_t best = UINT64_MAX, start, ns;

	/* Not needed again while memory is known. */
	check(unlink(list) == 0);
	for (int n = 0; n < 5; n++) {
		start = clock_mono_ns();
		image_unref(accept(dir));
		ns = clock_mono_ns() - start;
		best = min(best, ns);
	}
	/* Sanitizers and Valgrind are not what is measured. */
	if (getenv("TEST_FIGURES"))
		printf("open, verified: %llu us\n",
		       (unsigned long long)best / 1000);
	check(best < 100 * NS_PER_MS);
	/* Pushed out of the table, it is needed. */
	for (unsigned n = 0; n < VERIFIED_MAX; n++) {
		struct file_id id = { .dev = 2, .ino = n + 1 };

		verified_add(&id, HEX);
	}
	refuse(dir, ENOENT, "memory.digests: open: ");
}

static void test_huge(void)
{
	guard_free char *dir = image_make("huge", IMAGE_MEMORY_MAX);
	struct image *i;

	flip(dir, "memory", 7);
	refuse(dir, EBADMSG, "memory: chunk at 0:");
	flip(dir, "memory", 7);
	i = accept(dir);
	check(image_zeromap(i)->n == IMAGE_MEMORY_MAX / IMAGE_PAGE);
	image_unref(i);
	flip(dir, "memory", IMAGE_MEMORY_MAX - 1);
	refuse(dir, EBADMSG, "memory: chunk at 68715282432:");
}

static void refuse_seal(const char *dir, const struct image_manifest *m,
			int code, const char *part)
{
	struct image_manifest copy = *m;
	struct err e = ERR_NULL;
	int r = image_seal(dir, &copy, &e);

	if (r != -code || !strstr(e.msg, part) || !strstr(e.msg, dir)) {
		fprintf(stderr, "%d, \"%s\" has no \"%s\"\n", r, e.msg, part);
		exit(1);
	}
	check(!memcmp(&copy, m, sizeof(copy)));
}

static void test_seal_refuses(void)
{
	guard_free char *dir = image_make("seal", MEMORY);
	guard_free char *map = io_path("%s/zeromap", dir);
	guard_free char *disk = io_path("%s/disk", dir);
	guard_free char *manifest = io_path("%s/" IMAGE_MANIFEST_NAME, dir);
	guard(bitmap_deinit) struct bitmap b = BITMAP_NULL;
	struct image_manifest m = sample();
	struct err e = ERR_NULL;

	check(unlink(manifest) == 0);
	m.memory_bytes += 1;
	refuse_seal(dir, &m, EINVAL, "12611585 bytes of memory");
	m.memory_bytes = 2 * MEMORY;
	refuse_seal(dir, &m, EBADMSG, "zeromap: ");
	m.memory_bytes = MEMORY;
	strcpy(m.name, "no name");
	refuse_seal(dir, &m, EINVAL, "manifest.json: key name: not a name");
	m = sample();
	/* A zero map that would lose data. */
	check(bitmap_read(map, PAGES, &b, &e) == 0);
	bitmap_set(&b, IMAGE_CHUNK / IMAGE_PAGE);
	check(bitmap_write(&b, map, &e) == 0);
	refuse_seal(dir, &m, EBADMSG,
		    "zeromap: calls the page at 4194304 zero, which it is not");
	/* One that misses a zero page only costs. */
	memset(b.bits, 0, bitmap_bytes(b.n));
	check(bitmap_write(&b, map, &e) == 0);
	check(unlink(disk) == 0);
	refuse_seal(dir, &m, ENOENT, "disk: open: ");
	put_byte(dir, "disk", 0, 'x');
	check(access(manifest, F_OK) < 0);
	check(image_seal(dir, &m, &e) == 0);
	check(m.zero_bytes == 0);
	image_unref(accept(dir));
}

/* Holes, written zeros: the same digests. Another place: others. */
static void test_chunks(void)
{
	guard_free char *dir = image_make("chunks", MEMORY);
	guard_fd int fd = file_at(dir, "memory", O_RDWR);
	guard_free char *a = NULL, *b = NULL, *zeros = calloc(1, IMAGE_CHUNK);
	size_t len = chunk_list_bytes(MEMORY);

	check(zeros && len == 4 * CHUNK_LINE);
	check(chunk_list_make(fd, MEMORY, NULL, &a, NULL) == 0);
	check(io_pwrite_full(fd, zeros, IMAGE_CHUNK, 2 * IMAGE_CHUNK) == 0);
	check(chunk_list_make(fd, MEMORY, NULL, &b, NULL) == 0);
	check(!memcmp(a, b, len));
	check(io_pwrite_full(fd, zeros, 1, 5 * IMAGE_PAGE) == 0);
	check(io_pwrite_full(fd, "a", 1, 6 * IMAGE_PAGE) == 0);
	free(take(b));
	check(chunk_list_make(fd, MEMORY, NULL, &b, NULL) == 0);
	check(memcmp(a, b, CHUNK_LINE) != 0);
	check(!memcmp(a + CHUNK_LINE, b + CHUNK_LINE, len - CHUNK_LINE));
	/* It shrinks under the reader. */
	check(ftruncate(fd, 2 * IMAGE_CHUNK) == 0);
	check(chunk_list_verify(fd, MEMORY, b, NULL) == -EBADMSG);
	check(chunk_list_bytes(0) == 0);
}

int main(void)
{
	test_dir(top, sizeof(top));
	test_round();
	test_flipped();
	test_sizes();
	test_gone();
	test_manifest();
	test_known();
	test_unchanged();
	test_cache();
	test_verified();
	test_huge();
	test_seal_refuses();
	test_chunks();
	check(io_remove_tree(top, NULL) == 0);
	return 0;
}
