/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Running a command in a sandbox: what exec and run share
 */
#include "cmd/opt.h"

struct err;

struct exec_options {
	bool interactive;
	bool tty;
	uint64_t timeout_ns;
	struct opt_list env;
	const char *cwd;
	const char *user;
};

/* For a struct exec_options; env is not in it, for run gives it at create. */
extern const struct opt exec_opts[];

/* Run @argv in sandbox @id with our stdin, stdout, stderr, signals. 0: the exit
 * code is in *ret_status; < 0: byre itself failed. */
int exec_in(const char *id, const struct exec_options *o,
	    const char *const *argv, int *ret_status, struct err *e) must_check;
