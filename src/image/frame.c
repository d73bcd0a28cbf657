/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A frame: up to 1024 pages of one chunk, compressed and digested together
 *
 * The unit of everything that moves: it is fetched, verified, decompressed and
 * put in its place as a whole. A coder is what one thread needs for that: both
 * zstd contexts, a digest context, 4 MiB for pages and as much for stored
 * bytes; the half that a thread does not use is not touched and costs no
 * memory.
 *
 * Invariants:
 *  1. The decompressor sees only bytes whose digest is the index's, and writes
 *     only into the coder. A frame that is not exactly its pages is refused.
 *  2. After frame_coder_new() and the first frame, nothing is allocated.
 *  3. The same pages give the same bytes, with the same release of libzstd:
 *     one thread per frame, no dictionary, no state between frames.
 *  4. Pages are written whole and at page offsets. In a memfd such a page
 *     appears at once: other threads and guests see the hole or the page.
 *
 * The level: a Debian guest with Python, 2 GiB; one thread of a 2-core EPYC
 * with SHA instructions, zstd 1.5.4, best of four runs (others were busy):
 *
 *	         data      level 1           level 3           level 6
 *	hot      29 MiB    2.74  575 1470    3.00  316 1490    3.17  111 1380
 *	cold     77 MiB    7.74 1350 3410    8.26  760 3330    8.67  280 3330
 *	disk    154 MiB    3.39  590 1730    3.84  360 1700    4.14  130 1660
 *	                   ratio, compress, decompress (MB of pages per second)
 *
 * Decompressing costs the same at every level, so the level is paid once, by
 * who packs, and saves bytes on every fetch: 3 takes 9 % off the hot bytes of 1
 * for twice the time, 6 takes another 5 % for three times that. SHA-256 runs at
 * 1.7 GB of stored bytes per second: verifying adds a quarter to decompressing.
 * Both together take 0.6 ms for a hot frame of memory (median; 4 ms for the
 * largest), and 2.9 ms for a chunk of the disk.
 */
/* First: its headers spell __attribute__((unused)), see must.h. */
#include <openssl/evp.h>

#include "image/frame.h"

#include "base/guard.h"
#include "base/io.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <zstd.h>

#define FRAME_SHA256 32u

struct frame_coder {
	EVP_MD *sha256;
	EVP_MD_CTX *digest;
	ZSTD_CCtx *compress;
	ZSTD_DCtx *decompress;
	uint8_t *pages; /* INDEX_CHUNK */
	uint8_t *stored; /* FRAME_STORED_MAX */
};

static_assert(ZSTD_COMPRESSBOUND(INDEX_CHUNK) <= FRAME_STORED_MAX,
	      "a frame that does not compress");

static void frame_coder_freep(struct frame_coder **c)
{
	frame_coder_free(*c);
}

int frame_coder_new(struct frame_coder **ret)
{
	guard(frame_coder_freep) struct frame_coder *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	/* Fetched once: EVP_sha256() would be looked up again for each frame. */
	c->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	c->digest = EVP_MD_CTX_new();
	c->compress = ZSTD_createCCtx();
	c->decompress = ZSTD_createDCtx();
	c->pages = malloc(INDEX_CHUNK);
	c->stored = malloc(FRAME_STORED_MAX);
	if (!c->sha256 || !c->digest || !c->compress || !c->decompress ||
	    !c->pages || !c->stored)
		return -ENOMEM;
	*ret = take(c);
	return 0;
}

struct frame_coder *frame_coder_free(struct frame_coder *c)
{
	if (!c)
		return NULL;
	EVP_MD_CTX_free(c->digest);
	EVP_MD_free(c->sha256);
	ZSTD_freeCCtx(c->compress);
	ZSTD_freeDCtx(c->decompress);
	free(c->pages);
	free(c->stored);
	free(c);
	return NULL;
}

static int frame_digest(struct frame_coder *c, const void *p, size_t len,
			uint8_t sha256[FRAME_SHA256])
{
	unsigned n = 0;

	if (EVP_DigestInit_ex2(c->digest, c->sha256, NULL) != 1 ||
	    EVP_DigestUpdate(c->digest, p, len) != 1 ||
	    EVP_DigestFinal_ex(c->digest, sha256, &n) != 1)
		return -ENOMEM;
	must(n == FRAME_SHA256);
	return 0;
}

int frame_encode(struct frame_coder *c, const void *raw, uint32_t pages,
		 const void **ret, uint32_t *ret_stored, uint8_t sha256[32])
{
	size_t n;
	int r;

	must(pages > 0 && pages <= INDEX_CHUNK_PAGES);
	/* The content size goes into the header unless told otherwise. */
	n = ZSTD_compressCCtx(c->compress, c->stored, FRAME_STORED_MAX, raw,
			      (size_t)pages * INDEX_PAGE, FRAME_LEVEL);
	/* The buffer is large enough; what is left is memory. */
	if (ZSTD_isError(n))
		return -ENOMEM;
	r = frame_digest(c, c->stored, n, sha256);
	if (r < 0)
		return r;
	*ret = c->stored;
	*ret_stored = (uint32_t)n;
	return 0;
}

int frame_decode(struct frame_coder *c, const struct index_frame *f,
		 const void *stored, const void **ret)
{
	size_t len = (size_t)f->pages * INDEX_PAGE, n;
	uint8_t sha256[FRAME_SHA256];
	int r;

	must(f->pages > 0 && f->pages <= INDEX_CHUNK_PAGES);
	r = frame_digest(c, stored, f->stored, sha256);
	if (r < 0)
		return r;
	if (memcmp(sha256, f->sha256, FRAME_SHA256) != 0)
		return -EBADMSG;
	if (ZSTD_getFrameContentSize(stored, f->stored) != len)
		return -EBADMSG;
	n = ZSTD_decompressDCtx(c->decompress, c->pages, len, stored,
				f->stored);
	if (n != len)
		return -EBADMSG;
	*ret = c->pages;
	return 0;
}

/* The pages of frame @i in its chunk. */
static uint64_t frame_pages(const struct index *x, enum index_layer l,
			    uint32_t i, uint8_t bits[INDEX_CHUNK_PAGES / 8])
{
	const struct bitmap zero = index_zeromap(x, l),
			    hot = index_hotmap(x, l);
	uint64_t first = (uint64_t)(i / 2) * INDEX_CHUNK_PAGES, n, b;

	n = min(zero.n - first, (uint64_t)INDEX_CHUNK_PAGES);
	for (b = 0; b < bitmap_bytes(n); b++) {
		bits[b] = hot.bits[first / 8 + b];
		if (i % 2)
			bits[b] =
				(uint8_t) ~(bits[b] | zero.bits[first / 8 + b]);
	}
	return n;
}

int frame_place(const struct index *x, enum index_layer l, uint32_t i,
		const void *raw, int fd)
{
	uint64_t first = (uint64_t)(i / 2) * INDEX_CHUNK_PAGES, page, run;
	uint8_t bits[INDEX_CHUNK_PAGES / 8];
	const struct bitmap b = { .bits = bits,
				  .n = frame_pages(x, l, i, bits) };
	const uint8_t *p = raw;
	int r;

	for (page = 0; page < b.n; page += run) {
		run = bitmap_run(&b, page);
		if (!bitmap_get(&b, page))
			continue;
		r = io_pwrite_full(fd, p, run * INDEX_PAGE,
				   (first + page) * INDEX_PAGE);
		if (r < 0)
			return r;
		p += run * INDEX_PAGE;
	}
	return 0;
}
