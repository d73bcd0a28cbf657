/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre template: what one does to a template that is there
 *
 *	byre template rm NAME     forget it and delete its files
 *	byre template evict NAME  of one that is streamed, let go of the pages
 *	                          that can be fetched again
 */
#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/forget.h"
#include "cmd/opt.h"
#include "cmd/print.h"
#include "base/guard.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>

static const struct cmd template_rm, template_evict;

static int template_rm_main(int argc, char **argv)
{
	return forget_main(&template_rm, "/v1/templates/", "template", argc,
			   argv);
}

static const struct cmd template_rm = {
	.name = "template rm",
	.args = "NAME",
	.summary = "Forget a template and delete its files.",
	.run = template_rm_main,
};

struct evict {
	bool json;
};

static const struct opt template_evict_opts[] = {
	{ 0, "json", NULL, "print what the daemon answers",
	  OPT_FLAG(struct evict, json) },
	OPT_END,
};

static int template_evict_main(int argc, char **argv)
{
	struct evict x = { 0 };
	const struct opt_use use = { .cmd = &template_evict,
				     .groups = { { template_evict_opts, &x } },
				     .min_args = 1,
				     .max_args = 1 };
	json_auto_t *answer = NULL;
	guard_free char *path = NULL;
	struct err e = ERR_NULL;
	char size[16];
	int n = 0, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	path = client_path("/v1/templates/", argv[1], "/evict");
	if (!path)
		r = err_errno(&e, ENOMEM, "evict template %s", argv[1]);
	else
		r = client_call("POST", path, NULL, &answer, &e);
	if (r < 0)
		return cmd_fail(&e);
	if (x.json)
		print_json(answer);
	else
		puts(print_bytes(answer, "requested_bytes", size));
	return cmd_end(CMD_OK);
}

static const struct cmd template_evict = {
	.name = "template evict",
	.args = "[--json] NAME",
	.summary = "Let go of what a streamed template can fetch again.",
	.run = template_evict_main,
};

static int template_main(int argc, char **argv)
{
	static const struct cmd *const subs[] = { &template_rm, &template_evict,
						  NULL };

	return cmd_dispatch(&cmd_template, subs, argc, argv);
}

const struct cmd cmd_template = {
	.name = "template",
	.args = "rm|evict NAME",
	.summary = "Remove a template, or drop its streamed pages.",
	.run = template_main,
};
