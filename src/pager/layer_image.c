/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An image directory as the memory of a layer
 *
 * The engine knows layers by their index: which pages are zero, which frame
 * holds a page, where that frame is stored. An image that is all here has no
 * need of one, and a baked one has none; so one is made in memory, from the
 * zero map, whose frames are "stored" nowhere. The engine looks at the file,
 * finds every frame present, and never asks for them.
 *
 * Invariants:
 *  1. What is served from a file was verified by image_open(), through the fd
 *     that is handed on.
 *  2. A layer without a store has all of its frames, or layer_add_image()
 *     fails: no guest finds out later.
 */
#include "pager/layer_image.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/memfd.h"
#include "image/image.h"
#include "image/index.h"
#include "image/index_write.h"
#include "pager/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

static void layer_image_unrefp(struct image **i)
{
	image_unref(*i);
}

static void layer_writer_deinit(struct index_writer *w)
{
	index_writer_deinit(w);
}

/* Frames of what is not zero, one byte each, in a pack of one byte. */
static void layer_fill_frames(struct index_writer *w, const struct bitmap *zero)
{
	uint64_t pages;

	w->source[0].pack_bytes = 1;
	memcpy(w->zeromap[INDEX_MEMORY].bits, zero->bits,
	       bitmap_bytes(zero->n));
	for (uint64_t first = 0; first < zero->n; first += INDEX_CHUNK_PAGES) {
		pages = 0;
		for (uint64_t i = first;
		     i < min(first + INDEX_CHUNK_PAGES, zero->n); i++)
			pages += !bitmap_get(zero, i);
		if (!pages)
			continue;
		w->frames[INDEX_MEMORY][first / INDEX_CHUNK_PAGES * 2 + 1] =
			(struct index_frame){ .stored = 1,
					      .pages = (uint16_t)pages };
	}
}

/* The index of a memory file that is all here. Its bytes stay for as long as
 * the process: the engine's layer looks into them until its end. */
static int layer_whole_index(const struct bitmap *zero, struct index **ret,
			     struct err *e)
{
	const uint64_t bytes[INDEX_LAYER_COUNT] = {
		[INDEX_MEMORY] = zero->n * INDEX_PAGE,
	};
	guard(layer_writer_deinit) struct index_writer w = INDEX_WRITER_NULL;
	void *p = NULL;
	size_t len = 0;
	int r = index_writer_init(&w, bytes, e);

	if (r < 0)
		return r;
	layer_fill_frames(&w, zero);
	r = index_writer_print(&w, &p, &len, e);
	if (r < 0)
		return r;
	r = index_parse(p, len, ret, e);
	if (r < 0)
		free(p);
	return r;
}

/* A hole where there should be data, on a file system that has no holes, or
 * counts blocks in its own way. */
static int layer_check_data(int fd, const struct bitmap *zero, struct err *e)
{
	uint64_t pages = zero->n - bitmap_count(zero);
	struct stat st = { 0 };

	if (fstat(fd, &st) < 0)
		return err_errno(e, errno, "stat the image's memory");
	if ((uint64_t)st.st_blocks * 512 < pages * INDEX_PAGE)
		return err_set(e, ENOTSUP,
			       "the file system of the image compresses, or "
			       "knows no holes: %" PRIu64
			       " bytes of memory are in %" PRIu64,
			       pages * INDEX_PAGE,
			       (uint64_t)st.st_blocks * 512);
	return 0;
}

static int layer_add_whole(struct engine *g, uint32_t number,
			   const struct image *i, struct err *e)
{
	const struct bitmap *zero = image_zeromap(i);
	int fd = image_fd(i, IMAGE_MEMORY);
	struct index *x = NULL;
	int r = layer_check_data(fd, zero, e);

	if (r == 0)
		r = layer_whole_index(zero, &x, e);
	return r < 0 ? r : layer_add(g, number, x, NULL, fd, -1, e);
}

static int layer_add_remote(struct engine *g, uint32_t number,
			    const struct image *i,
			    const struct store_spec *store, struct err *e)
{
	guard_free char *path = io_path("%s/" IMAGE_INDEX_NAME, image_dir(i));
	guard_fd int fd = -1, memory = -1;
	struct index *x = NULL;
	int r;

	if (!store)
		return err_set(e, ENOENT, "its store %s is not known",
			       image_remote(i));
	if (!path)
		return err_errno(e, ENOMEM, "index");
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return err_errno(e, errno, "open %s", path);
	r = index_open(fd, &x, e);
	if (r < 0)
		return r;
	r = memfd_new("byre-memory", index_layer_bytes(x, INDEX_MEMORY),
		      &memory, e);
	if (r < 0) {
		index_free(x);
		return r;
	}
	r = layer_add(g, number, x, store, memory, -1, e);
	return r < 0 ? r : layer_prefetch(g, number, false, e);
}

int layer_add_image(struct engine *g, uint32_t number, const char *dir,
		    const struct store_spec *store, uint64_t *ret_bytes,
		    struct err *e)
{
	guard(layer_image_unrefp) struct image *i = NULL;
	int r = image_open(dir, &i, e);

	if (r == 0)
		r = image_remote(i) ? layer_add_remote(g, number, i, store, e)
				    : layer_add_whole(g, number, i, e);
	if (r < 0) {
		err_prefix(e, "image %s", dir);
		return r;
	}
	*ret_bytes = image_manifest(i)->memory_bytes;
	return 0;
}
