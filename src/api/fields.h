/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Strict JSON objects: a table of keys, and nothing beside it
 */
#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum field_kind {
	FIELD_TEXT, /* const char *: lo to hi bytes */
	FIELD_NAME, /* const char *: parse_name_ok() */
	FIELD_NUMBER, /* uint64_t: lo to hi */
	FIELD_BOOL, /* bool */
	FIELD_CHOICE, /* unsigned: index into choices */
	FIELD_LIST, /* json_t *: at most `most` strings of lo to hi bytes */
	FIELD_MAP, /* json_t *: the same, named; names of 1 to hi bytes */
	FIELD_KIND_COUNT,
};

struct field {
	const char *key;
	enum field_kind kind;
	bool required;
	size_t offset; /* of the result, in the caller's struct */
	uint64_t lo, hi;
	size_t most;
	const char *const *choices; /* NULL at the end */
};

/*
 * Read the object in @text. Results of keys that are absent keep what the
 * caller put there; strings, lists and maps point into *ret_root, which the
 * caller releases, after an error too. -EINVAL with a sentence that names the
 * key.
 */
int fields_parse(const char *text, size_t len, const struct field *fields,
		 size_t n_fields, void *ret, json_t **ret_root,
		 struct err *e) must_check;

/* Put "VERB: " before the sentence, or "VERB NAME: " when @root (NULL: it was no
 * JSON) has a key "name" that is one. Returns -e->code. */
int fields_prefix(const json_t *root, const char *verb, struct err *e);

static inline void fields_json_freep(json_t **j)
{
	json_decref(*j);
}

#define guard_json guard(fields_json_freep)
