/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre create: a sandbox from a template
 *
 * The answer comes when the sandbox answers commands. Options become keys of
 * the request one by one; what is not given is not sent, so that defaults are
 * the daemon's alone.
 *
 * A sandbox whose id nobody learned, because a signal came or stdout takes
 * nothing, is removed again.
 */
#include "cmd/create.h"

#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/interrupt.h"
#include "cmd/print.h"
#include "base/guard.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

const struct opt create_opts[] = {
	{ 'n', "name", "NAME", "a name, besides its id",
	  OPT_TEXT(struct create_options, name) },
	{ 0, "ttl", "D", "end it after D (90s, 10m, 2h)",
	  OPT_DURATION(struct create_options, ttl_ns) },
	{ 0, "net", "user|none", "network: the host's, or none (default)",
	  OPT_CHOICE(struct create_options, net) },
	{ 'e', "env", "K=V", "a variable for its commands; may be repeated",
	  OPT_PAIRS(struct create_options, env) },
	OPT_END,
};

struct create {
	struct create_options options;
	bool json;
};

static const struct opt create_own_opts[] = {
	{ 0, "json", NULL, "print the sandbox, not only its id",
	  OPT_FLAG(struct create, json) },
	OPT_END,
};

static int create_env(json_t *body, const struct opt_list *env, struct err *e)
{
	json_t *vars = json_object(), *value;
	const char *eq;

	json_object_set_new(body, "env", vars);
	for (size_t i = 0; i < env->n; i++) {
		guard_free char *name = strdup(env->v[i]);

		eq = strchr(env->v[i], '='); /* opt.c has looked */
		if (name)
			name[eq - env->v[i]] = '\0';
		value = json_string(eq + 1);
		if (!name || json_object_set_new(vars, name, value) < 0)
			return err_set(e, EINVAL, "--env %s: not UTF-8",
				       env->v[i]);
	}
	return 0;
}

int create_sandbox(const char *template, const struct create_options *o,
		   json_t **ret, struct err *e)
{
	json_auto_t *body = json_pack("{s:s}", "template", template);
	int r = 0;

	if (!body)
		return err_set(e, EINVAL, "create a sandbox from %s: not UTF-8",
			       template);
	if (o->name)
		r |= json_object_set_new(body, "name", json_string(o->name));
	if (o->ttl_ns)
		r |= json_object_set_new(body, "ttl_ns",
					 json_integer((json_int_t)o->ttl_ns));
	if (o->net)
		r |= json_object_set_new(body, "net", json_string(o->net));
	if (r)
		return err_set(e, EINVAL, "create sandbox %s: not UTF-8",
			       o->name);
	if (o->env.n)
		r = create_env(body, &o->env, e);
	if (r < 0)
		return r;
	return client_call("POST", "/v1/sandboxes", body, ret, e);
}

int create_undo(const char *id, struct err *e)
{
	int r = client_sandbox("DELETE", id, "?force=1", NULL, e);

	return r == -ENOENT ? 0 : r;
}

static int create_print(const json_t *sandbox, bool json)
{
	/* A pipe without a reader shall be an error, not our end. */
	signal(SIGPIPE, SIG_IGN);
	if (json)
		print_json(sandbox);
	else
		puts(print_text(sandbox, "id"));
	return cmd_end(CMD_OK);
}

static int create_main(int argc, char **argv)
{
	struct create x = { 0 };
	const struct opt_use use = { .cmd = &cmd_create,
				     .groups = { { create_opts, &x.options },
						 { create_own_opts, &x } },
				     .min_args = 1,
				     .max_args = 1 };
	json_auto_t *sandbox = NULL;
	struct err e = ERR_NULL;
	int n = 0, r, status;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	interrupt_hold();
	if (create_sandbox(argv[1], &x.options, &sandbox, &e) < 0)
		return cmd_fail(&e);
	if (interrupt_come())
		status = 128 + interrupt_come();
	else
		status = create_print(sandbox, x.json);
	if (status && create_undo(print_text(sandbox, "id"), &e) < 0)
		cmd_fail(&e);
	return status;
}

const struct cmd cmd_create = {
	.name = "create",
	.args = "[OPTION]... TEMPLATE",
	.summary = "Make a sandbox from a template; prints its id.",
	.run = create_main,
};
