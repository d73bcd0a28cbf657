/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many frames of an index, from a store
 *
 * The wanted frames are sorted by where they are; those that touch are fetched
 * together, up to STORE_COALESCE. FETCH_THREADS threads take range after range,
 * each over a connection of its own: while one waits for the network, another
 * one decodes.
 *
 * Invariants:
 *  1. A frame is handed out after its digest was compared, and once.
 *  2. The first error ends it: the other connections are cancelled, and what
 *     they then say is not told.
 *  3. `next`, `done` and the error are touched under the lock only; progress is
 *     told under it, so one at a time and in rising order.
 *
 * There is no cache here, and no order: whoever waits for a certain page asks
 * the pager.
 */
#include "image/pack_fetch.h"

#include "base/clock.h"
#include "base/guard.h"
#include "image/frame.h"
#include "image/reference.h"
#include "image/store.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>

/* Two decode while two wait, on a host that has guests to run besides. Each
 * costs STORE_COALESCE and a coder: 16 MiB. */
#define FETCH_THREADS 4
/* For a range: 8 MiB over 1 Mbit/s, and then some. */
#define FETCH_DEADLINE_NS (120 * NS_PER_SEC)

struct fetch_item {
	uint64_t offset;
	uint32_t stored;
	uint32_t i;
	uint16_t source;
	uint16_t layer;
};

struct fetch {
	const struct pack_fetch *f;
	struct fetch_item *item; /* by source and offset */
	size_t n;
	struct store_conn *conn[FETCH_THREADS];
	unsigned n_conns;
	pthread_mutex_t lock; /* over what follows */
	size_t next;
	uint64_t done;
	unsigned started;
	int r;
	struct err err;
};

/* One thread's. */
struct fetch_work {
	struct store_conn *conn; /* borrowed */
	struct frame_coder *coder;
	uint8_t *buf; /* STORE_COALESCE */
	const struct fetch_item *item;
	size_t n;
	size_t bytes; /* of all of them */
	uint64_t raw_bytes;
	struct err err;
};

static_assert(FRAME_STORED_MAX <= STORE_COALESCE, "a range holds a frame");

static void fetch_deinit(struct fetch *t)
{
	for (unsigned i = 0; i < t->n_conns; i++)
		store_conn_free(t->conn[i]);
	free(t->item);
	pthread_mutex_destroy(&t->lock);
}

static void fetch_work_deinit(struct fetch_work *k)
{
	frame_coder_free(k->coder);
	free(k->buf);
}

static int fetch_order(const void *pa, const void *pb)
{
	const struct fetch_item *a = pa, *b = pb;

	if (a->source != b->source)
		return a->source < b->source ? -1 : 1;
	if (a->offset != b->offset)
		return a->offset < b->offset ? -1 : 1;
	return 0;
}

static int fetch_list(struct fetch *t)
{
	const struct pack_fetch *f = t->f;
	const struct index_frame *g;
	size_t most = 0;

	for (unsigned l = 0; l < INDEX_LAYER_COUNT; l++)
		most += index_frames(f->x, l);
	t->item = calloc(max(most, (size_t)1), sizeof(*t->item));
	if (!t->item)
		return -ENOMEM;
	for (unsigned l = 0; l < INDEX_LAYER_COUNT; l++) {
		for (uint32_t i = 0; i < index_frames(f->x, l); i++) {
			g = index_frame(f->x, l, i);
			if (!g->pages || (f->want && !f->want(f->arg, l, i)))
				continue;
			t->item[t->n++] =
				(struct fetch_item){ .offset = g->offset,
						     .stored = g->stored,
						     .i = i,
						     .source = g->source,
						     .layer = (uint16_t)l };
		}
	}
	qsort(t->item, t->n, sizeof(*t->item), fetch_order);
	return 0;
}

/* Take the next frames that touch. */
static bool fetch_take(struct fetch *t, struct fetch_work *k)
{
	const struct fetch_item *a;

	must(!pthread_mutex_lock(&t->lock));
	k->item = t->item + t->next;
	k->n = k->bytes = 0;
	while (t->r == 0 && t->next < t->n) {
		a = &t->item[t->next];
		if (k->n && (a->source != k->item->source ||
			     a->offset != k->item->offset + k->bytes ||
			     k->bytes + a->stored > STORE_COALESCE))
			break;
		k->bytes += a->stored;
		k->n++;
		t->next++;
	}
	must(!pthread_mutex_unlock(&t->lock));
	return k->n > 0;
}

