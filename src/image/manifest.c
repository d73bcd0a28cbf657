/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The manifest: what an image is, as JSON
 *
 *	{
 *	  "format": 1,
 *	  "name": "debian",
 *	  ... one key per field of struct image_manifest ...
 *	  "files": {
 *	    "memory": { "bytes": 2147483648, "sha256": "..." },
 *	    ... one key per enum image_file ...
 *	  }
 *	}
 *
 * One table, manifest_fields, has a line per key; parsing, printing and
 * checking all follow it.
 *
 * Invariants:
 *  1. The format is judged before anything else, so that an image of the
 *     future is refused for its format and not for some key.
 *  2. Every key is required, none may be there twice, and none that we do not
 *     know: a key that is not understood may change what the others mean.
 *  3. What is printed can be parsed, and gives the same manifest: both go
 *     through image_manifest_check().
 *  4. A sentence never carries foreign bytes but printable ASCII, and few of
 *     those: it ends on a terminal, and in JSON.
 *
 * The text is bounded by IMAGE_MANIFEST_MAX before it is parsed; jansson bounds
 * the nesting.
 *
 * Out of memory, jansson 2.14 may report a mistake in the text that is not
 * there, or lose a byte of a string of 16 and more: keys, times and digests
 * then fail the check, free texts may pass. Sizes are safe, being shorter.
 */
#include <jansson.h>

#include "image/image.h"

#include "base/guard.h"
#include "base/parse.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* A boot of more than a day is a broken clock. */
#define MANIFEST_BOOT_MS_MAX 86400e3

/* Of a foreign key, in a sentence. */
#define MANIFEST_QUOTE 40

enum field_kind {
	FIELD_TEXT, /* printable ASCII, may be empty */
	FIELD_NAME, /* parse_name_ok() */
	FIELD_TIME, /* 2024-05-01T12:34:56Z, fractions allowed */
	FIELD_SHA256,
	FIELD_MEMORY, /* uint64_t: whole pages, at most IMAGE_MEMORY_MAX */
	FIELD_VCPUS, /* uint32_t */
	FIELD_BOOL,
	FIELD_MS, /* double */
	FIELD_KIND_COUNT,
};

struct field {
	const char *key;
	enum field_kind kind;
	size_t offset;
	size_t size;
};

#define FIELD(key, kind)                                          \
	{                                                         \
#key, kind, offsetof(struct image_manifest, key), \
			sizeof(((struct image_manifest *)0)->key) \
	}

static const struct field manifest_fields[] = {
	FIELD(name, FIELD_NAME),
	FIELD(created, FIELD_TIME),
	FIELD(driver, FIELD_TEXT),
	FIELD(version, FIELD_TEXT),
	FIELD(accel, FIELD_TEXT),
	FIELD(cpu, FIELD_TEXT),
	FIELD(machine, FIELD_TEXT),
	FIELD(kernel, FIELD_TEXT),
	FIELD(kernel_sha256, FIELD_SHA256),
	FIELD(rootfs_sha256, FIELD_SHA256),
	FIELD(memory_bytes, FIELD_MEMORY),
	FIELD(zero_bytes, FIELD_MEMORY),
	FIELD(workingset_bytes, FIELD_MEMORY),
	FIELD(vcpus, FIELD_VCPUS),
	FIELD(share, FIELD_BOOL),
	FIELD(net, FIELD_BOOL),
	FIELD(boot_ms, FIELD_MS),
};

/* Besides the fields: "format" and "files". */
#define MANIFEST_KEYS (nitems(manifest_fields) + 2)

static const char *const file_names[] = {
	[IMAGE_MEMORY] = "memory",   [IMAGE_STATE] = "state",
	[IMAGE_DISK] = "disk",       [IMAGE_OVERLAY] = "overlay",
	[IMAGE_ZEROMAP] = "zeromap", [IMAGE_WORKINGSET] = "workingset",
};
static_assert(nitems(file_names) == IMAGE_FILE_COUNT, "a file has no name");

