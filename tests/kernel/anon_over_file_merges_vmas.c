/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An anonymous page mapped over a private file mapping costs two VMAs; one
 * beside an anonymous page costs none, because they merge, once their flags are
 * the same. (How the shim counts splits.)
 */
#include "kernel.h"

static void replace(volatile uint8_t *p, uint64_t page, bool advise)
{
	void *at = page_at(p, page);

	check(mmap(at, PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
		   0) == at);
	if (advise)
		check(madvise(at, PAGE, MADV_DONTFORK) == 0);
}

/* @advise: flags on the neighbours, as QEMU's advice leaves them.
 * @touch: they have been used, and have an anon_vma each. */
static void test(bool on_disk, bool advise, bool touch)
{
	int fd = file_new(on_disk, 16);
	volatile uint8_t *p = map_private(fd, 16);

	if (advise)
		check(madvise(page_at(p, 0), 16 * PAGE, MADV_DONTFORK) == 0);
	if (touch)
		for (uint64_t i = 0; i < 16; i++)
			p[i * PAGE] = 99;
	check(vma_count(p, 16) == 1);
	replace(p, 4, advise);
	check(vma_count(p, 16) == 3);
	p[4 * PAGE] = touch;
	replace(p, 5, advise); /* above */
	check(vma_count(p, 16) == 3);
	replace(p, 3, advise); /* below */
	check(vma_count(p, 16) == 3);
	replace(p, 7, advise); /* a second island */
	check(vma_count(p, 16) == 5);
	p[7 * PAGE] = touch;
	replace(p, 6, advise); /* a bridge: one fewer at least */
	check(vma_count(p, 16) <= 4);
	replace(p, 15, advise); /* at the end */
	check(vma_count(p, 16) <= 5);
	check(p[5 * PAGE] == 0 && p[2 * PAGE] == (touch ? 99 : 3));
}

int main(void)
{
	for (int i = 0; i < 8; i++)
		test(i & 1, i & 2, i & 4);
	return 0;
}
