/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre push: a template into a store
 *
 * The daemon does it (job.c). What it prints is the image's id in the store:
 * the same template has the same one, whoever pushes it, upon the same parent.
 */
#include "cmd/cmd.h"
#include "cmd/job.h"
#include "cmd/opt.h"
#include "cmd/print.h"

#include <stdio.h>

struct push {
	const char *parent;
	bool force, json;
};

static const struct opt push_opts[] = {
	{ 0, "parent", "NAME",
	  "share what template NAME of the store holds already",
	  OPT_TEXT(struct push, parent) },
	{ 0, "force", NULL, "send all of it, and replace what is there",
	  OPT_FLAG(struct push, force) },
	{ 0, "json", NULL, "print what became of it, not only the image",
	  OPT_FLAG(struct push, json) },
	OPT_END,
};

static int push_body(json_t *body, char **argv, const struct push *x,
		     struct err *e)
{
	int r = job_set_text(body, "template", argv[1], e);

	if (r == 0)
		r = job_set_text(body, "store", argv[2], e);
	if (r == 0)
		r = job_set_text(body, "parent", x->parent, e);
	if (r == 0 && x->force)
		r = job_set(body, "force", json_true(), e);
	return r;
}

static int push_main(int argc, char **argv)
{
	static const struct job job = { .verb = "push",
					.path = "/v1/push",
					.bytes = true };
	struct push x = { 0 };
	const struct opt_use use = { .cmd = &cmd_push,
				     .groups = { { push_opts, &x } },
				     .min_args = 2,
				     .max_args = 2 };
	json_auto_t *body = json_object(), *last = NULL;
	struct err e = ERR_NULL;
	json_t *done;
	int n = 0, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	r = push_body(body, argv, &x, &e);
	if (r == 0)
		r = job_follow(&job, body, &last, &e);
	if (r < 0)
		return cmd_fail(&e);
	done = json_object_get(last, "push");
	if (!json_is_true(json_object_get(done, "sent")))
		fprintf(stderr, "store %s has it already\n", argv[2]);
	if (x.json)
		print_json(done);
	else
		puts(print_text(done, "image"));
	return cmd_end(CMD_OK);
}

const struct cmd cmd_push = {
	.name = "push",
	.args = "TEMPLATE STORE [--parent NAME] [--force] [--json]",
	.summary = "Put a template into a store.",
	.run = push_main,
};
