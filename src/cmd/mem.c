/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre mem: the ledger
 *
 *	byre mem            GET /v1/mem
 *	byre mem ID         the same, with one sandbox only
 *	byre mem --pid PID  counted here: any process and its descendants, with
 *	                    no daemon and no guest involved
 *	byre mem --pager    GET /v1/pager: what streaming does and costs
 *
 * The third shows what the first is made of: copy-on-write is older than
 * virtual machines, and a server that forks to save its state, or a zygote,
 * has the same question: whose page is it?
 */
#include "cmd/mem.h"

#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/opt.h"
#include "cmd/print.h"
#include "base/guard.h"
#include "ledger/host.h"
#include "ledger/tree.h"

#include <errno.h>
#include <limits.h>

#define MEM_PROC "/proc"

struct mem_options {
	bool json, pager;
	uint64_t pid;
};

static const struct opt mem_opts[] = {
	{ 'p', "pid", "PID", "count this process and all below it instead",
	  OPT_POSITIVE(struct mem_options, pid) },
	{ 0, "pager", NULL, "show what the pager counts instead",
	  OPT_FLAG(struct mem_options, pager) },
	{ 0, "json", NULL, "print it all, in bytes",
	  OPT_FLAG(struct mem_options, json) },
	OPT_END,
};

/* ---- a process tree ---- */

static json_t *mem_process(const struct proc_memory *p)
{
	const struct buckets *b = &p->b;

	return json_pack(
		"{s:i, s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
		"pid", (int)p->pid, "ppid", (int)p->ppid, "comm", p->comm,
		"configured", (json_int_t)p->configured, "shared",
		(json_int_t)b->shared, "private", (json_int_t)b->private,
		"swapped", (json_int_t)b->swapped, "zero", (json_int_t)b->zero,
		"balloon", (json_int_t)b->balloon, "absent",
		(json_int_t)b->absent, "vmm", (json_int_t)p->vmm);
}

static json_t *mem_host(const struct host_memory *h, uint64_t promised,
			uint64_t billed)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:i, s:I, s:I}", "mem_total",
			 (json_int_t)h->mem_total, "mem_available",
			 (json_int_t)h->mem_available, "committed_as",
			 (json_int_t)h->committed_as, "commit_limit",
			 (json_int_t)h->commit_limit, "overcommit_memory",
			 h->overcommit_memory, "promised", (json_int_t)promised,
			 "billed", (json_int_t)billed);
}

static int mem_pid(pid_t pid, json_t **ret, struct err *e)
{
	json_auto_t *rows = json_array();
	guard_free struct proc_memory *p = NULL;
	struct host_memory h = { 0 };
	uint64_t promised = 0, billed = 0;
	size_t n = 0;
	int r;

	r = host_memory_read(MEM_PROC, &h, e);
	if (r == 0)
		r = proc_tree_count(MEM_PROC, pid, &p, &n, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		promised += p[i].configured;
		billed += p[i].b.private + p[i].vmm;
		json_array_append_new(rows, mem_process(&p[i]));
	}
	*ret = json_pack("{s:o, s:[], s:[], s:O}", "host",
			 mem_host(&h, promised, billed), "templates",
			 "sandboxes", "processes", rows);
	if (!*ret || json_array_size(rows) != n)
		return err_errno(e, ENOMEM, "count process %d", (int)pid);
	return 0;
}

/* ---- one sandbox ---- */

/* Its row of the whole ledger if it is there, so that the numbers are of one
 * moment; else the row that was asked for alone. */
static json_t *mem_row_of(const json_t *ledger, json_t *own)
{
	json_t *row;
	size_t i;

	json_array_foreach (json_object_get(ledger, "sandboxes"), i, row)
		if (json_equal(json_object_get(row, "id"),
			       json_object_get(own, "id")))
			return row;
	return own;
}

static int mem_sandbox(const char *id, json_t **ret, struct err *e)
{
	guard_free char *path = client_path("/v1/mem/", id, "");
	json_auto_t *own = NULL, *ledger = NULL;
	int r;

	if (!path)
		return err_errno(e, ENOMEM, "count sandbox %s", id);
	r = client_call("GET", path, NULL, &own, e);
	if (r == 0)
		r = client_call("GET", "/v1/mem", NULL, &ledger, e);
	if (r < 0)
		return r;
	r = json_object_set_new(ledger, "sandboxes",
				json_pack("[O]", mem_row_of(ledger, own)));
	if (r < 0)
		return err_errno(e, ENOMEM, "count sandbox %s", id);
	*ret = json_incref(ledger);
	return 0;
}

/* ---- the verb ---- */

static int mem_get(const struct mem_options *o, const char *id, json_t **ret,
		   struct err *e)
{
	if (o->pager)
		return client_call("GET", "/v1/pager", NULL, ret, e);
	if (o->pid)
		return mem_pid((pid_t)o->pid, ret, e);
	if (id)
		return mem_sandbox(id, ret, e);
	return client_call("GET", "/v1/mem", NULL, ret, e);
}

static int mem_main(int argc, char **argv)
{
	struct mem_options o = { 0 };
	const struct opt_use use = { .cmd = &cmd_mem,
				     .groups = { { mem_opts, &o } },
				     .max_args = 1 };
	json_auto_t *ledger = NULL;
	struct err e = ERR_NULL;
	int n = 0, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	if (!!o.pid + n + o.pager > 1)
		return cmd_usage(&cmd_mem, "an ID, --pid or --pager, one of "
					   "them");
	if (o.pid > INT_MAX)
		return cmd_usage(&cmd_mem, "there is no such PID");
	if (mem_get(&o, n ? argv[1] : NULL, &ledger, &e) < 0)
		return cmd_fail(&e);
	if (o.json)
		print_json(ledger);
	else if (o.pager)
		mem_print_pager(ledger);
	else
		mem_print(ledger);
	return cmd_end(CMD_OK);
}

const struct cmd cmd_mem = {
	.name = "mem",
	.args = "[--json] [ID | --pid PID | --pager]",
	.summary = "Show the ledger: what every page costs, and who pays.",
	.run = mem_main,
};
