/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The pages of an image, chunk by chunk: what packing reads
 *
 * For pack_make.c.
 */
#include "base/err.h"
#include "image/bitmap.h"
#include "image/index.h"

#include <stdbool.h>
#include <stdint.h>

/* The pages of one chunk, as bits. */
struct pack_bits {
	uint8_t bits[INDEX_CHUNK_PAGES / 8];
	uint32_t n; /* pages of the chunk; fewer in a layer's last one */
};

/* Those of chunk @chunk in a map of a layer. */
struct pack_bits pack_bits_of(const struct bitmap *b, uint32_t chunk);
/* Hot pages, or those that are neither zero nor hot. */
struct pack_bits pack_bits_frame(const struct pack_bits *zero,
				 const struct pack_bits *hot, bool cold);
uint32_t pack_bits_count(const struct pack_bits *b);
bool pack_bits_same(const struct pack_bits *a, const struct pack_bits *b);

/* The marked pages of a chunk, one behind another. @bytes is the length of the
 * file; zeros follow it. */
int pack_read(int fd, uint64_t bytes, uint32_t chunk, const struct pack_bits *b,
	      uint8_t *to, struct err *e) must_check;

/* Mark the zero pages of a file; @map is clear, and as long as the file in
 * whole pages. */
int pack_find_zero(int fd, uint64_t bytes, struct bitmap *map,
		   struct err *e) must_check;
