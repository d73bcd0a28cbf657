/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pages of an image, chunk by chunk: what packing reads
 *
 * A disk may end in the middle of a page; packed, its last page is filled with
 * zeros. The manifest knows the length of the file.
 *
 * Invariants:
 *  1. Only marked pages are read; holes cost nothing.
 *  2. A file that ends early is an error, never zeros.
 */
#include "image/pack_source.h"

#include "base/guard.h"
#include "base/io.h"
#include "image/zero.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* As in zero.c: the share of the system call is lost. */
#define PACK_READ_BYTES (4ull << 20)

struct pack_bits pack_bits_of(const struct bitmap *b, uint32_t chunk)
{
	uint64_t first = (uint64_t)chunk * INDEX_CHUNK_PAGES;
	struct pack_bits ret = { 0 };

	must(first < b->n);
	ret.n = (uint32_t)min(b->n - first, (uint64_t)INDEX_CHUNK_PAGES);
	memcpy(ret.bits, b->bits + first / 8, bitmap_bytes(ret.n));
	return ret;
}

struct pack_bits pack_bits_frame(const struct pack_bits *zero,
				 const struct pack_bits *hot, bool cold)
{
	struct pack_bits b = *hot;

	if (!cold)
		return b;
	for (uint32_t i = 0; i < bitmap_bytes(b.n); i++)
		b.bits[i] = (uint8_t) ~(zero->bits[i] | hot->bits[i]);
	if (b.n % 8)
		b.bits[b.n / 8] &= (uint8_t)((1u << (b.n % 8)) - 1);
	return b;
}

static struct bitmap pack_bits_view(const struct pack_bits *b)
{
	return (struct bitmap){ .bits = (uint8_t *)(uintptr_t)b->bits,
				.n = b->n };
}

uint32_t pack_bits_count(const struct pack_bits *b)
{
	const struct bitmap view = pack_bits_view(b);

	return (uint32_t)bitmap_count(&view);
}

bool pack_bits_same(const struct pack_bits *a, const struct pack_bits *b)
{
	return a->n == b->n && !memcmp(a->bits, b->bits, sizeof(a->bits));
}

/* @len bytes, zeros from @bytes on. */
static int pack_read_at(int fd, uint64_t bytes, uint64_t pos, uint64_t len,
			uint8_t *to, struct err *e)
{
	uint64_t want = min(len, bytes - min(bytes, pos));
	ssize_t n = io_pread_full(fd, to, (size_t)want, pos);

	if (n < 0)
		return err_errno(e, (int)-n, "read at %" PRIu64, pos);
	if ((uint64_t)n < want)
		return err_set(e, EBADMSG, "ends at %" PRIu64 " while read",
			       pos + (uint64_t)n);
	memset(to + want, 0, (size_t)(len - want));
	return 0;
}

int pack_read(int fd, uint64_t bytes, uint32_t chunk, const struct pack_bits *b,
	      uint8_t *to, struct err *e)
{
	const struct bitmap view = pack_bits_view(b);
	uint64_t first = (uint64_t)chunk * INDEX_CHUNK, page, run;
	int r;

	for (page = 0; page < view.n; page += run) {
		run = bitmap_run(&view, page);
		if (!bitmap_get(&view, page))
			continue;
		r = pack_read_at(fd, bytes, first + page * INDEX_PAGE,
				 run * INDEX_PAGE, to, e);
		if (r < 0)
			return r;
		to += run * INDEX_PAGE;
	}
	return 0;
}

static int pack_mark(int fd, uint64_t bytes, uint64_t start, uint64_t end,
		     uint8_t *buf, struct bitmap *map, struct err *e)
{
	uint64_t len, i;
	int r;

	for (; start < end; start += len) {
		len = min(end - start, PACK_READ_BYTES);
		r = pack_read_at(fd, bytes, start, len, buf, e);
		if (r < 0)
			return r;
		for (i = 0; i < len / INDEX_PAGE; i++)
			if (zero_page(buf + i * INDEX_PAGE))
				bitmap_set(map, start / INDEX_PAGE + i);
	}
	return 0;
}

int pack_find_zero(int fd, uint64_t bytes, struct bitmap *map, struct err *e)
{
	guard_free uint8_t *buf = malloc(PACK_READ_BYTES);
	uint64_t pos = 0, whole = map->n * INDEX_PAGE, start, end;
	int r;

	if (!buf)
		return err_errno(e, ENOMEM, "find zeros");
	while (pos < whole) {
		r = zero_next_data(fd, pos, whole, &start, &end, e);
		if (r < 0)
			return r;
		bitmap_set_run(map, pos / INDEX_PAGE,
			       (start - pos) / INDEX_PAGE);
		r = pack_mark(fd, bytes, start, end, buf, map, e);
		if (r < 0)
			return r;
		pos = end;
	}
	return 0;
}
