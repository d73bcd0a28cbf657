/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Indexes: written and read; every byte flipped, every length cut; each check
 * of index_parse() on its own; references
 */
#include "image/index.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/test.h"
#include "image/frame.h"
#include "image/index_write.h"
#include "image/reference.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#define HEX "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
/* Two chunks and a bit; a number of pages that fills no byte. */
#define PAGES (2 * INDEX_CHUNK_PAGES + 13)
#define DISK_PAGES 5u
#define TEXT "{ \"what\": \"a manifest, more or less\" }\n"

static struct index_frame frame_of(uint64_t offset, uint32_t pages)
{
	struct index_frame f = { .offset = offset,
				 .stored = 100 + pages,
				 .pages = (uint16_t)pages };

	memset(f.sha256, 0x5a, sizeof(f.sha256));
	return f;
}

/* Memory: chunk 0 has one hot page (3) and two cold ones (4, 9), chunk 1
 * nothing, chunk 2 hot pages only (all 13). Disk: page 1, cold, of source 1. */
static void fill(struct index_writer *w)
{
	const uint64_t bytes[INDEX_LAYER_COUNT] = { PAGES * INDEX_PAGE,
						    DISK_PAGES * INDEX_PAGE };
	uint64_t last = 2 * INDEX_CHUNK_PAGES;

	check(index_writer_init(w, bytes, NULL) == 0);
	check(index_writer_frames(w, INDEX_MEMORY) == 6);
	check(index_writer_frames(w, INDEX_DISK) == 2);
	bitmap_set_run(&w->zeromap[INDEX_MEMORY], 0, last);
	w->zeromap[INDEX_MEMORY].bits[0] = 0xe7;
	w->zeromap[INDEX_MEMORY].bits[1] = 0xfd;
	bitmap_set(&w->hotmap[INDEX_MEMORY], 3);
	bitmap_set_run(&w->hotmap[INDEX_MEMORY], last, 13);
	w->zeromap[INDEX_DISK].bits[0] = 0x1d;
	bitmap_set_run(&w->workingset, 2, 2);
	w->n_sources = 2;
	w->source[0].pack_bytes = 1000;
	strcpy(w->source[1].id, "im0123456789ab");
	w->source[1].pack_bytes = 5000;
	w->frames[INDEX_MEMORY][0] = frame_of(0, 1);
	w->frames[INDEX_MEMORY][1] = frame_of(300, 2);
	w->frames[INDEX_MEMORY][4] = frame_of(101, 13);
	w->frames[INDEX_DISK][1] = frame_of(4899, 1);
	w->frames[INDEX_DISK][1].source = 1;
	check(index_writer_blob(w, INDEX_BLOB_MANIFEST, TEXT, strlen(TEXT),
				NULL) == 0);
	check(index_writer_blob(w, INDEX_BLOB_STATE, "state", 5, NULL) == 0);
	check(index_writer_blob(w, INDEX_BLOB_OVERLAY, "", 0, NULL) == 0);
}

static uint8_t *make(size_t *len)
{
	guard(index_writer_deinit) struct index_writer w = INDEX_WRITER_NULL;
	struct err e = ERR_NULL;
	void *p = NULL;

	fill(&w);
	if (index_writer_print(&w, &p, len, &e) != 0) {
		fprintf(stderr, "%s\n", e.msg);
		exit(1);
	}
	return p;
}

static int file_of(const void *p, size_t len)
{
	int fd = memfd_create("index", MFD_CLOEXEC);

	check(fd >= 0 && io_write_full(fd, p, len) == 0);
	return fd;
}

