/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre ls: the sandboxes, ended ones too
 *
 * The last column says why one ended, else why it is paused although nobody
 * asked for that, else when its time is up.
 */
#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/opt.h"
#include "cmd/print.h"
#include "cmd/table.h"
#include "base/clock.h"

#include <stdio.h>

struct ls {
	bool json;
	bool quiet;
};

static const struct opt ls_opts[] = {
	{ 'q', "quiet", NULL, "print ids only", OPT_FLAG(struct ls, quiet) },
	{ 0, "json", NULL, "print all there is to know",
	  OPT_FLAG(struct ls, json) },
	OPT_END,
};

static void ls_row(struct table *t, const json_t *s, uint64_t now_ns)
{
	char memory[16], age[16], left[16];

	table_add(t, "%s", print_text(s, "id"));
	table_add(t, "%s", print_text(s, "name"));
	table_add(t, "%s", print_text(s, "template"));
	table_add(t, "%s", print_text(s, "state"));
	if (print_number(s, "pid"))
		table_add(t, "%llu",
			  (unsigned long long)print_number(s, "pid"));
	else
		table_add(t, "-");
	table_add(t, "%s", print_bytes(s, "memory_bytes", memory));
	table_add(t, "%s", print_age(print_text(s, "created"), now_ns, age));
	if (*print_text(s, "cause"))
		table_add(t, "%s", print_text(s, "cause"));
	else if (*print_text(s, "paused_because"))
		table_add(t, "%s", print_text(s, "paused_because"));
	else if (*print_text(s, "ends"))
		table_add(t, "ends in %s",
			  print_age(print_text(s, "ends"), now_ns, left));
	else
		table_add(t, "%s", "");
}

static void ls_print(const json_t *all, const struct ls *x)
{
	struct table t;
	json_t *s;
	size_t i;

	table_init(&t, "ID|NAME|TEMPLATE|STATE|>PID|>MEMORY|>AGE|CAUSE");
	json_array_foreach (all, i, s) {
		if (x->quiet)
			puts(print_text(s, "id"));
		else
			ls_row(&t, s, clock_real_ns());
	}
	if (!x->quiet)
		table_print(&t);
	table_deinit(&t);
}

static int ls_main(int argc, char **argv)
{
	struct ls x = { 0 };
	const struct opt_use use = { .cmd = &cmd_ls,
				     .groups = { { ls_opts, &x } } };
	json_auto_t *all = NULL;
	struct err e = ERR_NULL;
	int n = 0, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	r = client_call("GET", "/v1/sandboxes", NULL, &all, &e);
	if (r < 0)
		return cmd_fail(&e);
	if (x.json)
		print_json(all);
	else
		ls_print(all, &x);
	return cmd_end(CMD_OK);
}

const struct cmd cmd_ls = {
	.name = "ls",
	.args = "[OPTION]...",
	.summary = "List the sandboxes, those that have ended too.",
	.run = ls_main,
};
