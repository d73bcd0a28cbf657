/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Resident
 *
 * A layer costs what of it is in the page cache, once, however many guests map
 * it. cachestat (Linux 6.5) counts that in the kernel; before, mincore fills a
 * byte per page of a mapping, which is made window by window so that a large
 * image needs neither much address space nor a large vector.
 *
 * Both count what is cached, mapped or not: the same number.
 *
 * The kernel tells the truth only to somebody who owns the file or may write
 * it (a page-cache side channel was closed so in 5.2 for mincore, which then
 * says "all resident", and in 6.16 for cachestat, which says EPERM). Layers
 * are ours, so that does not happen; an EPERM is passed on and not answered
 * with mincore's polite lie.
 */
#include "ledger/resident.h"

#include "base/guard.h"
#include "base/uapi.h"
#include "ledger/pagemap.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* One vector of 64 KiB. */
#define WINDOW_PAGES 65536ull
#define WINDOW_BYTES (WINDOW_PAGES * PAGEMAP_PAGE)

static int resident_window(int fd, uint64_t offset, uint64_t len, uint8_t *vec,
			   uint64_t *pages)
{
	uint64_t i, n = (len + PAGEMAP_PAGE - 1) / PAGEMAP_PAGE;
	void *p;
	int error = 0;

	p = mmap(NULL, len, PROT_NONE, MAP_SHARED, fd, (off_t)offset);
	if (p == MAP_FAILED)
		return -errno;
	if (mincore(p, len, vec) < 0)
		error = errno;
	munmap(p, len);
	if (error)
		return -error;
	for (i = 0; i < n; i++)
		*pages += vec[i] & 1;
	return 0;
}

int file_resident_mincore(int fd, uint64_t *ret_bytes, struct err *e)
{
	guard_free uint8_t *vec = malloc(WINDOW_PAGES);
	uint64_t offset, size, pages = 0;
	struct stat st = { 0 };
	int r;

	if (!vec)
		return err_errno(e, ENOMEM, "count resident pages");
	if (fstat(fd, &st) < 0)
		return err_errno(e, errno, "stat a file");
	if (!S_ISREG(st.st_mode))
		return err_set(e, EINVAL, "only a regular file has residents");
	size = (uint64_t)st.st_size;
	for (offset = 0; offset < size; offset += WINDOW_BYTES) {
		r = resident_window(fd, offset,
				    min(size - offset, WINDOW_BYTES), vec,
				    &pages);
		if (r < 0)
			return err_errno(e, -r, "count resident pages");
	}
	*ret_bytes = pages * PAGEMAP_PAGE;
	return 0;
}

int file_resident(int fd, uint64_t *ret_bytes, struct err *e)
{
	/* a length of 0 reaches to the end of the file */
	struct uapi_cachestat_range range = { 0 };
	struct uapi_cachestat stat = { 0 };
	int error;

	if (syscall(__NR_cachestat, fd, &range, &stat, 0) == 0) {
		*ret_bytes = stat.nr_cache * PAGEMAP_PAGE;
		return 0;
	}
	error = errno;
	/* ENOSYS: before 6.5; EOPNOTSUPP: hugetlbfs */
	if (error == ENOSYS || error == EOPNOTSUPP)
		return file_resident_mincore(fd, ret_bytes, e);
	return err_errno(e, error, "cachestat");
}
