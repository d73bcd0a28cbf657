/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MADV_DONTNEED and UFFDIO_ZEROPAGE make a page of a private memfd mapping read
 * as zeros although the memfd has data there, without splitting the VMA.
 * (Discard in a streamed layer.)
 */
#include "kernel.h"

int main(void)
{
	int fd = file_new(false, 8), uffd = uffd_new();
	volatile uint8_t *p = map_private(file_read_only(fd), 8);
	struct uffdio_zeropage z = { 0 };
	unsigned before;

	uffd_arm(uffd, p, 8);
	before = vma_count(p, 8);
	p[2 * PAGE] = 99;
	check(p[3 * PAGE] == 4);
	check(madvise(page_at(p, 2), 2 * PAGE, MADV_DONTNEED) == 0);
	z.range.start = (uintptr_t)page_at(p, 2);
	z.range.len = 2 * PAGE;
	check(ioctl(uffd, UFFDIO_ZEROPAGE, &z) == 0);
	check(z.zeropage == 2 * (int64_t)PAGE);

	check(p[2 * PAGE] == 0 && p[2 * PAGE + 4095] == 0 && p[3 * PAGE] == 0);
	check(p[PAGE] == 2 && p[4 * PAGE] == 5);
	p[2 * PAGE] = 55;
	check(p[2 * PAGE] == 55 && p[2 * PAGE + 1] == 0);
	check(file_byte(fd, 2) == 3 && file_byte(fd, 3) == 4);
	check(vma_count(p, 8) == before);
	check(uffd_next(uffd, p, 0) == -1);
	return 0;
}
