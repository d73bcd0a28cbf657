/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index: an image as it is stored, without its bytes
 *
 * A file that is mapped and used as it is. Opening looks at every number in it
 * once; afterwards the frame of a page is one look at each of two bitmaps, and
 * nothing in it needs to be distrusted again.
 *
 *	header, sources                     128 + 48 n
 *	memory: frames, zero map, hot map   96 per chunk, 2 bits per page
 *	disk: the same
 *	working set                         1 bit per page of memory
 *	blobs                               manifest, state, overlay
 *
 * For 2 GiB of memory and a disk of 4 GiB that is 550 KB, checked in a
 * millisecond; 12 MiB for 64 GiB of memory.
 *
 * Invariants, of an index that is open:
 *  1. The sections are where index_layout() says, and end where the file ends.
 *     No offset of a section is read from the file, so none can be wrong.
 *  2. A page is zero, hot, or neither; never zero and hot. Bits and bytes that
 *     mean nothing are zero: the same image is the same bytes.
 *  3. A frame has as many pages as its chunk's maps say. With none it is all
 *     zeros; else it lies within the pack of a source that is listed, and is
 *     no longer than FRAME_STORED_MAX.
 *  4. Strings end, and consist of what is safe in a path and a sentence.
 *  5. It is constant; any number of threads may use it.
 *
 * What a frame holds is not known before it was fetched: frame_decode() asks
 * the digest. Two frames may share bytes of a pack; that harms nobody.
 *
 * A file that is cut while it is mapped is a SIGBUS: who can write into the
 * directory of images can do worse.
 */
#include "image/index.h"

#include "base/digest.h"
#include "base/guard.h"
#include "image/index_check.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <zstd.h>

static const char *const layer_names[] = {
	[INDEX_MEMORY] = "memory",
	[INDEX_DISK] = "disk",
};
static_assert(nitems(layer_names) == INDEX_LAYER_COUNT, "a layer has no name");

const char *index_layer_name(enum index_layer l)
{
	must((unsigned)l < INDEX_LAYER_COUNT);
	return layer_names[l];
}

static void index_freep(struct index **x)
{
	index_free(*x);
}

/* ---- open and close ---- */

/* Takes the mapping over, if it is one. */
static int index_new(uint8_t *p, size_t len, bool mapped, struct index **ret,
		     struct err *e)
{
	guard(index_freep) struct index *x = calloc(1, sizeof(*x));
	int r;

	if (!x) {
		if (mapped)
			munmap(p, len);
		return err_errno(e, ENOMEM, "index");
	}
	x->p = p;
	x->len = len;
	x->mapped = mapped;
	r = index_check(x, e);
	if (r == 0 && mapped)
		r = index_verify(x, e);
	if (r < 0) {
		err_prefix(e, "index");
		return r;
	}
	*ret = take(x);
	return 0;
}

int index_open(int fd, struct index **ret, struct err *e)
{
	struct stat st = { 0 };
	size_t len;
	void *p;

	if (fstat(fd, &st) < 0)
		return err_errno(e, errno, "index: stat");
	if ((uint64_t)st.st_size < sizeof(struct index_header) ||
	    (uint64_t)st.st_size > INDEX_BYTES_MAX)
		return err_set(e, EBADMSG, "index: %" PRIu64 " bytes",
			       (uint64_t)st.st_size);
	len = (size_t)st.st_size;
	p = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return err_errno(e, errno, "index: map");
	return index_new(p, len, true, ret, e);
}

int index_parse(const void *p, size_t len, struct index **ret, struct err *e)
{
	if (len > INDEX_BYTES_MAX)
		return err_set(e, EBADMSG, "index: %zu bytes", len);
	/* Views are of a type that can be written to; nobody does. */
	return index_new((uint8_t *)(uintptr_t)p, len, false, ret, e);
}

struct index *index_free(struct index *x)
{
	if (!x)
		return NULL;
	if (x->mapped)
		munmap(x->p, x->len);
	free(x);
	return NULL;
}

