/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is it an index?
 *
 * The one place where the bytes of an index are distrusted. From the header to
 * the blobs, each check may rely on those before it; what holds afterwards the
 * invariants in index.c say.
 *
 * Invariants:
 *  1. Nothing is read outside [p, p + len): the header's numbers are bounded
 *     before the sections are laid out, and these compared with len before one
 *     of them is looked at.
 *  2. Nothing is allocated, and time is linear in len.
 *  3. A sentence has no bytes of the index in it but numbers.
 */
#include "image/index_check.h"

#include "image/frame.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static const char *const blob_names[] = {
	[INDEX_BLOB_MANIFEST] = "manifest",
	[INDEX_BLOB_STATE] = "state",
	[INDEX_BLOB_OVERLAY] = "overlay",
};
static_assert(nitems(blob_names) == INDEX_BLOB_COUNT, "a blob has no name");

const char *index_blob_name(enum index_blob_kind b)
{
	must((unsigned)b < INDEX_BLOB_COUNT);
	return blob_names[b];
}

static bool index_is_zero(const uint8_t *p, size_t len)
{
	uint8_t any = 0;

	for (size_t i = 0; i < len; i++)
		any |= p[i];
	return !any;
}

/* "im", hex digits, zeros to the end. */
static bool index_id_ok(const char *id)
{
	size_t n = strnlen(id, INDEX_ID_MAX), i;

	if (n < 3 || n == INDEX_ID_MAX || id[0] != 'i' || id[1] != 'm')
		return false;
	for (i = 2; i < n; i++)
		if ((id[i] < '0' || id[i] > '9') &&
		    (id[i] < 'a' || id[i] > 'f'))
			return false;
	return index_is_zero((const uint8_t *)id + n, INDEX_ID_MAX - n);
}

static int index_check_head(const struct index *x, struct err *e)
{
	const struct index_header *h = x->head;

	if (x->len < sizeof(*h) || h->magic != INDEX_MAGIC)
		return err_set(e, EBADMSG, "header: not an index");
	if (h->version != INDEX_VERSION)
		return err_set(e, EINVAL,
			       "header: version %u, this program knows %u",
			       h->version, INDEX_VERSION);
	if (h->bytes != x->len)
		return err_set(e, EBADMSG,
			       "header: %zu bytes, it says %" PRIu64, x->len,
			       h->bytes);
	if (!h->sources || h->sources > INDEX_SOURCES_MAX)
		return err_set(e, EBADMSG, "header: %u sources", h->sources);
	if (!index_id_ok(h->id))
		return err_set(e, EBADMSG, "header: not an id");
	if (!index_is_zero(h->zero, sizeof(h->zero)))
		return err_set(e, EBADMSG, "header: not zero behind its end");
	for (unsigned l = 0; l < INDEX_LAYER_COUNT; l++)
		if (h->layer_bytes[l] % INDEX_PAGE ||
		    h->layer_bytes[l] / INDEX_PAGE > BITMAP_PAGES_MAX)
			return err_set(e, EBADMSG,
				       "header: %" PRIu64 " bytes of %s",
				       h->layer_bytes[l], index_layer_name(l));
	if (!h->layer_bytes[INDEX_MEMORY])
		return err_set(e, EBADMSG, "header: no memory");
	return 0;
}

static int index_check_sources(const struct index *x, struct err *e)
{
	const struct index_source *s = x->sources;

	for (uint32_t i = 0; i < x->head->sources; i++) {
		if (!index_id_ok(s[i].id))
			return err_set(e, EBADMSG, "source %u: not an id", i);
		if (s[i].pack_bytes > INT64_MAX)
			return err_set(e, EBADMSG, "source %u: too long", i);
	}
	if (memcmp(s[0].id, x->head->id, INDEX_ID_MAX) != 0)
		return err_set(e, EBADMSG, "source 0: another image's");
	return 0;
}

/* @b is a view, whose bytes are padded to whole words. */
static bool index_bits_ok(const struct bitmap *b)
{
	uint64_t n = bitmap_bytes(b->n), end = index_align(n);

	if (b->n % 8 && b->bits[n - 1] >> (b->n % 8))
		return false;
	return index_is_zero(b->bits + n, (size_t)(end - n));
}

static bool index_disjoint(const struct bitmap *a, const struct bitmap *b)
{
	uint64_t n = index_align(bitmap_bytes(a->n)), i, u, v, any = 0;

	for (i = 0; i < n; i += sizeof(u)) {
		memcpy(&u, a->bits + i, sizeof(u));
		memcpy(&v, b->bits + i, sizeof(v));
		any |= u & v;
	}
	return !any;
}

/* The bits of one chunk. */
static struct bitmap index_chunk_bits(const struct bitmap *b, uint64_t chunk)
{
	uint64_t first = chunk * INDEX_CHUNK_PAGES;

	return (struct bitmap){ .bits = b->bits + first / 8,
				.n = min(b->n - first,
					 (uint64_t)INDEX_CHUNK_PAGES) };
}