static void test_says(const struct index *x)
{
	guard_free char *text = NULL;
	struct bitmap b;
	size_t len = 0;

	check(!strncmp(index_id(x), "im", 2) && strlen(index_id(x)) == 34);
	check(index_sources(x) == 2);
	check_str(index_source(x, 0)->id, index_id(x));
	check_str(index_source(x, 1)->id, "im0123456789ab");
	check(index_layer_bytes(x, INDEX_MEMORY) == PAGES * INDEX_PAGE);
	check(index_layer_bytes(x, INDEX_DISK) == DISK_PAGES * INDEX_PAGE);
	check(index_frames(x, INDEX_MEMORY) == 6);
	check(index_frame(x, INDEX_MEMORY, 1)->offset == 300);
	check(index_data_bytes(x, INDEX_MEMORY) == 16 * INDEX_PAGE);
	check(index_hot_bytes(x, INDEX_MEMORY) == 14 * INDEX_PAGE);
	check(index_data_bytes(x, INDEX_DISK) == INDEX_PAGE);
	check(index_hot_bytes(x, INDEX_DISK) == 0);
	check(index_frame_of(x, INDEX_MEMORY, 0) == UINT32_MAX);
	check(index_frame_of(x, INDEX_MEMORY, 3) == 0);
	check(index_frame_of(x, INDEX_MEMORY, 4) == 1);
	check(index_frame_of(x, INDEX_MEMORY, 9) == 1);
	check(index_frame_of(x, INDEX_MEMORY, PAGES - 1) == 4);
	check(index_frame_of(x, INDEX_DISK, 1) == 1);
	check(index_in_frame(x, INDEX_MEMORY, 0, 3));
	check(!index_in_frame(x, INDEX_MEMORY, 1, 3));
	check(!index_in_frame(x, INDEX_MEMORY, 0, 0));
	b = index_workingset(x);
	check(b.n == PAGES && bitmap_count(&b) == 2 && bitmap_get(&b, 2));
	b = index_zeromap(x, INDEX_DISK);
	check(b.n == DISK_PAGES && bitmap_count(&b) == 4);
	b = index_hotmap(x, INDEX_MEMORY);
	check(bitmap_count(&b) == 14);
	check(index_blob(x, INDEX_BLOB_MANIFEST, &text, &len, NULL) == 0);
	check(len == strlen(TEXT));
	check_str(text, TEXT);
	free(take(text));
	check(index_blob(x, INDEX_BLOB_OVERLAY, &text, &len, NULL) == 0);
	check(len == 0 && !*text);
}

static void test_open(void)
{
	guard_free uint8_t *p = NULL, *again = NULL;
	struct index *x = NULL;
	size_t len = 0, len2 = 0;
	guard_fd int fd = -1;

	p = make(&len);
	again = make(&len2);
	check(len == len2 && !memcmp(p, again, len));
	fd = file_of(p, len);
	check(index_open(fd, &x, NULL) == 0);
	check(index_bytes(x) == len);
	test_says(x);
	index_free(x);
	check(index_parse(p, len, &x, NULL) == 0);
	check(index_verify(x, NULL) == 0);
	test_says(x);
	index_free(x);
	check(!index_free(NULL));
	check_str(index_layer_name(INDEX_DISK), "disk");
}

/* What is parsed must be safe to ask. */
static void ask_all(const struct index *x)
{
	for (unsigned l = 0; l < INDEX_LAYER_COUNT; l++) {
		struct bitmap b = index_zeromap(x, l);

		for (uint64_t page = 0; page < b.n; page++) {
			uint32_t i = index_frame_of(x, l, page);

			check(i == UINT32_MAX ||
			      index_frame(x, l, i)->stored > 0);
		}
	}
	for (unsigned i = 0; i < INDEX_BLOB_COUNT; i++) {
		guard_free char *text = NULL;
		size_t len;

		err_drop(index_blob(x, i, &text, &len, NULL));
	}
}

/* No flip gets past the id, and none that gets past the checks hurts. */
static void test_flips(void)
{
	guard_free uint8_t *p = NULL;
	size_t len = 0, passed = 0;

	p = make(&len);
	for (size_t i = 0; i < len * 8; i += 3) {
		struct err e = ERR_NULL;
		struct index *x = NULL;

		p[i / 8] ^= (uint8_t)(1u << (i % 8));
		if (index_parse(p, len, &x, &e) == 0) {
			check(index_verify(x, &e) == -EBADMSG);
			ask_all(x);
			index_free(x);
			passed++;
		} else {
			check(e.code == EBADMSG || e.code == EINVAL);
			check(!strncmp(e.msg, "index: ", 7));
		}
		p[i / 8] ^= (uint8_t)(1u << (i % 8));
	}
	/* Offsets, digests, the working set, blobs. */
	check(passed > 100);
}

