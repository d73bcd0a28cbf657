/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * One count of memory: who is counted, and what came out
 */
#include "base/err.h"
#include "base/worker.h"
#include "ledger/buckets.h"
#include "ledger/host.h"
#include "sandbox/sandbox.h"

#include <jansson.h>

struct template_info;

struct count_sandbox {
	struct sandbox_memory m;
	int pidfd; /* our own */
	bool gone; /* ended before it was counted */
	struct buckets buckets;
	uint64_t vmm_bytes;
};

struct count {
	struct worker_job job;
	struct mem *owner; /* NULL: nobody waits any more */
	char *proc_root;
	struct count_sandbox *sandboxes;
	size_t n_sandboxes, size;
	json_t *templates; /* rows, and what they are billed */
	uint64_t templates_bytes;
	json_t *replaced; /* images among them, as keys */
	struct host_memory host;
	struct err err; /* code 0: all was counted */
};

int count_new(struct mem *owner, const char *proc_root, struct count **ret,
	      struct err *e) must_check;
struct count *count_free(struct count *c);

/* ---- on the loop, before ---- */

/* Left out when it has no VMM. */
int count_add_sandbox(struct count *c, const struct sandbox *s,
		      struct err *e) must_check;
/* One whose manifest is known. */
int count_add_template(struct count *c, const struct template_info *t,
		       struct err *e) must_check;
/* The image of one that was replaced, which sandboxes still map; however many
 * of them say so, it is counted once. */
int count_add_replaced(struct count *c, const struct sandbox_layer *l,
		       struct err *e) must_check;

/* ---- in the worker ---- */

void count_run(struct worker_job *job);

/* ---- on the loop, afterwards; NULL when out of memory ---- */

json_t *count_json(const struct count *c);
/* One row; *ret_found: it was counted. */
json_t *count_json_sandbox(const struct count *c, const char *id,
			   bool *ret_found);
