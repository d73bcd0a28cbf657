/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stall FILE: how long does a guest stand still?
 *
 * For scenarios, inside a guest (static, as the agent is). It reads FILE, which
 * is in the guest's memory, page by page and for ever. A line per pass: the sum
 * of all its bytes, and the longest time between two pages since the line
 * before, in microseconds. A page of the guest that is missing on the host, be
 * it of FILE, of the kernel or of this program, is such a time.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define STALL_PAGE 4096
/* FNV-1a, eight bytes at a time: order counts, and every bit. */
#define STALL_BASIS 0xcbf29ce484222325ull
#define STALL_PRIME 0x100000001b3ull

static uint64_t stall_now_us(void)
{
	struct timespec t = { 0 };

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint64_t stall_add(uint64_t sum, const void *page)
{
	uint64_t word[STALL_PAGE / sizeof(uint64_t)];

	memcpy(word, page, sizeof(word));
	for (unsigned i = 0; i < sizeof(word) / sizeof(word[0]); i++)
		sum = (sum ^ word[i]) * STALL_PRIME;
	return sum;
}

/* One pass; the longest step is added to *@longest_us. */
static uint64_t stall_pass(int fd, uint64_t *last_us, uint64_t *longest_us)
{
	char page[STALL_PAGE];
	uint64_t sum = STALL_BASIS, now_us;

	for (off_t at = 0; pread(fd, page, sizeof(page), at) == sizeof(page);
	     at += STALL_PAGE) {
		sum = stall_add(sum, page);
		now_us = stall_now_us();
		if (now_us - *last_us > *longest_us)
			*longest_us = now_us - *last_us;
		*last_us = now_us;
	}
	return sum;
}

int main(int argc, char **argv)
{
	int fd = argc == 2 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;
	uint64_t last_us = stall_now_us(), longest_us, sum;

	if (fd < 0) {
		fprintf(stderr, "usage: stall FILE\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (;;) {
		longest_us = 0;
		sum = stall_pass(fd, &last_us, &longest_us);
		if (printf("%016" PRIx64 " %" PRIu64 "\n", sum, longest_us) < 0)
			return 1;
	}
}
