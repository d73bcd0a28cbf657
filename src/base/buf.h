/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A growable byte buffer with a named maximum
 *
 * Bytes are appended at the end and consumed at the start. The maximum is
 * given at birth and checked before every allocation: whoever fills a buffer
 * from a peer cannot be made to hold more.
 */
#include "base/must.h"

#include <stdbool.h>
#include <stdint.h>

struct buf {
	uint8_t *mem; /* allocation */
	size_t start; /* first unread byte */
	size_t end; /* one past the last */
	size_t size; /* bytes allocated */
	size_t max; /* never hold more; a terminator fits behind it */
};

#define BUF_NULL(max_bytes)        \
	{                          \
		.max = (max_bytes) \
	}

void buf_init(struct buf *b, size_t max_bytes);
void buf_deinit(struct buf *b);

static inline size_t buf_len(const struct buf *b)
{
	return b->end - b->start;
}

static inline uint8_t *buf_data(struct buf *b)
{
	return b->mem ? b->mem + b->start : NULL;
}

/* Room left before the maximum. */
static inline size_t buf_room(const struct buf *b)
{
	return b->max - buf_len(b);
}

/* Make room for @len more; NULL when that passes the maximum or memory is out.
 * The bytes count after buf_commit(). */
uint8_t *buf_reserve(struct buf *b, size_t len);
void buf_commit(struct buf *b, size_t len);

/* 0, or -ENOBUFS (maximum), -ENOMEM. */
int buf_add(struct buf *b, const void *p, size_t len) must_check;
int buf_addf(struct buf *b, const char *fmt, ...) printf_like(2, 3) must_check;

void buf_consume(struct buf *b, size_t len);

/* Zero-terminate behind the end (not counted, and beyond the maximum if need
 * be) and give the text; NULL when out of memory. */
char *buf_text(struct buf *b);
