/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared memory that is there page by page
 *
 * Found out by trying, once for each memfd: the host's setting can change, has
 * one file per size of huge page since 6.14, and says nothing of mounts.
 */
#include "base/memfd.h"

#include "base/guard.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMFD_PAGE 4096

int memfd_check_pages(int fd, struct err *e)
{
	static const char page[MEMFD_PAGE];
	off_t end = lseek(fd, 0, SEEK_END), hole;
	int r;

	if (end < 0)
		return err_errno(e, errno, "size of shared memory");
	if (end <= MEMFD_PAGE)
		return 0;
	r = io_pwrite_full(fd, page, sizeof(page), 0);
	if (r < 0)
		return err_errno(e, -r, "write to shared memory");
	hole = lseek(fd, 0, SEEK_HOLE);
	if (hole < 0 ||
	    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, end) <
		    0)
		return err_errno(e, errno, "look at shared memory");
	if (hole != MEMFD_PAGE)
		return err_set(
			e, ENOTSUP,
			"this host gives shared memory huge pages: write never to /sys/kernel/mm/transparent_hugepage/shmem_enabled (and hugepages-*/shmem_enabled)");
	return 0;
}

int memfd_new(const char *name, uint64_t bytes, int *ret, struct err *e)
{
	guard_fd int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int r;

	if (fd < 0)
		return err_errno(e, errno, "make shared memory");
	if (ftruncate(fd, (off_t)bytes) < 0)
		return err_errno(e, errno, "make %llu bytes of shared memory",
				 (unsigned long long)bytes);
	r = memfd_check_pages(fd, e);
	if (r < 0)
		return r;
	*ret = fd_take(&fd);
	return 0;
}
