/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger on a terminal
 *
 *	host       what this machine has, what was promised, what it costs
 *	templates  layers, each counted once; present, remote and zero add up to
 *	           "configured"
 *	sandboxes  the six buckets, which add up to "configured", and the VMM's
 *	           own memory; totals below
 */
#include "cmd/mem.h"

#include "cmd/print.h"
#include "cmd/table.h"
#include "base/parse.h"

#include <stdio.h>

/* Columns of a row of buckets, in the order of the page's road. */
static const char *const mem_columns[] = { "configured", "shared", "private",
					   "swapped",    "zero",   "balloon",
					   "absent",     "vmm" };
#define MEM_COLUMNS nitems(mem_columns)
#define MEM_HEAD \
	">CONFIGURED|>SHARED|>PRIVATE|>SWAPPED|>ZERO|>BALLOON|>ABSENT|>VMM"

static void mem_print_host(const json_t *h)
{
	static const char *const modes[] = { "heuristic", "always", "never" };
	uint64_t promised = print_number(h, "promised");
	uint64_t billed = print_number(h, "billed");
	uint64_t mode = print_number(h, "overcommit_memory");
	char a[16], b[16];

	printf("host: %s of memory, %s available\n",
	       format_bytes(print_number(h, "mem_total"), a),
	       format_bytes(print_number(h, "mem_available"), b));
	printf("      %s committed, limit %s, overcommit %s\n",
	       format_bytes(print_number(h, "committed_as"), a),
	       format_bytes(print_number(h, "commit_limit"), b),
	       mode < nitems(modes) ? modes[mode] : "?");
	printf("      %s promised, %s billed", format_bytes(promised, a),
	       format_bytes(billed, b));
	if (billed)
		printf(": %.1f times", (double)promised / (double)billed);
	putchar('\n');
}

static void mem_print_templates(const json_t *templates)
{
	struct table t;
	json_t *x;
	size_t i;

	if (!json_array_size(templates))
		return;
	table_init(&t,
		   "TEMPLATE|>CONFIGURED|>RESIDENT|>PRESENT|>STREAMED|>REMOTE"
		   "|>ZERO");
	json_array_foreach (templates, i, x) {
		char size[16];

		table_add(&t, "%s", print_text(x, "name"));
		table_add(&t, "%s", print_bytes(x, "configured", size));
		table_add(&t, "%s", print_bytes(x, "resident", size));
		table_add(&t, "%s", print_bytes(x, "present", size));
		table_add(&t, "%s", print_bytes(x, "streamed", size));
		table_add(&t, "%s", print_bytes(x, "remote", size));
		table_add(&t, "%s", print_bytes(x, "zero", size));
	}
	putchar('\n');
	table_print(&t);
	table_deinit(&t);
}

/* The columns of one object, and added to @sum. */
static void mem_row(struct table *t, const json_t *x, uint64_t sum[MEM_COLUMNS])
{
	char size[16];

	for (size_t c = 0; c < MEM_COLUMNS; c++) {
		table_add(t, "%s", print_bytes(x, mem_columns[c], size));
		sum[c] += print_number(x, mem_columns[c]);
	}
}

static void mem_total(struct table *t, size_t rows,
		      const uint64_t sum[MEM_COLUMNS])
{
	char size[16];

	table_add(t, "%zu in all", rows);
	table_add(t, "%s", "");
	for (size_t c = 0; c < MEM_COLUMNS; c++)
		table_add(t, "%s", format_bytes(sum[c], size));
}

static void mem_print_sandboxes(const json_t *sandboxes)
{
	uint64_t sum[MEM_COLUMNS] = { 0 };
	struct table t;
	json_t *x;
	size_t i;

	if (!json_array_size(sandboxes))
		return;
	table_init(&t, "SANDBOX|TEMPLATE|" MEM_HEAD);
	json_array_foreach (sandboxes, i, x) {
		table_add(&t, "%s", print_text(x, "id"));
		table_add(&t, "%s", print_text(x, "template"));
		mem_row(&t, x, sum);
	}
	if (json_array_size(sandboxes) > 1)
		mem_total(&t, json_array_size(sandboxes), sum);
	putchar('\n');
	table_print(&t);
	table_deinit(&t);
}

static void mem_print_processes(const json_t *processes)
{
	uint64_t sum[MEM_COLUMNS] = { 0 };
	struct table t;
	json_t *x;
	size_t i;

	if (!json_array_size(processes))
		return;
	table_init(&t, ">PID|PROGRAM|" MEM_HEAD);
	json_array_foreach (processes, i, x) {
		table_add(&t, "%llu",
			  (unsigned long long)print_number(x, "pid"));
		table_add(&t, "%s", print_text(x, "comm"));
		mem_row(&t, x, sum);
	}
	if (json_array_size(processes) > 1)
		mem_total(&t, json_array_size(processes), sum);
	putchar('\n');
	table_print(&t);
	table_deinit(&t);
}

void mem_print(const json_t *ledger)
{
	mem_print_host(json_object_get(ledger, "host"));
	mem_print_templates(json_object_get(ledger, "templates"));
	mem_print_sandboxes(json_object_get(ledger, "sandboxes"));
	mem_print_processes(json_object_get(ledger, "processes"));
}
