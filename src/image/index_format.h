/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The index as bytes
 *
 * For who reads and who writes one; others use image/index.h. The numbers are
 * little-endian, every section starts at a multiple of 8, and where a section
 * is follows from the header alone.
 */
#include "image/index.h"

#include <assert.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the index is used as it is mapped"
#endif

/* A small file, before it was compressed. The largest are an empty overlay of
 * 192 KiB and a device state of 50 KiB to 1 MiB. */
#define INDEX_BLOB_MAX (16u << 20)

struct index_header {
	uint64_t magic;
	uint32_t version;
	uint32_t sources;
	char id[INDEX_ID_MAX];
	uint64_t bytes; /* of the whole index */
	uint64_t layer_bytes[INDEX_LAYER_COUNT];
	uint8_t zero[48];
};

struct index_blob {
	uint32_t stored; /* compressed */
	uint32_t bytes; /* as a file */
};

static_assert(sizeof(struct index_header) == 128, "header");
static_assert(sizeof(struct index_source) == 48, "source");
static_assert(sizeof(struct index_frame) == 48, "frame");
static_assert(sizeof(struct index_blob) == 8, "blob");

/* Where the sections are. */
struct index_layout {
	uint64_t sources;
	uint64_t frames[INDEX_LAYER_COUNT];
	uint64_t zeromap[INDEX_LAYER_COUNT];
	uint64_t hotmap[INDEX_LAYER_COUNT];
	uint64_t workingset;
	uint64_t blobs;
	uint64_t data; /* the blobs' bytes */
};

static inline uint64_t index_align(uint64_t n)
{
	return (n + 7) & ~7ull;
}

/* @sources and @layer_bytes are within their limits. */
static inline struct index_layout index_layout(uint32_t sources,
					       const uint64_t *layer_bytes)
{
	uint64_t pos = sizeof(struct index_header), pages, map;
	struct index_layout a = { 0 };

	a.sources = pos;
	pos += (uint64_t)sources * sizeof(struct index_source);
	for (unsigned l = 0; l < INDEX_LAYER_COUNT; l++) {
		pages = layer_bytes[l] / INDEX_PAGE;
		map = index_align(bitmap_bytes(pages));
		a.frames[l] = pos;
		pos += (pages + INDEX_CHUNK_PAGES - 1) / INDEX_CHUNK_PAGES * 2 *
		       sizeof(struct index_frame);
		a.zeromap[l] = pos;
		pos += map;
		a.hotmap[l] = pos;
		pos += map;
	}
	a.workingset = pos;
	pos += index_align(
		bitmap_bytes(layer_bytes[INDEX_MEMORY] / INDEX_PAGE));
	a.blobs = pos;
	a.data = pos + INDEX_BLOB_COUNT * sizeof(struct index_blob);
	return a;
}

/* "im" and the first half of SHA-256 of the index, with its id (in header and
 * first source) zeroed. @p is a whole index. -ENOMEM only. */
int index_make_id(const void *p, size_t len, char ret[INDEX_ID_MAX]) must_check;
