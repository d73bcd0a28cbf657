/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre logs: what a sandbox said on its console
 *
 * Bytes go out as the guest wrote them, control characters too: this is data,
 * like the output of a command.
 */
#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/opt.h"
#include "base/guard.h"
#include "base/io.h"

#include <errno.h>

struct logs {
	bool follow;
};

static const struct opt logs_opts[] = {
	{ 'f', "follow", NULL, "go on with what comes, until it ends",
	  OPT_FLAG(struct logs, follow) },
	OPT_END,
};

static int logs_copy(const char *id, bool follow, struct err *e)
{
	guard(client_deinit) struct client c = CLIENT_NULL;
	guard_free char *path = client_path(
		"/v1/sandboxes/", id, follow ? "/logs?follow=1" : "/logs");
	const uint8_t *p = NULL;
	size_t n = 0;
	int r;

	if (!path)
		return err_errno(e, ENOMEM, "read the log of %s", id);
	r = client_open(&c, "GET", path, NULL, e);
	while (r == 0) {
		r = client_read(&c, -1, &p, &n, e);
		if (r)
			break;
		r = io_write_full(STDOUT_FILENO, p, n);
		if (r < 0)
			return err_errno(e, -r, "write to stdout");
	}
	return r == CLIENT_END ? 0 : r;
}

static int logs_main(int argc, char **argv)
{
	struct logs x = { 0 };
	const struct opt_use use = { .cmd = &cmd_logs,
				     .groups = { { logs_opts, &x } },
				     .min_args = 1,
				     .max_args = 1 };
	struct err e = ERR_NULL;
	int n = 0, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	return logs_copy(argv[1], x.follow, &e) < 0 ? cmd_fail(&e) : CMD_OK;
}

const struct cmd cmd_logs = {
	.name = "logs",
	.args = "[-f] ID",
	.summary = "Show what a sandbox said on its console.",
	.run = logs_main,
};
