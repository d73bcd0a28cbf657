/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre inspect: all there is to know of one sandbox
 *
 * For people, the object is printed as "key  value" lines in the daemon's
 * order, bytes with their human size; nothing is chosen or renamed.
 */
#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/opt.h"
#include "cmd/print.h"
#include "cmd/table.h"
#include "base/guard.h"
#include "base/parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct inspect {
	bool json;
};

static const struct opt inspect_opts[] = {
	{ 0, "json", NULL, "print the object", OPT_FLAG(struct inspect, json) },
	OPT_END,
};

static void inspect_value(struct table *t, const char *key, const json_t *v)
{
	guard_free char *text = NULL;
	size_t len = strlen(key);
	char human[16];

	if (json_is_string(v)) {
		table_add(t, "%s", json_string_value(v));
		return;
	}
	if (json_is_integer(v) && len > 6 && !strcmp(key + len - 6, "_bytes")) {
		table_add(t, "%lld (%s)", (long long)json_integer_value(v),
			  format_bytes((uint64_t)json_integer_value(v), human));
		return;
	}
	text = json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
	table_add(t, "%s", json_is_null(v) ? "-" : text ? text : "?");
}

static void inspect_add(struct table *t, const char *prefix, json_t *o)
{
	const char *key;
	char name[128];
	json_t *v;

	json_object_foreach (o, key, v) {
		snprintf(name, sizeof(name), "%s%s%s", prefix,
			 *prefix ? "." : "", key);
		if (json_is_object(v) && !*prefix) {
			inspect_add(t, key, v);
			continue;
		}
		table_add(t, "%s", name);
		inspect_value(t, key, v);
	}
}

static int inspect_main(int argc, char **argv)
{
	struct inspect x = { 0 };
	const struct opt_use use = { .cmd = &cmd_inspect,
				     .groups = { { inspect_opts, &x } },
				     .min_args = 1,
				     .max_args = 1 };
	json_auto_t *sandbox = NULL;
	struct err e = ERR_NULL;
	struct table t;
	int n = 0, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	r = client_sandbox("GET", argv[1], "", &sandbox, &e);
	if (r < 0)
		return cmd_fail(&e);
	if (x.json) {
		print_json(sandbox);
		return cmd_end(CMD_OK);
	}
	table_init(&t, "KEY|VALUE");
	inspect_add(&t, "", sandbox);
	table_print(&t);
	table_deinit(&t);
	return cmd_end(CMD_OK);
}

const struct cmd cmd_inspect = {
	.name = "inspect",
	.args = "[--json] ID",
	.summary = "Show all there is to know of a sandbox.",
	.run = inspect_main,
};
