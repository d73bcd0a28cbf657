/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre rm: end sandboxes and forget them
 *
 * Each is tried; an error is said and the next one's turn comes.
 */
#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/opt.h"

struct rm {
	bool force;
};

static const struct opt rm_opts[] = {
	{ 'f', "force", NULL, "living ones too", OPT_FLAG(struct rm, force) },
	OPT_END,
};

static int rm_main(int argc, char **argv)
{
	struct rm x = { 0 };
	const struct opt_use use = { .cmd = &cmd_rm,
				     .groups = { { rm_opts, &x } },
				     .min_args = 1,
				     .max_args = -1 };
	int n = 0, r, status = CMD_OK;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	for (int i = 1; i <= n; i++) {
		struct err e = ERR_NULL;

		if (client_sandbox("DELETE", argv[i], x.force ? "?force=1" : "",
				   NULL, &e) < 0)
			status = cmd_fail(&e);
	}
	return status;
}

const struct cmd cmd_rm = {
	.name = "rm",
	.args = "[-f] ID...",
	.summary = "Remove sandboxes; living ones only with -f.",
	.run = rm_main,
};
