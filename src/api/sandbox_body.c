/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The body of a create: JSON to struct sandbox_options
 *
 *	{"template": "base", "name": "web", "ttl_ns": 600000000000,
 *	 "net": "user", "env": {"PATH": "/usr/bin"}}
 *
 * Types and ranges are the table's; what JSON cannot say is checked behind it:
 * that the environment fits the one frame it travels in.
 *
 * Invariant: after an error nothing is left to release.
 */
#include "api/sandboxes.h"

#include "api/fields.h"
#include "base/clock.h"
#include "base/guard.h"
#include "sandbox/sandbox.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

/* Ten years: far from where adding it to the time of day could overflow. */
#define SANDBOX_TTL_MAX_NS (10ull * 365 * 86400 * NS_PER_SEC)

static const char *const sandbox_nets[] = { "none", "user", NULL };

/* What the table fills. */
struct sandbox_body_raw {
	struct sandbox_body b;
	json_t *env;
};

static const struct field sandbox_fields[] = {
	{ .key = "template",
	  .kind = FIELD_NAME,
	  .required = true,
	  .offset = offsetof(struct sandbox_body_raw, b.template) },
	{ .key = "name",
	  .kind = FIELD_NAME,
	  .offset = offsetof(struct sandbox_body_raw, b.name) },
	{ .key = "ttl_ns",
	  .kind = FIELD_NUMBER,
	  .offset = offsetof(struct sandbox_body_raw, b.ttl_ns),
	  .lo = 0,
	  .hi = SANDBOX_TTL_MAX_NS },
	{ .key = "net",
	  .kind = FIELD_CHOICE,
	  .offset = offsetof(struct sandbox_body_raw, b.net),
	  .choices = sandbox_nets },
	{ .key = "env",
	  .kind = FIELD_MAP,
	  .offset = offsetof(struct sandbox_body_raw, env),
	  .lo = 0,
	  .hi = SANDBOX_ENV_BYTES_MAX,
	  .most = SANDBOX_ENV_MAX },
};

static int sandbox_body_env(struct sandbox_body *b, json_t *env, struct err *e)
{
	size_t bytes = 0;
	const char *key;
	json_t *value;

	b->env = calloc(json_object_size(env) + 1, sizeof(*b->env));
	if (!b->env)
		return err_errno(e, ENOMEM, "read the environment");
	json_object_foreach (env, key, value) {
		size_t len = strlen(key) + 1 + json_string_length(value);
		char **out = &b->env[b->n_env];

		if (strchr(key, '='))
			return err_set(e, EINVAL,
				       "key env has a name with = in it");
		bytes += len + 1;
		if (bytes > SANDBOX_ENV_BYTES_MAX)
			return err_set(e, EINVAL,
				       "key env has more than %d bytes in all",
				       SANDBOX_ENV_BYTES_MAX);
		*out = malloc(len + 1);
		if (!*out)
			return err_errno(e, ENOMEM, "read the environment");
		stpcpy(stpcpy(stpcpy(*out, key), "="),
		       json_string_value(value));
		b->n_env++;
	}
	return 0;
}

int sandbox_body_parse(const char *text, size_t len, struct sandbox_body *ret,
		       struct err *e)
{
	guard(sandbox_body_deinit) struct sandbox_body b = SANDBOX_BODY_NULL;
	struct sandbox_body_raw raw = { .b = SANDBOX_BODY_NULL };
	json_t *root = NULL;
	int r;

	r = fields_parse(text, len, sandbox_fields, nitems(sandbox_fields),
			 &raw, &root, e);
	b = raw.b;
	b.root = root;
	if (r == 0 && raw.env)
		r = sandbox_body_env(&b, raw.env, e);
	if (r < 0)
		return fields_prefix(root, "create sandbox", e);
	*ret = b;
	b = (struct sandbox_body)SANDBOX_BODY_NULL;
	return 0;
}

void sandbox_body_deinit(struct sandbox_body *b)
{
	for (size_t i = 0; i < b->n_env; i++)
		free(b->env[i]);
	free(b->env);
	json_decref(b->root);
	*b = (struct sandbox_body)SANDBOX_BODY_NULL;
}
