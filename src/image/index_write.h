/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * An index that is being made
 *
 * Filled by its owner, who may touch the members; then written as a whole.
 */
#include "base/err.h"
#include "image/index.h"
#include "image/index_format.h"

#include <stddef.h>
#include <stdint.h>

struct index_writer {
	uint64_t layer_bytes[INDEX_LAYER_COUNT];
	/* 0 is the image's own; its id is made at the end. */
	uint32_t n_sources;
	struct index_source source[INDEX_SOURCES_MAX];
	struct index_frame *frames[INDEX_LAYER_COUNT];
	struct bitmap zeromap[INDEX_LAYER_COUNT];
	struct bitmap hotmap[INDEX_LAYER_COUNT];
	struct bitmap workingset;
	struct index_blob blob[INDEX_BLOB_COUNT];
	void *blob_p[INDEX_BLOB_COUNT];
};

#define INDEX_WRITER_NULL      \
	{                      \
		.n_sources = 1 \
	}

/* Whole pages. All pages are data that is not hot, all frames empty. */
int index_writer_init(struct index_writer *w, const uint64_t *layer_bytes,
		      struct err *e) must_check;
void index_writer_deinit(struct index_writer *w);
uint32_t index_writer_frames(const struct index_writer *w, enum index_layer l);
/* Compress a small file into it. */
int index_writer_blob(struct index_writer *w, enum index_blob_kind b,
		      const void *p, size_t len, struct err *e) must_check;
/* The bytes, fresh. What index_parse() would refuse is refused. */
int index_writer_print(const struct index_writer *w, void **ret,
		       size_t *ret_len, struct err *e) must_check;
