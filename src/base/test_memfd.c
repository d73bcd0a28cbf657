/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A memfd is empty and page by page; shared memory with huge pages is refused.
 * The host's own setting is left alone: a mount in a namespace of ours has them.
 */
#include "base/memfd.h"

#include "base/guard.h"
#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define BYTES (4ll << 20)

static void test_new(void)
{
	struct err e = ERR_NULL;
	guard_fd int fd = -1, one = -1;
	struct stat st = { 0 };

	check(memfd_new("test", BYTES, &fd, &e) == 0);
	check(fstat(fd, &st) == 0 && st.st_size == BYTES && st.st_blocks == 0);
	check(lseek(fd, 0, SEEK_DATA) < 0 && errno == ENXIO);
	check(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW) == 0);
	check(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	check(memfd_new("test", 4096, &one, &e) == 0);
}

static void test_huge(void)
{
	struct err e = ERR_NULL;
	char dir[64], path[80];
	guard_fd int fd = -1;

	if (unshare(CLONE_NEWNS) < 0)
		return; /* not root: test_new has run */
	check(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
	test_dir(dir, sizeof(dir));
	if (mount("tmpfs", dir, "tmpfs", 0, "huge=always") < 0) {
		check(errno == EINVAL); /* a kernel without */
		check(rmdir(dir) == 0);
		return;
	}
	snprintf(path, sizeof(path), "%s/file", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	check(fd >= 0 && ftruncate(fd, BYTES) == 0);
	check(memfd_check_pages(fd, &e) == -ENOTSUP);
	check(strstr(e.msg, "huge pages") && strstr(e.msg, "shmem_enabled"));
	fd_close(&fd);
	check(umount(dir) == 0 && rmdir(dir) == 0);
}

int main(void)
{
	test_new();
	test_huge();
	return 0;
}
