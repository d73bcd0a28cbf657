/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VERB rm NAME
 *
 * One name, no options, nothing printed when it worked: what can be removed,
 * and why not, is the daemon's business.
 */
#include "cmd/forget.h"

#include "base/guard.h"
#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/opt.h"

#include <errno.h>

int forget_main(const struct cmd *c, const char *path, const char *what,
		int argc, char **argv)
{
	static const struct opt none[] = { OPT_END };
	const struct opt_use use = { .cmd = c,
				     .groups = { { none, NULL } },
				     .min_args = 1,
				     .max_args = 1 };
	guard_free char *full = NULL;
	struct err e = ERR_NULL;
	int n = 0, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	full = client_path(path, argv[1], "");
	if (!full)
		err_errno(&e, ENOMEM, "remove %s %s", what, argv[1]);
	else if (client_call("DELETE", full, NULL, NULL, &e) == 0)
		return CMD_OK;
	return cmd_fail(&e);
}