static void test_cuts(void)
{
	guard_free uint8_t *p = NULL, *q = NULL;
	struct index *x = NULL;
	guard_fd int fd = -1;
	size_t len = 0;

	p = make(&len);
	q = calloc(1, len + 8);
	memcpy(q, p, len);
	check(index_parse(q, len + 8, &x, NULL) == -EBADMSG);
	for (size_t n = 0; n < len; n++) {
		/* An allocation of that length: the sanitizer looks on. */
		guard_free uint8_t *cut = malloc(n ? n : 1);

		memcpy(cut, p, n);
		check(index_parse(cut, n, &x, NULL) == -EBADMSG);
		if (n < sizeof(struct index_header))
			continue;
		((struct index_header *)cut)->bytes = n;
		check(index_parse(cut, n, &x, NULL) == -EBADMSG);
	}
	fd = file_of(p, len);
	check(ftruncate(fd, (off_t)len - 8) == 0);
	check(index_open(fd, &x, NULL) == -EBADMSG);
	check(ftruncate(fd, 0) == 0);
	check(index_open(fd, &x, NULL) == -EBADMSG);
	check(ftruncate(fd, (off_t)INDEX_BYTES_MAX + 1) == 0);
	check(index_open(fd, &x, NULL) == -EBADMSG);
}

static void refuse(const struct index_writer *w, const char *part)
{
	struct err e = ERR_NULL;
	void *p = NULL;
	size_t len;
	int r = index_writer_print(w, &p, &len, &e);

	if (r != -EBADMSG || !strstr(e.msg, part)) {
		fprintf(stderr, "%d, \"%s\" has no \"%s\"\n", r, e.msg, part);
		exit(1);
	}
}

#define REFUSED(part, ...)                                         \
	do {                                                       \
		guard(index_writer_deinit) struct index_writer w = \
			INDEX_WRITER_NULL;                         \
		struct index_frame *f;                             \
                                                                   \
		fill(&w);                                          \
		f = w.frames[INDEX_MEMORY];                        \
		(void)f;                                           \
		__VA_ARGS__;                                       \
		refuse(&w, part);                                  \
	} while (0)

static void test_checks(void)
{
	REFUSED("memory: frame 0: pages differ", f[0].pages = 2);
	REFUSED("memory: frame 0: pages differ",
		f[0] = (struct index_frame){ 0 });
	REFUSED("memory: frame 2: not zero", f[2].offset = 1);
	REFUSED("memory: frame 2: not zero", f[2].sha256[31] = 1);
	REFUSED("memory: frame 1: no such source", f[1].source = 2);
	REFUSED("memory: frame 1: length", f[1].stored = 0);
	REFUSED("memory: frame 1: length", f[1].stored = FRAME_STORED_MAX + 1);
	REFUSED("memory: frame 1: outside", f[1].offset = 1000 - 101);
	REFUSED("memory: frame 1: outside", f[1].offset = UINT64_MAX);
	REFUSED("disk: frame 1: outside",
		w.frames[INDEX_DISK][1].offset = 4900);
	REFUSED("memory: maps: a page is zero and hot",
		bitmap_set(&w.zeromap[INDEX_MEMORY], 3));
	REFUSED("memory: maps: bits set behind",
		w.zeromap[INDEX_MEMORY].bits[PAGES / 8] |= 0x80);
	REFUSED("disk: maps: bits set behind",
		w.hotmap[INDEX_DISK].bits[0] |= 0x40);
	REFUSED("working set: bits set", w.workingset.bits[PAGES / 8] |= 0x80);
	REFUSED("source 1: not an id", strcpy(w.source[1].id, "imXX"));
	REFUSED("source 1: not an id", strcpy(w.source[1].id, "im"));
	REFUSED("source 1: not an id", strcpy(w.source[1].id, "im/../x"));
	REFUSED("source 1: not an id",
		memset(w.source[1].id, 'a', sizeof(w.source[1].id));
		memcpy(w.source[1].id, "im", 2));
	REFUSED("source 1: not an id", w.source[1].id[39] = 'a');
	REFUSED("source 1: too long", w.source[1].pack_bytes = UINT64_MAX);
	REFUSED("state: too long",
		w.blob[INDEX_BLOB_STATE].bytes = INDEX_BLOB_MAX + 1);
}