static int index_check_frame(const struct index *x, enum index_layer l,
			     uint32_t i, uint64_t pages, struct err *e)
{
	static const struct index_frame none;
	const struct index_frame *f = &x->map[l].frames[i];
	const char *why = NULL;
	uint64_t pack;

	if (f->pages != pages)
		why = "pages differ from the maps";
	else if (!pages)
		why = memcmp(f, &none, sizeof(none)) ? "not zero" : NULL;
	else if (f->source >= x->head->sources)
		why = "no such source";
	else if (!f->stored || f->stored > FRAME_STORED_MAX)
		why = "length out of range";
	if (!why && pages) {
		pack = x->sources[f->source].pack_bytes;
		if (f->offset > pack || f->stored > pack - f->offset)
			why = "outside its pack";
	}
	if (why)
		return err_set(e, EBADMSG, "%s: frame %u: %s",
			       index_layer_name(l), i, why);
	return 0;
}

static int index_check_layer(struct index *x, enum index_layer l, struct err *e)
{
	struct index_map *m = &x->map[l];
	struct bitmap zero, hot;
	uint64_t n_hot, n_cold;
	int r;

	if (!index_bits_ok(&m->zeromap) || !index_bits_ok(&m->hotmap))
		return err_set(e, EBADMSG,
			       "%s: maps: bits set behind the last page",
			       index_layer_name(l));
	if (!index_disjoint(&m->zeromap, &m->hotmap))
		return err_set(e, EBADMSG, "%s: maps: a page is zero and hot",
			       index_layer_name(l));
	for (uint32_t i = 0; i < m->n_frames; i += 2) {
		zero = index_chunk_bits(&m->zeromap, i / 2);
		hot = index_chunk_bits(&m->hotmap, i / 2);
		n_hot = bitmap_count(&hot);
		n_cold = zero.n - bitmap_count(&zero) - n_hot;
		r = index_check_frame(x, l, i, n_hot, e);
		if (r < 0)
			return r;
		r = index_check_frame(x, l, i + 1, n_cold, e);
		if (r < 0)
			return r;
		m->hot_pages += n_hot;
		m->data_pages += n_hot + n_cold;
	}
	return 0;
}

static int index_check_blobs(struct index *x, uint64_t pos, struct err *e)
{
	const struct index_blob *b = x->blobs;
	uint64_t end;

	for (unsigned i = 0; i < INDEX_BLOB_COUNT; i++) {
		end = pos + index_align(b[i].stored);
		if (b[i].bytes > INDEX_BLOB_MAX || end > x->len)
			return err_set(e, EBADMSG, "%s: too long",
				       blob_names[i]);
		if (!index_is_zero(x->p + pos + b[i].stored,
				   (size_t)(end - pos - b[i].stored)))
			return err_set(e, EBADMSG, "%s: not zero behind it",
				       blob_names[i]);
		x->blob[i] = x->p + pos;
		pos = end;
	}
	if (pos != x->len)
		return err_set(e, EBADMSG, "blobs: bytes behind the last");
	return 0;
}

static struct bitmap index_view(const struct index *x, uint64_t offset,
				enum index_layer l)
{
	return (struct bitmap){ .bits = x->p + offset,
				.n = x->head->layer_bytes[l] / INDEX_PAGE };
}

static void index_find(struct index *x, const struct index_layout *a)
{
	uint64_t pages;

	x->sources = (const struct index_source *)(x->p + a->sources);
	for (unsigned l = 0; l < INDEX_LAYER_COUNT; l++) {
		pages = x->head->layer_bytes[l] / INDEX_PAGE;
		x->map[l].frames =
			(const struct index_frame *)(x->p + a->frames[l]);
		x->map[l].n_frames =
			(uint32_t)((pages + INDEX_CHUNK_PAGES - 1) /
				   INDEX_CHUNK_PAGES * 2);
		x->map[l].zeromap = index_view(x, a->zeromap[l], l);
		x->map[l].hotmap = index_view(x, a->hotmap[l], l);
	}
	x->workingset = index_view(x, a->workingset, INDEX_MEMORY);
	x->blobs = (const struct index_blob *)(x->p + a->blobs);
}

int index_check(struct index *x, struct err *e)
{
	struct index_layout a;
	int r;

	must((uintptr_t)x->p % sizeof(uint64_t) == 0);
	x->head = (const struct index_header *)x->p;
	r = index_check_head(x, e);
	if (r < 0)
		return r;
	a = index_layout(x->head->sources, x->head->layer_bytes);
	if (a.data > x->len)
		return err_set(e, EBADMSG,
			       "header: %zu bytes, its layers need more",
			       x->len);
	index_find(x, &a);
	r = index_check_sources(x, e);
	for (unsigned l = 0; r == 0 && l < INDEX_LAYER_COUNT; l++)
		r = index_check_layer(x, l, e);
	if (r < 0)
		return r;
	if (!index_bits_ok(&x->workingset))
		return err_set(e, EBADMSG,
			       "working set: bits set behind the last page");
	return index_check_blobs(x, a.data, e);
}
