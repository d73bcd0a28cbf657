/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layout: which parts of an image are worth mapping from its file
 *
 * One pass over the runs of the zero map, holding back one extent: a run
 * either joins it or pushes it out.
 *
 *	map   0000 11 00 1 000 11111111 00     (1: zero page; minimum 4)
 *	data  [---------------]        [--]
 *	zero                   [------]
 *
 * A run is a data run when it holds data or is a zero run too short to count.
 * Adjacent runs of a kind join, which is all the merging there is: a short zero
 * run is data like its neighbours, at the ends too. The one case this rule
 * gets wrong is memory without any data, where a short run would have no data
 * to join; it is taken out first.
 *
 * Invariants:
 *  1. Extents are in order, have no gaps, cover the map and alternate.
 *  2. Every zero extent holds zero pages only. The reverse does not hold.
 *
 * It does not know plans, layers or mappings: gmem turns extents into them.
 */
#include "image/layout.h"

#include "image/bitmap.h"
#include "image/image.h"

int image_extents(const struct bitmap *zeromap, uint64_t min_zero_run_pages,
		  image_extent_fn fn, void *arg)
{
	uint64_t i, run, start = 0;
	bool zero, held = false;
	int r;

	if (!zeromap->n)
		return 0;
	if (bitmap_get(zeromap, 0) && bitmap_run(zeromap, 0) == zeromap->n)
		return fn(0, zeromap->n * IMAGE_PAGE, true, arg);
	for (i = 0; i < zeromap->n; i += run) {
		run = bitmap_run(zeromap, i);
		zero = bitmap_get(zeromap, i) && run >= min_zero_run_pages;
		if (i > 0 && zero != held) {
			r = fn(start * IMAGE_PAGE, (i - start) * IMAGE_PAGE,
			       held, arg);
			if (r != 0)
				return r;
			start = i;
		}
		held = zero;
	}
	return fn(start * IMAGE_PAGE, (i - start) * IMAGE_PAGE, held, arg);
}

int image_holes(const struct bitmap *zeromap, uint64_t min_zero_run_pages,
		image_hole_fn fn, void *arg)
{
	uint64_t i, run;
	int r;

	for (i = 0; i < zeromap->n; i += run) {
		run = bitmap_run(zeromap, i);
		if (!bitmap_get(zeromap, i) || run >= min_zero_run_pages ||
		    run == zeromap->n)
			continue;
		r = fn(i * IMAGE_PAGE, run * IMAGE_PAGE, arg);
		if (r != 0)
			return r;
	}
	return 0;
}
