/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Many frames of an index, from a store
 *
 * For pack_complete.c and pack_verify.c.
 */
#include "base/err.h"
#include "image/index.h"
#include "image/pack.h"

#include <stdbool.h>
#include <stdint.h>

struct store;

struct pack_fetch {
	const struct index *x;
	struct store *store; /* NULL: -ENODATA if anything is wanted */
	/* Is this frame wanted? Called before any thread runs. NULL: all. */
	bool (*want)(void *arg, enum index_layer l, uint32_t i);
	/* The pages of a frame, verified; on any thread, several at once. May
	 * be NULL. */
	int (*frame)(void *arg, enum index_layer l, uint32_t i, const void *raw,
		     struct err *e);
	void *arg;
	pack_progress_fn progress; /* may be NULL */
	void *progress_arg;
	uint64_t done, total; /* to begin with */
};

int pack_fetch(const struct pack_fetch *f, struct err *e) must_check;
