/* SPDX-License-Identifier: Apache-2.0 */
/*
 * userfaultfd MISSING works on a private mapping of a memfd opened read-only.
 * The owner writes the page into the memfd and wakes; the guest gets the page
 * cache's page, not a copy, and the next guest does not even fault to us.
 * (A layer that is streamed and shared at once.)
 */
#include "kernel.h"

int main(void)
{
	struct toucher t = { 0 };
	int fd = file_new(false, 0), ro, uffd_a = uffd_new(),
	    uffd_b = uffd_new();
	volatile uint8_t *a, *b;

	check(ftruncate(fd, 64 * PAGE) == 0);
	ro = file_read_only(fd);
	a = map_private(ro, 64);
	b = map_private(ro, 64);
	uffd_arm(uffd_a, a, 64);
	uffd_arm(uffd_b, b, 64);

	toucher_start(&t, a, 7);
	check(uffd_next(uffd_a, a, FAULT_MS) == 7);
	check(pwrite(fd, "x", 1, 7 * PAGE) == 1);
	uffd_wake(uffd_a, a, 7);
	check(toucher_end(&t) == 'x');
	check(page_entry(a, 7) == (PAGE_PRESENT | PAGE_FILE));

	/* the second guest: read and write, no event */
	check(b[7 * PAGE] == 'x');
	check(page_entry(b, 7) == (PAGE_PRESENT | PAGE_FILE));
	b[7 * PAGE] = 'y';
	check(a[7 * PAGE] == 'x' && file_byte(fd, 7) == 'x');
	check(uffd_next(uffd_b, b, 0) == -1);

	/* a page nobody has fetched still faults there */
	toucher_start(&t, b, 8);
	check(uffd_next(uffd_b, b, FAULT_MS) == 8);
	check(pwrite(fd, "z", 1, 8 * PAGE) == 1);
	uffd_wake(uffd_b, b, 8);
	check(toucher_end(&t) == 'z');
	check(uffd_next(uffd_a, a, 0) == -1);
	return 0;
}
