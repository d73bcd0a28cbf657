/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre image verify --store: is what a store holds what it should be?
 *
 *	reference --> index --> every frame, of all packs that it leads to
 *
 * Each says what the next one must be, as for a pull, and everything is fetched
 * as a pull would; nothing is kept. The daemon is asked for the store's
 * definition and for nothing else: fetching an image may take hours, and is
 * ended by Ctrl-C.
 *
 * It ends at the first damage, which is said in a line as of image_verify.c. A
 * store that does not answer is no damage but an error.
 */
#include "cmd/image.h"

#include "cmd/client.h"
#include "cmd/print.h"
#include "cmd/progress.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/guard.h"
#include "base/parse.h"
#include "image/index.h"
#include "image/pack.h"
#include "image/reference.h"
#include "image/store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* For a reference, or an index of 128 MiB over 4 MB/s. */
#define IMAGE_STORE_DEADLINE_NS (60 * NS_PER_SEC)

struct image_store {
	struct store_spec spec;
	struct store *store;
	struct store_conn *conn;
	struct reference ref;
	char *bytes; /* of the index */
	struct index *index;
	const char *part; /* that is being verified */
};

static void image_store_deinit(struct image_store *s)
{
	index_free(s->index);
	free(s->bytes);
	store_conn_free(s->conn);
	store_free(s->store);
}

/* ---- the store ---- */

static bool image_store_text(const json_t *o, const char *key, char *out,
			     size_t size)
{
	return snprintf(out, size, "%s", print_text(o, key)) < (int)size;
}

#define IMAGE_STORE_TEXT(o, spec, key) \
	image_store_text(o, #key, (spec)->key, sizeof((spec)->key))

static int image_store_spec(const char *name, struct store_spec *ret,
			    struct err *e)
{
	json_auto_t *all = NULL;
	json_t *o;
	size_t i;
	int r = client_call("GET", "/v1/stores", NULL, &all, e);

	if (r < 0)
		return r;
	json_array_foreach (all, i, o) {
		if (strcmp(print_text(o, "name"), name) != 0)
			continue;
		if (IMAGE_STORE_TEXT(o, ret, name) &&
		    IMAGE_STORE_TEXT(o, ret, url) &&
		    IMAGE_STORE_TEXT(o, ret, endpoint) &&
		    IMAGE_STORE_TEXT(o, ret, region) &&
		    IMAGE_STORE_TEXT(o, ret, credentials) &&
		    IMAGE_STORE_TEXT(o, ret, ca))
			return 0;
		return err_set(e, EINVAL, "store %s: the daemon makes no sense",
			       name);
	}
	return err_set(e, ENOENT, "there is no store %s (byre store add)",
		       name);
}

static int image_store_open(struct image_store *s, const char *name,
			    struct err *e)
{
	int r = image_store_spec(name, &s->spec, e);

	if (r == 0)
		r = store_open(&s->spec, &s->store, e);
	if (r == 0)
		r = store_connect(s->store, &s->conn, e);
	return r;
}

/* ---- what is in it ---- */

static int image_store_reference(struct image_store *s, const char *name,
				 struct err *e)
{
	char object[REFERENCE_OBJECT_MAX];
	guard_free char *text = NULL;
	size_t len = 0;
	int r;

	if (!parse_name_ok(name))
		return err_set(e, EINVAL, "%s is not a template's name", name);
	s->part = "reference";
	reference_object(name, object);
	r = store_get_all(s->conn, object, REFERENCE_BYTES_MAX, &text, &len,
			  clock_mono_ns() + IMAGE_STORE_DEADLINE_NS, e);
	/* No damage, so no part of it. */
	if (r == STORE_MISS) {
		s->part = NULL;
		return err_set(e, ENOENT, "store %s has no template %s",
			       s->spec.name, name);
	}
	if (r == 0)
		r = reference_parse(text, len, &s->ref, e);
	if (r < 0)
		return r;
	printf("%-12s good, %s\n", s->part, s->ref.image);
	return 0;
}

/* The reference's word against the index'. */
static int image_store_judge(struct image_store *s, const char *object,
			     size_t len, struct err *e)
{
	const struct reference *ref = &s->ref;
	char hex[DIGEST_HEX];
	int r;

	digest_of(s->bytes, len, hex);
	if (len != ref->index_bytes || strcmp(hex, ref->index_sha256) != 0)
		return err_set(e, EBADMSG,
			       "%s is not what its reference says (%zu bytes)",
			       object, len);
	r = index_parse(s->bytes, len, &s->index, e);
	if (r < 0)
		return err_prefix(e, "%s", object);
	if (strcmp(index_id(s->index), ref->image) != 0)
		return err_set(e, EBADMSG, "%s is that of %s", object,
			       index_id(s->index));
	return 0;
}

static int image_store_index(struct image_store *s, struct err *e)
{
	char object[REFERENCE_OBJECT_MAX];
	size_t len = 0;
	int r;

	s->part = "index";
	reference_index_object(s->ref.image, object);
	if (s->ref.index_bytes > INDEX_BYTES_MAX)
		return err_set(e, EFBIG, "%s is too large to be an index",
			       object);
	r = store_get_all(s->conn, object, s->ref.index_bytes, &s->bytes, &len,
			  clock_mono_ns() + IMAGE_STORE_DEADLINE_NS, e);
	if (r == STORE_MISS)
		return err_set(e, ENOENT, "%s is missing", object);
	if (r == 0)
		r = image_store_judge(s, object, len, e);
	if (r < 0)
		return r;
	printf("%-12s good, %s\n", s->part, object);
	return 0;
}

static int image_store_progress(void *arg, uint64_t done, uint64_t total)
{
	progress_bytes(arg, "verify", "pages", done, total, clock_mono_ns());
	return 0;
}

static int image_store_packs(struct image_store *s, struct err *e)
{
	guard(progress_deinit) struct progress p;
	const struct index *x = s->index;
	uint64_t frames = 0;
	int r;

	s->part = PACK_NAME;
	fflush(stdout);
	progress_init(&p, false, clock_mono_ns());
	r = pack_verify(x, s->store, image_store_progress, &p, e);
	progress_deinit(&p);
	if (r < 0)
		return r;
	for (unsigned l = 0; l < INDEX_LAYER_COUNT; l++)
		for (uint32_t i = 0; i < index_frames(x, l); i++)
			frames += index_frame(x, l, i)->pages > 0;
	printf("%-12s good, %" PRIu64 " frames in %u pack%s\n", s->part, frames,
	       index_sources(x), index_sources(x) == 1 ? "" : "s");
	return 0;
}

/* Damaged or missing, as opposed to a store that does not answer. */
static bool image_store_damaged(const struct image_store *s, int r)
{
	return s->part && (r == -EBADMSG || r == -EINVAL || r == -ENOENT ||
			   r == -E2BIG || r == -EFBIG);
}

int image_store_verify(const char *name, const char *store)
{
	guard(image_store_deinit) struct image_store s = { 0 };
	struct err e = ERR_NULL;
	int r = image_store_open(&s, store, &e);

	if (r == 0)
		r = image_store_reference(&s, name, &e);
	if (r == 0)
		r = image_store_index(&s, &e);
	if (r == 0)
		r = image_store_packs(&s, &e);
	if (r == 0)
		return cmd_end(CMD_OK);
	if (!image_store_damaged(&s, r))
		return cmd_fail(&e);
	printf("%-12s damaged: %s\n", s.part, e.msg);
	return cmd_end(CMD_FAILED);
}