static void json_freep(json_t **j)
{
	json_decref(*j);
}

const char *image_file_name(enum image_file f)
{
	must((unsigned)f < IMAGE_FILE_COUNT);
	return file_names[f];
}

/* ---- is it a manifest? ---- */

static bool text_ok(const char *s)
{
	for (; *s; s++)
		if (*s < 0x20 || *s > 0x7e)
			return false;
	return true;
}

/* The shape only: a calendar is not needed to refuse garbage. */
static bool time_ok(const char *s)
{
	static const char shape[] = "dddd-dd-ddTdd:dd:dd";

	for (const char *p = shape; *p; p++, s++)
		if (*p == 'd' ? !isdigit((unsigned char)*s) : *p != *s)
			return false;
	if (*s == '.') {
		if (!isdigit((unsigned char)s[1]))
			return false;
		for (s++; isdigit((unsigned char)*s); s++)
			;
	}
	return !strcmp(s, "Z");
}

static int field_check_text(const struct field *f, const char *s,
			    bool (*ok)(const char *), const char *what,
			    struct err *e)
{
	if (!memchr(s, '\0', f->size))
		return err_set(e, EINVAL, "key %s: not terminated", f->key);
	if (!ok(s))
		return err_set(e, EINVAL, "key %s: not %s", f->key, what);
	return 0;
}

static int field_check_memory(const struct field *f, uint64_t bytes,
			      struct err *e)
{
	if (bytes > IMAGE_MEMORY_MAX)
		return err_set(e, EINVAL,
			       "key %s: %" PRIu64 " is more than %llu", f->key,
			       bytes, IMAGE_MEMORY_MAX);
	if (bytes % IMAGE_PAGE)
		return err_set(e, EINVAL,
			       "key %s: %" PRIu64 " is not in whole pages",
			       f->key, bytes);
	return 0;
}

static int field_check(const struct field *f, const struct image_manifest *m,
		       struct err *e)
{
	const void *p = (const char *)m + f->offset;
	double ms;

	switch (f->kind) {
	case FIELD_TEXT:
		return field_check_text(f, p, text_ok, "printable ASCII", e);
	case FIELD_NAME:
		return field_check_text(f, p, parse_name_ok, "a name", e);
	case FIELD_TIME:
		return field_check_text(f, p, time_ok, "a time in UTC", e);
	case FIELD_SHA256:
		return field_check_text(f, p, digest_hex_ok,
					"64 lower-case hex digits", e);
	case FIELD_MEMORY:
		return field_check_memory(f, *(const uint64_t *)p, e);
	case FIELD_VCPUS:
		if (*(const uint32_t *)p < 1 ||
		    *(const uint32_t *)p > IMAGE_VCPUS_MAX)
			return err_set(e, EINVAL,
				       "key %s: %u is not from 1 to %u", f->key,
				       *(const uint32_t *)p, IMAGE_VCPUS_MAX);
		return 0;
	case FIELD_BOOL:
		return 0;
	case FIELD_MS:
		ms = *(const double *)p;
		if (!(ms >= 0 && ms <= MANIFEST_BOOT_MS_MAX))
			return err_set(e, EINVAL, "key %s: out of range",
				       f->key);
		return 0;
	case FIELD_KIND_COUNT:
		break;
	}
	must(!"kind of field");
	return -EINVAL;
}

static int manifest_check_file(const struct image_manifest *m,
			       enum image_file f, struct err *e)
{
	const struct image_file_info *info = &m->file[f];
	uint64_t pages = m->memory_bytes / IMAGE_PAGE, need = info->bytes;

