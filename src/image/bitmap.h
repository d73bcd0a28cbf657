/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * One bit per page: zero maps and working sets
 *
 * Stored as the bytes they are (bit 0 of byte 0 is the first page), behind a
 * fixed header with the number of pages and a digest in the manifest.
 */
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BITMAP_MAGIC 0x70616d6579620031ull
/* Magic and number of pages, both 64 bits, little-endian. */
#define BITMAP_HEADER 16u
/* 1 TiB of guest memory, 32 MiB of bits. */
#define BITMAP_PAGES_MAX (1ull << 28)

struct bitmap {
	uint8_t *bits;
	uint64_t n; /* pages */
};

#define BITMAP_NULL          \
	{                    \
		.bits = NULL \
	}

/* All bits clear. -E2BIG beyond BITMAP_PAGES_MAX. */
int bitmap_init(struct bitmap *b, uint64_t n) must_check;
void bitmap_deinit(struct bitmap *b);

static inline uint64_t bitmap_bytes(uint64_t n)
{
	return (n + 7) / 8;
}

static inline bool bitmap_get(const struct bitmap *b, uint64_t i)
{
	return (b->bits[i / 8] >> (i % 8)) & 1;
}

static inline void bitmap_set(struct bitmap *b, uint64_t i)
{
	b->bits[i / 8] |= (uint8_t)(1u << (i % 8));
}

void bitmap_set_run(struct bitmap *b, uint64_t i, uint64_t len);

uint64_t bitmap_count(const struct bitmap *b);

/* The run of equal bits that starts at @i: its length, >= 1. */
uint64_t bitmap_run(const struct bitmap *b, uint64_t i);

/* The file form. bitmap_read refuses anything but exactly @n pages. */
int bitmap_write(const struct bitmap *b, const char *path,
		 struct err *e) must_check;
int bitmap_read(const char *path, uint64_t n, struct bitmap *ret,
		struct err *e) must_check;
/* The same from an open file, and from its bytes; the sentences name the cause
 * only. */
int bitmap_read_fd(int fd, uint64_t n, struct bitmap *ret,
		   struct err *e) must_check;
int bitmap_parse(const void *p, size_t len, uint64_t n, struct bitmap *ret,
		 struct err *e) must_check;
