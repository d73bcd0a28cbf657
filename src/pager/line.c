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

static void line_free(struct line *line)
{
	store_conn_free(line->conn);
	free(line);
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

/* The layer's store. Opened by who needs it first: it may be away when a pager
 * starts, and its guests can wait. */
static int line_store(struct layer *l, struct store **ret, struct err *e)
{
	struct store *mine = NULL;
	int r;

	layer_lock(l);
	*ret = l->store;
	layer_unlock(l);
	if (*ret)
		return 0;
	r = store_open(&l->spec, &mine, e);
	if (r < 0)
		return r;
	layer_lock(l);
	if (!l->store)
		l->store = take(mine);
	*ret = l->store;
	layer_unlock(l);
	store_free(mine);
	return 0;
}

static int line_connect(struct layer *l, struct line **ret, struct err *e)
{
	guard_free struct line *line = calloc(1, sizeof(*line));
	struct store *store = NULL;
	int r;

	if (!line)
		return err_errno(e, ENOMEM, "connect to store %s",
				 l->spec.name);
	r = line_store(l, &store, e);
	if (r == 0)
		r = store_connect(store, &line->conn, e);
	if (r < 0)
		return r;
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

void line_give(struct layer *l, struct line *line)
{
	line->idle_ns = clock_mono_ns();
	layer_lock(l);
	list_del(&line->link);
	list_add_tail(&l->lines_idle, &line->link);
	layer_unlock(l);
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
	list_for_each (line, tmp, &old, struct line, link)
		line_free(line);
}

void line_cancel(struct layer *l)
{
	struct line *line, *tmp;

	list_for_each (line, tmp, &l->lines_busy, struct line, link)
		store_conn_cancel(line->conn, true);
}
