/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Zero pages: found exactly, punched exactly, nothing else touched; short holes
 * given room where guests would need it
 */
#include "image/zero.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/test.h"
#include "image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define PAGE ((size_t)IMAGE_PAGE)

static char dir[200];

static int file_new(bool on_disk, uint64_t bytes)
{
	guard_free char *path = io_path("%s/memory", dir);
	int fd;

	if (on_disk)
		fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	else
		fd = memfd_create("memory", MFD_CLOEXEC);
	check(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
	return fd;
}

static void put(int fd, uint64_t offset, const void *p, size_t len)
{
	check(io_pwrite_full(fd, p, len, offset) == 0);
}

static void test_page(void)
{
	guard_free uint8_t *page = aligned_alloc(64, PAGE);

	check(page);
	memset(page, 0, PAGE);
	check(zero_page(page));
	for (size_t i = 0; i < PAGE; i++) {
		page[i] = 0x80;
		check(!zero_page(page));
		page[i] = 0;
	}
}

/* Is [i] a hole? */
static bool hole(int fd, uint64_t page)
{
	off_t at = (off_t)(page * PAGE);

	return lseek(fd, at, SEEK_HOLE) == at;
}

/* Pages are holes, written zeros, or hold one byte somewhere. */
static void test_random(bool on_disk, uint64_t pages)
{
	guard_fd int fd = file_new(on_disk, pages * PAGE);
	guard(bitmap_deinit) struct bitmap b = BITMAP_NULL;
	guard_free uint8_t *want = calloc(pages, PAGE);
	guard_free uint8_t *got = calloc(pages, PAGE);
	struct err e = ERR_NULL;

	check(want && got);
	for (uint64_t i = 0; i < pages; i++) {
		long kind = random() % 4;

		if (kind == 0)
			continue;
		if (kind == 1)
			want[i * PAGE + (size_t)random() % PAGE] = 1;
		put(fd, i * PAGE, want + i * PAGE, PAGE);
	}
	check(image_find_zero(fd, pages * PAGE, &b, &e) == 0);
	check(b.n == pages);
	check(io_pread_full(fd, got, pages * PAGE, 0) ==
	      (ssize_t)(pages * PAGE));
	check(!memcmp(want, got, pages * PAGE));
	for (uint64_t i = 0; i < pages; i++) {
		check(bitmap_get(&b, i) == zero_page(want + i * PAGE));
		check(bitmap_get(&b, i) == hole(fd, i));
	}
}

static void test_sparse(bool on_disk)
{
	uint64_t bytes = 1ull << 36, start, end;
	guard_fd int fd = file_new(on_disk, bytes);
	guard(bitmap_deinit) struct bitmap b = BITMAP_NULL;
	struct err e = ERR_NULL;
	struct stat st = { 0 };

	put(fd, 5 * PAGE + 17, "x", 1);
	put(fd, bytes - 1, "x", 1);
	check(image_find_zero(fd, bytes, &b, &e) == 0);
	check(bitmap_run(&b, 0) == 5 && !bitmap_get(&b, 5));
	check(bitmap_count(&b) == bytes / PAGE - 2);
	check(fstat(fd, &st) == 0 && (uint64_t)st.st_size == bytes);
	check(st.st_blocks * 512 < 1 << 20);
	check(zero_next_data(fd, 0, bytes, &start, &end, &e) == 0);
	check(start == 5 * PAGE && end == 6 * PAGE);
	check(zero_next_data(fd, end, bytes, &start, &end, &e) == 0);
	check(start == bytes - PAGE && end == bytes);
	check(zero_next_data(fd, end, bytes, &start, &end, &e) == 0);
	check(start == bytes && end == bytes);
}

static uint64_t blocks(int fd, struct timespec *ret_changed)
{
	struct stat st = { 0 };

	check(fstat(fd, &st) == 0);
	*ret_changed = st.st_ctim;
	return (uint64_t)st.st_blocks * 512 / PAGE;
}

/* Used pages at 2, 3, 6 and 40: holes of 2, 2, 33 and 9 pages. Of a memfd, which
 * is of a tmpfs, those below 16 pages get room; of a file elsewhere none. */
static void test_reserve(bool on_disk)
{
	static const uint64_t used[] = { 2, 3, 6, 40 };
	uint64_t pages = 50, before, room = on_disk ? 0 : 2 + 2 + 9;
	guard_fd int fd = file_new(on_disk, pages * PAGE);
	guard_free char *path = io_path("/proc/self/fd/%d", fd);
	guard_fd int ro = open(path, O_RDONLY | O_CLOEXEC);
	guard(bitmap_deinit) struct bitmap b = BITMAP_NULL;
	guard_free uint8_t *page = malloc(PAGE);
	struct timespec first, then, last;
	struct err e = ERR_NULL;
	struct statfs fs = { 0 };

	check(ro >= 0 && page && fstatfs(fd, &fs) == 0);
	if (on_disk && fs.f_type == TMPFS_MAGIC)
		return; /* no disk */
	memset(page, 1, PAGE);
	for (size_t i = 0; i < nitems(used); i++)
		put(fd, used[i] * PAGE, page, PAGE);
	check(image_find_zero(fd, pages * PAGE, &b, &e) == 0);
	before = blocks(fd, &first);
	if (!on_disk) {
		check(before == nitems(used));
		check(image_reserve(ro, &b, 16, &e) == -EBADF);
		check(strstr(e.msg, "memory: make room for holes"));
	}
	check(image_reserve(fd, &b, 16, &e) == 0);
	check(blocks(fd, &then) == before + room);
	for (uint64_t i = 0; i < pages; i++) {
		check(io_pread_full(fd, page, PAGE, i * PAGE) == (ssize_t)PAGE);
		check(zero_page(page) == bitmap_get(&b, i));
	}
	/* Once is enough: a file that is verified must not change. */
	usleep(20000);
	check(image_reserve(on_disk ? ro : fd, &b, 16, &e) == 0);
	check(blocks(fd, &last) == before + room);
	check(then.tv_sec == last.tv_sec && then.tv_nsec == last.tv_nsec);
}

static void test_refused(void)
{
	guard_fd int fd = file_new(false, 3 * PAGE);
	guard_fd int ro = -1;
	guard_free char *path = io_path("%s/memory", dir);
	struct bitmap b = BITMAP_NULL;
	struct err e = ERR_NULL;

	check(image_find_zero(fd, 2 * PAGE, &b, &e) == -EINVAL);
	check_str(e.msg, "memory: 12288 bytes, not 8192 in whole pages");
	check(ftruncate(fd, 3 * PAGE + 1) == 0);
	check(image_find_zero(fd, 3 * PAGE + 1, &b, &e) == -EINVAL);
	check(image_find_zero(-1, PAGE, &b, &e) == -EBADF);
	/* Cannot punch. */
	fd_close(&fd);
	fd = file_new(true, PAGE);
	put(fd, 0, (const char[1]){ 0 }, 1);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	check(image_find_zero(ro, PAGE, &b, &e) == -EBADF);
	check(strstr(e.msg, "memory: punch a hole at 0: "));
	check(!b.bits);
	fd_close(&fd);
	fd = file_new(true, 0);
	check(image_find_zero(fd, 0, &b, &e) == 0 && b.n == 0);
	bitmap_deinit(&b);
}

int main(void)
{
	test_dir(dir, sizeof(dir));
	srandom(3);
	test_page();
	for (int on_disk = 0; on_disk < 2; on_disk++) {
		for (int i = 0; i < 20; i++)
			test_random(on_disk, 1 + (uint64_t)random() % 100);
		/* Over the edge of the pieces that are read. */
		test_random(on_disk, 1500);
		test_sparse(on_disk);
		test_reserve(on_disk);
	}
	test_refused();
	check(io_remove_tree(dir, NULL) == 0);
	return 0;
}
