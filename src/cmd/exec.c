/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre exec: run a command in a sandbox
 *
 * The exit code is the command's own, as if it had run here:
 *
 *	0..255     what the command said
 *	128 + N    signal N ended it
 *	124        --timeout ended it
 *	126, 127   it could not be executed, it was not found (the agent's word)
 *	125        byre itself failed: no daemon, no such sandbox, the sandbox
 *	           died. One line on stderr says which.
 *
 * 125 to 127 are ambiguous by tradition; the line on stderr tells.
 *
 * --timeout is the agent's business, and ours when the guest cannot run: then
 * we end it a little later, and say so.
 */
#include "cmd/exec.h"

#include "cmd/cmd.h"
#include "cmd/session.h"
#include "cmd/stream.h"
#include "cmd/tty.h"
#include "base/clock.h"
#include "base/guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The agent's own last step (WIRE_K_TIMEOUT), and the way there and back on a
 * busy host. */
#define EXEC_KILL_NS (2 * NS_PER_SEC)
#define EXEC_SLACK_NS (2 * NS_PER_SEC)
/* As docker stop has it. */
#define EXEC_GRACE_NS (10 * NS_PER_SEC)

const struct opt exec_opts[] = {
	{ 'i', "interactive", NULL, "pass stdin on (else it is /dev/null)",
	  OPT_FLAG(struct exec_options, interactive) },
	{ 't', "tty", NULL, "give the command a terminal",
	  OPT_FLAG(struct exec_options, tty) },
	{ 0, "timeout", "D", "end the command after D (500ms, 5s, 2m): 124",
	  OPT_DURATION(struct exec_options, timeout_ns) },
	{ 'w', "cwd", "DIR", "start in DIR (else /)",
	  OPT_TEXT(struct exec_options, cwd) },
	{ 'u', "user", "USER", "run as USER[:GROUP], names or numbers",
	  OPT_TEXT(struct exec_options, user) },
	OPT_END,
};

static const struct opt exec_own_opts[] = {
	{ 'e', "env", "K=V", "set a variable; may be repeated",
	  OPT_PAIRS(struct exec_options, env) },
	OPT_END,
};

/* A terminal like ours; --env TERM=... comes later and wins. */
static void exec_terminal(struct wire_out *f)
{
	const char *term = getenv("TERM");
	uint16_t rows, cols;
	char var[128];

	tty_size(&rows, &cols);
	wire_put_u64(f, WIRE_K_ROWS, rows);
	wire_put_u64(f, WIRE_K_COLS, cols);
	if (term && strlen(term) < sizeof(var) - 6) {
		snprintf(var, sizeof(var), "TERM=%s", term);
		wire_put_str(f, WIRE_K_ENV, var);
	}
}

static int exec_open(struct stream *s, const struct exec_options *o,
		     const char *const *argv, struct err *e)
{
	struct wire_out *f = stream_begin_open(s, WIRE_EXEC);

	for (; *argv; argv++)
		wire_put_str(f, WIRE_K_ARG, *argv);
	if (o->tty)
		exec_terminal(f);
	for (size_t i = 0; i < o->env.n; i++)
		wire_put_str(f, WIRE_K_ENV, o->env.v[i]);
	if (o->cwd)
		wire_put_str(f, WIRE_K_CWD, o->cwd);
	if (o->user)
		wire_put_str(f, WIRE_K_USER, o->user);
	if (o->timeout_ns)
		wire_put_u64(f, WIRE_K_TIMEOUT, o->timeout_ns);
	if (o->interactive)
		wire_put_u64(f, WIRE_K_STDIN, 1);
	return stream_send(s, e);
}

/* The exit code for how it ended. @id, @command: for the sentences. */
static int exec_status(const struct stream_result *x, const char *id,
		       int *ret_status, struct err *e)
{
	struct err why = ERR_NULL;

	if (!x->has_code && !x->signal && !x->timed_out)
		return err_set(e, x->error, "run a command in %s: %s", id,
			       x->message);
	if (x->timed_out)
		*ret_status = WIRE_EXIT_TIMEOUT;
	else
		*ret_status = x->signal ? 128 + x->signal : x->code;
	if (x->error) {
		err_set(&why, x->error, "run a command in %s: %s", id,
			x->message);
		cmd_fail(&why);
	}
	return 0;
}

int exec_in(const char *id, const struct exec_options *o,
	    const char *const *argv, int *ret_status, struct err *e)
{
	guard(stream_deinit) struct stream s = STREAM_NULL;
	struct session_options so = { .stdin = o->interactive,
				      .tty = o->tty,
				      .grace_ns = EXEC_GRACE_NS };
	struct stream_result result = { 0 };
	int r;

	if (o->timeout_ns && o->timeout_ns < UINT64_MAX / 2)
		so.deadline_ns = o->timeout_ns + EXEC_KILL_NS + EXEC_SLACK_NS;
	r = stream_connect(&s, id, e);
	if (r < 0)
		return err_prefix(e, "run a command in %s", id);
	r = exec_open(&s, o, argv, e);
	if (r < 0)
		return r;
	r = session_run(&s, &so, &result, e);
	return r < 0 ? r : exec_status(&result, id, ret_status, e);
}

static int exec_main(int argc, char **argv)
{
	struct exec_options o = { 0 };
	const struct opt_use use = {
		.cmd = &cmd_exec,
		.groups = { { exec_opts, &o }, { exec_own_opts, &o } },
		.min_args = 2,
		.max_args = -1,
		.verbatim = 1,
	};
	struct err e = ERR_NULL;
	int n = 0, r, status = CMD_BYRE_FAILED;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	r = exec_in(argv[1], &o, (const char *const *)argv + 2, &status, &e);
	if (r < 0) {
		cmd_fail(&e);
		return CMD_BYRE_FAILED;
	}
	return status;
}

const struct cmd cmd_exec = {
	.name = "exec",
	.args = "[OPTION]... ID [--] COMMAND [ARG]...",
	.summary =
		"Run a command in a sandbox, with this stdin, stdout and stderr.",
	.run = exec_main,
};
