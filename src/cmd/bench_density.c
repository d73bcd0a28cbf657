/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre bench density: what each further sandbox costs
 *
 * N sandboxes are made, each answers a command, all stay. At 1, 10, 20, 50,
 * 100, ... of them the ledger is read. Two numbers that know nothing of each
 * other must agree: what MemAvailable lost, and what the ledger bills
 * (private + vmm).
 *
 * The marginal cost at a point is the difference to the point before, for each
 * sandbox in between: what the first one pays for all (pages of the template,
 * the page cache) is not in it.
 */
#include "cmd/bench.h"

#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/create.h"
#include "cmd/interrupt.h"
#include "cmd/opt.h"
#include "cmd/print.h"
#include "cmd/table.h"
#include "base/parse.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DENSITY_N_MAX 100000u

struct density {
	struct bench_sandbox sandbox;
	uint64_t n;
	bool json;
	json_t *ids; /* of our sandboxes, to be removed */
	json_t *points;
};

static const struct opt density_opts[] = {
	{ 0, "template", "T", "which template",
	  OPT_TEXT(struct density, sandbox.template) },
	{ 'n', NULL, "N", "how many sandboxes",
	  OPT_POSITIVE(struct density, n) },
	{ 0, "cmd", "CMD", "the command each answers (default: echo ok)",
	  OPT_TEXT(struct density, sandbox.command) },
	{ 0, "json", NULL, "print the numbers as JSON",
	  OPT_FLAG(struct density, json) },
	OPT_END,
};

/* 1, 10, 20, 50, 100, 200, 500, ... and the last. */
static bool density_is_point(uint64_t i, uint64_t n)
{
	uint64_t p = i;

	if (i <= 1 || i == n)
		return true;
	while (p >= 10 && p % 10 == 0)
		p /= 10;
	return i >= 10 && (p == 1 || p == 2 || p == 5);
}

/* ---- measuring ---- */

static bool density_ours(const struct density *d, const char *id)
{
	const json_t *x;
	size_t i;

	json_array_foreach (d->ids, i, x)
		if (!strcmp(json_string_value(x), id))
			return true;
	return false;
}

/* Sums over our sandboxes; others may be on this host, too. */
static json_t *density_sums(const struct density *d, const json_t *ledger)
{
	static const char *const keys[] = { "configured", "shared", "private",
					    "zero", "vmm" };
	json_int_t sum[nitems(keys)] = { 0 };
	json_t *row, *point = json_object();
	size_t i;

	json_array_foreach (json_object_get(ledger, "sandboxes"), i, row)
		for (size_t k = 0; k < nitems(keys); k++)
			if (density_ours(d, print_text(row, "id")))
				sum[k] +=
					(json_int_t)print_number(row, keys[k]);
	for (size_t k = 0; k < nitems(keys); k++)
		json_object_set_new(point, keys[k], json_integer(sum[k]));
	return point;
}

/* Growth of @key per sandbox since the point before, in whole bytes. */
static json_int_t density_marginal(const json_t *before, const json_t *now,
				   const char *key)
{
	json_int_t n = json_integer_value(json_object_get(now, "n")) -
		       json_integer_value(json_object_get(before, "n"));
	json_int_t grown = json_integer_value(json_object_get(now, key)) -
			   json_integer_value(json_object_get(before, key));

	return n > 0 ? grown / n : 0;
}

/* All three; MemAvailable shrinks. */
static json_t *density_marginals(const json_t *before, const json_t *now)
{
	return json_pack("{s:I, s:I, s:I}", "available",
			 -density_marginal(before, now, "mem_available"),
			 "private", density_marginal(before, now, "private"),
			 "vmm", density_marginal(before, now, "vmm"));
}

static void density_add(struct density *d, json_t *point)
{
	size_t n = json_array_size(d->points);
	const json_t *before = n ? json_array_get(d->points, n - 1) : NULL;

	if (before)
		json_object_set_new(point, "marginal",
				    density_marginals(before, point));
	json_array_append_new(d->points, point);
}

static int density_point(struct density *d, uint64_t n, struct err *e)
{
	json_auto_t *ledger = NULL;
	const json_t *host;
	json_t *point;
	int r;

	r = client_call("GET", "/v1/mem", NULL, &ledger, e);
	if (r < 0)
		return r;
	host = json_object_get(ledger, "host");
	point = density_sums(d, ledger);
	json_object_set_new(point, "n", json_integer((json_int_t)n));
	json_object_set(point, "mem_available",
			json_object_get(host, "mem_available"));
	json_object_set(point, "promised", json_object_get(host, "promised"));
	json_object_set(point, "billed", json_object_get(host, "billed"));
	density_add(d, point);
	return 0;
}

static int density_one(struct density *d, struct err *e)
{
	json_auto_t *sandbox = NULL;
	struct bench_times t = { 0 };
	int r;

	r = bench_start(&d->sandbox, &sandbox, &t, e);
	if (sandbox &&
	    json_array_append(d->ids, json_object_get(sandbox, "id")) < 0)
		return err_errno(e, ENOMEM, "keep the id");
	return r;
}

