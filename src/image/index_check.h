/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * An index that is open, and how it becomes one
 *
 * For index.c and index_check.c.
 */
#include "base/err.h"
#include "image/bitmap.h"
#include "image/index_format.h"

#include <stdbool.h>
#include <stddef.h>

struct index_map {
	const struct index_frame *frames;
	uint32_t n_frames;
	struct bitmap zeromap, hotmap; /* views */
	uint64_t data_pages, hot_pages;
};

struct index {
	uint8_t *p;
	size_t len;
	bool mapped;
	const struct index_header *head;
	const struct index_source *sources;
	struct index_map map[INDEX_LAYER_COUNT];
	struct bitmap workingset; /* view */
	const struct index_blob *blobs;
	const uint8_t *blob[INDEX_BLOB_COUNT];
};

const char *index_blob_name(enum index_blob_kind b);

/* @p and @len are set; finds the sections, and checks everything in them. The
 * sentence has no prefix. */
int index_check(struct index *x, struct err *e) must_check;
