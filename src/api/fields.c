/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strict JSON objects: a table of keys, and nothing beside it
 *
 * Every body that the API takes is one flat object. A misspelt key that is
 * ignored is a setting that silently does not act, so everything that is not in
 * the table is refused: unknown keys, keys given twice, values of another type,
 * numbers out of range, null. The sentence names the key, says what it must be,
 * and repeats the value when that is a name or a number: people read it who gave
 * an option, not a key. So numbers are shown in the unit of their key, as they
 * were typed: "memory of 1 MiB" for memory_bytes.
 *
 *	{"template": "base", "ttl_ns": 600000000000, "net": "user"}
 *	     TEXT                NUMBER                 CHOICE
 *
 * Invariants:
 *  1. Nothing is written to the caller's struct unless its own key was sound;
 *     after an error the struct is not to be used.
 *  2. Strings hold no NUL (jansson refuses \u0000) and are UTF-8.
 *  3. Numbers are 64-bit integers as written: 2.0 and 1e3 are refused, as they
 *     may already have lost digits.
 *
 * It does not know what the keys mean: relations between them and what a name
 * may look like are checked by whoever asked.
 */
#include "api/fields.h"

#include "base/guard.h"
#include "base/parse.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *const field_kind_names[] = {
	[FIELD_TEXT] = "a string",
	[FIELD_NAME] = "a string",
	[FIELD_NUMBER] = "an integer",
	[FIELD_BOOL] = "true or false",
	[FIELD_CHOICE] = "a string",
	[FIELD_LIST] = "an array of strings",
	[FIELD_MAP] = "an object of strings",
};
static_assert(nitems(field_kind_names) == FIELD_KIND_COUNT, "a name per kind");

static bool field_type_ok(const struct field *f, const json_t *value)
{
	switch (f->kind) {
	case FIELD_TEXT:
	case FIELD_NAME:
	case FIELD_CHOICE:
		return json_is_string(value);
	case FIELD_NUMBER:
		return json_is_integer(value);
	case FIELD_BOOL:
		return json_is_boolean(value);
	case FIELD_LIST:
		return json_is_array(value);
	case FIELD_MAP:
		return json_is_object(value);
	case FIELD_KIND_COUNT:
		break;
	}
	must(!"a kind of field");
	return false;
}

static int field_text_check(const struct field *f, const json_t *value,
			    struct err *e)
{
	size_t len;

	if (!json_is_string(value))
		return err_set(e, EINVAL, "key %s must be %s", f->key,
			       field_kind_names[f->kind]);
	len = json_string_length(value);
	if (len < f->lo || len > f->hi)
		return err_set(e, EINVAL,
			       "key %s must have %" PRIu64 " to %" PRIu64
			       " bytes",
			       f->key, f->lo, f->hi);
	return 0;
}

static int field_name_check(const struct field *f, const char *name,
			    struct err *e)
{
	if (parse_name_ok(name))
		return 0;
	return err_set(
		e, EINVAL,
		"%s \"%.80s\": not a name (1 to 63 letters, digits, \"_\", \".\" and \"-\", the first a letter or digit)",
		f->key, name);
}

/* The number at @n in the unit that the key ends in; the length of the key
 * without it. */
static size_t field_shown(const struct field *f, uint64_t n, char out[24])
{
	size_t len = strlen(f->key);

	if (len > 6 && !strcmp(f->key + len - 6, "_bytes")) {
		format_bytes(n, out);
		return len - 6;
	}
	if (len > 3 && !strcmp(f->key + len - 3, "_ns")) {
		format_duration_ns(n, out);
		return len - 3;
	}
	snprintf(out, 24, "%" PRIu64, n);
	return len;
}

/* @n is out of range. */
static int field_range(const struct field *f, json_int_t n, struct err *e)
{
	char is[24], lo[24], hi[24];
	size_t len = field_shown(f, f->lo, lo);

	field_shown(f, f->hi, hi);
	field_shown(f, (uint64_t)n, is);
	/* Negative, or too close for a rounded number. */
	if (n < 0 || !strcmp(is, lo) || !strcmp(is, hi))
		return err_set(e, EINVAL,
			       "%s of %" JSON_INTEGER_FORMAT
			       ": not between %" PRIu64 " and %" PRIu64,
			       f->key, n, f->lo, f->hi);
	if (!f->lo)
		return err_set(e, EINVAL, "%.*s of %s: more than %s", (int)len,
			       f->key, is, hi);
	return err_set(e, EINVAL, "%.*s of %s: not between %s and %s", (int)len,
		       f->key, is, lo, hi);
}

