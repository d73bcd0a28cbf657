/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which frames a layer's file holds already
 *
 * A layer outlives its pager: memory in a memfd, disk in a sparse file, both
 * full of holes where nothing was fetched. Which frames are there is not kept
 * anywhere else: a frame is present when all of its pages are data.
 *
 * Invariants:
 *  1. A page is data only after it was written whole (frame_place()); a frame
 *     whose pager died in the middle of it is fetched and written once more,
 *     with the bytes that are there.
 *  2. A file system that does not know holes calls everything data. Such a
 *     file has fewer blocks than it has data, and then nothing counts as
 *     present: fetched twice rather than zeros for pages.
 *
 * It does not look at the bytes: what a crash of the host may have done to a
 * disk file is the owner's matter, who makes a new one after a boot.
 */
#include "pager/object.h"

#include "base/guard.h"
#include "image/bitmap.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static void present_bits_deinit(struct bitmap *b)
{
	bitmap_deinit(b);
}

/* Pages of @fd that are data, into @b. */
static int present_data(int fd, struct bitmap *b, uint64_t *ret_pages)
{
	uint64_t bytes = b->n * INDEX_PAGE, at = 0, end, first, n, pages = 0;
	off_t o;

	while (at < bytes) {
		o = lseek(fd, (off_t)at, SEEK_DATA);
		if (o < 0 && errno == ENXIO)
			break;
		if (o < 0)
			return -errno;
		at = (uint64_t)o;
		if (at >= bytes)
			break;
		o = lseek(fd, (off_t)at, SEEK_HOLE);
		if (o < 0)
			return -errno;
		end = min((uint64_t)o, bytes);
		/* Only whole pages count, should the blocks be smaller. */
		first = (at + INDEX_PAGE - 1) / INDEX_PAGE;
		n = end / INDEX_PAGE > first ? end / INDEX_PAGE - first : 0;
		if (n)
			bitmap_set_run(b, first, n);
		pages += n;
		at = end;
	}
	*ret_pages = pages;
	return 0;
}

/* Are all pages of frame @i (of the part) data? */
static bool present_whole(const struct bitmap *data, const struct bitmap *zero,
			  const struct bitmap *hot, uint32_t i)
{
	uint64_t first = (uint64_t)(i / 2) * INDEX_CHUNK_PAGES;
	uint64_t n = min(data->n - first, (uint64_t)INDEX_CHUNK_PAGES);

	for (uint64_t b = 0; b < bitmap_bytes(n); b++) {
		uint64_t at = first / 8 + b;
		unsigned want = hot->bits[at];

		if (i % 2)
			want = 0xffu & ~(want | zero->bits[at]);
		if (n - b * 8 < 8)
			want &= (1u << (n - b * 8)) - 1;
		if (want & ~(unsigned)data->bits[at])
			return false;
	}
	return true;
}

static void present_mark(struct layer *l, enum index_layer part,
			 const struct bitmap *data)
{
	const struct bitmap zero = index_zeromap(l->index, part),
			    hot = index_hotmap(l->index, part);
	uint32_t base = part == INDEX_MEMORY ? 0 : l->n_memory;

	for (uint32_t i = 0; i < index_frames(l->index, part); i++)
		if (present_whole(data, &zero, &hot, i))
			frame_set(&l->frames[base + i], FRAME_PRESENT);
}

int present_scan(struct layer *l, enum index_layer part, int fd, struct err *e)
{
	guard(present_bits_deinit) struct bitmap data = BITMAP_NULL;
	uint64_t bytes = index_layer_bytes(l->index, part), pages = 0;
	const char *name = index_layer_name(part);
	struct stat st = { 0 };
	int r;

	if (fstat(fd, &st) < 0)
		return err_errno(e, errno, "stat the %s of a layer", name);
	if ((uint64_t)st.st_size < bytes)
		return err_set(
			e, EINVAL,
			"the %s of a layer has %llu bytes, its image %llu",
			name, (unsigned long long)st.st_size,
			(unsigned long long)bytes);
	r = bitmap_init(&data, bytes / INDEX_PAGE);
	if (r == 0)
		r = present_data(fd, &data, &pages);
	if (r < 0)
		return err_errno(e, -r, "look for data in the %s of a layer",
				 name);
	if (pages * INDEX_PAGE > (uint64_t)st.st_blocks * 512)
		memset(data.bits, 0, bitmap_bytes(data.n));
	present_mark(l, part, &data);
	return 0;
}
