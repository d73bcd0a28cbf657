/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre version: of this program, and of the daemon when one answers
 */
#include "cmd/version.h"

#include "base/version.h"
#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/opt.h"
#include "cmd/print.h"

#include <stdio.h>

struct version {
	bool json;
};

static const struct opt version_opts[] = {
	{ 0, "json", NULL, "print {\"version\", \"daemon\"}",
	  OPT_FLAG(struct version, json) },
	OPT_END,
};

void version_print(void)
{
	puts("byre " BYRE_VERSION);
}

static int version_main(int argc, char **argv)
{
	struct version x = { 0 };
	const struct opt_use use = { .cmd = &cmd_version,
				     .groups = { { version_opts, &x } } };
	json_auto_t *host = NULL, *out = NULL;
	int n = 0, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	/* No daemon is no error here. */
	err_drop(client_call("GET", "/v1/host", NULL, &host, NULL));
	if (x.json) {
		out = json_pack("{s:s, s:O?}", "version", BYRE_VERSION,
				"daemon", host);
		print_json(out);
		return cmd_end(CMD_OK);
	}
	version_print();
	if (host)
		printf("daemon %s, %s %s, %s\n", print_text(host, "version"),
		       print_text(host, "driver"),
		       print_text(host, "driver_version"),
		       print_text(host, "accel"));
	return cmd_end(CMD_OK);
}

const struct cmd cmd_version = {
	.name = "version",
	.args = "[--json]",
	.summary = "Show the version of byre, and of the daemon if one runs.",
	.run = version_main,
};
