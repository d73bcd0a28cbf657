/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre bench create: from asking for a sandbox to its first answer
 *
 *	|------------------ total ------------------|
 *	|-- spawn, load, identity, ready --|        |
 *	|------ create answered -------| api | exec |
 *
 * One after the other, each removed before the next: this is the latency of an
 * otherwise idle host. Stages up to "ready" are the daemon's own clock
 * (timings_ms), "api" is what the request took beyond them, "exec" is
 * connecting a stream and running the command.
 */
#include "cmd/bench.h"

#include "cmd/cmd.h"
#include "cmd/create.h"
#include "cmd/interrupt.h"
#include "cmd/opt.h"
#include "cmd/print.h"
#include "cmd/sample.h"
#include "cmd/table.h"
#include "base/clock.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

/* Before there is a page cache and a branch predictor to speak of. */
#define BENCH_WARMUP 2
#define BENCH_N_MAX 100000u

enum bench_stage {
	BENCH_SPAWN,
	BENCH_LOAD,
	BENCH_IDENTITY,
	BENCH_READY,
	BENCH_API,
	BENCH_EXEC,
	BENCH_TOTAL,
	BENCH_STAGE_COUNT,
};

static const char *const bench_stages[] = {
	[BENCH_SPAWN] = "spawn",       [BENCH_LOAD] = "load",
	[BENCH_IDENTITY] = "identity", [BENCH_READY] = "ready",
	[BENCH_API] = "api",           [BENCH_EXEC] = "exec",
	[BENCH_TOTAL] = "total",
};
static_assert(nitems(bench_stages) == BENCH_STAGE_COUNT,
	      "a name for each stage");

struct bench_run {
	struct bench_sandbox sandbox;
	uint64_t n, warmup;
	bool keep, json;
	double cold_boot_ms;
	struct sample stages[BENCH_STAGE_COUNT];
};

static const struct opt bench_create_opts[] = {
	{ 0, "template", "T", "which template",
	  OPT_TEXT(struct bench_run, sandbox.template) },
	{ 'n', NULL, "N", "how many sandboxes",
	  OPT_POSITIVE(struct bench_run, n) },
	{ 0, "warmup", "N", "this many more before, not counted (default 2)",
	  OPT_NUMBER(struct bench_run, warmup) },
	{ 0, "cmd", "CMD", "the first command (default: echo ok)",
	  OPT_TEXT(struct bench_run, sandbox.command) },
	{ 0, "keep", NULL, "leave the sandboxes running",
	  OPT_FLAG(struct bench_run, keep) },
	{ 0, "json", NULL, "print the numbers as JSON",
	  OPT_FLAG(struct bench_run, json) },
	OPT_END,
};

/* ---- measuring ---- */

static double bench_ms(uint64_t from_ns, uint64_t to_ns)
{
	return (double)(to_ns - from_ns) / (double)NS_PER_MS;
}

static int bench_count(struct bench_run *b, const json_t *sandbox,
		       const struct bench_times *t)
{
	const json_t *daemon = json_object_get(sandbox, "timings_ms");
	double v[BENCH_STAGE_COUNT];
	int r = 0;

	for (int i = BENCH_SPAWN; i <= BENCH_READY; i++)
		v[i] = print_real(daemon, bench_stages[i]);
	v[BENCH_API] = bench_ms(t->start_ns, t->created_ns) -
		       print_real(daemon, "total");
	v[BENCH_EXEC] = bench_ms(t->created_ns, t->answered_ns);
	v[BENCH_TOTAL] = bench_ms(t->start_ns, t->answered_ns);
	for (int i = 0; i < BENCH_STAGE_COUNT && r == 0; i++)
		r = sample_add(&b->stages[i], v[i]);
	return r;
}

