/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bodies of a push and a pull: JSON to their options
 *
 *	{"template": "python", "store": "lab", "parent": "base", "force": true}
 *	{"store": "lab", "template": "python", "name": "py", "eager": true}
 *
 * All strings are names (parse_name_ok), so they may become parts of paths and
 * of objects' names.
 */
#include "api/transfers.h"

#include "api/fields.h"
#include "base/guard.h"

#include <stddef.h>

#define PUSH_NAME(name, needed)                                         \
	{                                                               \
		.key = #name, .kind = FIELD_NAME, .required = (needed), \
		.offset = offsetof(struct push_options, name)           \
	}
#define PULL_NAME(name, needed)                                         \
	{                                                               \
		.key = #name, .kind = FIELD_NAME, .required = (needed), \
		.offset = offsetof(struct pull_options, name)           \
	}

static const struct field push_fields[] = {
	PUSH_NAME(template, true),
	PUSH_NAME(store, true),
	PUSH_NAME(parent, false),
	{ .key = "force",
	  .kind = FIELD_BOOL,
	  .offset = offsetof(struct push_options, force) },
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

int push_body_parse(const char *text, size_t len, struct push_body *ret,
		    struct err *e)
{
	struct push_body b = { .root = NULL };
	guard_json json_t *root = NULL;
	int r;

	r = fields_parse(text, len, push_fields, nitems(push_fields),
			 &b.options, &root, e);
	if (r < 0)
		return r;
	b.root = take(root);
	*ret = b;
	return 0;
}

int pull_body_parse(const char *text, size_t len, struct pull_body *ret,
		    struct err *e)
{
	struct pull_body b = { .root = NULL };
	guard_json json_t *root = NULL;
	int r;

	r = fields_parse(text, len, pull_fields, nitems(pull_fields),
			 &b.options, &root, e);
	if (r < 0)
		return r;
	b.root = take(root);
	*ret = b;
	return 0;
}
