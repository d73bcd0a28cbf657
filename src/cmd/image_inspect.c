/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre image inspect: what an image is made of
 *
 * One object, made from the index where there is one, else from the manifest.
 * Stored sizes are of frames; a ratio is data over stored.
 */
#include "cmd/image.h"

#include "cmd/opt.h"
#include "cmd/print.h"
#include "cmd/table.h"
#include "base/guard.h"
#include "base/parse.h"
#include "image/index.h"

#include <errno.h>
#include <stdio.h>

struct image_inspect {
	bool json;
};

static const struct opt image_inspect_opts[] = {
	{ 0, "json", NULL, "print the object",
	  OPT_FLAG(struct image_inspect, json) },
	OPT_END,
};

static void set_bytes(json_t *o, const char *key, uint64_t bytes)
{
	json_object_set_new(o, key, json_integer((json_int_t)bytes));
}

static void set_text(json_t *o, const char *key, const char *s)
{
	json_object_set_new(o, key, *s ? json_string(s) : json_null());
}

static void set_ratio(json_t *o, uint64_t data, uint64_t stored)
{
	json_object_set_new(o, "ratio",
			    stored ? json_real((double)data / (double)stored)
				   : json_null());
}

/* Frames and what they take, of all sources. */
struct stored {
	uint32_t frames;
	uint64_t hot_bytes, cold_bytes;
};

static struct stored stored_of(const struct index *x, enum index_layer l)
{
	const struct index_frame *f;
	struct stored s = { 0 };

	for (uint32_t i = 0; i < index_frames(x, l); i++) {
		f = index_frame(x, l, i);
		s.frames += f->pages > 0;
		if (i % 2)
			s.cold_bytes += f->stored;
		else
			s.hot_bytes += f->stored;
	}
	return s;
}

static json_t *layer_object(const struct index *x, enum index_layer l)
{
	uint64_t data = index_data_bytes(x, l), hot = index_hot_bytes(x, l);
	const struct stored s = stored_of(x, l);
	json_t *o = json_object();

	set_bytes(o, "chunks", index_frames(x, l) / 2);
	set_bytes(o, "frames", s.frames);
	set_bytes(o, "zero_bytes", index_layer_bytes(x, l) - data);
	set_bytes(o, "hot_bytes", hot);
	set_bytes(o, "cold_bytes", data - hot);
	set_bytes(o, "hot_stored_bytes", s.hot_bytes);
	set_bytes(o, "cold_stored_bytes", s.cold_bytes);
	set_ratio(o, data, s.hot_bytes + s.cold_bytes);
	return o;
}

static uint64_t used_of(const struct index *x, uint32_t source)
{
	uint64_t bytes = 0;

	for (unsigned l = 0; l < INDEX_LAYER_COUNT; l++)
		for (uint32_t i = 0; i < index_frames(x, l); i++)
			if (index_frame(x, l, i)->source == source)
				bytes += index_frame(x, l, i)->stored;
	return bytes;
}

static json_t *sources_array(const struct index *x)
{
	json_t *a = json_array(), *o;

	for (uint32_t i = 0; i < index_sources(x); i++) {
		o = json_object();
		set_text(o, "id", index_source(x, i)->id);
		set_bytes(o, "pack_bytes", index_source(x, i)->pack_bytes);
		set_bytes(o, "used_bytes", used_of(x, i));
		json_array_append_new(a, o);
	}
	return a;
}

/* "local", "store NAME", "pack": where the pages are. */
static void set_where(json_t *o, const struct image_at *at)
{
	if (*at->remote)
		json_object_set_new(o, "where",
				    json_sprintf("store %s", at->remote));
	else
		set_text(o, "where", at->has_manifest ? "local" : "pack");
}

static void add_index(json_t *o, const struct index *x)
{
	uint64_t stored = 0, data = 0;
	struct stored s;

	for (unsigned l = 0; l < INDEX_LAYER_COUNT; l++) {
		s = stored_of(x, l);
		stored += s.hot_bytes + s.cold_bytes;
		data += index_data_bytes(x, l);
		json_object_set_new(o, index_layer_name(l), layer_object(x, l));
	}
	set_bytes(o, "index_bytes", index_bytes(x));
	set_bytes(o, "stored_bytes", stored);
	set_bytes(o, "own_stored_bytes", used_of(x, 0));
	set_ratio(o, data, stored);
}

static json_t *image_object(const struct image_at *at)
{
	const struct image_manifest *m = &at->manifest;
	json_t *o = json_object();

	set_text(o, "id", at->index ? index_id(at->index) : "");
	set_text(o, "name", m->name);
	set_text(o, "dir", at->dir);
	set_where(o, at);
	set_text(o, "created", m->created);
	set_text(o, "kernel", m->kernel);
	set_text(o, "driver", m->driver);
	set_text(o, "version", m->version);
	set_text(o, "accel", m->accel);
	set_bytes(o, "memory_bytes", m->memory_bytes);
	set_bytes(o, "zero_bytes", m->zero_bytes);
	set_bytes(o, "workingset_bytes", m->workingset_bytes);
	set_bytes(o, "disk_bytes", m->file[IMAGE_DISK].bytes);
	if (at->index)
		add_index(o, at->index);
	return o;
}

static void print_sources(const json_t *sources)
{
	char pack[16], used[16];
	struct table t;
	const json_t *o;

	putchar('\n');
	table_init(&t, "SOURCE|>PACK|>USED");
	for (size_t i = 0; i < json_array_size(sources); i++) {
		o = json_array_get(sources, i);
		table_add(&t, "%s", print_text(o, "id"));
		table_add(&t, "%s", print_bytes(o, "pack_bytes", pack));
		table_add(&t, "%s", print_bytes(o, "used_bytes", used));
	}
	table_print(&t);
	table_deinit(&t);
}

static void image_print(const struct image_at *at, bool json)
{
	json_auto_t *o = image_object(at);
	json_auto_t *sources = at->index ? sources_array(at->index) : NULL;

	if (json) {
		if (sources)
			json_object_set(o, "sources", sources);
		print_json(o);
		return;
	}
	print_object(o);
	if (sources)
		print_sources(sources);
}

static int image_inspect_main(int argc, char **argv)
{
	guard(image_at_deinit) struct image_at at = IMAGE_AT_NULL;
	struct image_inspect x = { 0 };
	const struct opt_use use = { .cmd = &cmd_image_inspect,
				     .groups = { { image_inspect_opts, &x } },
				     .min_args = 1,
				     .max_args = 1 };
	struct err e = ERR_NULL;
	int n = 0, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	r = image_at_open(argv[1], &at, NULL, &e);
	if (r < 0)
		return cmd_fail(&e);
	image_print(&at, x.json);
	return cmd_end(CMD_OK);
}

const struct cmd cmd_image_inspect = {
	.name = "image inspect",
	.args = "[--json] NAME|DIR",
	.summary = "Show what an image is made of.",
	.run = image_inspect_main,
};
