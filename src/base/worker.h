/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Work that would block the loop: a small pool of threads
 *
 * A job is embedded in its owner. run() is called on a pool thread and may
 * touch only the job's own data; done() is called on the loop afterwards. A
 * job cannot be cancelled, so its owner lives until done(): owners that may
 * vanish earlier keep the job in an allocation of its own.
 */
#include "base/loop.h"

struct worker;
struct worker_job;

typedef void (*worker_fn)(struct worker_job *job);

struct worker_job {
	worker_fn run;
	worker_fn done;
	struct worker_job *next;
};

int worker_new(struct loop *l, unsigned threads, struct worker **ret,
	       struct err *e) must_check;
/* Finishes every submitted job, those that a done() submits included, calling
 * done() from here, then ends. Not to be called from a done(). */
struct worker *worker_free(struct worker *w);

/* On the loop's thread only; cannot fail. */
void worker_submit(struct worker *w, struct worker_job *job, worker_fn run,
		   worker_fn done);
