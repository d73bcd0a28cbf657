/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A private file mapping registered for asynchronous write protection is mapped
 * one page per touch, where the kernel otherwise maps up to sixteen: what is
 * mapped is what was touched. No privilege, no event, nobody waits; written
 * pages become private as ever. (The trial restores of a bake.)
 */
#include "kernel.h"
#include "base/uapi.h"

#define PAGES 64u

static unsigned mapped(volatile uint8_t *p)
{
	unsigned n = 0;

	for (uint64_t i = 0; i < PAGES; i++)
		n += (page_entry(p, i) & PAGE_PRESENT) != 0;
	return n;
}

static int uffd_async(void)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_WP_ASYNC };
	int fd = (int)syscall(SYS_userfaultfd,
			      O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	if (fd < 0 && (errno == ENOSYS || errno == EINVAL))
		test_skip(
			"this kernel has no userfaultfd for everybody (5.11)");
	check(fd >= 0);
	if (ioctl(fd, UFFDIO_API, &api) < 0) {
		check(errno == EINVAL);
		test_skip("this kernel has no UFFD_FEATURE_WP_ASYNC (6.7)");
	}
	return fd;
}

static void test(bool on_disk)
{
	int file = file_new(on_disk, PAGES);
	volatile uint8_t *around = map_private(file, PAGES);
	volatile uint8_t *exact = map_private(file, PAGES);
	int uffd = uffd_async();
	struct uffdio_register r = {
		.range = { .start = (uintptr_t)exact, .len = PAGES * PAGE },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	check(ioctl(uffd, UFFDIO_REGISTER, &r) == 0);
	check(around[20 * PAGE] == 21 && mapped(around) > 1);
	check(exact[20 * PAGE] == 21 && mapped(exact) == 1);
	exact[40 * PAGE] = 99; /* nobody is asked */
	check(mapped(exact) == 2);
	check(page_entry(exact, 20) == (PAGE_PRESENT | PAGE_FILE));
	check(page_entry(exact, 40) == PAGE_PRESENT);
	check(exact[40 * PAGE] == 99 && file_byte(file, 40) == 41);
	/* The kernel's own accesses too. */
	check(pwrite(file, page_at(exact, 60), 1, 0) == 1);
	check(mapped(exact) == 3);
	close(uffd);
}

int main(void)
{
	test(false);
	test(true);
	return 0;
}