	if (!memchr(info->sha256, '\0', sizeof(info->sha256)) ||
	    !digest_hex_ok(info->sha256))
		return err_set(
			e, EINVAL,
			"key files.%s.sha256: not 64 lower-case hex digits",
			file_names[f]);
	if (f == IMAGE_MEMORY)
		need = m->memory_bytes;
	else if (f == IMAGE_ZEROMAP || f == IMAGE_WORKINGSET)
		need = BITMAP_HEADER + bitmap_bytes(pages);
	if (info->bytes != need)
		return err_set(e, EINVAL,
			       "key files.%s.bytes: %" PRIu64
			       ", memory_bytes asks for %" PRIu64,
			       file_names[f], info->bytes, need);
	if (info->bytes > IMAGE_BYTES_MAX)
		return err_set(e, EINVAL,
			       "key files.%s.bytes: %" PRIu64
			       " is more than %llu",
			       file_names[f], info->bytes, IMAGE_BYTES_MAX);
	return 0;
}

int image_manifest_check(const struct image_manifest *m, struct err *e)
{
	int r;

	for (size_t i = 0; i < nitems(manifest_fields); i++) {
		r = field_check(&manifest_fields[i], m, e);
		if (r < 0)
			return r;
	}
	if (!m->memory_bytes)
		return err_set(e, EINVAL, "key memory_bytes: 0");
	if (m->zero_bytes > m->memory_bytes)
		return err_set(e, EINVAL,
			       "key zero_bytes: more than memory_bytes");
	if (m->workingset_bytes > m->memory_bytes)
		return err_set(e, EINVAL,
			       "key workingset_bytes: more than memory_bytes");
	for (unsigned f = 0; f < IMAGE_FILE_COUNT; f++) {
		r = manifest_check_file(m, f, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- JSON to manifest ---- */

/* @s, if it can be shown. */
static const char *manifest_quote(const char *s)
{
	return text_ok(s) && strlen(s) <= MANIFEST_QUOTE ? s : "(unprintable)";
}

static int json_text(const char *key, const json_t *j, char *ret, size_t size,
		     struct err *e)
{
	const char *s = json_string_value(j);

	if (!s)
		return err_set(e, EINVAL, "key %s: not a string", key);
	if (strlen(s) >= size)
		return err_set(e, EINVAL, "key %s: more than %zu characters",
			       key, size - 1);
	memcpy(ret, s, strlen(s) + 1);
	return 0;
}

static int json_u64(const char *key, const json_t *j, uint64_t *ret,
		    struct err *e)
{
	if (!json_is_integer(j))
		return err_set(e, EINVAL, "key %s: not a whole number", key);
	if (json_integer_value(j) < 0)
		return err_set(e, EINVAL, "key %s: negative", key);
	*ret = (uint64_t)json_integer_value(j);
	return 0;
}

static int json_u32(const char *key, const json_t *j, uint32_t *ret,
		    struct err *e)
{
	uint64_t n = 0;
	int r = json_u64(key, j, &n, e);

	if (r < 0)
		return r;
	if (n > UINT32_MAX)
		return err_set(e, EINVAL, "key %s: out of range", key);
	*ret = (uint32_t)n;
	return 0;
}

static int json_bool(const char *key, const json_t *j, bool *ret, struct err *e)
{
	if (!json_is_boolean(j))
		return err_set(e, EINVAL, "key %s: not true or false", key);
	*ret = json_is_true(j);
	return 0;
}

static int json_double(const char *key, const json_t *j, double *ret,
		       struct err *e)
{
	if (!json_is_number(j))
		return err_set(e, EINVAL, "key %s: not a number", key);
	*ret = json_number_value(j);
	return 0;
}

static int field_parse(const struct field *f, const json_t *j,
		       struct image_manifest *m, struct err *e)
{
	void *p = (char *)m + f->offset;

	switch (f->kind) {
	case FIELD_TEXT:
	case FIELD_NAME:
	case FIELD_TIME:
	case FIELD_SHA256:
		return json_text(f->key, j, p, f->size, e);
	case FIELD_MEMORY:
		return json_u64(f->key, j, p, e);
	case FIELD_VCPUS:
		return json_u32(f->key, j, p, e);
	case FIELD_BOOL:
		return json_bool(f->key, j, p, e);
	case FIELD_MS:
		return json_double(f->key, j, p, e);
	case FIELD_KIND_COUNT:
		break;
	}
	must(!"kind of field");
	return -EINVAL;
}

static int manifest_get(const json_t *j, const char *key, const json_t **ret,
			struct err *e)
{
	*ret = json_object_get(j, key);
	if (!*ret)
		return err_set(e, EINVAL, "key %s: missing", key);
	return 0;
}

static bool manifest_knows(const char *key)
{
	if (!strcmp(key, "format") || !strcmp(key, "files"))
		return true;
	for (size_t i = 0; i < nitems(manifest_fields); i++)
		if (!strcmp(key, manifest_fields[i].key))
			return true;
	return false;
}

static bool file_knows(const char *key)
{
	return !strcmp(key, "bytes") || !strcmp(key, "sha256");
}

static bool files_knows(const char *key)
{
	for (size_t i = 0; i < nitems(file_names); i++)
		if (!strcmp(key, file_names[i]))
			return true;
	return false;
}

/* All that are required are there, so a surplus is unknown. */
static int manifest_no_more(json_t *j, size_t n, bool (*knows)(const char *),
			    struct err *e)
{
	const char *key;
	json_t *value;

	if (json_object_size(j) == n)
		return 0;
	json_object_foreach (j, key, value)
		if (!knows(key))
			return err_set(e, EINVAL, "key %s: unknown",
				       manifest_quote(key));
	must(!"a key that is known and not required");
	return -EINVAL;
}

static int file_parse(json_t *j, struct image_file_info *ret, struct err *e)
{
	const json_t *bytes, *sha256;
	int r;

	if (!json_is_object(j))
		return err_set(e, EINVAL, "not an object");
	r = manifest_get(j, "bytes", &bytes, e);
	if (r < 0)
		return r;
	r = json_u64("bytes", bytes, &ret->bytes, e);
	if (r < 0)
		return r;
	r = manifest_get(j, "sha256", &sha256, e);
	if (r < 0)
		return r;
	r = json_text("sha256", sha256, ret->sha256, sizeof(ret->sha256), e);
	if (r < 0)
		return r;
	return manifest_no_more(j, 2, file_knows, e);
}

static int files_parse(const json_t *manifest, struct image_manifest *m,
		       struct err *e)
{
	json_t *j = json_object_get(manifest, "files"), *file;
	int r;

	if (!json_is_object(j))
		return err_set(e, EINVAL, "key files: %s",
			       j ? "not an object" : "missing");
	for (unsigned f = 0; f < IMAGE_FILE_COUNT; f++) {
		file = json_object_get(j, file_names[f]);
		if (!file)
			return err_set(e, EINVAL, "key files.%s: missing",
				       file_names[f]);
		r = file_parse(file, &m->file[f], e);
		if (r < 0) {
			err_prefix(e, "files.%s", file_names[f]);
			return r;
		}
	}
	r = manifest_no_more(j, IMAGE_FILE_COUNT, files_knows, e);
	if (r < 0)
		err_prefix(e, "files");
	return r;
}

static int manifest_parse_format(const json_t *j, struct err *e)
{
	const json_t *value;
	uint64_t format = 0;
	int r;

	r = manifest_get(j, "format", &value, e);
	if (r < 0)
		return r;
	r = json_u64("format", value, &format, e);
	if (r < 0)
		return r;
	if (format != IMAGE_FORMAT)
		return err_set(e, EINVAL,
			       "format %" PRIu64 ", this byre reads %d", format,
			       IMAGE_FORMAT);
	return 0;
}

static int manifest_parse(json_t *j, struct image_manifest *m, struct err *e)
{
	const json_t *value;
	int r;

	if (!json_is_object(j))
		return err_set(e, EINVAL, "not a JSON object");
	r = manifest_parse_format(j, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < nitems(manifest_fields); i++) {
		r = manifest_get(j, manifest_fields[i].key, &value, e);
		if (r < 0)
			return r;
		r = field_parse(&manifest_fields[i], value, m, e);
		if (r < 0)
			return r;
	}
	r = files_parse(j, m, e);
	if (r < 0)
		return r;
	r = manifest_no_more(j, MANIFEST_KEYS, manifest_knows, e);
	if (r < 0)
		return r;
	return image_manifest_check(m, e);
}

int image_manifest_parse(const char *json, size_t len,
			 struct image_manifest *ret, struct err *e)
{
	struct image_manifest m = { 0 };
	json_error_t why = { 0 };
	guard(json_freep) json_t *j = NULL;
	int r;

	if (len > IMAGE_MANIFEST_MAX)
		return err_set(e, EFBIG, "%zu bytes, at most %u are read", len,
			       IMAGE_MANIFEST_MAX);
	j = json_loadb(json, len, JSON_REJECT_DUPLICATES, &why);
	/* Every mistake in the text has a place; without one, it was memory. */
	if (!j && why.line < 0)
		return err_errno(e, ENOMEM, "parse");
	/* What jansson says may quote the text: only the place is passed on. */
	if (!j)
		return err_set(e, EINVAL, "not JSON: line %d, column %d",
			       why.line, why.column);
	r = manifest_parse(j, &m, e);
	if (r < 0)
		return r;
	*ret = m;
	return 0;
}

/* ---- manifest to JSON ---- */

static json_t *field_print(const struct field *f,
			   const struct image_manifest *m)
{
	const void *p = (const char *)m + f->offset;

	switch (f->kind) {
	case FIELD_TEXT:
	case FIELD_NAME:
	case FIELD_TIME:
	case FIELD_SHA256:
		return json_string(p);
	case FIELD_MEMORY:
		return json_integer((json_int_t)(*(const uint64_t *)p));
	case FIELD_VCPUS:
		return json_integer(*(const uint32_t *)p);
	case FIELD_BOOL:
		return json_boolean(*(const bool *)p);
	case FIELD_MS:
		return json_real(*(const double *)p);
	case FIELD_KIND_COUNT:
		break;
	}
	must(!"kind of field");
	return NULL;
}

static json_t *files_print(const struct image_manifest *m)
{
	guard(json_freep) json_t *files = json_object();
	int bad = 0;

	for (unsigned f = 0; f < IMAGE_FILE_COUNT; f++) {
		json_t *file = json_object();

		bad |= json_object_set_new(
			file, "bytes",
			json_integer((json_int_t)m->file[f].bytes));
		bad |= json_object_set_new(file, "sha256",
					   json_string(m->file[f].sha256));
		bad |= json_object_set_new(files, file_names[f], file);
	}
	return bad ? NULL : take(files);
}

/* A checked manifest; NULL means that memory ran out. */
static json_t *manifest_print(const struct image_manifest *m)
{
	guard(json_freep) json_t *j = json_object();
	int bad = 0;

	bad |= json_object_set_new(j, "format", json_integer(IMAGE_FORMAT));
	for (size_t i = 0; i < nitems(manifest_fields); i++)
		bad |= json_object_set_new(j, manifest_fields[i].key,
					   field_print(&manifest_fields[i], m));
	bad |= json_object_set_new(j, "files", files_print(m));
	return bad ? NULL : take(j);
}

int image_manifest_print(const struct image_manifest *m, char **ret)
{
	guard(json_freep) json_t *j = NULL;
	guard_free char *text = NULL;
	char *longer;
	size_t len;
	int r;

	r = image_manifest_check(m, NULL);
	if (r < 0)
		return r;
	j = manifest_print(m);
	text = j ? json_dumps(j, JSON_INDENT(2)) : NULL;
	if (!text)
		return -ENOMEM;
	len = strlen(text);
	longer = realloc(text, len + 2);
	if (!longer)
		return -ENOMEM;
	text = longer;
	memcpy(text + len, "\n", 2);
	*ret = take(text);
	return 0;
}
