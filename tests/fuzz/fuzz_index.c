/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stores' foreign bytes: indexes and references
 *
 * The first byte chooses:
 *
 *	0  the rest is an index
 *	1  the rest edits a good index: triples of {offset (16 bits), byte};
 *	   the fuzzer need not invent maps and frames that agree
 *	2  the rest is a reference
 *
 * What is accepted is asked everything: every page is in the frame that says it
 * has it, frames are inside their packs, small files decompress or are refused
 * with a sentence. A reference prints, and parses again to the same.
 */
#include "image/index.h"

#include "base/guard.h"
#include "image/frame.h"
#include "image/index_write.h"
#include "image/reference.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PAGES (INDEX_CHUNK_PAGES + 77)

static void refused(int r, const struct err *e)
{
	must(e->code == -r && e->msg[0]);
	for (const char *s = e->msg; *s; s++)
		must(*s >= 0x20 && *s < 0x7f);
}

static void ask_layer(const struct index *x, enum index_layer l)
{
	struct bitmap zero = index_zeromap(x, l), hot = index_hotmap(x, l);
	const struct index_frame *f;
	uint64_t data = 0, page;
	uint32_t i;

	for (page = 0; page < zero.n; page++) {
		i = index_frame_of(x, l, page);
		must((i == UINT32_MAX) == bitmap_get(&zero, page));
		if (i == UINT32_MAX)
			continue;
		must(i < index_frames(x, l) && index_in_frame(x, l, i, page));
		must((i % 2 == 0) == bitmap_get(&hot, page));
		must(index_frame(x, l, i)->pages > 0);
		data++;
	}
	must(data * INDEX_PAGE == index_data_bytes(x, l));
	must(index_hot_bytes(x, l) <= index_data_bytes(x, l));
	for (i = 0; i < index_frames(x, l); i++) {
		f = index_frame(x, l, i);
		must(f->source < index_sources(x));
		must(f->stored <= FRAME_STORED_MAX);
		must(f->offset + f->stored <=
		     index_source(x, f->source)->pack_bytes);
		data -= f->pages;
	}
	must(data == 0);
}

static void ask(const struct index *x)
{
	struct bitmap set = index_workingset(x);
	struct err e = ERR_NULL;
	size_t len;
	int r;

	for (uint32_t i = 0; i < index_sources(x); i++)
		must(!strncmp(index_source(x, i)->id, "im", 2));
	must(strlen(index_id(x)) < INDEX_ID_MAX);
	for (unsigned l = 0; l < INDEX_LAYER_COUNT; l++)
		ask_layer(x, l);
	must(bitmap_count(&set) * INDEX_PAGE <=
	     index_layer_bytes(x, INDEX_MEMORY));
	for (unsigned b = 0; b < INDEX_BLOB_COUNT; b++) {
		guard_free char *text = NULL;

		r = index_blob(x, b, &text, &len, &e);
		if (r < 0)
			refused(r, &e);
		else
			must(len <= INDEX_BLOB_MAX && text[len] == '\0');
	}
	r = index_verify(x, &e);
	if (r < 0)
		refused(r, &e);
}

static void parse(const void *p, size_t len)
{
	struct err e = ERR_NULL;
	struct index *x = NULL;
	int r = index_parse(p, len, &x, &e);

	if (r < 0) {
		refused(r, &e);
		must(!x);
		return;
	}
	ask(x);
	index_free(x);
}

static void plain(const uint8_t *data, size_t size)
{
	/* Aligned, and with its own end. */
	guard_free uint8_t *p = malloc(size ? size : 1);

	memcpy(p, data, size);
	parse(p, size);
}

static void *good_index(size_t *len)
{
	guard(index_writer_deinit) struct index_writer w = INDEX_WRITER_NULL;
	const uint64_t bytes[INDEX_LAYER_COUNT] = { PAGES * INDEX_PAGE,
						    3 * INDEX_PAGE };
	struct index_frame *f;
	void *p = NULL;

	must(index_writer_init(&w, bytes, NULL) == 0);
	w.n_sources = 2;
	w.source[0].pack_bytes = w.source[1].pack_bytes = 1000;
	strcpy(w.source[1].id, "im0123456789abcdef");
	bitmap_set_run(&w.zeromap[INDEX_DISK], 0, 3);
	bitmap_set_run(&w.hotmap[INDEX_MEMORY], 5, 6);
	bitmap_set_run(&w.zeromap[INDEX_MEMORY], 11, INDEX_CHUNK_PAGES - 11);
	bitmap_set_run(&w.workingset, 5, 8);
	f = w.frames[INDEX_MEMORY];
	f[0] = (struct index_frame){ .stored = 100, .pages = 6 };
	f[1] = (struct index_frame){ .offset = 100, .stored = 9, .pages = 5 };
	f[3] = (struct index_frame){
		.offset = 900, .stored = 100, .pages = 77, .source = 1
	};
	for (unsigned b = 0; b < INDEX_BLOB_COUNT; b++)
		must(index_writer_blob(&w, b, "a small file", 12, NULL) == 0);
	must(index_writer_print(&w, &p, len, NULL) == 0);
	return p;
}

static void edited(const uint8_t *data, size_t size)
{
	size_t len = 0;
	guard_free uint8_t *p = good_index(&len);

	for (; size >= 3; data += 3, size -= 3)
		p[(data[0] | (size_t)data[1] << 8) % len] = data[2];
	parse(p, len);
}

static void reference(const char *text, size_t len)
{
	struct reference a = { 0 }, b = { 0 };
	guard_free char *printed = NULL;
	char object[REFERENCE_OBJECT_MAX];
	struct err e = ERR_NULL;
	int r = reference_parse(text, len, &a, &e);

	if (r < 0) {
		refused(r, &e);
		return;
	}
	must(!strchr(a.image, '/'));
	reference_index_object(a.image, object);
	reference_pack_object(a.image, object);
	must(reference_print(&a, &printed) == 0);
	must(reference_parse(printed, strlen(printed), &b, &e) == 0);
	must(!strcmp(a.image, b.image) && !strcmp(a.created, b.created));
	must(!strcmp(a.index_sha256, b.index_sha256));
	must(a.index_bytes == b.index_bytes && a.pack_bytes == b.pack_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	if (data[0] % 3 == 0)
		plain(data + 1, size - 1);
	else if (data[0] % 3 == 1)
		edited(data + 1, size - 1);
	else
		reference((const char *)data + 1, size - 1);
	return 0;
}
