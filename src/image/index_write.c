/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An index that is being made
 *
 * Sections are kept apart until the end, since the number of sources is not
 * known before; then they are laid out, the id is made from the whole, and the
 * result is read by index_parse(), which is the judge of what an index is.
 *
 * Invariants:
 *  1. What is printed can be opened.
 *  2. The same contents are printed as the same bytes.
 */
#include "image/index_write.h"

#include "base/guard.h"
#include "image/frame.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <zstd.h>

static uint32_t index_writer_chunks(const struct index_writer *w,
				    enum index_layer l)
{
	return (uint32_t)((w->layer_bytes[l] + INDEX_CHUNK - 1) / INDEX_CHUNK);
}

uint32_t index_writer_frames(const struct index_writer *w, enum index_layer l)
{
	return index_writer_chunks(w, l) * 2;
}

static int index_writer_layer(struct index_writer *w, enum index_layer l)
{
	uint64_t pages = w->layer_bytes[l] / INDEX_PAGE;
	int r;

	r = bitmap_init(&w->zeromap[l], pages);
	if (r == 0)
		r = bitmap_init(&w->hotmap[l], pages);
	if (r < 0)
		return r;
	w->frames[l] = calloc(max(index_writer_frames(w, l), 1u),
			      sizeof(struct index_frame));
	return w->frames[l] ? 0 : -ENOMEM;
}

int index_writer_init(struct index_writer *w, const uint64_t *layer_bytes,
		      struct err *e)
{
	int r = 0;

	for (unsigned l = 0; r == 0 && l < INDEX_LAYER_COUNT; l++) {
		must(layer_bytes[l] % INDEX_PAGE == 0);
		w->layer_bytes[l] = layer_bytes[l];
		r = index_writer_layer(w, l);
		if (r < 0)
			err_errno(e, -r, "index: %s of %" PRIu64 " bytes",
				  index_layer_name(l), layer_bytes[l]);
	}
	if (r < 0)
		return r;
	r = bitmap_init(&w->workingset, layer_bytes[INDEX_MEMORY] / INDEX_PAGE);
	return r < 0 ? err_errno(e, -r, "index: working set") : 0;
}

void index_writer_deinit(struct index_writer *w)
{
	for (unsigned l = 0; l < INDEX_LAYER_COUNT; l++) {
		bitmap_deinit(&w->zeromap[l]);
		bitmap_deinit(&w->hotmap[l]);
		free(w->frames[l]);
	}
	bitmap_deinit(&w->workingset);
	for (unsigned b = 0; b < INDEX_BLOB_COUNT; b++)
		free(w->blob_p[b]);
	*w = (struct index_writer)INDEX_WRITER_NULL;
}

int index_writer_blob(struct index_writer *w, enum index_blob_kind b,
		      const void *p, size_t len, struct err *e)
{
	size_t bound = ZSTD_compressBound(len), n;
	guard_free void *stored = NULL;

	must((unsigned)b < INDEX_BLOB_COUNT && !w->blob_p[b]);
	if (len > INDEX_BLOB_MAX)
		return err_set(e, EFBIG,
			       "index: a file of %zu bytes, at most "
			       "%u fit",
			       len, INDEX_BLOB_MAX);
	stored = malloc(bound);
	if (!stored)
		return err_errno(e, ENOMEM, "index: compress");
	n = ZSTD_compress(stored, bound, p, len, FRAME_LEVEL);
	if (ZSTD_isError(n))
		return err_set(e, ENOMEM, "index: compress: %s",
			       ZSTD_getErrorName(n));
	w->blob[b] = (struct index_blob){ .stored = (uint32_t)n,
					  .bytes = (uint32_t)len };
	w->blob_p[b] = take(stored);
	return 0;
}

static void index_writer_copy(const struct index_writer *w, uint8_t *p,
			      const struct index_layout *a)
{
	uint64_t map, pos = a->data;

	memcpy(p + a->sources, w->source, w->n_sources * sizeof(w->source[0]));
	for (unsigned l = 0; l < INDEX_LAYER_COUNT; l++) {
		map = bitmap_bytes(w->layer_bytes[l] / INDEX_PAGE);
		memcpy(p + a->frames[l], w->frames[l],
		       index_writer_frames(w, l) * sizeof(struct index_frame));
		memcpy(p + a->zeromap[l], w->zeromap[l].bits, map);
		memcpy(p + a->hotmap[l], w->hotmap[l].bits, map);
	}
	memcpy(p + a->workingset, w->workingset.bits,
	       bitmap_bytes(w->workingset.n));
	memcpy(p + a->blobs, w->blob, sizeof(w->blob));
	for (unsigned b = 0; b < INDEX_BLOB_COUNT; b++) {
		if (w->blob_p[b])
			memcpy(p + pos, w->blob_p[b], w->blob[b].stored);
		pos += index_align(w->blob[b].stored);
	}
}

/* Header, sections, id. */
static int index_writer_fill(const struct index_writer *w, uint8_t *p,
			     uint64_t len, const struct index_layout *a)
{
	struct index_header head = { .magic = INDEX_MAGIC,
				     .version = INDEX_VERSION,
				     .sources = w->n_sources,
				     .bytes = len };
	int r;

	memcpy(head.layer_bytes, w->layer_bytes, sizeof(head.layer_bytes));
	memcpy(p, &head, sizeof(head));
	index_writer_copy(w, p, a);
	r = index_make_id(p, (size_t)len, head.id);
	if (r < 0)
		return r;
	memcpy(p, &head, sizeof(head));
	memcpy(p + a->sources + offsetof(struct index_source, id), head.id,
	       sizeof(head.id));
	return 0;
}

int index_writer_print(const struct index_writer *w, void **ret,
		       size_t *ret_len, struct err *e)
{
	struct index_layout a = index_layout(w->n_sources, w->layer_bytes);
	struct index *x = NULL;
	guard_free void *p = NULL;
	uint64_t len = a.data;
	int r;

	for (unsigned b = 0; b < INDEX_BLOB_COUNT; b++)
		len += index_align(w->blob[b].stored);
	if (len > INDEX_BYTES_MAX)
		return err_set(e, EFBIG, "index: %" PRIu64 " bytes", len);
	p = calloc(1, (size_t)len);
	if (!p)
		return err_errno(e, ENOMEM, "index");
	r = index_writer_fill(w, p, len, &a);
	if (r < 0)
		return err_errno(e, -r, "index: digest");
	r = index_parse(p, (size_t)len, &x, e);
	if (r < 0)
		return r;
	index_free(x);
	*ret = take(p);
	*ret_len = (size_t)len;
	return 0;
}
