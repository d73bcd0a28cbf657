/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre image verify: is every byte what it should be?
 *
 * Reads all that is here, whatever was verified before, and goes on behind a
 * damage: the point is to know all of it. A line per part; what is somewhere
 * else (a store, the pack of a parent) is said to be so, and is no damage.
 *
 * memory    chunk by chunk against memory.digests, that against the manifest
 * others    as a whole, against the manifest
 * index     its own id and structure
 * pack      frame by frame, those of the own pack
 *
 * What is in a store is image_store.c's.
 */
#include "cmd/image.h"

#include "cmd/opt.h"
#include "base/digest.h"
#include "base/guard.h"
#include "base/io.h"
#include "image/chunk.h"
#include "image/frame.h"
#include "image/index.h"
#include "image/pack.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct image_verify {
	const char *store;
	struct image_at at;
	uint64_t damaged;
};

static const struct opt image_verify_opts[] = {
	{ 0, "store", "STORE", "verify template NAME of a store instead",
	  OPT_TEXT(struct image_verify, store) },
	OPT_END,
};

printf_like(3, 4) static void verify_bad(struct image_verify *v,
					 const char *part, const char *fmt, ...)
{
	char msg[ERR_MSG_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	printf("%-12s damaged: %s\n", part, msg);
	v->damaged++;
}

printf_like(2, 3) static void verify_good(const char *part, const char *fmt,
					  ...)
{
	va_list ap;

	printf("%-12s ", part);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

/* An open file of the manifest's length; said when it is not. */
static int verify_open(struct image_verify *v, enum image_file f)
{
	uint64_t want = v->at.manifest.file[f].bytes;
	const char *name = image_file_name(f);
	struct err e = ERR_NULL;
	guard_fd int fd = image_at_file(&v->at, name, &e);
	struct stat st = { 0 };

	if (fd < 0 || fstat(fd, &st) < 0) {
		verify_bad(v, name, "%s", fd < 0 ? e.msg : "stat");
		return -1;
	}
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != want) {
		verify_bad(v, name,
			   "%" PRIu64 " bytes, the manifest says %" PRIu64,
			   (uint64_t)st.st_size, want);
		return -1;
	}
	return fd_take(&fd);
}

static bool verify_digest(const void *p, size_t len, const char *want)
{
	char hex[DIGEST_HEX];

	digest_of(p, len, hex);
	return !strcmp(hex, want);
}

/* Memory is not what the manifest says; memory.digests may know where. */
static void verify_chunks(struct image_verify *v, const char *list, size_t len)
{
	guard_free char *path = io_path("%s/" IMAGE_DIGESTS_NAME, v->at.dir);
	guard_free char *want = NULL;
	struct err e = ERR_NULL;
	size_t n = 0;

	if (!path || io_read_file(path, len, &want, &n, &e) < 0 || n != len ||
	    !verify_digest(want, n, v->at.manifest.file[IMAGE_MEMORY].sha256)) {
		verify_bad(v, "memory",
			   "digest differs from the manifest (and %s does not "
			   "say where)",
			   IMAGE_DIGESTS_NAME);
		return;
	}
	for (size_t i = 0; i < len / CHUNK_LINE; i++)
		if (memcmp(list + i * CHUNK_LINE, want + i * CHUNK_LINE,
			   CHUNK_LINE) != 0)
			verify_bad(v, "memory", "chunk %zu (at %llu)", i,
				   (unsigned long long)i * IMAGE_CHUNK);
}

static void verify_list(struct image_verify *v, const char *list, size_t len)
{
	guard_free char *path = io_path("%s/" IMAGE_DIGESTS_NAME, v->at.dir);
	guard_free char *have = NULL;
	struct err e = ERR_NULL;
	size_t n = 0;

	if (!path || io_read_file(path, len, &have, &n, &e) < 0)
		verify_bad(v, IMAGE_DIGESTS_NAME, "%s", e.msg);
	else if (n != len || memcmp(have, list, len) != 0)
		verify_bad(v, IMAGE_DIGESTS_NAME, "not of this memory");
}

static void verify_memory(struct image_verify *v)
{
	const struct image_manifest *m = &v->at.manifest;
	size_t len = chunk_list_bytes(m->memory_bytes);
	guard_fd int fd = verify_open(v, IMAGE_MEMORY);
	guard_free char *list = NULL;
	struct err e = ERR_NULL;

	if (fd < 0)
		return;
	if (chunk_list_make(fd, m->memory_bytes, NULL, &list, &e) < 0) {
		verify_bad(v, "memory", "%s", e.msg);
		return;
	}
	if (!verify_digest(list, len, m->file[IMAGE_MEMORY].sha256)) {
		verify_chunks(v, list, len);
		return;
	}
	verify_good("memory", "good, %zu chunks", len / CHUNK_LINE);
	verify_list(v, list, len);
}

static void verify_file(struct image_verify *v, enum image_file f)
{
	const struct image_file_info *info = &v->at.manifest.file[f];
	const char *name = image_file_name(f);
	guard_fd int fd = verify_open(v, f);
	struct err e = ERR_NULL;
	char hex[DIGEST_HEX];
	int r;

	if (fd < 0)
		return;
	r = f == IMAGE_DISK ? chunk_file_digest(fd, info->bytes, hex, &e)
			    : digest_of_fd(fd, hex, &e);
	if (r < 0)
		verify_bad(v, name, "%s", e.msg);
	else if (strcmp(hex, info->sha256) != 0)
		verify_bad(v, name, "digest differs from the manifest");
	else
		verify_good(name, "good");
}

static void verify_files(struct image_verify *v)
{
	for (unsigned f = 0; f < IMAGE_FILE_COUNT; f++) {
		if (*v->at.remote && (f == IMAGE_MEMORY || f == IMAGE_DISK))
			verify_good(image_file_name(f), "in store %s",
				    v->at.remote);
		else if (f == IMAGE_MEMORY)
			verify_memory(v);
		else
			verify_file(v, f);
	}
}

/* 0: good; 1: damaged. */
static int verify_frame(struct frame_coder *c, int pack,
			const struct index_frame *f, void *buf)
{
	const void *raw;

	if (io_pread_full(pack, buf, f->stored, f->offset) !=
	    (ssize_t)f->stored)
		return 1;
	return frame_decode(c, f, buf, &raw) < 0;
}

static void verify_frames(struct image_verify *v, struct frame_coder *c,
			  int pack, void *buf)
{
	const struct index *x = v->at.index;
	uint64_t good = 0, elsewhere = 0;
	const struct index_frame *f;

	for (unsigned l = 0; l < INDEX_LAYER_COUNT; l++)
		for (uint32_t i = 0; i < index_frames(x, l); i++) {
			f = index_frame(x, l, i);
			if (!f->pages)
				continue;
			if (f->source)
				elsewhere++;
			else if (verify_frame(c, pack, f, buf))
				verify_bad(v, PACK_NAME,
					   "%s: %s frame of chunk %u (at %llu)",
					   index_layer_name(l),
					   i % 2 ? "cold" : "hot", i / 2,
					   (unsigned long long)(i / 2) *
						   INDEX_CHUNK);
			else
				good++;
		}
	verify_good(PACK_NAME,
		    "%" PRIu64 " frames good, %" PRIu64 " in packs of others",
		    good, elsewhere);
}

static void verify_pack(struct image_verify *v)
{
	struct frame_coder *c = NULL;
	struct err e = ERR_NULL;
	guard_fd int fd = image_at_file(&v->at, PACK_NAME, &e);
	guard_free void *buf = malloc(FRAME_STORED_MAX);

	if (fd < 0)
		verify_bad(v, PACK_NAME, "%s", e.msg);
	else if (!buf || frame_coder_new(&c) < 0)
		verify_bad(v, PACK_NAME, "out of memory");
	else
		verify_frames(v, c, fd, buf);
	frame_coder_free(c);
}

static int verify_all(struct image_verify *v, const struct err *bad_index)
{
	if (bad_index->code)
		verify_bad(v, "index", "%s", bad_index->msg);
	else if (v->at.index)
		verify_good("index", "good, %s", index_id(v->at.index));
	if (v->at.has_manifest)
		verify_files(v);
	if (v->at.index && (v->at.has_pack || !v->at.has_manifest))
		verify_pack(v);
	return cmd_end(v->damaged ? CMD_FAILED : CMD_OK);
}

static int image_verify_main(int argc, char **argv)
{
	struct image_verify v = { .at = IMAGE_AT_NULL };
	const struct opt_use use = { .cmd = &cmd_image_verify,
				     .groups = { { image_verify_opts, &v } },
				     .min_args = 1,
				     .max_args = 1 };
	struct err e = ERR_NULL, bad_index = ERR_NULL;
	int n = 0, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	if (v.store)
		return image_store_verify(argv[1], v.store);
	r = image_at_open(argv[1], &v.at, &bad_index, &e);
	if (r < 0)
		return cmd_fail(&e);
	r = verify_all(&v, &bad_index);
	image_at_deinit(&v.at);
	return r;
}

const struct cmd cmd_image_verify = {
	.name = "image verify",
	.args = "[--store STORE] NAME|DIR",
	.summary = "Check every digest; say what is damaged.",
	.run = image_verify_main,
};
