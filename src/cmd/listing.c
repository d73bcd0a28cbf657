/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verbs that list what the daemon has
 *
 * One request, whose answer is an array: a row each, or with --json all there
 * is to know. What the columns are is the verb's business.
 */
#include "cmd/listing.h"

#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/opt.h"
#include "cmd/print.h"
#include "cmd/table.h"

struct listing_opts {
	bool json;
};

static const struct opt listing_opts[] = {
	{ 0, "json", NULL, "print all there is to know",
	  OPT_FLAG(struct listing_opts, json) },
	OPT_END,
};

static void listing_print(const struct listing *l, const json_t *all)
{
	struct table t;
	json_t *one;
	size_t i;

	table_init(&t, l->head);
	json_array_foreach (all, i, one)
		l->row(&t, one);
	table_print(&t);
	table_deinit(&t);
}

int listing_main(const struct cmd *c, const struct listing *l, int argc,
		 char **argv)
{
	struct listing_opts x = { 0 };
	const struct opt_use use = { .cmd = c,
				     .groups = { { listing_opts, &x } } };
	json_auto_t *all = NULL;
	struct err e = ERR_NULL;
	int n = 0, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	r = client_call("GET", l->path, NULL, &all, &e);
	if (r < 0)
		return cmd_fail(&e);
	if (x.json)
		print_json(all);
	else
		listing_print(l, all);
	return cmd_end(CMD_OK);
}
