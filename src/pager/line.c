/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines: the connections of a layer to its store
 *
 *	nothing --connect--> BUSY <--line_take-- IDLE --line_close--> nothing
 *	                      '------line_give----^
 *
 * A connection costs a round trip, with TLS two or three, before its first byte.
 * So it is the layer's and not a worker's: a worker takes one for the time of a
 * request, the one that was given back last, and whoever asks next has it. A
 * guest that faults one page after another needs one connection, whichever
 * workers serve it; the others close after some idle seconds.
 *
 * Invariants:
 *  1. A line is on one of two lists, busy or idle. While it is busy it is one
 *     thread's, but for store_conn_cancel().
 *  2. When the layer ends every busy line is cancelled, and so is every one
 *     that becomes busy later.
 *  3. Nothing is connected or closed with the lock held.
 */
#include "pager/object.h"

#include "base/clock.h"
#include "base/guard.h"

#include <errno.h>

/* Keys come into a file seconds or minutes before the old ones end. */
#define LINE_REOPEN_NS (5 * NS_PER_SEC)

/* ---- outlets ---- */

static void outlet_free(struct outlet *o)
{
	if (!o)
		return;
	store_free(o->store);
	free(o);
}

static void outlet_freep(struct outlet **o)
{
	outlet_free(*o);
}

static void counts_add(struct store_counts *to, const struct store_counts *n)
{
	to->requests += n->requests;
	to->retries += n->retries;
	to->hedges += n->hedges;
	to->hedges_won += n->hedges_won;
	to->failures += n->failures;
	to->bytes += n->bytes;
}

struct store_counts line_counts(struct layer *l)
{
	struct store_counts sum;
	struct outlet *o, *tmp;

	layer_lock(l);
	sum = l->counts_past;
	list_for_each (o, tmp, &l->outlets, struct outlet, link) {
		const struct store_counts n = store_counts(o->store);

		counts_add(&sum, &n);
	}
	layer_unlock(l);
	return sum;
}

/* Off the list, if nobody has a use for it; the lock is held. */
static struct outlet *outlet_done(struct layer *l, struct outlet *o)
{
	struct store_counts n;

	if (o->n_lines || o == l->outlet)
		return NULL;
	n = store_counts(o->store);
	counts_add(&l->counts_past, &n);
	list_del(&o->link);
	return o;
}

static void outlet_drop(struct layer *l, struct outlet *o)
{
	layer_lock(l);
	o->n_lines--;
	o = outlet_done(l, o);
	layer_unlock(l);
	outlet_free(o);
}

/* The current one, with a place for a line; NULL: there is none. @mine (may be
 * NULL) becomes it then, and is taken. */
static struct outlet *outlet_current(struct layer *l, struct outlet **mine)
{
	struct outlet *o;

	layer_lock(l);
	if (!l->outlet && *mine) {
		l->outlet = take(*mine);
		list_add_tail(&l->outlets, &l->outlet->link);
	}
	o = l->outlet;
	if (o)
		o->n_lines++;
	layer_unlock(l);
	return o;
}

/* Opened by who needs it first: the store may be away when a pager starts, and
 * its guests can wait. NULL: *e says why. */
static struct outlet *outlet_take(struct layer *l, struct err *e)
{
	guard(outlet_freep) struct outlet *mine = NULL;
	struct outlet *o = outlet_current(l, &mine);

	if (o)
		return o;
	mine = calloc(1, sizeof(*mine));
	if (!mine) {
		err_errno(e, ENOMEM, "open store %s", l->spec.name);
		return NULL;
	}
	list_init(&mine->link);
	mine->opened_ns = clock_mono_ns();
	if (store_open(&l->spec, &mine->store, e) < 0)
		return NULL;
	return outlet_current(l, &mine);
}

/* ---- lines ---- */

static void line_free(struct layer *l, struct line *line)
{
	store_conn_free(line->conn);
	outlet_drop(l, line->outlet);
	free(line);
}

static void line_free_all(struct layer *l, struct list *lines)
{
	struct line *line, *tmp;

	list_for_each (line, tmp, lines, struct line, link)
		line_free(l, line);
}

/* The lock is held. */
static void line_enter(struct layer *l, struct line *line)
{
	list_add_tail(&l->lines_busy, &line->link);
	if (l->ending)
		store_conn_cancel(line->conn, true);
}

static struct line *line_idle(struct layer *l)
{
	struct line *line = NULL;

	layer_lock(l);
	if (!list_empty(&l->lines_idle)) {
		line = list_entry(l->lines_idle.prev, struct line, link);
		list_del(&line->link);
		line_enter(l, line);
	}
	layer_unlock(l);
	return line;
}

static int line_connect(struct layer *l, struct line **ret, struct err *e)
{
	guard_free struct line *line = calloc(1, sizeof(*line));
	int r;

	if (!line)
		return err_errno(e, ENOMEM, "connect to store %s",
				 l->spec.name);
	line->outlet = outlet_take(l, e);
	if (!line->outlet)
		return -e->code;
	r = store_connect(line->outlet->store, &line->conn, e);
	if (r < 0) {
		outlet_drop(l, line->outlet);
		return r;
	}
	layer_lock(l);
	line_enter(l, line);
	layer_unlock(l);
	*ret = take(line);
	return 0;
}

int line_take(struct layer *l, struct line **ret, struct err *e)
{
	*ret = line_idle(l);
	return *ret ? 0 : line_connect(l, ret, e);
}

/* Its keys are no good; the lock is held. */
static bool line_retire(struct layer *l, const struct line *line,
			uint64_t now_ns)
{
	if (line->outlet != l->outlet ||
	    now_ns < line->outlet->opened_ns + LINE_REOPEN_NS)
		return false;
	l->outlet = NULL;
	return true;
}

static void line_move(struct list *from, struct list *to)
{
	while (!list_empty(from)) {
		struct list *link = from->next;

		list_del(link);
		list_add_tail(to, link);
	}
}

void line_give(struct layer *l, struct line *line, int r)
{
	struct list old = LIST_INIT(old);

	line->idle_ns = clock_mono_ns();
	layer_lock(l);
	list_del(&line->link);
	if (r == -EACCES && line_retire(l, line, line->idle_ns))
		line_move(&l->lines_idle, &old);
	list_add_tail(line->outlet == l->outlet ? &l->lines_idle : &old,
		      &line->link);
	layer_unlock(l);
	line_free_all(l, &old);
}

void line_close(struct layer *l, uint64_t since_ns)
{
	struct list old = LIST_INIT(old);
	struct line *line, *tmp;

	layer_lock(l);
	list_for_each (line, tmp, &l->lines_idle, struct line, link) {
		if (line->idle_ns > since_ns)
			break;
		list_del(&line->link);
		list_add_tail(&old, &line->link);
	}
	layer_unlock(l);
	line_free_all(l, &old);
}

uint64_t line_idle_ns(const struct layer *l)
{
	if (list_empty(&l->lines_idle))
		return UINT64_MAX;
	return list_entry(l->lines_idle.next, struct line, link)->idle_ns;
}

void line_cancel(struct layer *l)
{
	struct line *line, *tmp;

	list_for_each (line, tmp, &l->lines_busy, struct line, link)
		store_conn_cancel(line->conn, true);
}

void line_end(struct layer *l)
{
	struct outlet *o;

	line_close(l, UINT64_MAX);
	must(list_empty(&l->lines_busy) && list_empty(&l->lines_idle));
	layer_lock(l);
	o = take(l->outlet);
	if (o)
		o = outlet_done(l, o);
	layer_unlock(l);
	outlet_free(o);
	must(list_empty(&l->outlets));
}
