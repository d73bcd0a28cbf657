/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files whose size cannot be believed, read before it is announced
 *
 * The kernel's own file systems make their files up when they are read. In
 * procfs, tracefs and cgroupfs all have the size 0, in sysfs and configfs a
 * page; how long they are is known at their end. An ENTRY comes before its
 * bytes, so such files are read to their end first.
 *
 * Which file systems do so is not asked: size 0, or up to a page, is what they
 * have in common. Of a real file that small this costs one copy.
 *
 * A real file that grows is cut at its size, here as elsewhere.
 */
#include "agent/ahead.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What sysfs says of all its texts. */
#define AHEAD_PAGE 4096u

/* Until @len bytes or the end. */
static ssize_t ahead_read_full(int fd, uint8_t *to, size_t len)
{
	size_t have = 0;
	ssize_t n;

	while (have < len) {
		n = read(fd, to + have, len - have);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		have += (size_t)n;
	}
	return (ssize_t)have;
}

/* All that comes behind the @n bytes in a->bytes, to AHEAD_MAX. */
static int ahead_read_rest(struct ahead *a, int fd, size_t n)
{
	uint8_t more;
	ssize_t r;

	r = ahead_read_full(fd, a->bytes + n, AHEAD_MAX - n);
	if (r < 0)
		return (int)r;
	a->len = n + (size_t)r;
	r = a->len == AHEAD_MAX ? ahead_read_full(fd, &more, 1) : 0;
	return r > 0 ? -EFBIG : (int)r;
}

int ahead_read(struct ahead *a, int fd, uint64_t *size)
{
	size_t want = *size ? (size_t)*size : AHEAD_PAGE;
	uint8_t first[AHEAD_PAGE];
	bool all;
	ssize_t n;
	int r = 0;

	if (*size > AHEAD_PAGE)
		return 0;
	n = ahead_read_full(fd, first, want);
	if (n < 0)
		return (int)n;
	all = *size || (size_t)n < want;
	if (n > 0) {
		a->bytes = malloc(all ? (size_t)n : AHEAD_MAX);
		if (!a->bytes)
			return -ENOMEM;
		memcpy(a->bytes, first, (size_t)n);
	}
	a->at = 0;
	a->len = (size_t)n;
	if (!all)
		r = ahead_read_rest(a, fd, (size_t)n);
	if (r < 0)
		ahead_drop(a);
	else
		*size = a->len;
	return r;
}

size_t ahead_take(struct ahead *a, void *to, size_t len)
{
	len = min(len, a->len - a->at);
	memcpy(to, a->bytes + a->at, len);
	a->at += len;
	return len;
}

void ahead_drop(struct ahead *a)
{
	free(a->bytes);
	*a = (struct ahead){ 0 };
}
