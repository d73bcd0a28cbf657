/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fault whose event was read and lost comes again after UFFDIO_WAKE. (How a
 * restarted pager finds the vCPUs that its predecessor left waiting.)
 */
#include "kernel.h"

int main(void)
{
	struct toucher t = { 0 };
	int fd = file_new(false, 0), uffd = uffd_new();
	volatile uint8_t *p;

	check(ftruncate(fd, 4 * PAGE) == 0);
	p = map_private(file_read_only(fd), 4);
	uffd_arm(uffd, p, 4);

	toucher_start(&t, p, 2);
	check(uffd_next(uffd, p, FAULT_MS) == 2); /* and forget it */
	check(uffd_next(uffd, p, QUIET_MS) == -1);
	uffd_wake(uffd, p, 2);
	check(uffd_next(uffd, p, FAULT_MS) == 2);
	check(uffd_next(uffd, p, QUIET_MS) == -1);
	check(pwrite(fd, "x", 1, 2 * PAGE) == 1);
	uffd_wake(uffd, p, 2);
	check(toucher_end(&t) == 'x');
	check(uffd_next(uffd, p, 0) == -1);
	return 0;
}
