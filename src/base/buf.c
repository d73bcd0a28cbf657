/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growable byte buffer with a named maximum
 *
 *	mem          start            end          size   (<= max + 1)
 *	 |  consumed   |  unread bytes  |   free     |
 *
 * Invariants:
 *  1. start <= end, and end < size once anything is allocated: there is always
 *     a byte behind the end for a terminator.
 *  2. end - start <= max. The check comes before the allocation.
 *  3. Unread bytes move only when that makes room which growing cannot make,
 *     or when the move is paid for by as many consumed bytes; so filling and
 *     draining cost O(1) per byte.
 *
 * It is not shared between threads, and pointers into it die with the next
 * call that may grow it.
 */
#include "base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Less than this is not worth a second allocation; most API requests fit. */
#define BUF_SIZE_MIN 512

void buf_init(struct buf *b, size_t max_bytes)
{
	*b = (struct buf)BUF_NULL(max_bytes);
}

void buf_deinit(struct buf *b)
{
	free(b->mem);
	*b = (struct buf)BUF_NULL(b->max);
}

static void buf_compact(struct buf *b)
{
	if (!b->start)
		return;
	memmove(b->mem, b->mem + b->start, buf_len(b));
	b->end -= b->start;
	b->start = 0;
}

/* @need: bytes the buffer must hold, terminator included. */
static int buf_grow(struct buf *b, size_t need)
{
	size_t limit = b->max < SIZE_MAX ? b->max + 1 : SIZE_MAX;
	size_t size = b->size <= limit / 2 ? b->size * 2 : limit;
	uint8_t *mem;

	size = max(size, min((size_t)BUF_SIZE_MIN, limit));
	size = max(size, need);
	buf_compact(b);
	mem = realloc(b->mem, size);
	if (!mem)
		return -ENOMEM;
	b->mem = mem;
	b->size = size;
	return 0;
}

uint8_t *buf_reserve(struct buf *b, size_t len)
{
	size_t need;

	if (len > buf_room(b))
		return NULL;
	need = buf_len(b) + len;
	if (need == SIZE_MAX)
		return NULL; /* no byte left for the terminator */
	need++;
	if (b->size > b->end && len < b->size - b->end)
		return b->mem + b->end;
	if (need <= b->size && (b->start >= buf_len(b) || b->size > b->max)) {
		buf_compact(b);
		return b->mem + b->end;
	}
	if (buf_grow(b, need) < 0)
		return NULL;
	return b->mem + b->end;
}

void buf_commit(struct buf *b, size_t len)
{
	must(len <= buf_room(b));
	must(len == 0 || len < b->size - b->end);
	b->end += len;
}

int buf_add(struct buf *b, const void *p, size_t len)
{
	uint8_t *to;

	if (len > buf_room(b))
		return -ENOBUFS;
	if (!len)
		return 0;
	to = buf_reserve(b, len);
	if (!to)
		return -ENOMEM;
	memcpy(to, p, len);
	buf_commit(b, len);
	return 0;
}

int buf_addf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	uint8_t *to;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	must(len >= 0); /* a format that cannot be */
	if ((size_t)len > buf_room(b))
		return -ENOBUFS;
	to = buf_reserve(b, (size_t)len);
	if (!to)
		return -ENOMEM;
	va_start(ap, fmt);
	must(vsnprintf((char *)to, (size_t)len + 1, fmt, ap) == len);
	va_end(ap);
	buf_commit(b, (size_t)len);
	return 0;
}

void buf_consume(struct buf *b, size_t len)
{
	must(len <= buf_len(b));
	b->start += len;
	if (b->start == b->end)
		b->start = b->end = 0;
}

char *buf_text(struct buf *b)
{
	uint8_t *to = buf_reserve(b, 0);

	if (!to)
		return NULL;
	*to = '\0';
	return (char *)buf_data(b);
}
