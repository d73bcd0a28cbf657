/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A private mapping of a read-only fd can be written, and neither the file nor
 * another mapping of it notices. (Restore: one layer, many guests.)
 */
#include "kernel.h"

static void test(bool on_disk)
{
	int fd = file_new(on_disk, 4), ro = file_read_only(fd);
	volatile uint8_t *a = map_private(ro, 4), *b = map_private(ro, 4);

	check(a[PAGE] == 2);
	a[PAGE] = 99;
	a[2 * PAGE] = 98; /* never read before */
	check(a[PAGE] == 99 && a[PAGE + 1] == 2 && a[2 * PAGE] == 98);
	check(b[PAGE] == 2 && b[2 * PAGE] == 3);
	check(file_byte(fd, 1) == 2 && file_byte(fd, 2) == 3);
	/* and the fd allows no other kind */
	check(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, ro, 0) ==
	      MAP_FAILED);
	check(errno == EACCES);
}

int main(void)
{
	test(false);
	test(true);
	return 0;
}
