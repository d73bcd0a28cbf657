/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Layout: which parts of an image are worth mapping from its file
 *
 * Guest memory as alternating extents of zero and data, from a zero map. Each
 * extent costs the VMM a mapping, so zero runs shorter than a minimum belong to
 * the data around them: they are holes of the file and read as zeros anyway.
 */
#include "base/must.h"

#include <stdbool.h>
#include <stdint.h>

struct bitmap;

/* @start and @len are bytes, whole pages. A result other than 0 ends the walk
 * and is forwarded. */
typedef int (*image_extent_fn)(uint64_t start, uint64_t len, bool is_zero,
			       void *arg);

/*
 * In order, without gaps, zero and data alternating. A zero run of less than
 * @min_zero_run_pages joins its neighbours (at either end, the one it has);
 * memory that is zero throughout is one zero extent whatever its length. A
 * minimum of 0 or 1 leaves every run as it is.
 */
int image_extents(const struct bitmap *zeromap, uint64_t min_zero_run_pages,
		  image_extent_fn fn, void *arg) must_check;

/* @start and @len are bytes, whole pages; a result other than 0 as above. */
typedef int (*image_hole_fn)(uint64_t start, uint64_t len, void *arg);

/* The zero runs that image_extents() with that minimum left in extents of data,
 * in order: holes of the file that guests map. */
int image_holes(const struct bitmap *zeromap, uint64_t min_zero_run_pages,
		image_hole_fn fn, void *arg) must_check;
