/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre run: create, exec, remove
 *
 * The sandbox is removed however it ends: with the command, with an error, by a
 * signal. From the create on, signals are held (interrupt.h); while the command
 * runs they are passed on to it (session.c), and its end is our cue.
 */
#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/create.h"
#include "cmd/exec.h"
#include "cmd/interrupt.h"
#include "cmd/print.h"
#include "base/guard.h"

struct run {
	struct create_options create;
	struct exec_options exec;
};

static int run_command(const char *id, const struct run *x,
		       const char *const *argv)
{
	int status = CMD_BYRE_FAILED;
	struct err e = ERR_NULL;

	if (interrupt_come())
		return 128 + interrupt_come();
	if (exec_in(id, &x->exec, argv, &status, &e) < 0) {
		cmd_fail(&e);
		return CMD_BYRE_FAILED;
	}
	return status;
}

static int run_all(const char *template, const struct run *x,
		   const char *const *argv)
{
	json_auto_t *sandbox = NULL;
	struct err e = ERR_NULL;
	int status;

	interrupt_hold();
	if (create_sandbox(template, &x->create, &sandbox, &e) < 0) {
		cmd_fail(&e);
		return CMD_BYRE_FAILED;
	}
	status = run_command(print_text(sandbox, "id"), x, argv);
	/* What the command said counts, even if this fails. */
	if (create_undo(print_text(sandbox, "id"), &e) < 0)
		cmd_fail(&e);
	return status;
}

static int run_main(int argc, char **argv)
{
	struct run x = { 0 };
	const struct opt_use use = {
		.cmd = &cmd_run,
		.groups = { { create_opts, &x.create },
			    { exec_opts, &x.exec } },
		.min_args = 2,
		.max_args = -1,
		.verbatim = 1,
	};
	int n = 0, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	return run_all(argv[1], &x, (const char *const *)argv + 2);
}

const struct cmd cmd_run = {
	.name = "run",
	.args = "[OPTION]... TEMPLATE [--] COMMAND [ARG]...",
	.summary = "Make a sandbox, run a command in it, and remove it again.",
	.run = run_main,
};
