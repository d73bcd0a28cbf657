/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a push and a pull have in common
 *
 *	loop:    transfer_start --> [slow pool] ........--> finish --> done event
 *	                 timer: tells the steps meanwhile
 *	thread:                     run(): connect, step, progress...
 *
 * A store call may take minutes, and an answer to "are you still wanted?" must
 * not: so the loop sets a flag that every progress call returns as ECANCELED,
 * and cancels the connection, which ends a call that waits for the network.
 *
 * Invariants:
 *  1. The mutex guards what both threads touch: the connection's pointer, the
 *     flag, the steps. It is held for copies, never over a call to the store.
 *  2. The connection is made and freed by the worker; the loop uses it only
 *     under the mutex, and only to cancel it.
 *  3. Every step is told, in order, a step's last numbers before the next
 *     step; how often in between is the timer's affair.
 *  4. After transfer_abandon() no event is sent; run() ends soon and finish()
 *     is called all the same, to put away what was made.
 */
#include "template/transfer.h"

#include "base/clock.h"
#include "base/digest.h"
#include "base/guard.h"
#include "sandbox/stores.h"
#include "template/template.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Fast enough for a bar that moves, slow enough for a log. */
#define TRANSFER_TELL_NS (200 * NS_PER_MS)

static void transfer_lock(struct transfer *t)
{
	must(pthread_mutex_lock(&t->mutex) == 0);
}

static void transfer_unlock(struct transfer *t)
{
	must(pthread_mutex_unlock(&t->mutex) == 0);
}

int transfer_init(struct transfer *t, const struct transfer_config *config,
		  const struct transfer_ops *ops, const char *name,
		  const char *store, const struct job_events *events, void *arg,
		  struct err *e)
{
	const struct store_spec *spec = stores_find(config->stores, store);

	if (!spec)
		return err_set(e, ENOENT,
			       "%s %s: there is no store %s (byre store add)",
			       ops->verb, name, store);
	t->config = *config;
	t->ops = ops;
	t->events = events;
	t->arg = arg;
	snprintf(t->name, sizeof(t->name), "%s", name);
	t->spec = *spec;
	must(pthread_mutex_init(&t->mutex, NULL) == 0);
	return 0;
}

void transfer_deinit(struct transfer *t)
{
	loop_timer_del(&t->timer);
	if (t->ops) /* transfer_init() worked */
		must(pthread_mutex_destroy(&t->mutex) == 0);
}

/* ---- telling ---- */

/* A copy of step @i; false when it has not begun. */
static bool transfer_copy(struct transfer *t, size_t i,
			  struct transfer_step *ret)
{
	bool begun;

	transfer_lock(t);
	begun = i < t->n_steps;
	if (begun)
		*ret = t->steps[i];
	transfer_unlock(t);
	return begun;
}

static void transfer_tell_steps(struct transfer *t)
{
	struct transfer_step s;

	/* The last one told, if it has moved; then those that are new. */
	if (t->told && transfer_copy(t, t->told - 1, &s) &&
	    s.done != t->told_done) {
		t->told_done = s.done;
		t->events->step(t->arg, s.name, s.detail, s.done, s.total);
	}
	while (transfer_copy(t, t->told, &s)) {
		t->told++;
		t->told_done = s.done;
		t->events->step(t->arg, s.name, s.detail, s.done, s.total);
	}
}

static void transfer_arm(struct transfer *t);

static void transfer_on_timer(struct loop_timer *timer)
{
	struct transfer *t = container_of(timer, struct transfer, timer);

	transfer_tell_steps(t);
	transfer_arm(t);
}

/* Out of memory: the steps are told at the end. */
static void transfer_arm(struct transfer *t)
{
	struct loop *l = t->config.loop;

	err_drop(loop_timer_set(l, &t->timer, l->now_ns + TRANSFER_TELL_NS,
				transfer_on_timer));
}

void transfer_tell(struct transfer *t)
{
	loop_timer_del(&t->timer);
	if (t->events) {
		transfer_tell_steps(t);
		t->events->done(t->arg, &t->e);
	}
	t->ops->free(t);
}

/* ---- running ---- */

/* The connection leaves the loop's sight before it goes. */
static void transfer_disconnect(struct transfer *t)
{
	struct store_conn *conn;

	transfer_lock(t);
	conn = take(t->conn);
	transfer_unlock(t);
	store_conn_free(conn);
	store_free(take(t->store));
}

