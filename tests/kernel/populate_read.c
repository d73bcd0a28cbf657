/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MADV_POPULATE_READ maps a private file mapping's pages without making any of
 * them private, and leaves written pages alone. (The working set, mapped before
 * the guest runs.)
 */
#include "kernel.h"
#include "base/uapi.h"

#define FAR 64u

static void test(bool on_disk)
{
	int fd = file_new(on_disk, 2 * FAR);
	volatile uint8_t *p = map_private(fd, 2 * FAR);

	p[3 * PAGE] = 99;
	if (madvise(page_at(p, 0), FAR * PAGE, MADV_POPULATE_READ) < 0) {
		check(errno == EINVAL);
		test_skip("this kernel has no MADV_POPULATE_READ (5.14)");
	}
	for (uint64_t i = 0; i < FAR; i++)
		check(page_entry(p, i) ==
		      (i == 3 ? PAGE_PRESENT : PAGE_PRESENT | PAGE_FILE));
	check(!(page_entry(p, FAR + 32) & PAGE_PRESENT));
	check(p[3 * PAGE] == 99 && p[4 * PAGE] == 5);
}

int main(void)
{
	test(false);
	test(true);
	return 0;
}
