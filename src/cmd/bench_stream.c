/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre bench stream: a cold host against a warm one
 *
 * The template is pushed into a directory, which is served over HTTP by a
 * relay with the given round trip and rate. Then, N times, side by side:
 *
 *	local    the warm host (the daemon that is running): create -> first
 *	         command
 *	lazy     a host that has never seen anything: pull, create -> first
 *	         command; memory and disk follow on demand
 *	second   another sandbox on that host
 *	full     another such host: pull --eager, create -> first command
 *
 * "cold host" is a daemon with an empty root; the kernel's page cache of the
 * store's files is warm, as a store's is.
 *
 * Touched: what the first sandbox of the cold host has mapped (shared and
 * private) when it has answered. Fetched: bytes that came over the wire for
 * it, compressed as they are.
 */
#include "cmd/bench.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/proc.h"
#include "cmd/bench_host.h"
#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/create.h"
#include "cmd/interrupt.h"
#include "cmd/opt.h"
#include "cmd/print.h"
#include "cmd/range_server.h"
#include "cmd/sample.h"
#include "cmd/table.h"
#include "cmd/throttle.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BENCH_STREAM_N_MAX 1000u
#define BENCH_STREAM_STORE "bench-stream"

enum stream_measure {
	STREAM_LOCAL,
	STREAM_PULL,
	STREAM_LAZY,
	STREAM_SECOND,
	STREAM_FULL_PULL,
	STREAM_FULL,
	STREAM_FETCHED,
	STREAM_TOUCHED,
	STREAM_SECOND_FETCHED,
	STREAM_FAULTS,
	STREAM_SECOND_FAULTS,
	STREAM_MEASURE_COUNT,
};

static const struct {
	const char *key;
	const char *text;
} stream_measures[] = {
	[STREAM_LOCAL] = { "local_ms", "warm local create to answer, ms" },
	[STREAM_PULL] = { "pull_ms", "lazy pull, ms" },
	[STREAM_LAZY] = { "lazy_ms", "cold create to answer, ms" },
	[STREAM_SECOND] = { "second_ms", "second create to answer, ms" },
	[STREAM_FULL_PULL] = { "full_pull_ms", "eager pull, ms" },
	[STREAM_FULL] = { "full_ms", "eager pull, create to answer, ms" },
	[STREAM_FETCHED] = { "fetched_bytes", "fetched, bytes" },
	[STREAM_TOUCHED] = { "touched_bytes", "touched, bytes" },
	[STREAM_SECOND_FETCHED] = { "second_fetched_bytes",
				    "fetched for the second, bytes" },
	[STREAM_FAULTS] = { "faults", "faults to the pager" },
	[STREAM_SECOND_FAULTS] = { "second_faults",
				   "faults to the pager by the second" },
};
static_assert(nitems(stream_measures) == STREAM_MEASURE_COUNT,
	      "a name for each measure");

struct bench_stream {
	struct bench_sandbox sandbox;
	uint64_t n;
	uint64_t rtt_ns, rate_mbit;
	bool json;
	char *run; /* of the warm host */
	char dir[64]; /* of everything */
	char url[64];
	struct range_server *server;
	struct throttle *throttle;
	struct sample v[STREAM_MEASURE_COUNT];
};

static const struct opt bench_stream_opts[] = {
	{ 0, "template", "T", "which template",
	  OPT_TEXT(struct bench_stream, sandbox.template) },
	{ 'n', NULL, "N", "how many cold hosts (default 5)",
	  OPT_POSITIVE(struct bench_stream, n) },
	{ 0, "cmd", "CMD", "the first command (default: echo ok)",
	  OPT_TEXT(struct bench_stream, sandbox.command) },
	{ 0, "rtt", "TIME", "round trip to the store (default 20ms)",
	  OPT_DURATION(struct bench_stream, rtt_ns) },
	{ 0, "rate", "MBIT", "megabits per second (default 1000)",
	  OPT_POSITIVE(struct bench_stream, rate_mbit) },
	{ 0, "json", NULL, "print the numbers as JSON",
	  OPT_FLAG(struct bench_stream, json) },
	OPT_END,
};

