/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Images for tests of the pager: made, sealed, packed, registered
 *
 * A test includes base/test.h first or with this. Memory and disk are what
 * sample_page() says; the small files are a few words.
 */
#include "base/err.h"
#include "base/fdpass.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/test.h"
#include "image/image.h"
#include "image/index.h"
#include "image/pack.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define SAMPLE_STORE "sample"
#define SAMPLE_HEX \
	"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

static inline void sample_ok(int r, const struct err *e)
{
	if (r >= 0)
		return;
	fprintf(stderr, "%s\n", e->msg);
	exit(1);
}

/* Page @i: zero in runs of 1 to 40 and in one whole chunk, else words that
 * compress somewhat. */
static inline void sample_page(uint64_t i, uint32_t salt, uint32_t *p)
{
	uint32_t x = (uint32_t)i * 2654435761u + salt;

	memset(p, 0, INDEX_PAGE);
	if (i / INDEX_CHUNK_PAGES == 2 || (i / 40) % 5 == 1 || i % 7 == 3)
		return;
	for (unsigned k = 0; k < INDEX_PAGE / sizeof(*p); k++) {
		x = x * 1664525 + 1013904223;
		p[k] = k % 3 ? x >> 8 : (uint32_t)i;
	}
}

static inline char *sample_file(const char *dir, const char *name)
{
	char *path = io_path("%s/%s", dir, name);

	check(path);
	return path;
}

static inline void sample_fill(const char *dir, const char *name,
			       uint64_t bytes, uint32_t salt)
{
	guard_free char *path = sample_file(dir, name);
	guard_fd int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	uint32_t page[INDEX_PAGE / 4];

	check(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
	for (uint64_t i = 0; i < bytes / INDEX_PAGE; i++) {
		sample_page(i, salt, page);
		if (page[1])
			check(io_pwrite_full(fd, page, INDEX_PAGE,
					     i * INDEX_PAGE) == 0);
	}
}

static inline void sample_maps(const char *dir, uint64_t bytes)
{
	guard_free char *memory = sample_file(dir, "memory");
	guard_free char *zero = sample_file(dir, "zeromap");
	guard_free char *hot = sample_file(dir, "workingset");
	guard_fd int fd = open(memory, O_RDWR | O_CLOEXEC);
	guard(bitmap_deinit) struct bitmap z = BITMAP_NULL, h = BITMAP_NULL;
	struct err e = ERR_NULL;

	check(fd >= 0);
	sample_ok(image_find_zero(fd, bytes, &z, &e), &e);
	sample_ok(bitmap_write(&z, zero, &e), &e);
	check(bitmap_init(&h, z.n) == 0);
	for (uint64_t i = 0; i < z.n; i++)
		if (!bitmap_get(&z, i) && i % 11 < 3)
			bitmap_set(&h, i);
	sample_ok(bitmap_write(&h, hot, &e), &e);
}

/* A whole image in the fresh directory @dir. */
static inline void sample_image(const char *dir, uint64_t memory_bytes,
				uint64_t disk_bytes)
{
	struct image_manifest m = { .name = "sample",
				    .created = "2024-05-01T12:34:56Z",
				    .driver = "qemu",
				    .version = "7.2.9",
				    .accel = "tcg",
				    .kernel_sha256 = SAMPLE_HEX,
				    .rootfs_sha256 = SAMPLE_HEX,
				    .memory_bytes = memory_bytes,
				    .vcpus = 1 };
	guard_free char *state = sample_file(dir, "state");
	guard_free char *overlay = sample_file(dir, "overlay");
	struct err e = ERR_NULL;

	sample_ok(io_mkdirs(dir, 0700, &e), &e);
	sample_fill(dir, "memory", memory_bytes, 1);
	sample_fill(dir, "disk", disk_bytes, 2);
	sample_ok(io_write_file(state, "state", 5, 0600, &e), &e);
	sample_ok(io_write_file(overlay, "overlay", 7, 0600, &e), &e);
	sample_maps(dir, memory_bytes);
	sample_ok(image_seal(dir, &m, &e), &e);
}

static inline void sample_unrefp(struct image **i)
{
	image_unref(*i);
}

static inline void sample_indexp(struct index **x)
{
	index_free(*x);
}

/* The image in @dir into the store that is the directory @store, and from its
 * index into @remote, as if it had been pulled. */
static inline void sample_push(const char *dir, const char *store,
			       const char *remote)
{
	guard_free char *tmp = sample_file(store, "new");
	guard_free char *index = sample_file(tmp, IMAGE_INDEX_NAME);
	guard_free char *images = sample_file(store, "images");
	guard_free char *place = NULL;
	guard(sample_unrefp) struct image *i = NULL;
	guard(sample_indexp) struct index *x = NULL;
	guard_fd int fd = -1;
	struct err e = ERR_NULL;
	uint64_t shared = 0;

	sample_ok(io_mkdirs(tmp, 0700, &e), &e);
	sample_ok(io_mkdirs(images, 0700, &e), &e);
	sample_ok(io_mkdirs(remote, 0700, &e), &e);
	sample_ok(image_open(dir, &i, &e), &e);
	sample_ok(pack_make(i, NULL, tmp, NULL, NULL, &shared, &e), &e);
	fd = open(index, O_RDONLY | O_CLOEXEC);
	check(fd >= 0);
	sample_ok(index_open(fd, &x, &e), &e);
	sample_ok(pack_register(x, fd, SAMPLE_STORE, remote, &e), &e);
	place = sample_file(images, index_id(x));
	check(rename(tmp, place) == 0);
}

/* One bit of the first frame of @part is not what the index says. */
static inline void sample_spoil_part(int index_fd, const char *store,
				     enum index_layer part)
{
	guard_free char *pack = NULL;
	const struct index_frame *f;
	struct index *x = NULL;
	struct err e = ERR_NULL;
	guard_fd int fd = -1;
	uint32_t i = 0;
	uint8_t byte;

	sample_ok(index_open(index_fd, &x, &e), &e);
	while (!index_frame(x, part, i)->pages)
		i++;
	f = index_frame(x, part, i);
	pack = io_path("%s/images/%s/pack", store, index_id(x));
	fd = open(pack, O_RDWR | O_CLOEXEC);
	check(fd >= 0 && io_pread_full(fd, &byte, 1, f->offset + 20) == 1);
	byte ^= 1;
	check(io_pwrite_full(fd, &byte, 1, f->offset + 20) == 0);
	index_free(x);
}

static inline void sample_spoil(int index_fd, const char *store)
{
	sample_spoil_part(index_fd, store, INDEX_MEMORY);
}

/* One packet, with @n fds. */
static inline void sample_send(int sock, const void *p, size_t len,
			       const int *fds, size_t n)
{
	check(fdpass_send(sock, p, len, fds, n, 0) == (ssize_t)len);
}
