/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What a push and a pull have in common: a worker, a store, steps, an end
 *
 * A transfer is embedded in its owner. Its run() blocks, on a thread of the
 * templates' slow pool; steps and progress it makes there are told on the loop
 * a few times a second. Then finish() is called on the loop, also when nobody
 * waits any more, and ends with transfer_tell().
 */
#include "base/err.h"
#include "base/loop.h"
#include "base/worker.h"
#include "image/reference.h"
#include "image/store.h"
#include "template/job.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct stores;
struct templates;
struct transfer;

struct transfer_config {
	const char *root; /* BYRE_ROOT; outlives the templates */
	struct loop *loop;
	struct templates *templates;
	struct stores *stores;
};

#define TRANSFER_STEPS_MAX 8
/* For one small object. */
#define TRANSFER_OBJECT_NS (30 * NS_PER_SEC)
/* And for each of its bytes: the least a link gives is 64 KiB/s. */
#define TRANSFER_NS_PER_BYTE (NS_PER_SEC / 65536)

/* done and total are bytes; 0 of 0 where there are none to count. */
struct transfer_step {
	const char *name; /* static */
	char detail[200];
	uint64_t done, total;
};

struct transfer_ops {
	const char *verb; /* for sentences: "push" */
	int (*run)(struct transfer *t, struct err *e);
	void (*finish)(struct transfer *t);
	void (*free)(struct transfer *t);
};

struct transfer {
	struct transfer_config config;
	const struct transfer_ops *ops;
	const struct job_events *events; /* NULL: nobody waits */
	void *arg;
	char name[64]; /* template, for sentences */
	struct store_spec spec;
	struct err e; /* of run(), or from before it */
	struct worker_job job;
	struct loop_timer timer;
	/* the loop's: what was told last */
	size_t told;
	uint64_t told_done;
	/* the worker's */
	struct store *store;
	/* under the mutex */
	pthread_mutex_t mutex;
	struct store_conn *conn;
	bool cancelled;
	struct transfer_step steps[TRANSFER_STEPS_MAX];
	size_t n_steps;
};

/* ---- on the loop ---- */

/* @t is zeroed. Finds the store: -ENOENT. */
int transfer_init(struct transfer *t, const struct transfer_config *config,
		  const struct transfer_ops *ops, const char *name,
		  const char *store, const struct job_events *events, void *arg,
		  struct err *e) must_check;
/* Nothing may run any more. */
void transfer_deinit(struct transfer *t);
/* With t->e set, run() is left out. */
void transfer_start(struct transfer *t);
/* Nobody waits: cancels what is under way. Frees it, now or when it ended. */
void transfer_abandon(struct transfer *t);
/* The end: tells, and frees @t. */
void transfer_tell(struct transfer *t);

/* ---- in run() ---- */

/* Before it the store is not there. */
int transfer_connect(struct transfer *t, struct err *e) must_check;
void transfer_step(struct transfer *t, const char *name, uint64_t total,
		   const char *fmt, ...) printf_like(4, 5);
/* As image/pack.h and image/store.h want it: @arg is the transfer. Counts in
 * the step begun last. */
int transfer_progress(void *arg, uint64_t done, uint64_t total);
/* The reference of @name: 0, STORE_MISS, or an error that names it. */
int transfer_reference(struct transfer *t, const char *name,
		       struct reference *ret, struct err *e) must_check;
/* The index it leads to, verified: fresh bytes, ref->index_bytes of them.
 * A missing one is -ENOENT. */
int transfer_index(struct transfer *t, const struct reference *ref, char **ret,
		   struct err *e) must_check;