static double stream_ms(uint64_t from_ns)
{
	return (double)(clock_mono_ns() - from_ns) / (double)NS_PER_MS;
}

/* ---- one thing at a time ---- */

/* This program, as a user would call it. */
static int stream_byre(const char *const *args, struct err *e)
{
	const char *argv[12] = { "/proc/self/exe" };
	guard_free char *output = NULL;

	for (size_t i = 0; args[i]; i++) {
		must(i + 2 < nitems(argv));
		argv[i + 1] = args[i];
	}
	return proc_run(argv, 65536, &output, e);
}

/* Create, have a command answered. *ret_id is fresh. */
static int stream_create(struct bench_stream *b, double *ret_ms, char **ret_id,
			 struct err *e)
{
	json_auto_t *sandbox = NULL;
	struct bench_times t = { 0 };
	int r = bench_start(&b->sandbox, &sandbox, &t, e);

	if (r < 0)
		return r;
	*ret_ms = (double)(t.answered_ns - t.start_ns) / (double)NS_PER_MS;
	*ret_id = strdup(print_text(sandbox, "id"));
	return *ret_id ? 0 : err_errno(e, ENOMEM, "bench stream");
}

static int stream_layer(uint64_t *ret_fetched, uint64_t *ret_faults,
			struct err *e)
{
	json_auto_t *pager = NULL;
	const json_t *layer;
	int r = client_call("GET", "/v1/pager", NULL, &pager, e);

	if (r < 0)
		return r;
	layer = json_array_get(json_object_get(pager, "layers"), 0);
	*ret_fetched = print_number(layer, "fetched_bytes");
	*ret_faults = print_number(layer, "faults");
	return 0;
}

static int stream_touched(const char *id, double *ret, struct err *e)
{
	guard_free char *path = client_path("/v1/mem/", id, "");
	json_auto_t *row = NULL;
	int r;

	if (!path)
		return err_errno(e, ENOMEM, "bench stream");
	r = client_call("GET", path, NULL, &row, e);
	if (r == 0)
		*ret = (double)(print_number(row, "shared") +
				print_number(row, "private"));
	return r;
}

static int stream_add(struct bench_stream *b, enum stream_measure m, double v,
		      struct err *e)
{
	return sample_add(&b->v[m], v) < 0
		       ? err_errno(e, ENOMEM, "bench stream")
		       : 0;
}

/* ---- the four cases ---- */

static int stream_local(struct bench_stream *b, struct err *e)
{
	guard_free char *id = NULL;
	double ms = 0;
	int r = stream_create(b, &ms, &id, e);

	if (r == 0)
		r = create_undo(id, e);
	return r < 0 ? r : stream_add(b, STREAM_LOCAL, ms, e);
}

static int stream_pull(struct bench_stream *b, bool eager, double *ret_ms,
		       struct err *e)
{
	const char *add[] = { "store", "add", BENCH_STREAM_STORE, b->url,
			      NULL };
	const char *pull[] = { "pull", BENCH_STREAM_STORE, b->sandbox.template,
			       eager ? "--eager" : NULL, NULL };
	uint64_t from;
	int r = stream_byre(add, e);

	from = clock_mono_ns();
	if (r == 0)
		r = stream_byre(pull, e);
	*ret_ms = stream_ms(from);
	return r;
}

