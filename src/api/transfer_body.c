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

static int transfer_body_name(const char *key, const char *name, struct err *e)
{
	if (name && !parse_name_ok(name))
		return err_set(e, EINVAL, "key %s is not a name", key);
	return 0;
}

int push_body_parse(const char *text, size_t len, struct push_body *ret,
		    struct err *e)
{
	guard_json json_t *root = NULL;
	struct push_options o = { 0 };
	int r;

	r = fields_parse(text, len, push_fields, nitems(push_fields), &o, &root,
			 e);
	if (r == 0)
		r = transfer_body_name("template", o.template, e);
	if (r == 0)
		r = transfer_body_name("store", o.store, e);
	if (r == 0)
		r = transfer_body_name("parent", o.parent, e);
	if (r < 0)
		return r;
	*ret = (struct push_body){ .root = json_incref(root), .options = o };
	return 0;
}

int pull_body_parse(const char *text, size_t len, struct pull_body *ret,
		    struct err *e)
{
	guard_json json_t *root = NULL;
	struct pull_options o = { 0 };
	int r;

	r = fields_parse(text, len, pull_fields, nitems(pull_fields), &o, &root,
			 e);
	if (r == 0)
		r = transfer_body_name("store", o.store, e);
	if (r == 0)
		r = transfer_body_name("template", o.template, e);
	if (r == 0)
		r = transfer_body_name("name", o.name, e);
	if (r < 0)
		return r;
	*ret = (struct pull_body){ .root = json_incref(root), .options = o };
	return 0;
}
