/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Known pages of memfds and files, by cachestat and by mincore
 */
#include "ledger/resident.h"

#include "base/guard.h"
#include "ledger/test_subject.h"

#include <errno.h>
#include <fcntl.h>

static void check_both(int fd, uint64_t pages)
{
	uint64_t one = 0, other = 0;
	struct err e = ERR_NULL;

	check(file_resident(fd, &one, &e) == 0);
	check(file_resident_mincore(fd, &other, &e) == 0);
	check(one == pages * PAGE);
	check(other == pages * PAGE);
}

static void test_memfd(void)
{
	guard_fd int fd = memfd_create("resident", MFD_CLOEXEC);
	uint64_t i;

	check(fd >= 0);
	check_both(fd, 0);
	/* more than two windows of mincore, with a tail */
	check(ftruncate(fd, (off_t)(140000 * PAGE + 1)) == 0);
	check_both(fd, 0);
	for (i = 0; i < 140000; i += 1000)
		check(pwrite(fd, "x", 1, (off_t)(i * PAGE)) == 1);
	check_both(fd, 140);
	check(pwrite(fd, "x", 1, (off_t)(140000 * PAGE)) == 1);
	check_both(fd, 141);
	check(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			(off_t)(2000 * PAGE)) == 0);
	check_both(fd, 139);
}

static void test_file(void)
{
	char dir[64], path[80];
	uint8_t page[PAGE] = { 1 };
	guard_fd int fd = -1;
	uint64_t i, bytes = 0;
	struct err e = ERR_NULL;

	test_dir(dir, sizeof(dir));
	snprintf(path, sizeof(path), "%s/f", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	check(fd >= 0);
	for (i = 0; i < 300; i++)
		check(write(fd, page, sizeof(page)) == sizeof(page));
	check_both(fd, 300);
	check(fsync(fd) == 0);
	check(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0);
	/* tmpfs keeps them */
	check(file_resident(fd, &bytes, &e) == 0);
	check(bytes == 0 || bytes == 300 * PAGE);
	check(unlink(path) == 0 && rmdir(dir) == 0);
}

static void test_refused(void)
{
	uint64_t bytes = 7;
	struct err e = ERR_NULL;
	int fds[2];

	check(file_resident(-1, &bytes, &e) == -EBADF);
	check(file_resident_mincore(-1, &bytes, &e) == -EBADF);
	check(pipe2(fds, O_CLOEXEC) == 0);
	check(file_resident_mincore(fds[0], &bytes, &e) == -EINVAL);
	check(bytes == 7 && e.msg[0]);
}

int main(void)
{
	test_memfd();
	test_file();
	test_refused();
	return 0;
}