int index_make_id(const void *p, size_t len, char ret[INDEX_ID_MAX])
{
	struct {
		struct index_header head;
		struct index_source own;
	} first;
	char hex[DIGEST_HEX];
	struct digest *d;
	int r;

	static_assert(sizeof(first) == sizeof(first.head) + sizeof(first.own),
		      "the first source follows the header");
	must(len >= sizeof(first));
	memcpy(&first, p, sizeof(first));
	memset(first.head.id, 0, INDEX_ID_MAX);
	memset(first.own.id, 0, INDEX_ID_MAX);
	r = digest_new(&d);
	if (r < 0)
		return r;
	digest_add(d, &first, sizeof(first));
	digest_add(d, (const uint8_t *)p + sizeof(first), len - sizeof(first));
	digest_end(d, hex);
	digest_free(d);
	memset(ret, 0, INDEX_ID_MAX);
	memcpy(ret, "im", 2);
	memcpy(ret + 2, hex, 32);
	return 0;
}

int index_verify(const struct index *x, struct err *e)
{
	char id[INDEX_ID_MAX];
	int r = index_make_id(x->p, x->len, id);

	if (r < 0)
		return err_errno(e, -r, "digest");
	if (strcmp(id, x->head->id) != 0)
		return err_set(e, EBADMSG,
			       "its content is that of %s, not of %s", id,
			       x->head->id);
	return 0;
}

/* ---- what it says ---- */

const char *index_id(const struct index *x)
{
	return x->head->id;
}

uint64_t index_bytes(const struct index *x)
{
	return x->len;
}

uint32_t index_sources(const struct index *x)
{
	return x->head->sources;
}

const struct index_source *index_source(const struct index *x, uint32_t i)
{
	must(i < x->head->sources);
	return &x->sources[i];
}

uint64_t index_layer_bytes(const struct index *x, enum index_layer l)
{
	must((unsigned)l < INDEX_LAYER_COUNT);
	return x->head->layer_bytes[l];
}

uint32_t index_frames(const struct index *x, enum index_layer l)
{
	must((unsigned)l < INDEX_LAYER_COUNT);
	return x->map[l].n_frames;
}

const struct index_frame *index_frame(const struct index *x, enum index_layer l,
				      uint32_t i)
{
	must((unsigned)l < INDEX_LAYER_COUNT && i < x->map[l].n_frames);
	return &x->map[l].frames[i];
}

struct bitmap index_zeromap(const struct index *x, enum index_layer l)
{
	must((unsigned)l < INDEX_LAYER_COUNT);
	return x->map[l].zeromap;
}

struct bitmap index_hotmap(const struct index *x, enum index_layer l)
{
	must((unsigned)l < INDEX_LAYER_COUNT);
	return x->map[l].hotmap;
}

struct bitmap index_workingset(const struct index *x)
{
	return x->workingset;
}

uint32_t index_frame_of(const struct index *x, enum index_layer l,
			uint64_t page)
{
	const struct index_map *m = &x->map[l];

	must((unsigned)l < INDEX_LAYER_COUNT && page < m->zeromap.n);
	if (bitmap_get(&m->zeromap, page))
		return UINT32_MAX;
	return (uint32_t)(page / INDEX_CHUNK_PAGES * 2) +
	       !bitmap_get(&m->hotmap, page);
}

bool index_in_frame(const struct index *x, enum index_layer l, uint32_t i,
		    uint64_t page)
{
	return index_frame_of(x, l, page) == i;
}

uint64_t index_data_bytes(const struct index *x, enum index_layer l)
{
	must((unsigned)l < INDEX_LAYER_COUNT);
	return x->map[l].data_pages * INDEX_PAGE;
}

uint64_t index_hot_bytes(const struct index *x, enum index_layer l)
{
	must((unsigned)l < INDEX_LAYER_COUNT);
	return x->map[l].hot_pages * INDEX_PAGE;
}

int index_blob(const struct index *x, enum index_blob_kind b, char **ret,
	       size_t *ret_len, struct err *e)
{
	guard_free char *p = NULL;
	size_t len, n, stored;

	must((unsigned)b < INDEX_BLOB_COUNT);
	len = x->blobs[b].bytes;
	stored = x->blobs[b].stored;
	if (ZSTD_getFrameContentSize(x->blob[b], stored) != len)
		return err_set(e, EBADMSG, "index: %s: not %zu bytes",
			       index_blob_name(b), len);
	p = malloc(len + 1);
	if (!p)
		return err_errno(e, ENOMEM, "index: %s", index_blob_name(b));
	n = ZSTD_decompress(p, len, x->blob[b], stored);
	if (n != len)
		return err_set(e, EBADMSG, "index: %s: %s", index_blob_name(b),
			       ZSTD_isError(n) ? ZSTD_getErrorName(n)
					       : "too short");
	p[len] = '\0';
	*ret = take(p);
	*ret_len = len;
	return 0;
}
