/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre pull: a template from a store
 *
 * The daemon does it (job.c). Without --eager it is a matter of two requests:
 * memory and disk come later, page by page, when guests want them.
 */
#include "cmd/cmd.h"
#include "cmd/job.h"
#include "cmd/opt.h"

struct pull {
	const char *name;
	bool eager, replace, json;
};

static const struct opt pull_opts[] = {
	{ 0, "as", "NAME", "call it NAME here", OPT_TEXT(struct pull, name) },
	{ 0, "eager", NULL, "fetch all of it now",
	  OPT_FLAG(struct pull, eager) },
	{ 0, "replace", NULL, "replace a template of that name",
	  OPT_FLAG(struct pull, replace) },
	{ 0, "json", NULL, "print the template, not only its name",
	  OPT_FLAG(struct pull, json) },
	OPT_END,
};

static int pull_body(json_t *body, char **argv, const struct pull *x,
		     struct err *e)
{
	int r = job_set_text(body, "store", argv[1], e);

	if (r == 0)
		r = job_set_text(body, "template", argv[2], e);
	if (r == 0)
		r = job_set_text(body, "name", x->name, e);
	if (r == 0 && x->eager)
		r = job_set(body, "eager", json_true(), e);
	if (r == 0 && x->replace)
		r = job_set(body, "replace", json_true(), e);
	return r;
}

static int pull_main(int argc, char **argv)
{
	static const struct job job = { .verb = "pull",
					.path = "/v1/pull",
					.bytes = true };
	struct pull x = { 0 };
	const struct opt_use use = { .cmd = &cmd_pull,
				     .groups = { { pull_opts, &x } },
				     .min_args = 2,
				     .max_args = 2 };
	json_auto_t *body = json_object();
	struct err e = ERR_NULL;
	int n = 0, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	r = pull_body(body, argv, &x, &e);
	return r < 0 ? cmd_fail(&e) : job_template(&job, body, x.json);
}

const struct cmd cmd_pull = {
	.name = "pull",
	.args = "STORE TEMPLATE [--as NAME] [--eager] [--replace] [--json]",
	.summary = "Get a template from a store.",
	.run = pull_main,
};
