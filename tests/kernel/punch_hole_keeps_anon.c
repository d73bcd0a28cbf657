/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a hole punched into a memfd leaves of discarded pages. The kernel's zero
 * page, put by UFFDIO_ZEROPAGE where a page of a private mapping was dropped, goes
 * with the memfd's page: the next touch finds the layer again. An anonymous
 * mapping in its place stays. (Discard and eviction in a streamed layer.)
 */
#include "kernel.h"

static void zero_page(int uffd, volatile uint8_t *p, uint64_t page)
{
	struct uffdio_zeropage z = {
		.range = { .start = (uintptr_t)page_at(p, page), .len = PAGE },
	};

	check(madvise(page_at(p, page), PAGE, MADV_DONTNEED) == 0);
	check(ioctl(uffd, UFFDIO_ZEROPAGE, &z) == 0);
	check(z.zeropage == (int64_t)PAGE);
}

static void anonymous(volatile uint8_t *p, uint64_t page)
{
	check(mmap(page_at(p, page), PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		   0) == page_at(p, page));
}

int main(void)
{
	int fd = file_new(false, 8), uffd = uffd_new();
	volatile uint8_t *p = map_private(file_read_only(fd), 8);
	struct toucher t = { 0 };

	uffd_arm(uffd, p, 8);
	check(p[2 * PAGE] == 3 && p[5 * PAGE] == 6);
	zero_page(uffd, p, 2);
	anonymous(p, 5);
	check(p[2 * PAGE] == 0 && p[5 * PAGE] == 0);
	check(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			8 * PAGE) == 0);
	check(p[5 * PAGE] == 0 && uffd_next(uffd, p, 0) == -1);
	toucher_start(&t, p, 2);
	check(uffd_next(uffd, p, FAULT_MS) == 2);
	check(pwrite(fd, "x", 1, 2 * PAGE) == 1);
	check(pwrite(fd, "y", 1, 5 * PAGE) == 1);
	uffd_wake(uffd, p, 2);
	check(toucher_end(&t) == 'x'); /* not what was promised */
	check(p[5 * PAGE] == 0);
	p[5 * PAGE] = 99;
	check(p[5 * PAGE] == 99 && p[5 * PAGE + 1] == 0);
	check(file_byte(fd, 5) == 'y');
	return 0;
}
