/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PAGEMAP_SCAN tells, without privilege, the pages of a private file mapping
 * that were written from those that are the file's, the zero page, and those
 * never touched. (The ledger's buckets, and the dirty set of a snapshot.)
 */
#include "kernel.h"
#include "base/uapi.h"

/* Reading maps the neighbours within 64 KiB, too (fault-around). */
#define FAR 64u

static uint64_t categories(int fd, volatile uint8_t *p, uint64_t page)
{
	struct uapi_page_region region = { 0 };
	struct uapi_pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = (uintptr_t)page_at(p, page),
		.end = (uintptr_t)page_at(p, page + 1),
		.vec = (uintptr_t)&region,
		.vec_len = 1,
		.return_mask = UAPI_PAGE_IS_FILE | UAPI_PAGE_IS_PRESENT |
			       UAPI_PAGE_IS_SWAPPED | UAPI_PAGE_IS_PFNZERO,
	};
	int r = ioctl(fd, UAPI_PAGEMAP_SCAN, &arg);

	if (r < 0 && (errno == ENOTTY || errno == EINVAL))
		test_skip("this kernel has no PAGEMAP_SCAN (6.7)");
	check(r >= 0);
	return r ? region.categories : 0;
}

static void test(bool on_disk)
{
	int map = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	int fd = file_new(on_disk, 4 * FAR);
	volatile uint8_t *p = map_private(fd, 4 * FAR);
	volatile uint8_t *anon = mmap(NULL, FAR * PAGE, PROT_READ | PROT_WRITE,
				      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(map >= 0 && anon != MAP_FAILED);
	check(madvise(page_at(anon, 0), FAR * PAGE, MADV_NOHUGEPAGE) == 0 ||
	      errno == EINVAL);
	check(p[0] == 1);
	p[FAR * PAGE] = 99; /* written, never read */
	check(p[2 * FAR * PAGE] == (uint8_t)(2 * FAR + 1));
	p[2 * FAR * PAGE] = 99; /* read, then written */
	check(anon[0] == 0);
	anon[PAGE] = 1;

	check(categories(map, p, 0) ==
	      (UAPI_PAGE_IS_PRESENT | UAPI_PAGE_IS_FILE));
	check(categories(map, p, FAR) == UAPI_PAGE_IS_PRESENT);
	check(categories(map, p, 2 * FAR) == UAPI_PAGE_IS_PRESENT);
	/* absent: the kernel may call it a file's, never present */
	check(!(categories(map, p, 3 * FAR + 32) & ~UAPI_PAGE_IS_FILE));
	check(categories(map, anon, 0) ==
	      (UAPI_PAGE_IS_PRESENT | UAPI_PAGE_IS_PFNZERO));
	check(categories(map, anon, 1) == UAPI_PAGE_IS_PRESENT);
	check(categories(map, anon, 2) == 0);
}

int main(void)
{
	test(false);
	test(true);
	return 0;
}