static int stream_lazy_host(struct bench_stream *b, struct err *e)
{
	guard_free char *first = NULL, *second = NULL;
	uint64_t fetched = 0, faults = 0, later = 0, later_faults = 0;
	double v[STREAM_MEASURE_COUNT] = { 0 };
	int r = stream_pull(b, false, &v[STREAM_PULL], e);

	if (r == 0)
		r = stream_create(b, &v[STREAM_LAZY], &first, e);
	if (r == 0)
		r = stream_touched(first, &v[STREAM_TOUCHED], e);
	if (r == 0)
		r = stream_layer(&fetched, &faults, e);
	if (r == 0)
		r = stream_create(b, &v[STREAM_SECOND], &second, e);
	if (r == 0)
		r = stream_layer(&later, &later_faults, e);
	v[STREAM_FETCHED] = (double)fetched;
	v[STREAM_FAULTS] = (double)faults;
	v[STREAM_SECOND_FETCHED] = (double)(later - fetched);
	v[STREAM_SECOND_FAULTS] = (double)(later_faults - faults);
	for (int m = STREAM_PULL; r == 0 && m < STREAM_MEASURE_COUNT; m++)
		if (m != STREAM_FULL && m != STREAM_FULL_PULL)
			r = stream_add(b, m, v[m], e);
	return r;
}

static int stream_full_host(struct bench_stream *b, struct err *e)
{
	guard_free char *id = NULL;
	double pull = 0, create = 0;
	int r = stream_pull(b, true, &pull, e);

	if (r == 0)
		r = stream_create(b, &create, &id, e);
	if (r == 0)
		r = stream_add(b, STREAM_FULL_PULL, pull, e);
	return r < 0 ? r : stream_add(b, STREAM_FULL, pull + create, e);
}

static int stream_on_host(struct bench_stream *b,
			  int (*what)(struct bench_stream *b, struct err *e),
			  struct err *e)
{
	struct bench_host host = BENCH_HOST_NULL;
	char dir[96];
	int r;

	snprintf(dir, sizeof(dir), "%s/host", b->dir);
	r = bench_host_start(&host, dir, e);
	if (r == 0)
		r = what(b, e);
	bench_host_stop(&host, b->run);
	return r;
}

/* ---- all of it ---- */

static int stream_push(struct bench_stream *b, struct err *e)
{
	char dir[96];
	const char *add[] = { "store", "add", BENCH_STREAM_STORE, dir, NULL };
	const char *push[] = { "push", b->sandbox.template, BENCH_STREAM_STORE,
			       NULL };
	const char *rm[] = { "store", "rm", BENCH_STREAM_STORE, NULL };
	struct err drop = ERR_NULL;
	int r;

	snprintf(dir, sizeof(dir), "%s/store", b->dir);
	r = io_mkdirs(dir, 0700, e);
	if (r == 0)
		r = stream_byre(add, e);
	if (r < 0)
		return r;
	r = stream_byre(push, e);
	err_drop(stream_byre(rm, &drop));
	if (r == 0)
		r = range_server_new(dir, &b->server, e);
	if (r == 0)
		r = throttle_new(range_server_port(b->server), b->rtt_ns / 2,
				 b->rate_mbit * 1000000u, &b->throttle, e);
	if (r == 0)
		snprintf(b->url, sizeof(b->url), "http://127.0.0.1:%u",
			 throttle_port(b->throttle));
	return r;
}

static int stream_all(struct bench_stream *b, struct err *e)
{
	int r = stream_push(b, e);

	/* Once for the page cache and the zygote. */
	if (r == 0)
		r = stream_local(b, e);
	sample_deinit(&b->v[STREAM_LOCAL]);
	b->v[STREAM_LOCAL] = (struct sample)SAMPLE_NULL;
	for (uint64_t i = 0; r == 0 && i < b->n; i++) {
		if (interrupt_come())
			return err_set(e, EINTR, "bench stream: interrupted");
		r = stream_local(b, e);
		if (r == 0)
			r = stream_on_host(b, stream_lazy_host, e);
		if (r == 0)
			r = stream_on_host(b, stream_full_host, e);
	}
	return r;
}

static double stream_p50(struct bench_stream *b, enum stream_measure m)
{
	return sample_percentile(&b->v[m], 50);
}

static double stream_ratio(struct bench_stream *b, enum stream_measure over,
			   enum stream_measure under)
{
	double d = stream_p50(b, under);

	return d > 0 ? stream_p50(b, over) / d : 0;
}