static int density_grow(struct density *d, struct err *e)
{
	bool tell = isatty(STDERR_FILENO);
	int r;

	r = density_point(d, 0, e);
	for (uint64_t i = 1; i <= d->n && r == 0; i++) {
		if (interrupt_come())
			return err_set(e, EINTR, "bench density: interrupted");
		r = density_one(d, e);
		if (tell)
			fprintf(stderr, "\r%llu/%llu\033[K",
				(unsigned long long)i,
				(unsigned long long)d->n);
		if (r == 0 && density_is_point(i, d->n))
			r = density_point(d, i, e);
	}
	if (tell)
		fprintf(stderr, "\r\033[K");
	return r;
}

/* All are tried; the first error is told. */
static int density_shrink(struct density *d, struct err *e)
{
	int r, result = 0;
	json_t *id;
	size_t i;

	json_array_foreach (d->ids, i, id) {
		r = create_undo(json_string_value(id), result ? NULL : e);
		result = result ? result : r;
	}
	return result;
}

/* ---- telling ---- */

/* From the first sandbox's point to the last: the slope without the start. */
static json_t *density_slope(const struct density *d)
{
	size_t n = json_array_size(d->points);
	const json_t *first = json_array_get(d->points, n > 2 ? 1 : 0);
	const json_t *last = json_array_get(d->points, n - 1);

	return density_marginals(first, last);
}

/* With its sign: a host that others use may gain memory meanwhile. */
static const char *density_cost(const json_t *o, const char *key, char *out)
{
	json_int_t n = json_integer_value(json_object_get(o, key));

	out[0] = '-';
	format_bytes((uint64_t)(n < 0 ? -n : n), n < 0 ? out + 1 : out);
	return out;
}

static void density_table(const struct density *d, const json_t *slope)
{
	const json_t *point, *m;
	struct table t;
	char x[17];
	size_t i;

	table_init(&t,
		   ">N|>PROMISED|>AVAILABLE|>BILLED|>EACH MORE|>PRIVATE|>VMM");
	json_array_foreach (d->points, i, point) {
		m = json_object_get(point, "marginal");
		table_add(&t, "%llu",
			  (unsigned long long)print_number(point, "n"));
		table_add(&t, "%s", print_bytes(point, "configured", x));
		table_add(&t, "%s", print_bytes(point, "mem_available", x));
		table_add(&t, "%s", print_bytes(point, "billed", x));
		table_add(&t, "%s", m ? density_cost(m, "available", x) : "");
		table_add(&t, "%s", m ? density_cost(m, "private", x) : "");
		table_add(&t, "%s", m ? density_cost(m, "vmm", x) : "");
	}
	table_print(&t);
	table_deinit(&t);
	printf("\neach more: %s of available memory",
	       density_cost(slope, "available", x));
	printf("; by the ledger %s private", density_cost(slope, "private", x));
	printf(" and %s VMM\n", density_cost(slope, "vmm", x));
}

static void density_tell(const struct density *d)
{
	json_auto_t *slope = density_slope(d), *all = NULL;

	if (!d->json) {
		density_table(d, slope);
		return;
	}
	all = json_pack("{s:s, s:I, s:O, s:O}", "template", d->sandbox.template,
			"n", (json_int_t)d->n, "points", d->points, "marginal",
			slope);
	print_json(all);
}

static int density_measure(struct density *d)
{
	json_auto_t *template = NULL;
	struct err e = ERR_NULL, late = ERR_NULL;
	int r, undo;

	r = bench_template(d->sandbox.template, &template, &e);
	if (r < 0)
		return cmd_fail(&e);
	interrupt_hold();
	r = density_grow(d, &e);
	undo = density_shrink(d, &late);
	if (undo < 0)
		cmd_fail(&late);
	if (interrupt_come())
		return 128 + interrupt_come();
	if (r < 0)
		return cmd_fail(&e);
	density_tell(d);
	return cmd_end(undo < 0 ? CMD_FAILED : CMD_OK);
}

static int density_main(int argc, char **argv)
{
	struct density d = { 0 };
	const struct opt_use use = { .cmd = &bench_density,
				     .groups = { { density_opts, &d } } };
	int n = 0, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	if (!d.sandbox.template || !d.n || d.n > DENSITY_N_MAX)
		return cmd_usage(&bench_density,
				 "--template T and -n 1..%u are needed",
				 DENSITY_N_MAX);
	d.ids = json_array();
	d.points = json_array();
	r = density_measure(&d);
	json_decref(d.ids);
	json_decref(d.points);
	return r;
}

const struct cmd bench_density = {
	.name = "bench density",
	.args = "[OPTION]... --template T -n N",
	.summary = "Make N sandboxes that all stay; tell what each more costs.",
	.run = density_main,
};
