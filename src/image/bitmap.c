/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One bit per page: zero maps and working sets
 *
 * The file form is the memory form behind a header:
 *
 *	magic   64 bits, little-endian
 *	pages   64 bits, little-endian
 *	bits    (pages + 7) / 8 bytes; bit 0 of byte 0 is page 0
 *
 * Invariants:
 *  1. Bits behind the last page are clear, in memory and in the file; a file
 *     where they are not is refused. So counting needs no mask, and equal maps
 *     are equal bytes.
 *  2. Nothing is read behind bitmap_bytes(n): a struct bitmap may describe bytes
 *     that somebody else allocated.
 *  3. The number of pages is known before a file is read, from the manifest;
 *     the file's own number only has to agree. Nothing is allocated on a
 *     file's word.
 *
 * Runs are found a 64-bit word at a time: a 2 GiB guest has 8192 words and,
 * freshly baked, a few thousand runs.
 *
 * It is not a compressed map: 64 KiB for 2 GiB, read once per image.
 */
#include "image/bitmap.h"

#include "base/guard.h"
#include "base/io.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

int bitmap_init(struct bitmap *b, uint64_t n)
{
	uint8_t *bits;

	if (n > BITMAP_PAGES_MAX)
		return -E2BIG;
	/* calloc(0) may be NULL, which would look like a deinit. */
	bits = calloc(1, max(bitmap_bytes(n), (uint64_t)1));
	if (!bits)
		return -ENOMEM;
	b->bits = bits;
	b->n = n;
	return 0;
}

void bitmap_deinit(struct bitmap *b)
{
	free(b->bits);
	*b = (struct bitmap)BITMAP_NULL;
}

void bitmap_set_run(struct bitmap *b, uint64_t i, uint64_t len)
{
	must(i <= b->n && len <= b->n - i);
	for (; len && i % 8; i++, len--)
		bitmap_set(b, i);
	memset(b->bits + i / 8, 0xff, len / 8);
	i += len - len % 8;
	for (len %= 8; len; i++, len--)
		bitmap_set(b, i);
}

/* 64 bits from page @i on, which is a multiple of 64; they must exist. */
static uint64_t bitmap_word(const struct bitmap *b, uint64_t i)
{
	uint64_t w;

	memcpy(&w, b->bits + i / 8, sizeof(w));
	return le64toh(w);
}

/* Without the CPU's instruction, which the compiler may not assume, its own
 * table walk is twice as slow as this. */
static unsigned bitmap_word_count(uint64_t w)
{
	w -= (w >> 1) & 0x5555555555555555ull;
	w = (w & 0x3333333333333333ull) + ((w >> 2) & 0x3333333333333333ull);
	w = (w + (w >> 4)) & 0x0f0f0f0f0f0f0f0full;
	return (unsigned)((w * 0x0101010101010101ull) >> 56);
}

uint64_t bitmap_count(const struct bitmap *b)
{
	uint64_t count = 0, i;

	for (i = 0; b->n - i >= 64; i += 64)
		count += bitmap_word_count(bitmap_word(b, i));
	for (; i < b->n; i++)
		count += bitmap_get(b, i);
	return count;
}

uint64_t bitmap_run(const struct bitmap *b, uint64_t i)
{
	uint64_t start = i, flip, diff;
	bool bit;

	must(i < b->n);
	bit = bitmap_get(b, i);
	flip = bit ? UINT64_MAX : 0;
	while (i < b->n) {
		if (i % 64 || b->n - i < 64) {
			if (bitmap_get(b, i) != bit)
				break;
			i++;
			continue;
		}
		diff = bitmap_word(b, i) ^ flip;
		if (diff)
			return i - start + (unsigned)__builtin_ctzll(diff);
		i += 64;
	}
	return i - start;
}

int bitmap_write(const struct bitmap *b, const char *path, struct err *e)
{
	const uint64_t head[2] = { htole64(BITMAP_MAGIC), htole64(b->n) };
	size_t len = BITMAP_HEADER + bitmap_bytes(b->n);
	guard_free uint8_t *p = malloc(len);

	static_assert(sizeof(head) == BITMAP_HEADER, "header");
	if (!p)
		return err_errno(e, ENOMEM, "write %s", path);
	memcpy(p, head, sizeof(head));
	memcpy(p + sizeof(head), b->bits, bitmap_bytes(b->n));
	return io_write_file(path, p, len, 0644, e);
}

static int bitmap_check_size(uint64_t len, uint64_t n, struct err *e)
{
	if (len != BITMAP_HEADER + bitmap_bytes(n))
		return err_set(e, EBADMSG,
			       "%" PRIu64 " bytes, %" PRIu64
			       " pages need %" PRIu64,
			       len, n, BITMAP_HEADER + bitmap_bytes(n));
	return 0;
}

int bitmap_parse(const void *p, size_t len, uint64_t n, struct bitmap *ret,
		 struct err *e)
{
	struct bitmap b = BITMAP_NULL;
	const uint8_t *bits = p;
	uint64_t head[2];
	int r;

	if (n > BITMAP_PAGES_MAX)
		return err_set(e, E2BIG, "%" PRIu64 " pages", n);
	r = bitmap_check_size(len, n, e);
	if (r < 0)
		return r;
	memcpy(head, p, sizeof(head));
	if (le64toh(head[0]) != BITMAP_MAGIC)
		return err_set(e, EBADMSG, "not a bitmap");
	if (le64toh(head[1]) != n)
		return err_set(e, EBADMSG,
			       "made for %" PRIu64 " pages, not %" PRIu64,
			       le64toh(head[1]), n);
	if (n % 8 && bits[len - 1] >> (n % 8))
		return err_set(e, EBADMSG, "bits set behind the last page");
	r = bitmap_init(&b, n);
	if (r < 0)
		return err_errno(e, -r, "%" PRIu64 " pages", n);
	memcpy(b.bits, bits + BITMAP_HEADER, bitmap_bytes(n));
	*ret = b;
	return 0;
}

int bitmap_read_fd(int fd, uint64_t n, struct bitmap *ret, struct err *e)
{
	guard_free uint8_t *p = NULL;
	ssize_t len;
	size_t size;

	if (n > BITMAP_PAGES_MAX)
		return err_set(e, E2BIG, "%" PRIu64 " pages", n);
	/* One byte more, to see that the file ends where it should. */
	size = BITMAP_HEADER + bitmap_bytes(n) + 1;
	p = malloc(size);
	if (!p)
		return err_errno(e, ENOMEM, "read");
	len = io_pread_full(fd, p, size, 0);
	if (len < 0)
		return err_errno(e, (int)-len, "read");
	if ((size_t)len == size)
		return err_set(e, EBADMSG, "more than %zu bytes", size - 1);
	return bitmap_parse(p, (size_t)len, n, ret, e);
}

int bitmap_read(const char *path, uint64_t n, struct bitmap *ret, struct err *e)
{
	guard_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	int r;

	if (fd < 0)
		return err_errno(e, errno, "open %s", path);
	r = bitmap_read_fd(fd, n, ret, e);
	if (r < 0) {
		err_prefix(e, "%s", path);
		return r;
	}
	return 0;
}
