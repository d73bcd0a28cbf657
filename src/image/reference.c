/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names in a store
 *
 * A reference is a few lines of JSON:
 *
 *	{
 *	  "format": 1,
 *	  "image": "im...",
 *	  "index_bytes": 562512,
 *	  "index_sha256": "...",
 *	  "pack_bytes": 61079131,
 *	  "created": "2026-11-22T21:26:11Z"
 *	}
 *
 * It comes from outside: from who can write to the store. What it can do is
 * name another image, which is what it is for; everything else is verified
 * against it.
 *
 * Invariants:
 *  1. The format is judged first, every key is required, none is unknown.
 *  2. Strings are what is safe in a path and a sentence: ids and digests are
 *     checked, a time is printable ASCII without quotes.
 *  3. What is printed can be parsed.
 */
#include <jansson.h>

#include "image/reference.h"

#include "base/guard.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define REFERENCE_KEYS 6

static void json_freep(json_t **j)
{
	json_decref(*j);
}

/* As in an index: "im" and hex digits. */
static bool reference_id_ok(const char *id)
{
	size_t n = strlen(id);

	return n > 2 && n < INDEX_ID_MAX && !memcmp(id, "im", 2) &&
	       strspn(id + 2, "0123456789abcdef") == n - 2;
}

static bool reference_time_ok(const char *s)
{
	return *s && strspn(s, "0123456789-:.TZ") == strlen(s);
}

static int reference_text(const json_t *j, const char *key,
			  bool (*ok)(const char *), char *ret, size_t size,
			  struct err *e)
{
	const json_t *v = json_object_get(j, key);
	const char *s = json_string_value(v);

	if (!v)
		return err_set(e, EINVAL, "key %s: missing", key);
	if (!s || strlen(s) >= size || !ok(s))
		return err_set(e, EINVAL, "key %s: not what it should be", key);
	memcpy(ret, s, strlen(s) + 1);
	return 0;
}

static int reference_number(const json_t *j, const char *key, uint64_t *ret,
			    struct err *e)
{
	const json_t *v = json_object_get(j, key);

	if (!v)
		return err_set(e, EINVAL, "key %s: missing", key);
	if (!json_is_integer(v) || json_integer_value(v) < 0)
		return err_set(e, EINVAL, "key %s: not a whole number", key);
	*ret = (uint64_t)json_integer_value(v);
	return 0;
}

static int reference_read(const json_t *j, struct reference *ref, struct err *e)
{
	uint64_t format = 0;
	int r;

	if (!json_is_object(j))
		return err_set(e, EINVAL, "not a JSON object");
	r = reference_number(j, "format", &format, e);
	if (r < 0)
		return r;
	if (format != REFERENCE_FORMAT)
		return err_set(e, EINVAL,
			       "format %" PRIu64 ", this byre reads %d", format,
			       REFERENCE_FORMAT);
	r = reference_text(j, "image", reference_id_ok, ref->image,
			   sizeof(ref->image), e);
	if (r == 0)
		r = reference_number(j, "index_bytes", &ref->index_bytes, e);
	if (r == 0)
		r = reference_text(j, "index_sha256", digest_hex_ok,
				   ref->index_sha256, sizeof(ref->index_sha256),
				   e);
	if (r == 0)
		r = reference_number(j, "pack_bytes", &ref->pack_bytes, e);
	if (r == 0)
		r = reference_text(j, "created", reference_time_ok,
				   ref->created, sizeof(ref->created), e);
	if (r < 0)
		return r;
	if (json_object_size(j) != REFERENCE_KEYS)
		return err_set(e, EINVAL, "a key is unknown");
	if (!ref->index_bytes || ref->index_bytes > INDEX_BYTES_MAX)
		return err_set(e, EINVAL, "key index_bytes: out of range");
	return 0;
}

int reference_parse(const char *json, size_t len, struct reference *ret,
		    struct err *e)
{
	struct reference ref = { 0 };
	json_error_t why = { 0 };
	guard(json_freep) json_t *j = NULL;
	int r;

	if (len > REFERENCE_BYTES_MAX)
		return err_set(e, EFBIG,
			       "reference: %zu bytes, at most %u are read", len,
			       REFERENCE_BYTES_MAX);
	j = json_loadb(json, len, JSON_REJECT_DUPLICATES, &why);
	if (!j && why.line < 0)
		return err_errno(e, ENOMEM, "reference: parse");
	/* What jansson says may quote the text: only the place is passed on. */
	if (!j)
		return err_set(e, EINVAL,
			       "reference: not JSON: line %d, column %d",
			       why.line, why.column);
	r = reference_read(j, &ref, e);
	if (r < 0) {
		err_prefix(e, "reference");
		return r;
	}
	*ret = ref;
	return 0;
}

int reference_print(const struct reference *r, char **ret)
{
	char text[REFERENCE_BYTES_MAX];
	char *copy;
	int n;

	if (!reference_id_ok(r->image) || !digest_hex_ok(r->index_sha256) ||
	    !reference_time_ok(r->created) || !r->index_bytes ||
	    r->index_bytes > INDEX_BYTES_MAX || r->pack_bytes > INT64_MAX)
		return -EINVAL;
	n = snprintf(text, sizeof(text),
		     "{\n"
		     "  \"format\": %d,\n"
		     "  \"image\": \"%s\",\n"
		     "  \"index_bytes\": %" PRIu64 ",\n"
		     "  \"index_sha256\": \"%s\",\n"
		     "  \"pack_bytes\": %" PRIu64 ",\n"
		     "  \"created\": \"%s\"\n"
		     "}\n",
		     REFERENCE_FORMAT, r->image, r->index_bytes,
		     r->index_sha256, r->pack_bytes, r->created);
	must(n > 0 && (size_t)n < sizeof(text));
	copy = strdup(text);
	if (!copy)
		return -ENOMEM;
	*ret = copy;
	return 0;
}

void reference_object(const char *name, char out[REFERENCE_OBJECT_MAX])
{
	int n = snprintf(out, REFERENCE_OBJECT_MAX, "templates/%s", name);

	must(n < REFERENCE_OBJECT_MAX);
}

void reference_index_object(const char *id, char out[REFERENCE_OBJECT_MAX])
{
	int n = snprintf(out, REFERENCE_OBJECT_MAX, "images/%s/index", id);

	must(n < REFERENCE_OBJECT_MAX);
}

void reference_pack_object(const char *id, char out[REFERENCE_OBJECT_MAX])
{
	int n = snprintf(out, REFERENCE_OBJECT_MAX, "images/%s/pack", id);

	must(n < REFERENCE_OBJECT_MAX);
}