static void transfer_run(struct worker_job *job)
{
	struct transfer *t = container_of(job, struct transfer, job);

	if (t->e.code)
		return;
	if (t->ops->run(t, &t->e) < 0 && t->e.code == 0)
		err_set(&t->e, EIO, "failed without a reason");
	transfer_disconnect(t);
	if (t->e.code)
		err_prefix(&t->e, "%s %s", t->ops->verb, t->name);
}

static void transfer_ran(struct worker_job *job)
{
	struct transfer *t = container_of(job, struct transfer, job);

	t->ops->finish(t);
}

void transfer_start(struct transfer *t)
{
	if (t->events)
		transfer_arm(t);
	worker_submit(templates_slow(t->config.templates), &t->job,
		      transfer_run, transfer_ran);
}

void transfer_abandon(struct transfer *t)
{
	t->events = NULL;
	loop_timer_del(&t->timer);
	transfer_lock(t);
	t->cancelled = true;
	if (t->conn)
		store_conn_cancel(t->conn, true);
	transfer_unlock(t);
}

/* ---- in run() ---- */

int transfer_connect(struct transfer *t, struct err *e)
{
	struct store_conn *conn = NULL;
	int r = store_open(&t->spec, &t->store, e);

	if (r == 0)
		r = store_connect(t->store, &conn, e);
	if (r < 0)
		return r;
	transfer_lock(t);
	t->conn = conn;
	if (t->cancelled)
		store_conn_cancel(conn, true);
	transfer_unlock(t);
	return 0;
}

void transfer_step(struct transfer *t, const char *name, uint64_t total,
		   const char *fmt, ...)
{
	struct transfer_step s = { .name = name, .total = total };
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(s.detail, sizeof(s.detail), fmt, ap);
	va_end(ap);
	transfer_lock(t);
	must(t->n_steps < TRANSFER_STEPS_MAX);
	t->steps[t->n_steps++] = s;
	transfer_unlock(t);
}

int transfer_progress(void *arg, uint64_t done, uint64_t total)
{
	struct transfer *t = arg;
	bool cancelled;

	transfer_lock(t);
	must(t->n_steps > 0);
	t->steps[t->n_steps - 1].done = done;
	t->steps[t->n_steps - 1].total = total;
	cancelled = t->cancelled;
	transfer_unlock(t);
	return cancelled ? -ECANCELED : 0;
}

int transfer_reference(struct transfer *t, const char *name,
		       struct reference *ret, struct err *e)
{
	char object[REFERENCE_OBJECT_MAX];
	guard_free char *text = NULL;
	size_t len = 0;
	int r;

	reference_object(name, object);
	r = store_get_all(t->conn, object, REFERENCE_BYTES_MAX, &text, &len,
			  clock_mono_ns() + TRANSFER_OBJECT_NS, e);
	if (r != 0)
		return r;
	r = reference_parse(text, len, ret, e);
	return r < 0 ? err_prefix(e, "%s in store %s", object, t->spec.name)
		     : 0;
}

/* The reference's word against the bytes'. */
static int transfer_index_check(const struct transfer *t, const char *object,
				const struct reference *ref, const char *p,
				size_t len, struct err *e)
{
	char hex[DIGEST_HEX];

	if (len != ref->index_bytes)
		return err_set(e, EBADMSG,
			       "%s in store %s has %zu bytes, its reference "
			       "says %llu",
			       object, t->spec.name, len,
			       (unsigned long long)ref->index_bytes);
	digest_of(p, len, hex);
	if (strcmp(hex, ref->index_sha256))
		return err_set(e, EBADMSG,
			       "%s in store %s is damaged: its digest is not "
			       "the one in the reference",
			       object, t->spec.name);
	return 0;
}

int transfer_index(struct transfer *t, const struct reference *ref, char **ret,
		   struct err *e)
{
	char object[REFERENCE_OBJECT_MAX];
	guard_free char *p = NULL;
	size_t len = 0;
	int r;

	reference_index_object(ref->image, object);
	if (ref->index_bytes > INDEX_BYTES_MAX)
		return err_set(e, EBADMSG,
			       "%s in store %s is too large to be an index",
			       object, t->spec.name);
	/* One byte more than it may have is E2BIG: nothing larger is read. */
	r = store_get_all(t->conn, object, ref->index_bytes, &p, &len,
			  clock_mono_ns() + TRANSFER_OBJECT_NS +
				  ref->index_bytes * TRANSFER_NS_PER_BYTE,
			  e);
	if (r < 0)
		return r;
	if (r == STORE_MISS)
		return err_set(e, ENOENT, "%s in store %s is missing", object,
			       t->spec.name);
	r = transfer_index_check(t, object, ref, p, len, e);
	if (r == 0)
		*ret = take(p);
	return r;
}
