/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The digests of memory, chunk by chunk
 *
 * A guest's memory is mostly zero, and hashing gigabytes of zeros takes longer
 * than everything else about an image. So a chunk's digest is that of
 *
 *	used    one bit per page of the chunk, 1: not zero (128 bytes)
 *	pages   the used pages, in order, 4096 bytes each
 *
 * It depends on the content alone: a page counts as zero when its bytes are,
 * whether the file has a hole there or not. No two contents share an input,
 * since the bits say where each page belongs and what is missing is zero. A
 * chunk without used pages has always the same digest. The last chunk may be
 * short; pages behind the end of memory count as zero, and how much memory
 * there is the manifest says.
 *
 * Reading finds holes by SEEK_DATA and costs what the data cost: reading,
 * hashing, and a look at each page until its first byte that is not zero. The
 * kernel is kept from reading ahead: what it finds behind an extent are holes,
 * and pages of zeros in the page cache. Those are memory that nobody needs, and
 * that the ledger has to bill: of 62 MiB of data 105 became. Nor can they be
 * dropped afterwards, being parts of larger pieces that hold data as well. It
 * makes a cold read slower by a third; each extent is asked for in one go.
 *
 * Invariants of the reader:
 *  1. pos is the start of the next chunk.
 *  2. [data, data_end) is the first data extent that does not end before pos;
 *     it is asked for again only behind data_end. data == bytes: no more.
 */
#include "image/chunk.h"

#include "base/digest.h"
#include "base/guard.h"
#include "base/io.h"
#include "image/bitmap.h"
#include "image/image.h"
#include "image/zero.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#define CHUNK_PAGES (IMAGE_CHUNK / IMAGE_PAGE)

struct chunk_reader {
	int fd; /* borrowed */
	uint64_t bytes;
	const struct bitmap *zeromap; /* borrowed; may be NULL */
	uint64_t pos;
	uint64_t data, data_end;
	struct bitmap used;
	uint8_t *buf; /* one chunk; holes have no meaning */
};

#define CHUNK_READER_NULL                     \
	{                                     \
		.fd = -1, .used = BITMAP_NULL \
	}

static_assert(CHUNK_LINE == DIGEST_HEX, "a newline for the terminator");

static uint64_t chunk_count(uint64_t memory_bytes)
{
	return (memory_bytes + IMAGE_CHUNK - 1) / IMAGE_CHUNK;
}

size_t chunk_list_bytes(uint64_t memory_bytes)
{
	return (size_t)(chunk_count(memory_bytes) * CHUNK_LINE);
}

static void chunk_reader_deinit(struct chunk_reader *c)
{
	if (c->fd >= 0)
		posix_fadvise(c->fd, 0, 0, POSIX_FADV_NORMAL);
	bitmap_deinit(&c->used);
	free(c->buf);
	c->buf = NULL;
}

/* -ENOMEM only. */
static int chunk_reader_init(struct chunk_reader *c, int fd, uint64_t bytes,
			     const struct bitmap *zeromap)
{
	must(bytes % IMAGE_PAGE == 0);
	must(!zeromap || zeromap->n == bytes / IMAGE_PAGE);
	c->fd = fd;
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	c->bytes = bytes;
	c->zeromap = zeromap;
	c->buf = malloc(IMAGE_CHUNK);
	if (!c->buf)
		return -ENOMEM;
	return bitmap_init(&c->used, CHUNK_PAGES);
}

/* The digest of what was read. */
static int chunk_digest(const struct chunk_reader *c, char hex[DIGEST_HEX],
			struct err *e)
{
	struct digest *d = NULL;
	uint64_t i, run;
	int r;

	r = digest_new(&d);
	if (r < 0)
		return err_errno(e, -r, "memory: digest");
	digest_add(d, c->used.bits, bitmap_bytes(c->used.n));
	for (i = 0; i < c->used.n; i += run) {
		run = bitmap_run(&c->used, i);
		if (bitmap_get(&c->used, i))
			digest_add(d, c->buf + i * IMAGE_PAGE,
				   run * IMAGE_PAGE);
	}
	digest_end(d, hex);
	digest_free(d);
	return 0;
}

