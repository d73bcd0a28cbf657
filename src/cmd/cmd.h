/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Verbs of the byre program
 *
 * One file per verb, one struct cmd in it; main's table and the help text are
 * made from these. argv[0] of run() is the verb; it returns the exit code: 0,
 * 1 failed, 2 wrong usage (said on stderr), 125 byre itself failed where 1
 * would be the command's own (exec, run).
 */
#include "base/must.h"

struct err;

struct cmd {
	const char *name;
	const char *args;
	const char *summary;
	int (*run)(int argc, char **argv);
};

extern const struct cmd cmd_bake;
extern const struct cmd cmd_bench;
extern const struct cmd cmd_cp;
extern const struct cmd cmd_create;
extern const struct cmd cmd_doctor;
extern const struct cmd cmd_exec;
extern const struct cmd cmd_image;
extern const struct cmd cmd_inspect;
extern const struct cmd cmd_logs;
extern const struct cmd cmd_ls;
extern const struct cmd cmd_mem;
extern const struct cmd cmd_pager;
extern const struct cmd cmd_pause;
extern const struct cmd cmd_pull;
extern const struct cmd cmd_push;
extern const struct cmd cmd_resume;
extern const struct cmd cmd_rm;
extern const struct cmd cmd_rootfs;
extern const struct cmd cmd_run;
extern const struct cmd cmd_serve;
extern const struct cmd cmd_store;
extern const struct cmd cmd_template;
extern const struct cmd cmd_templates;
extern const struct cmd cmd_version;

enum cmd_status {
	CMD_OK = 0,
	CMD_FAILED = 1,
	CMD_USAGE = 2,
	CMD_BYRE_FAILED = 125, /* as docker has it */
};

/* Print an error's sentence, in one line, on stderr. Returns CMD_FAILED. */
int cmd_fail(const struct err *e);

/* "byre VERB: sentence" and the usage line on stderr. Returns CMD_USAGE. */
int cmd_usage(const struct cmd *c, const char *fmt, ...) printf_like(2, 3);

/* The usage line(s) and the summary, on stdout. */
void cmd_help(const struct cmd *c);

/* Flush stdout; CMD_FAILED, said on stderr, when it cannot be written, else
 * @status. */
int cmd_end(int status);

/* Run the one of @subs (NULL-terminated; named "VERB SUB") that argv[1]
 * names. */
int cmd_dispatch(const struct cmd *c, const struct cmd *const *subs, int argc,
		 char **argv);
