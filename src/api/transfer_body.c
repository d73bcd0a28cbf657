/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bodies of a push and a pull: JSON to their options
 *
 *	{"template": "python", "store": "lab", "parent": "base"}
 *	{"store": "lab", "template": "python", "name": "py", "eager": true}
 *
 * All strings are names (parse_name_ok), so they may become parts of paths and
 * of objects' names.
 */
#include "api/transfers.h"

#include "api/fields.h"
#include "base/guard.h"
#include "base/parse.h"

#include <errno.h>
#include <stddef.h>

#define PUSH_NAME(name, needed)                                         \
	{                                                               \
		.key = #name, .kind = FIELD_TEXT, .required = (needed), \
		.offset = offsetof(struct push_options, name), .lo = 1, \
		.hi = 63                                                \
	}
#define PULL_NAME(name, needed)                                         \
	{                                                               \
		.key = #name, .kind = FIELD_TEXT, .required = (needed), \
		.offset = offsetof(struct pull_options, name), .lo = 1, \
		.hi = 63                                                \
	}

static const struct field push_fields[] = {
	PUSH_NAME(template, true),
	PUSH_NAME(store, true),
	PUSH_NAME(parent, false),
};

static const struct field pull_fields[] = {
	PULL_NAME(store, true),
	PULL_NAME(template, true),
	PULL_NAME(name, false),
	{ .key = "eager",
	  .kind = FIELD_BOOL,
	  .offset = offsetof(struct pull_options, eager) },
	{ .key = "replace",
	  .kind = FIELD_BOOL,
	  .offset = offsetof(struct pull_options, replace) },
};

static int transfer_body_name(const struct field *f, const void *options,
			      struct err *e)
{
	const void *at = (const char *)options + f->offset;
	const char *name = *(const char *const *)at;

	if (name && !parse_name_ok(name))
		return err_set(e, EINVAL, "key %s is not a name", f->key);
	return 0;
}

/* @options: the struct that @fields fill. */
static int transfer_body_read(const char *text, size_t len,
			      const struct field *fields, size_t n_fields,
			      void *options, json_t **ret_root, struct err *e)
{
	guard_json json_t *root = NULL;
	int r;

	r = fields_parse(text, len, fields, n_fields, options, &root, e);
	for (size_t i = 0; r == 0 && i < n_fields; i++)
		if (fields[i].kind == FIELD_TEXT)
			r = transfer_body_name(&fields[i], options, e);
	if (r == 0)
		*ret_root = take(root);
	return r;
}

int push_body_parse(const char *text, size_t len, struct push_body *ret,
		    struct err *e)
{
	struct push_body b = { .root = NULL };
	int r;

	r = transfer_body_read(text, len, push_fields, nitems(push_fields),
			       &b.options, &b.root, e);
	if (r == 0)
		*ret = b;
	return r;
}

int pull_body_parse(const char *text, size_t len, struct pull_body *ret,
		    struct err *e)
{
	struct pull_body b = { .root = NULL };
	int r;

	r = transfer_body_read(text, len, pull_fields, nitems(pull_fields),
			       &b.options, &b.root, e);
	if (r == 0)
		*ret = b;
	return r;
}