/* Read [@start, @end) of the chunk at pos, and mark the pages in use. */
static int chunk_read(struct chunk_reader *c, uint64_t start, uint64_t end,
		      struct err *e)
{
	uint64_t i = (start - c->pos) / IMAGE_PAGE, len = end - start;
	ssize_t n;

	n = io_pread_full(c->fd, c->buf + (start - c->pos), len, start);
	if (n < 0)
		return err_errno(e, (int)-n, "memory: read at %" PRIu64, start);
	if ((uint64_t)n < len)
		return err_set(e, EBADMSG,
			       "memory: ends at %" PRIu64 " while read",
			       start + (uint64_t)n);
	for (; start < end; start += IMAGE_PAGE, i++) {
		if (zero_page(c->buf + i * IMAGE_PAGE))
			continue;
		bitmap_set(&c->used, i);
		if (c->zeromap && bitmap_get(c->zeromap, start / IMAGE_PAGE))
			return err_set(e, EBADMSG,
				       "zeromap: calls the page at %" PRIu64
				       " zero, which it is not",
				       start);
	}
	return 0;
}

static int chunk_reader_next(struct chunk_reader *c, char hex[DIGEST_HEX],
			     struct err *e)
{
	uint64_t end = min(c->pos + IMAGE_CHUNK, c->bytes), start = c->pos;
	int r;

	must(c->pos < c->bytes);
	memset(c->used.bits, 0, bitmap_bytes(c->used.n));
	while (start < end) {
		if (c->data_end <= start) {
			r = zero_next_data(c->fd, start, c->bytes, &c->data,
					   &c->data_end, e);
			if (r < 0) {
				err_prefix(e, "memory");
				return r;
			}
		}
		start = max(start, c->data);
		if (start >= end)
			break;
		r = chunk_read(c, start, min(end, c->data_end), e);
		if (r < 0)
			return r;
		start = min(end, c->data_end);
	}
	r = chunk_digest(c, hex, e);
	if (r < 0)
		return r;
	c->pos = end;
	return 0;
}

int chunk_list_make(int fd, uint64_t bytes, const struct bitmap *zeromap,
		    char **ret, struct err *e)
{
	guard(chunk_reader_deinit) struct chunk_reader c = CHUNK_READER_NULL;
	guard_free char *list = malloc(max(chunk_list_bytes(bytes), (size_t)1));
	uint64_t i, n = chunk_count(bytes);
	char hex[DIGEST_HEX];
	int r;

	if (!list)
		return err_errno(e, ENOMEM, "memory: digests");
	r = chunk_reader_init(&c, fd, bytes, zeromap);
	if (r < 0)
		return err_errno(e, -r, "memory: digests");
	for (i = 0; i < n; i++) {
		r = chunk_reader_next(&c, hex, e);
		if (r < 0)
			return r;
		hex[CHUNK_LINE - 1] = '\n';
		memcpy(list + i * CHUNK_LINE, hex, CHUNK_LINE);
	}
	*ret = take(list);
	return 0;
}

int chunk_list_verify(int fd, uint64_t bytes, const char *list, struct err *e)
{
	guard(chunk_reader_deinit) struct chunk_reader c = CHUNK_READER_NULL;
	uint64_t i, n = chunk_count(bytes);
	char hex[DIGEST_HEX];
	int r;

	r = chunk_reader_init(&c, fd, bytes, NULL);
	if (r < 0)
		return err_errno(e, -r, "memory: digests");
	for (i = 0; i < n; i++) {
		r = chunk_reader_next(&c, hex, e);
		if (r < 0)
			return r;
		if (memcmp(list + i * CHUNK_LINE, hex, CHUNK_LINE - 1) != 0)
			return err_set(e, EBADMSG,
				       "memory: chunk at %" PRIu64
				       ": digest differs from the manifest",
				       (uint64_t)(i * IMAGE_CHUNK));
	}
	return 0;
}

int chunk_file_digest(int fd, uint64_t bytes, char hex[DIGEST_HEX],
		      struct err *e)
{
	guard_free char *list = NULL;
	int r;

	if (bytes % IMAGE_PAGE)
		return digest_of_fd(fd, hex, e);
	r = chunk_list_make(fd, bytes, NULL, &list, e);
	if (r < 0)
		return r;
	digest_of(list, chunk_list_bytes(bytes), hex);
	return 0;
}
