/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames: round trips of every size and compressibility, damage, placing
 */
#include "image/frame.h"

#include "base/digest.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/test.h"
#include "image/index_write.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <zstd.h>

static uint8_t raw[INDEX_CHUNK];
static struct frame_coder *coder;

/* @mask of 0xff does not compress. */
static void fill(uint8_t mask)
{
	uint64_t x = 88172645463325252ull;

	for (size_t i = 0; i < sizeof(raw); i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		raw[i] = (uint8_t)x & mask;
	}
}

static struct index_frame encode(const void *p, uint32_t pages, uint8_t *to)
{
	struct index_frame f = { .pages = (uint16_t)pages };
	const void *stored = NULL;

	check(frame_encode(coder, p, pages, &stored, &f.stored, f.sha256) == 0);
	check(f.stored > 0 && f.stored <= FRAME_STORED_MAX);
	memcpy(to, stored, f.stored);
	return f;
}

static void test_round_trip(uint8_t *stored)
{
	static const uint32_t sizes[] = { 1, 2, 3, 100, 1023, 1024 };
	const void *back = NULL;
	struct index_frame f, g;

	for (unsigned mask = 0; mask < 256; mask = mask * 16 + 15) {
		fill((uint8_t)mask);
		for (size_t i = 0; i < nitems(sizes); i++) {
			f = encode(raw, sizes[i], stored);
			check(frame_decode(coder, &f, stored, &back) == 0);
			check(!memcmp(back, raw, sizes[i] * INDEX_PAGE));
			g = encode(raw, sizes[i], stored);
			check(!memcmp(&f, &g, sizeof(f)));
		}
	}
	/* The last one was of noise. */
	check(f.stored > INDEX_CHUNK);
}

/* Bytes with the right digest that are not the pages. */
static void refuse_forged(const void *p, size_t len, uint32_t pages)
{
	struct index_frame f = { .stored = (uint32_t)len,
				 .pages = (uint16_t)pages };
	char hex[DIGEST_HEX], byte[3] = "";
	const void *back = NULL;

	digest_of(p, len, hex);
	for (unsigned i = 0; i < sizeof(f.sha256); i++) {
		memcpy(byte, hex + 2 * i, 2);
		f.sha256[i] = (uint8_t)strtoul(byte, NULL, 16);
	}
	check(frame_decode(coder, &f, p, &back) == -EBADMSG);
}

static void test_damage(uint8_t *stored)
{
	const void *back = NULL;
	struct index_frame f;
	size_t n;

	fill(0x03);
	f = encode(raw, 10, stored);
	for (size_t i = 0; i < f.stored; i += 97) {
		stored[i] ^= 4;
		check(frame_decode(coder, &f, stored, &back) == -EBADMSG);
		stored[i] ^= 4;
	}
	f.stored--;
	check(frame_decode(coder, &f, stored, &back) == -EBADMSG);
	f.stored++;
	f.pages = 9;
	check(frame_decode(coder, &f, stored, &back) == -EBADMSG);
	f.pages = 11;
	check(frame_decode(coder, &f, stored, &back) == -EBADMSG);
	f.pages = 10;
	check(frame_decode(coder, &f, stored, &back) == 0);
	refuse_forged(stored, f.stored, 9);
	refuse_forged(stored, f.stored, 11);
	refuse_forged(stored, f.stored - 1, 10);
	refuse_forged(stored, 3, 10);
	refuse_forged("no zstd frame at all", 20, 1);
	/* More than it says it is. */
	n = ZSTD_compress(stored, FRAME_STORED_MAX, raw, 20 * INDEX_PAGE, 3);
	refuse_forged(stored, n, 10);
	/* Two frames that are as long together. */
	n = ZSTD_compress(stored, FRAME_STORED_MAX, raw, 5 * INDEX_PAGE, 3);
	n += ZSTD_compress(stored + n, FRAME_STORED_MAX - n, raw,
			   5 * INDEX_PAGE, 3);
	refuse_forged(stored, n, 10);
}

/* Every third page is zero, every second of the others hot; a last chunk of
 * 21 pages. */