static int field_number(const struct field *f, const json_t *value,
			uint64_t *ret, struct err *e)
{
	json_int_t n = json_integer_value(value);

	if (n < 0 || (uint64_t)n < f->lo || (uint64_t)n > f->hi)
		return field_range(f, n, e);
	*ret = (uint64_t)n;
	return 0;
}

static int field_choice(const struct field *f, const json_t *value,
			unsigned *ret, struct err *e)
{
	const char *text = json_string_value(value);
	char names[128] = "";
	size_t used = 0;

	for (unsigned i = 0; f->choices[i]; i++) {
		if (strcmp(text, f->choices[i]) == 0) {
			*ret = i;
			return 0;
		}
		used += (size_t)snprintf(names + used, sizeof(names) - used,
					 "%s%s", i ? " or " : "",
					 f->choices[i]);
		must(used < sizeof(names)); /* our own table */
	}
	return err_set(e, EINVAL, "key %s must be %s", f->key, names);
}

static int field_list_check(const struct field *f, const json_t *list,
			    struct err *e)
{
	size_t n = json_array_size(list);

	if (n > f->most)
		return err_set(e, EINVAL, "key %s has more than %zu strings",
			       f->key, f->most);
	for (size_t i = 0; i < n; i++) {
		int r = field_text_check(f, json_array_get(list, i), e);

		if (r < 0)
			return r;
	}
	return 0;
}

static int field_map_check(const struct field *f, json_t *map, struct err *e)
{
	const char *key;
	json_t *value;

	if (json_object_size(map) > f->most)
		return err_set(e, EINVAL, "key %s has more than %zu strings",
			       f->key, f->most);
	json_object_foreach (map, key, value) {
		size_t len = strlen(key);
		int r;

		if (len == 0 || len > f->hi)
			return err_set(e, EINVAL,
				       "key %s must have names of 1 to %" PRIu64
				       " bytes",
				       f->key, f->hi);
		r = field_text_check(f, value, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int field_read(const struct field *f, json_t *value, void *ret,
		      struct err *e)
{
	void *out = (char *)ret + f->offset;
	int r = 0;

	if (!field_type_ok(f, value))
		return err_set(e, EINVAL, "key %s must be %s", f->key,
			       field_kind_names[f->kind]);
	switch (f->kind) {
	case FIELD_TEXT:
		r = field_text_check(f, value, e);
		if (r == 0)
			*(const char **)out = json_string_value(value);
		return r;
	case FIELD_NAME:
		r = field_name_check(f, json_string_value(value), e);
		if (r == 0)
			*(const char **)out = json_string_value(value);
		return r;
	case FIELD_NUMBER:
		return field_number(f, value, out, e);
	case FIELD_BOOL:
		*(bool *)out = json_is_true(value);
		return 0;
	case FIELD_CHOICE:
		return field_choice(f, value, out, e);
	case FIELD_LIST:
	case FIELD_MAP:
		r = f->kind == FIELD_LIST ? field_list_check(f, value, e)
					  : field_map_check(f, value, e);
		if (r == 0)
			*(json_t **)out = value;
		return r;
	case FIELD_KIND_COUNT:
		break;
	}
	must(!"a kind of field");
	return 0;
}

static const struct field *field_find(const struct field *fields,
				      size_t n_fields, const char *key)
{
	for (size_t i = 0; i < n_fields; i++)
		if (strcmp(fields[i].key, key) == 0)
			return &fields[i];
	return NULL;
}

int fields_parse(const char *text, size_t len, const struct field *fields,
		 size_t n_fields, void *ret, json_t **ret_root, struct err *e)
{
	json_error_t where = { 0 };
	json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
	const char *key;
	json_t *value;

	*ret_root = root;
	if (!root)
		return err_set(e, EINVAL, "bad JSON at line %d, column %d: %s",
			       where.line, where.column, where.text);
	if (!json_is_object(root))
		return err_set(e, EINVAL, "the body must be a JSON object");
	json_object_foreach (root, key, value) {
		const struct field *f = field_find(fields, n_fields, key);
		int r;

		if (!f)
			return err_set(e, EINVAL, "unknown key %s", key);
		r = field_read(f, value, ret, e);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < n_fields; i++)
		if (fields[i].required && !json_object_get(root, fields[i].key))
			return err_set(e, EINVAL, "key %s is missing",
				       fields[i].key);
	return 0;
}

int fields_prefix(const json_t *root, const char *verb, struct err *e)
{
	const char *name = json_string_value(json_object_get(root, "name"));

	if (name && parse_name_ok(name))
		return err_prefix(e, "%s %s", verb, name);
	return err_prefix(e, "%s", verb);
}
