/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MADV_DONTNEED in a private file mapping brings the file's bytes back. That is
 * why a discard there needs more than MADV_DONTNEED: the guest must read zeros.
 */
#include "kernel.h"

static void test(bool on_disk)
{
	int fd = file_new(on_disk, 4);
	volatile uint8_t *p = map_private(fd, 4);
	volatile uint8_t *anon = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
				      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	p[PAGE] = 99;
	check(madvise(page_at(p, 1), PAGE, MADV_DONTNEED) == 0);
	check(p[PAGE] == 2);

	/* in anonymous memory it does give zeros */
	check(anon != MAP_FAILED);
	anon[0] = 99;
	check(madvise(page_at(anon, 0), PAGE, MADV_DONTNEED) == 0);
	check(anon[0] == 0);
}

int main(void)
{
	test(false);
	test(true);
	return 0;
}
