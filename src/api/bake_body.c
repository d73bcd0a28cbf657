/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The body of a bake: JSON to struct bake_options
 *
 *	{"name": "python", "rootfs": "/srv/python.erofs",
 *	 "warm": ["python3 -c 'import ssl'"], "replace": true}
 *
 * Types and ranges are the table's, whose limits are bake.h's; behind it comes
 * what JSON cannot say: absolute paths (the daemon's working directory is not
 * the client's), whole MiB.
 *
 * Invariant: after an error nothing is left to release.
 */
#include "api/bakes.h"

#include "api/fields.h"
#include "base/clock.h"
#include "base/guard.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stddef.h>

/* COMMAND_LINE_SIZE of x86; the driver needs some of it. */
#define BAKE_CMDLINE_MAX 1024
/* A warm command travels in one frame of the agent's. */
#define BAKE_COMMAND_MAX 32768
#define BAKE_TIMEOUT_MAX_NS (24ull * 3600 * NS_PER_SEC)
#define BAKE_MIB ((1ull << 20) - 1)

static const char *const bake_nets[] = { "none", "user", NULL };
static const char *const bake_shares[] = { "none", "template", NULL };

/* What the table fills. */
struct bake_body_raw {
	struct bake_options options;
	uint64_t vcpus;
	json_t *warm;
	unsigned net, share;
};

#define BAKE_FIELD_PATH(name, needed)                                   \
	{                                                               \
		.key = #name, .kind = FIELD_TEXT, .required = (needed), \
		.offset = offsetof(struct bake_body_raw, options.name), \
		.lo = 1, .hi = PATH_MAX - 1                             \
	}

static const struct field bake_fields[] = {
	{ .key = "name",
	  .kind = FIELD_NAME,
	  .required = true,
	  .offset = offsetof(struct bake_body_raw, options.name) },
	BAKE_FIELD_PATH(rootfs, true),
	BAKE_FIELD_PATH(kernel, false),
	BAKE_FIELD_PATH(initrd, false),
	{ .key = "cmdline",
	  .kind = FIELD_TEXT,
	  .offset = offsetof(struct bake_body_raw, options.cmdline),
	  .hi = BAKE_CMDLINE_MAX },
	{ .key = "memory_bytes",
	  .kind = FIELD_NUMBER,
	  .offset = offsetof(struct bake_body_raw, options.memory_bytes),
	  .lo = BAKE_MEMORY_MIN,
	  .hi = BAKE_MEMORY_MAX },
	{ .key = "vcpus",
	  .kind = FIELD_NUMBER,
	  .offset = offsetof(struct bake_body_raw, vcpus),
	  .lo = 1,
	  .hi = BAKE_VCPUS_MAX },
	{ .key = "warm",
	  .kind = FIELD_LIST,
	  .offset = offsetof(struct bake_body_raw, warm),
	  .lo = 1,
	  .hi = BAKE_COMMAND_MAX,
	  .most = BAKE_WARM_MAX },
	{ .key = "timeout_ns",
	  .kind = FIELD_NUMBER,
	  .offset = offsetof(struct bake_body_raw, options.timeout_ns),
	  .lo = 0,
	  .hi = BAKE_TIMEOUT_MAX_NS },
	{ .key = "replace",
	  .kind = FIELD_BOOL,
	  .offset = offsetof(struct bake_body_raw, options.replace) },
	{ .key = "net",
	  .kind = FIELD_CHOICE,
	  .offset = offsetof(struct bake_body_raw, net),
	  .choices = bake_nets },
	{ .key = "share",
	  .kind = FIELD_CHOICE,
	  .offset = offsetof(struct bake_body_raw, share),
	  .choices = bake_shares },
};

static int bake_body_path(const char *key, const char *path, struct err *e)
{
	if (path && *path != '/')
		return err_set(e, EINVAL, "key %s must be an absolute path",
			       key);
	return 0;
}

/* What the table cannot say. */
static int bake_body_check(const struct bake_options *o, struct err *e)
{
	int r;

	if (o->memory_bytes & BAKE_MIB)
		return err_set(e, EINVAL,
			       "memory of %" PRIu64 " bytes: not whole MiB",
			       o->memory_bytes);
	r = bake_body_path("rootfs", o->rootfs, e);
	if (r == 0)
		r = bake_body_path("kernel", o->kernel, e);
	if (r == 0)
		r = bake_body_path("initrd", o->initrd, e);
	return r;
}

static int bake_body_warm(struct bake_body *b, const json_t *warm,
			  struct err *e)
{
	size_t n = json_array_size(warm);

	b->warm = calloc(n + 1, sizeof(*b->warm));
	if (!b->warm)
		return err_errno(e, ENOMEM, "read the warm commands");
	for (size_t i = 0; i < n; i++)
		b->warm[i] = json_string_value(json_array_get(warm, i));
	b->options.warm = b->warm;
	b->options.n_warm = n;
	return 0;
}

int bake_body_parse(const char *text, size_t len, struct bake_body *ret,
		    struct err *e)
{
	guard(bake_body_deinit) struct bake_body b = BAKE_BODY_NULL;
	struct bake_body_raw raw = {
		.options.memory_bytes = BAKE_MEMORY_BYTES,
		.vcpus = 1,
		.share = 1,
	};
	int r;

	r = fields_parse(text, len, bake_fields, nitems(bake_fields), &raw,
			 &b.root, e);
	if (r < 0)
		return fields_prefix(b.root, "bake", e);
	b.options = raw.options;
	b.options.vcpus = (unsigned)raw.vcpus;
	b.options.net_user = raw.net == 1;
	b.options.share = raw.share == 1;
	r = bake_body_check(&b.options, e);
	if (r == 0)
		r = bake_body_warm(&b, raw.warm, e);
	if (r < 0)
		return fields_prefix(b.root, "bake", e);
	*ret = b;
	b = (struct bake_body)BAKE_BODY_NULL;
	return 0;
}

void bake_body_deinit(struct bake_body *b)
{
	free(b->warm);
	json_decref(b->root);
	*b = (struct bake_body)BAKE_BODY_NULL;
}
