/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre pause: stop a sandbox's vCPUs
 */
#include "cmd/pause.h"

#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/opt.h"
#include "cmd/print.h"

#include <stdio.h>

struct pause {
	bool json;
};

static const struct opt pause_opts[] = {
	{ 0, "json", NULL, "print the sandbox", OPT_FLAG(struct pause, json) },
	OPT_END,
};

int pause_or_resume(const struct cmd *c, int argc, char **argv)
{
	struct pause x = { 0 };
	const struct opt_use use = { .cmd = c,
				     .groups = { { pause_opts, &x } },
				     .min_args = 1,
				     .max_args = 1 };
	json_auto_t *sandbox = NULL;
	struct err e = ERR_NULL;
	char verb[16];
	int n = 0, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	snprintf(verb, sizeof(verb), "/%s", c->name);
	r = client_sandbox("POST", argv[1], verb, &sandbox, &e);
	if (r < 0)
		return cmd_fail(&e);
	if (x.json)
		print_json(sandbox);
	return cmd_end(CMD_OK);
}

static int pause_main(int argc, char **argv)
{
	return pause_or_resume(&cmd_pause, argc, argv);
}

const struct cmd cmd_pause = {
	.name = "pause",
	.args = "[--json] ID",
	.summary = "Stop the vCPUs of a sandbox; its memory stays as it is.",
	.run = pause_main,
};