static int bench_one(struct bench_run *b, bool counted, struct err *e)
{
	json_auto_t *sandbox = NULL;
	struct bench_times t = { 0 };
	int r;

	r = bench_start(&b->sandbox, &sandbox, &t, e);
	if (r == 0 && counted && bench_count(b, sandbox, &t) < 0)
		r = err_errno(e, ENOMEM, "keep the numbers");
	if (sandbox && (r < 0 || !counted || !b->keep)) {
		int undo = create_undo(print_text(sandbox, "id"),
				       r < 0 ? NULL : e);

		r = r < 0 ? r : undo;
	}
	return r;
}

static int bench_all(struct bench_run *b, struct err *e)
{
	int r = 0;

	for (uint64_t i = 0; i < b->warmup + b->n && r == 0; i++) {
		if (interrupt_come())
			return err_set(e, EINTR, "bench create: interrupted");
		r = bench_one(b, i >= b->warmup, e);
	}
	return r;
}

/* ---- telling ---- */

static double bench_ratio(struct bench_run *b)
{
	double p50 = sample_percentile(&b->stages[BENCH_TOTAL], 50);

	return p50 > 0 ? b->cold_boot_ms / p50 : 0;
}

static void bench_json(struct bench_run *b)
{
	json_auto_t *stages = json_object(), *all = NULL;

	for (int i = 0; i < BENCH_STAGE_COUNT; i++) {
		struct sample *s = &b->stages[i];

		json_object_set_new(stages, bench_stages[i],
				    json_pack("{s:f, s:f, s:f, s:f}", "p50",
					      sample_percentile(s, 50), "p90",
					      sample_percentile(s, 90), "p99",
					      sample_percentile(s, 99), "max",
					      sample_percentile(s, 100)));
	}
	all = json_pack("{s:s, s:I, s:O, s:f, s:f}", "template",
			b->sandbox.template, "n", (json_int_t)b->n, "stages",
			stages, "cold_boot_ms", b->cold_boot_ms, "ratio",
			bench_ratio(b));
	print_json(all);
}

static void bench_table(struct bench_run *b)
{
	static const unsigned percents[] = { 50, 90, 99, 100 };
	struct table t;

	table_init(&t, "STAGE (ms)|>P50|>P90|>P99|>MAX");
	for (int i = 0; i < BENCH_STAGE_COUNT; i++) {
		table_add(&t, "%s", bench_stages[i]);
		for (size_t p = 0; p < nitems(percents); p++)
			table_add(
				&t, "%.1f",
				sample_percentile(&b->stages[i], percents[p]));
	}
	table_print(&t);
	table_deinit(&t);
	printf("\ncold boot of %s: %.0f ms, %.1f times the p50\n",
	       b->sandbox.template, b->cold_boot_ms, bench_ratio(b));
}

static int bench_measure(struct bench_run *b)
{
	json_auto_t *template = NULL;
	struct err e = ERR_NULL;
	int r;

	r = bench_template(b->sandbox.template, &template, &e);
	if (r == 0) {
		b->cold_boot_ms = print_real(template, "boot_ms");
		interrupt_hold();
		r = bench_all(b, &e);
	}
	if (r < 0)
		return interrupt_come() ? 128 + interrupt_come() : cmd_fail(&e);
	if (b->json)
		bench_json(b);
	else
		bench_table(b);
	return cmd_end(CMD_OK);
}

static int bench_create_main(int argc, char **argv)
{
	struct bench_run b = { .warmup = BENCH_WARMUP };
	const struct opt_use use = { .cmd = &bench_create,
				     .groups = { { bench_create_opts, &b } } };
	int n = 0, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	if (!b.sandbox.template || !b.n || b.n > BENCH_N_MAX ||
	    b.warmup > BENCH_N_MAX)
		return cmd_usage(&bench_create,
				 "--template T and -n 1..%u are needed",
				 BENCH_N_MAX);
	r = bench_measure(&b);
	for (int i = 0; i < BENCH_STAGE_COUNT; i++)
		sample_deinit(&b.stages[i]);
	return r;
}

const struct cmd bench_create = {
	.name = "bench create",
	.args = "[OPTION]... --template T -n N",
	.summary = "Create, have a first command answered, remove; N times.",
	.run = bench_create_main,
};
