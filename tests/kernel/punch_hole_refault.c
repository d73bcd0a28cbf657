/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Punching a hole into a memfd drops the page from every private mapping that
 * has not written it; the next touch is a MISSING fault again. Written pages
 * stay. (Eviction of a streamed layer.)
 */
#include "kernel.h"

int main(void)
{
	struct toucher t = { 0 };
	int fd = file_new(false, 4), uffd = uffd_new();
	volatile uint8_t *p = map_private(file_read_only(fd), 4);

	uffd_arm(uffd, p, 4);
	check(p[PAGE] == 2);
	p[2 * PAGE] = 99;
	check(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			4 * PAGE) == 0);
	check(!(page_entry(p, 1) & PAGE_PRESENT));
	check(page_entry(p, 2) == PAGE_PRESENT);
	check(p[2 * PAGE] == 99 && p[2 * PAGE + 1] == 3);
	check(uffd_next(uffd, p, 0) == -1);

	toucher_start(&t, p, 1);
	check(uffd_next(uffd, p, FAULT_MS) == 1);
	check(pwrite(fd, "x", 1, PAGE) == 1);
	uffd_wake(uffd, p, 1);
	check(toucher_end(&t) == 'x');
	return 0;
}
