/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre templates: what can be restored on this host
 */
#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/opt.h"
#include "cmd/print.h"
#include "cmd/table.h"
#include "base/clock.h"

struct templates {
	bool json;
};

static const struct opt templates_opts[] = {
	{ 0, "json", NULL, "print all there is to know",
	  OPT_FLAG(struct templates, json) },
	OPT_END,
};

static void templates_row(struct table *t, const json_t *x)
{
	char memory[16], image[16], resident[16], age[16];

	table_add(t, "%s", print_text(x, "name"));
	table_add(t, "%s", print_bytes(x, "memory_bytes", memory));
	table_add(t, "%s", print_bytes(x, "image_bytes", image));
	table_add(t, "%s", print_bytes(x, "resident_bytes", resident));
	table_add(t, "%llu", (unsigned long long)print_number(x, "vcpus"));
	table_add(t, "%s", print_text(x, "accel"));
	table_add(t, "%.0f ms", print_real(x, "boot_ms"));
	table_add(t, "%s",
		  print_age(print_text(x, "created"), clock_real_ns(), age));
	table_add(t, "%s", print_text(x, "remote"));
	table_add(t, "%s", print_text(x, "problem"));
}

static int templates_main(int argc, char **argv)
{
	struct templates x = { 0 };
	const struct opt_use use = { .cmd = &cmd_templates,
				     .groups = { { templates_opts, &x } } };
	json_auto_t *all = NULL;
	struct err e = ERR_NULL;
	struct table t;
	json_t *one;
	size_t i;
	int n = 0, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	r = client_call("GET", "/v1/templates", NULL, &all, &e);
	if (r < 0)
		return cmd_fail(&e);
	if (x.json) {
		print_json(all);
		return cmd_end(CMD_OK);
	}
	table_init(
		&t,
		"NAME|>MEMORY|>IMAGE|>RESIDENT|>VCPUS|ACCEL|>BOOT|>AGE|STREAMS FROM"
		"|PROBLEM");
	json_array_foreach (all, i, one)
		templates_row(&t, one);
	table_print(&t);
	table_deinit(&t);
	return cmd_end(CMD_OK);
}

const struct cmd cmd_templates = {
	.name = "templates",
	.args = "[--json]",
	.summary = "List the templates.",
	.run = templates_main,
};
