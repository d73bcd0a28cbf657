/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a streamed page may be filled. A store through a shared mapping shows the
 * page, still empty, to every other guest before its bytes are there: no fault,
 * wrong data. pwrite() of whole pages keeps each page locked until it is
 * complete, so a guest either faults or sees all of it.
 */
#include "kernel.h"

#define PAGES 4096u

struct reader {
	volatile uint8_t *p;
	uint64_t torn;
};

/* Another guest, which runs over the pages as they come in. */
static void *reader_main(void *arg)
{
	struct reader *r = arg;

	for (uint64_t i = 0; i < PAGES; i++) {
		volatile uint8_t *page = r->p + i * PAGE;

		if (page[PAGE - 1] != 'x' || page[0] != 'x')
			r->torn++;
	}
	return NULL;
}

static void test_mapping(void)
{
	int fd = file_new(false, 0), uffd = uffd_new();
	volatile uint8_t *p, *fill;

	check(ftruncate(fd, PAGE) == 0);
	fill = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check(fill != MAP_FAILED);
	p = map_private(fd, 1);
	uffd_arm(uffd, p, 1);
	fill[0] = 'x'; /* the first byte of a copy */
	check(p[PAGE - 1] == 0);
	check(uffd_next(uffd, p, 0) == -1);
}

static void test_pwrite(void)
{
	int fd = file_new(false, 0), uffd = uffd_new();
	struct reader r = { 0 };
	pthread_t thread;
	char page[PAGE];

	memset(page, 'x', PAGE);
	check(ftruncate(fd, PAGES * PAGE) == 0);
	r.p = map_private(fd, PAGES);
	uffd_arm(uffd, r.p, PAGES);
	check(pthread_create(&thread, NULL, reader_main, &r) == 0);
	for (uint64_t i = 0; i < PAGES; i++) {
		check(pwrite(fd, page, PAGE, (off_t)(i * PAGE)) == PAGE);
		/* a reader that came too early waits for this */
		uffd_wake(uffd, r.p, i);
	}
	check(pthread_join(thread, NULL) == 0);
	check(r.torn == 0);
}

int main(void)
{
	test_mapping();
	test_pwrite();
	return 0;
}
