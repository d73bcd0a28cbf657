/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A frame: up to 1024 pages of one chunk, compressed and digested together
 *
 * Stored bytes are one zstd frame of the pages in ascending order, with its
 * content size in its header. The digest is SHA-256 of the stored bytes: the
 * decompressor never sees anything that was not verified.
 */
#include "base/err.h"
#include "image/index.h"

#include <stdint.h>

/* Most that a frame can be: 4 MiB that do not compress (ZSTD_compressBound). */
#define FRAME_STORED_MAX ((4u << 20) + (16u << 10))
/* zstd level: measured, see frame.c */
#define FRAME_LEVEL 3

/* Working memory for one thread: contexts and buffers, so that coding a frame
 * allocates nothing. */
struct frame_coder;
int frame_coder_new(struct frame_coder **ret) must_check;
struct frame_coder *frame_coder_free(struct frame_coder *c);

/* Compress @pages pages at @raw; *ret points into the coder, good until its
 * next use. */
int frame_encode(struct frame_coder *c, const void *raw, uint32_t pages,
		 const void **ret, uint32_t *ret_stored,
		 uint8_t sha256[32]) must_check;

/* Verify @stored (f->stored bytes) against @f, decompress; *ret is f->pages
 * pages inside the coder. -EBADMSG: not what the index says. */
int frame_decode(struct frame_coder *c, const struct index_frame *f,
		 const void *stored, const void **ret) must_check;

/*
 * Write the pages of frame @i of layer @l to their places in @fd (offset 0 is
 * the layer's start), in runs, by whole-page pwrite(): in a memfd a page is
 * never seen torn (tests/kernel/memfd_fill_by_pwrite.c).
 */
int frame_place(const struct index *x, enum index_layer l, uint32_t i,
		const void *raw, int fd) must_check;
