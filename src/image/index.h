/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The index: an image as it is stored, without its bytes
 *
 * One file, little-endian, used as it is mapped: finding the bytes of a page
 * is arithmetic. doc/image-format.md and byre-image(5) describe it.
 *
 *	struct index_header
 *	sources        struct index_source[n_sources]   packs; 0 is its own
 *	per layer (memory, disk):
 *	  frames       struct index_frame[2 * chunks]
 *	  zero map     bit per page: it is zero, no frame holds it
 *	  hot map      bit per page: it is in its chunk's hot frame
 *	working set    bit per page of memory
 *	blobs          struct index_blob[INDEX_BLOB_COUNT], and their bytes
 *
 * A layer (guest memory; the root disk) is cut into chunks of INDEX_CHUNK. The
 * pages of a chunk that are not zero are in two frames: 2c, the pages marked
 * hot, and 2c + 1, the others. A frame is fetched, verified and decompressed
 * as a whole (image/frame.h). Hot frames lie side by side at the front of the
 * pack, so what a restored guest needs is one run of bytes.
 *
 * Trust: the digest of the index comes from elsewhere (the reference of its
 * name, image/reference.h); the index holds the digest of everything else.
 * index_open() checks every number in it, so that accessors need not.
 */
#include "base/err.h"
#include "image/bitmap.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define INDEX_MAGIC 0x3178656469727962ull /* "byridex1" */
#define INDEX_VERSION 1u
#define INDEX_PAGE 4096u
#define INDEX_CHUNK (4u << 20)
#define INDEX_CHUNK_PAGES 1024u
/* 64 GiB of memory need 12 MiB, a 1 TiB disk 90. */
#define INDEX_BYTES_MAX (128u << 20)
/* Packs that one index refers to: each parent costs one. */
#define INDEX_SOURCES_MAX 64u
/* Ids of images: "im" and hex digits. */
#define INDEX_ID_MAX 40

enum index_layer {
	INDEX_MEMORY,
	INDEX_DISK,
	INDEX_LAYER_COUNT,
};

const char *index_layer_name(enum index_layer l);

/* Small files of the image directory, compressed into the index itself. */
enum index_blob_kind {
	INDEX_BLOB_MANIFEST, /* manifest.json, sealed */
	INDEX_BLOB_STATE,
	INDEX_BLOB_OVERLAY,
	INDEX_BLOB_COUNT,
};

struct index_source {
	char id[INDEX_ID_MAX]; /* image whose pack it is, zero-terminated */
	uint64_t pack_bytes;
};

struct index_frame {
	uint64_t offset; /* in the pack */
	uint32_t stored; /* bytes in the pack; 0: no pages, no frame */
	uint16_t pages; /* 1..INDEX_CHUNK_PAGES */
	uint16_t source;
	uint8_t sha256[32]; /* of the stored bytes */
};

struct index; /* an open index */

/* Map and check a whole file; @fd is borrowed. Damage is EBADMSG with the
 * sentence naming the section; a version that we do not know is EINVAL. The id
 * was made from the content (index_verify), so a damaged index is refused. */
int index_open(int fd, struct index **ret, struct err *e) must_check;
/* The same from memory, aligned to 8, which must outlive it; the id is not
 * compared with the content. */
int index_parse(const void *p, size_t len, struct index **ret,
		struct err *e) must_check;
/* Is the id that of the content? EBADMSG. */
int index_verify(const struct index *x, struct err *e) must_check;
struct index *index_free(struct index *x);

const char *index_id(const struct index *x);
/* Of the index itself. */
uint64_t index_bytes(const struct index *x);
uint32_t index_sources(const struct index *x);
const struct index_source *index_source(const struct index *x, uint32_t i);
/* Bytes of the layer, whole pages (a disk's odd tail is filled with zeros). */
uint64_t index_layer_bytes(const struct index *x, enum index_layer l);
/* 2 * chunks. */
uint32_t index_frames(const struct index *x, enum index_layer l);
const struct index_frame *index_frame(const struct index *x, enum index_layer l,
				      uint32_t i);
/* Borrowed views; read only. */
struct bitmap index_zeromap(const struct index *x, enum index_layer l);
struct bitmap index_hotmap(const struct index *x, enum index_layer l);
struct bitmap index_workingset(const struct index *x);
/* Which frame holds @page? UINT32_MAX: none, it is zero. */
uint32_t index_frame_of(const struct index *x, enum index_layer l,
			uint64_t page);
/* Is @page (of the frame's chunk) in frame @i? */
bool index_in_frame(const struct index *x, enum index_layer l, uint32_t i,
		    uint64_t page);
/* Bytes of all pages that are not zero, and of the hot ones. */
uint64_t index_data_bytes(const struct index *x, enum index_layer l);
uint64_t index_hot_bytes(const struct index *x, enum index_layer l);
/* A small file, decompressed, fresh and zero-terminated behind @ret_len. */
int index_blob(const struct index *x, enum index_blob_kind b, char **ret,
	       size_t *ret_len, struct err *e) must_check;