static void stream_json(struct bench_stream *b)
{
	json_auto_t *all = json_pack("{s:s, s:I, s:f, s:I}", "template",
				     b->sandbox.template, "n", (json_int_t)b->n,
				     "rtt_ms",
				     (double)b->rtt_ns / (double)NS_PER_MS,
				     "rate_mbit", (json_int_t)b->rate_mbit);

	for (int m = 0; m < STREAM_MEASURE_COUNT; m++)
		json_object_set_new(
			all, stream_measures[m].key,
			json_pack("{s:f, s:f, s:f}", "min",
				  sample_percentile(&b->v[m], 0), "p50",
				  stream_p50(b, m), "max",
				  sample_percentile(&b->v[m], 100)));
	json_object_set_new(
		all, "lazy_over_local",
		json_real(stream_ratio(b, STREAM_LAZY, STREAM_LOCAL)));
	json_object_set_new(
		all, "full_over_lazy",
		json_real(stream_ratio(b, STREAM_FULL, STREAM_LAZY)));
	json_object_set_new(
		all, "fetched_over_touched",
		json_real(stream_ratio(b, STREAM_FETCHED, STREAM_TOUCHED)));
	print_json(all);
}

static void stream_table(struct bench_stream *b)
{
	struct table t;

	table_init(&t, "WHAT|>MIN|>P50|>MAX");
	for (int m = 0; m < STREAM_MEASURE_COUNT; m++) {
		table_add(&t, "%s", stream_measures[m].text);
		table_add(&t, "%.1f", sample_percentile(&b->v[m], 0));
		table_add(&t, "%.1f", stream_p50(b, m));
		table_add(&t, "%.1f", sample_percentile(&b->v[m], 100));
	}
	table_print(&t);
	table_deinit(&t);
	printf("\ncold create: %.2f times the warm local one\n"
	       "full download, then restore: %.2f times the cold create\n"
	       "fetched: %.2f times what was touched\n",
	       stream_ratio(b, STREAM_LAZY, STREAM_LOCAL),
	       stream_ratio(b, STREAM_FULL, STREAM_LAZY),
	       stream_ratio(b, STREAM_FETCHED, STREAM_TOUCHED));
}

static int stream_measure(struct bench_stream *b)
{
	json_auto_t *template = NULL;
	struct err e = ERR_NULL;
	int r;

	snprintf(b->dir, sizeof(b->dir), "/tmp/byre-bench-XXXXXX");
	b->run = strdup(client_run());
	r = bench_template(b->sandbox.template, &template, &e);
	if (r == 0 && (!b->run || !mkdtemp(b->dir)))
		r = err_errno(&e, errno, "make %s", b->dir);
	if (r == 0) {
		interrupt_hold();
		r = stream_all(b, &e);
		throttle_free(b->throttle);
		range_server_free(b->server);
		err_drop(io_remove_tree(b->dir, NULL));
	}
	free(b->run);
	if (r < 0)
		return interrupt_come() ? 128 + interrupt_come() : cmd_fail(&e);
	if (b->json)
		stream_json(b);
	else
		stream_table(b);
	return cmd_end(CMD_OK);
}

static int bench_stream_main(int argc, char **argv)
{
	struct bench_stream b = { .n = 5,
				  .rtt_ns = 20 * NS_PER_MS,
				  .rate_mbit = 1000 };
	const struct opt_use use = { .cmd = &bench_stream,
				     .groups = { { bench_stream_opts, &b } } };
	int n = 0, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	if (!b.sandbox.template || !b.n || b.n > BENCH_STREAM_N_MAX)
		return cmd_usage(&bench_stream,
				 "--template T and -n 1..%u are needed",
				 BENCH_STREAM_N_MAX);
	r = stream_measure(&b);
	for (int m = 0; m < STREAM_MEASURE_COUNT; m++)
		sample_deinit(&b.v[m]);
	return r;
}

const struct cmd bench_stream = {
	.name = "bench stream",
	.args = "[OPTION]... --template T",
	.summary = "A cold host that streams against a warm one, side by side.",
	.run = bench_stream_main,
};