#define PAGES (INDEX_CHUNK_PAGES + 21)

static struct index *striped(void **ret)
{
	guard(index_writer_deinit) struct index_writer w = INDEX_WRITER_NULL;
	const uint64_t bytes[INDEX_LAYER_COUNT] = { PAGES * INDEX_PAGE, 0 };
	struct index_frame *f;
	struct index *x = NULL;
	struct err e = ERR_NULL;
	size_t len = 0;

	check(index_writer_init(&w, bytes, NULL) == 0);
	w.source[0].pack_bytes = 1;
	for (uint64_t i = 0; i < PAGES; i++) {
		f = &w.frames[INDEX_MEMORY][i / INDEX_CHUNK_PAGES * 2];
		if (i % 3 == 0) {
			bitmap_set(&w.zeromap[INDEX_MEMORY], i);
			continue;
		}
		if (i % 2)
			bitmap_set(&w.hotmap[INDEX_MEMORY], i);
		f[!(i % 2)].pages++;
		f[!(i % 2)].stored = 1;
	}
	if (index_writer_print(&w, ret, &len, &e) != 0 ||
	    index_parse(*ret, len, &x, &e) != 0) {
		fprintf(stderr, "%s\n", e.msg);
		exit(1);
	}
	return x;
}

struct placer {
	const struct index *x;
	const uint8_t *all; /* what each page should hold */
	uint32_t i;
	int fd;
};

static void *place(void *arg)
{
	const struct placer *p = arg;
	guard_free uint8_t *pages = malloc(INDEX_CHUNK);
	size_t n = 0;

	for (uint64_t page = 0; page < PAGES; page++)
		if (index_frame_of(p->x, INDEX_MEMORY, page) == p->i)
			memcpy(pages + n++ * INDEX_PAGE,
			       p->all + page * INDEX_PAGE, INDEX_PAGE);
	check(n == index_frame(p->x, INDEX_MEMORY, p->i)->pages);
	check(frame_place(p->x, INDEX_MEMORY, p->i, pages, p->fd) == 0);
	return NULL;
}

static void test_place(void)
{
	guard_free uint8_t *all = calloc(PAGES, INDEX_PAGE);
	guard_free uint8_t *got = calloc(PAGES, INDEX_PAGE);
	guard_free void *bytes = NULL;
	guard_fd int fd = memfd_create("layer", MFD_CLOEXEC);
	struct index *x = striped(&bytes);
	struct placer p[4];
	pthread_t thread[4];

	for (uint64_t i = 0; i < PAGES; i++)
		if (i % 3)
			memset(all + i * INDEX_PAGE, (int)(1 + i % 251),
			       INDEX_PAGE);
	check(fd >= 0 && ftruncate(fd, PAGES * INDEX_PAGE) == 0);
	for (uint32_t i = 0; i < 4; i++) {
		p[i] = (struct placer){ .x = x, .all = all, .i = i, .fd = fd };
		check(!pthread_create(&thread[i], NULL, place, &p[i]));
	}
	for (uint32_t i = 0; i < 4; i++)
		check(!pthread_join(thread[i], NULL));
	check(io_pread_full(fd, got, PAGES * INDEX_PAGE, 0) ==
	      (ssize_t)(PAGES * INDEX_PAGE));
	check(!memcmp(all, got, PAGES * INDEX_PAGE));
	/* Zero pages are still holes. */
	check(lseek(fd, 0, SEEK_DATA) == INDEX_PAGE);
	check(lseek(fd, INDEX_PAGE, SEEK_HOLE) == 3 * INDEX_PAGE);
	check(frame_place(x, INDEX_MEMORY, 0, raw, -1) == -EBADF);
	index_free(x);
}

int main(void)
{
	guard_free uint8_t *stored = malloc(FRAME_STORED_MAX);

	check(frame_coder_new(&coder) == 0);
	test_round_trip(stored);
	test_damage(stored);
	test_place();
	check(!frame_coder_free(coder));
	check(!frame_coder_free(NULL));
	return 0;
}
