/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre templates: what can be restored on this host
 */
#include "cmd/cmd.h"
#include "cmd/listing.h"
#include "cmd/print.h"
#include "cmd/table.h"
#include "base/clock.h"

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
	static const struct listing l = {
		.path = "/v1/templates",
		.head = "NAME|>MEMORY|>IMAGE|>RESIDENT|>VCPUS|ACCEL|>BOOT|>AGE|STREAMS FROM"
			"|PROBLEM",
		.row = templates_row,
	};

	return listing_main(&cmd_templates, &l, argc, argv);
}

const struct cmd cmd_templates = {
	.name = "templates",
	.args = "[--json]",
	.summary = "List the templates.",
	.run = templates_main,
};
