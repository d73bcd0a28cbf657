/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UFFDIO_WAKE looks at who waits, not at what is mapped: a range with holes,
 * with parts that are not registered, and with other mappings in it wakes the
 * waiters on both sides. (A pager wakes a guest's whole memory with one call,
 * though runs of zeros inside are anonymous and not its business.)
 */
#include "kernel.h"

#define PAGES 32u

int main(void)
{
	struct toucher low = { 0 }, high = { 0 };
	int fd = file_new(false, 0), uffd = uffd_new(), seen;
	struct uffdio_range r = { 0 };
	volatile uint8_t *p;
	void *hole;

	check(ftruncate(fd, PAGES * PAGE) == 0);
	p = map_private(file_read_only(fd), PAGES);
	uffd_arm(uffd, p, 8);
	uffd_arm(uffd, p + 24 * PAGE, 8);
	/* 8-11: not registered; 12-15: anonymous; 16-19: nothing; 20-23 file */
	hole = mmap(page_at(p, 12), 4 * PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	check(hole == page_at(p, 12));
	check(munmap(page_at(p, 16), 4 * PAGE) == 0);
	p[12 * PAGE] = 1;

	toucher_start(&low, p, 3);
	check(uffd_next(uffd, p, FAULT_MS) == 3);
	toucher_start(&high, p, 30);
	check(uffd_next(uffd, p, FAULT_MS) == 30);

	r.start = (uintptr_t)p;
	r.len = PAGES * PAGE;
	check(ioctl(uffd, UFFDIO_WAKE, &r) == 0);
	/* both come again, in either order */
	seen = uffd_next(uffd, p, FAULT_MS);
	check(seen == 3 || seen == 30);
	check(uffd_next(uffd, p, FAULT_MS) == 33 - seen);

	check(pwrite(fd, "a", 1, 3 * PAGE) == 1);
	check(pwrite(fd, "b", 1, 30 * PAGE) == 1);
	check(ioctl(uffd, UFFDIO_WAKE, &r) == 0);
	check(toucher_end(&low) == 'a');
	check(toucher_end(&high) == 'b');
	check(uffd_next(uffd, p, 0) == -1);
	return 0;
}
