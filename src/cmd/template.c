/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre template rm: forget a template and delete its files
 */
#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/opt.h"
#include "base/guard.h"

#include <errno.h>

static const struct cmd template_rm;

static int template_rm_main(int argc, char **argv)
{
	static const struct opt none[] = { OPT_END };
	const struct opt_use use = { .cmd = &template_rm,
				     .groups = { { none, NULL } },
				     .min_args = 1,
				     .max_args = 1 };
	guard_free char *path = NULL;
	struct err e = ERR_NULL;
	int n = 0, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	path = client_path("/v1/templates/", argv[1], "");
	if (!path)
		err_errno(&e, ENOMEM, "remove template %s", argv[1]);
	else if (client_call("DELETE", path, NULL, NULL, &e) == 0)
		return CMD_OK;
	return cmd_fail(&e);
}

static const struct cmd template_rm = {
	.name = "template rm",
	.args = "NAME",
	.summary = "Forget a template and delete its files.",
	.run = template_rm_main,
};

static int template_main(int argc, char **argv)
{
	static const struct cmd *const subs[] = { &template_rm, NULL };

	return cmd_dispatch(&cmd_template, subs, argc, argv);
}

const struct cmd cmd_template = {
	.name = "template",
	.args = "rm NAME",
	.summary = "Remove a template that no sandbox uses.",
	.run = template_main,
};
