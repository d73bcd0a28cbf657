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

struct inspect {
	bool json;
};

static const struct opt inspect_opts[] = {
	{ 0, "json", NULL, "print the object", OPT_FLAG(struct inspect, json) },
	OPT_END,
};

static int inspect_main(int argc, char **argv)
{
	struct inspect x = { 0 };
	const struct opt_use use = { .cmd = &cmd_inspect,
				     .groups = { { inspect_opts, &x } },
				     .min_args = 1,
				     .max_args = 1 };
	json_auto_t *sandbox = NULL;
	struct err e = ERR_NULL;
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
	print_object(sandbox);
	return cmd_end(CMD_OK);
}

const struct cmd cmd_inspect = {
	.name = "inspect",
	.args = "[--json] ID",
	.summary = "Show all there is to know of a sandbox.",
	.run = inspect_main,
};