static void test_version(void)
{
	struct index_header *h;
	guard_free uint8_t *p = NULL;
	struct index *x = NULL;
	struct err e = ERR_NULL;
	size_t len = 0;

	p = make(&len);
	h = (struct index_header *)p;
	h->version = 2;
	check(index_parse(p, len, &x, &e) == -EINVAL);
	check(strstr(e.msg, "version 2"));
	h->version = 1;
	h->layer_bytes[INDEX_DISK] = BITMAP_PAGES_MAX * INDEX_PAGE;
	check(index_parse(p, len, &x, &e) == -EBADMSG);
	check(strstr(e.msg, "need more"));
	h->layer_bytes[INDEX_DISK] += INDEX_PAGE;
	check(index_parse(p, len, &x, &e) == -EBADMSG);
	h->layer_bytes[INDEX_DISK] = UINT64_MAX - INDEX_PAGE + 1;
	check(index_parse(p, len, &x, &e) == -EBADMSG);
	h->layer_bytes[INDEX_DISK] = 17;
	check(index_parse(p, len, &x, &e) == -EBADMSG);
}

/* ---- references ---- */

#define REFERENCE(image, bytes, digest, more)                          \
	"{\"format\":1,\"image\":\"" image "\",\"index_bytes\":" bytes \
	",\"index_sha256\":\"" digest                                  \
	"\",\"pack_bytes\":7,\"created\":\"2024-05-01T12:34:56Z\"" more "}"

static void refuse_reference(const char *text, const char *part)
{
	struct reference r = { 0 };
	struct err e = ERR_NULL;

	if (reference_parse(text, strlen(text), &r, &e) >= 0 ||
	    !strstr(e.msg, part)) {
		fprintf(stderr, "\"%s\" has no \"%s\"\n", e.msg, part);
		exit(1);
	}
	check(!*r.image);
}

static void test_reference(void)
{
	const char *good = REFERENCE("im12ab", "600", HEX, "");
	struct reference a = { 0 }, b = { 0 };
	char object[REFERENCE_OBJECT_MAX];
	guard_free char *text = NULL;

	check(reference_parse(good, strlen(good), &a, NULL) == 0);
	check_str(a.image, "im12ab");
	check(a.index_bytes == 600 && a.pack_bytes == 7);
	check_str(a.index_sha256, HEX);
	check_str(a.created, "2024-05-01T12:34:56Z");
	check(reference_print(&a, &text) == 0);
	check(reference_parse(text, strlen(text), &b, NULL) == 0);
	check_str(b.image, a.image);
	check_str(b.index_sha256, a.index_sha256);
	check_str(b.created, a.created);
	check(b.index_bytes == a.index_bytes && b.pack_bytes == a.pack_bytes);
	strcpy(b.image, "../../x");
	check(reference_print(&b, &text) == -EINVAL);
	refuse_reference("", "not JSON");
	refuse_reference("[]", "not a JSON object");
	refuse_reference("{}", "key format: missing");
	refuse_reference("{\"format\":2}", "format 2");
	refuse_reference(REFERENCE("im12ab/..", "6", HEX, ""), "key image");
	refuse_reference(REFERENCE("im", "6", HEX, ""), "key image");
	refuse_reference(REFERENCE("im12ab", "-6", HEX, ""), "index_bytes");
	refuse_reference(REFERENCE("im12ab", "0", HEX, ""), "index_bytes");
	refuse_reference(REFERENCE("im12ab", "999999999999", HEX, ""),
			 "index_bytes");
	refuse_reference(REFERENCE("im12ab", "6", "abc", ""), "index_sha256");
	refuse_reference(REFERENCE("im12ab", "6", HEX, ",\"x\":1"), "unknown");
	refuse_reference(REFERENCE("im12ab", "6", HEX, ",\"format\":1"),
			 "not JSON");
	reference_object("python", object);
	check_str(object, "templates/python");
	reference_index_object("im12ab", object);
	check_str(object, "images/im12ab/index");
	reference_pack_object("im12ab", object);
	check_str(object, "images/im12ab/pack");
}

int main(void)
{
	test_open();
	test_flips();
	test_cuts();
	test_checks();
	test_version();
	test_reference();
	return 0;
}