static int fetch_get(const struct fetch *t, struct fetch_work *k)
{
	const char *id = index_source(t->f->x, k->item->source)->id;
	char object[REFERENCE_OBJECT_MAX];
	int r;

	reference_pack_object(id, object);
	r = store_get(k->conn, object, k->item->offset, k->bytes, k->buf,
		      clock_mono_ns() + FETCH_DEADLINE_NS, &k->err);
	if (r == STORE_MISS)
		return err_set(&k->err, ENOENT, "there is no %s in store %s",
			       object, store_spec(t->f->store)->name);
	return r;
}

static int fetch_frame(const struct fetch *t, struct fetch_work *k,
		       const struct fetch_item *a, const void *stored)
{
	const struct pack_fetch *f = t->f;
	const void *raw;
	int r;

	r = frame_decode(k->coder, index_frame(f->x, a->layer, a->i), stored,
			 &raw);
	if (r == -EBADMSG)
		return err_set(&k->err, EBADMSG,
			       "%s: frame %u (chunk at %" PRIu64
			       "): not what the index says, in the pack of %s "
			       "at %" PRIu64,
			       index_layer_name(a->layer), a->i,
			       (uint64_t)(a->i / 2) * INDEX_CHUNK,
			       index_source(f->x, a->source)->id, a->offset);
	if (r < 0)
		return err_errno(&k->err, -r, "decode");
	return f->frame ? f->frame(f->arg, a->layer, a->i, raw, &k->err) : 0;
}

static int fetch_range(const struct fetch *t, struct fetch_work *k)
{
	const uint8_t *p = k->buf;
	int r = fetch_get(t, k);

	k->raw_bytes = 0;
	for (size_t i = 0; r == 0 && i < k->n; i++) {
		const struct fetch_item *a = &k->item[i];

		r = fetch_frame(t, k, a, p);
		p += a->stored;
		k->raw_bytes +=
			(uint64_t)index_frame(t->f->x, a->layer, a->i)->pages *
			INDEX_PAGE;
	}
	return r;
}

/* The lock is held. */
static void fetch_failed(struct fetch *t, int r, const struct err *e)
{
	if (t->r < 0)
		return;
	t->r = r;
	t->err = *e;
	for (unsigned i = 0; i < t->n_conns; i++)
		store_conn_cancel(t->conn[i], true);
}

static void fetch_done(struct fetch *t, struct fetch_work *k, int r)
{
	const struct pack_fetch *f = t->f;

	must(!pthread_mutex_lock(&t->lock));
	t->done += k->raw_bytes;
	if (r == 0 && t->r == 0 && f->progress &&
	    f->progress(f->progress_arg, t->done, f->total))
		r = err_set(&k->err, ECANCELED, "cancelled");
	if (r < 0)
		fetch_failed(t, r, &k->err);
	must(!pthread_mutex_unlock(&t->lock));
}

static void *fetch_thread(void *arg)
{
	guard(fetch_work_deinit) struct fetch_work k = { 0 };
	struct fetch *t = arg;
	int r = frame_coder_new(&k.coder);

	must(!pthread_mutex_lock(&t->lock));
	k.conn = t->conn[t->started++];
	must(!pthread_mutex_unlock(&t->lock));
	k.buf = malloc(STORE_COALESCE);
	if (r < 0 || !k.buf) {
		fetch_done(t, &k, err_errno(&k.err, ENOMEM, "fetch"));
		return NULL;
	}
	while (fetch_take(t, &k))
		fetch_done(t, &k, fetch_range(t, &k));
	return NULL;
}

static int fetch_run(struct fetch *t, struct err *e)
{
	pthread_t thread[FETCH_THREADS];
	unsigned n = 0;
	int r;

	for (; t->n_conns < FETCH_THREADS; t->n_conns++) {
		r = store_connect(t->f->store, &t->conn[t->n_conns], e);
		if (r < 0)
			return r;
	}
	while (n < FETCH_THREADS &&
	       !pthread_create(&thread[n], NULL, fetch_thread, t))
		n++;
	if (!n)
		fetch_thread(t);
	while (n)
		must(!pthread_join(thread[--n], NULL));
	if (t->r < 0 && e)
		*e = t->err;
	return t->r;
}

int pack_fetch(const struct pack_fetch *f, struct err *e)
{
	guard(fetch_deinit) struct fetch t = {
		.f = f,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.done = f->done,
	};
	int r = fetch_list(&t);

	if (r < 0)
		return err_errno(e, -r, "fetch");
	if (!t.n)
		return 0;
	if (!f->store)
		return err_set(e, ENODATA,
			       "%zu frames are missing, and there is no store",
			       t.n);
	return fetch_run(&t, e);
}
