/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The workers that empty the queue of a layer
 *
 * Each layer has workers of its own: a store that is away, or slow, holds only
 * the threads of the layers that come from it. Idle ones cost their stacks; the
 * buffers they need they make at their first job and give back after some idle
 * seconds. Connections are the layer's (line.c).
 *
 * A job is a run of frames that touch (queue.c). Frames that the cache has are
 * settled from there, the others are fetched with one request per run of them.
 * Every frame is reported as soon as its pages are in their places; the cache
 * gets its copy after that.
 *
 * Invariants:
 *  1. A frame is FETCHING from the moment a worker takes it until the poller
 *     has read the report, or it is put away to rest. Every frame that is taken
 *     is reported, or put away, once; from then on it is not this worker's.
 *  2. Nothing that is not verified leaves the worker: not into a layer
 *     (frame_decode() comes first), not into the cache.
 *  3. The lock is held to take and to report, never while working.
 *  4. Who waits for a frame hears from it when its deadline has passed: what
 *     may pass is tried again until then, and no try begins later.
 *
 * Who waits is the guest, not the worker: a frame somebody waits for that did not
 * come rests in the queue until its next try, and the worker goes on.
 *
 * What may pass: everything that the store says, even that there is no such
 * object (a directory whose mount is away says so), because guests that wait
 * can be helped, and guests that were killed cannot; bytes that are wrong; a
 * disk that is full (room.c). Not so a layer's file that takes no more for
 * another reason.
 */
#include "pager/object.h"

#include "base/clock.h"
#include "base/guard.h"
#include "image/cache.h"
#include "image/frame.h"
#include "image/reference.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

/* Wrong bytes can come from a cache or a proxy on the way; three times in a row
 * they are the object's own. */
#define FETCH_BAD_TRIES 3
/* Between tries of a prefetch, beyond the store's own ones. */
#define FETCH_PAUSE_MIN_NS (50 * NS_PER_MS)
#define FETCH_PAUSE_MAX_NS (2 * NS_PER_SEC)
/* An idle worker's buffers are 16 MiB; a server closes what is idle for long. */
#define FETCH_IDLE_NS (5 * NS_PER_SEC)
/* Deepest are the store's (TLS) and zstd's. */
#define FETCH_STACK (1u << 20)

static struct timespec timespec_at(uint64_t ns)
{
	return (struct timespec){ .tv_sec = (time_t)(ns / NS_PER_SEC),
				  .tv_nsec = (long)(ns % NS_PER_SEC) };
}

/* ---- reporting ---- */

static const struct err fetch_no_memory = {
	.code = ENOMEM,
	.msg = "out of memory in the pager",
};

static struct err *fetch_why(const struct err *e)
{
	struct err *why = malloc(sizeof(*why));

	if (!why)
		return (struct err *)(uintptr_t)&fetch_no_memory;
	*why = *e;
	return why;
}

/* Frame @i of the job is settled: @e says how it failed, NULL: it is there.
 * @hopeless: whoever waits need wait no longer. */
static void fetch_report(struct fetch *w, unsigned i, const struct err *e,
			 bool hopeless)
{
	struct layer *l = w->layer;
	struct layer_frame *f = &l->frames[w->ids[i]];
	struct err *why = e ? fetch_why(e) : NULL;
	bool first;

	must(!w->have[i]);
	w->have[i] = true;
	layer_lock(l);
	f->why = why;
	if (hopeless)
		f->flags |= FRAME_HOPELESS;
	first = list_empty(&l->results);
	list_add_tail(&l->results, &f->link);
	layer_unlock(l);
	if (first)
		engine_kick(l->engine);
}

void fetch_why_free(struct err *why)
{
	if (why != &fetch_no_memory)
		free(why);
}

/* Frame @i did not come, which may pass: whoever waits for it can wait on, but
 * not this worker. */
static void fetch_later(struct fetch *w, unsigned i, const struct err *e)
{
	struct layer *l = w->layer;
	uint64_t now_ns = clock_mono_ns();
	bool rests = false;

	must(!w->have[i]);
	layer_lock(l);
	if (!w->ahead && l->has_store)
		rests = queue_rest(l, w->ids[i], now_ns);
	layer_unlock(l);
	if (rests)
		w->have[i] = true;
	else
		fetch_report(w, i, e, !l->has_store);
}

/* ---- working ---- */

static const char *fetch_image(const struct layer *l,
			       const struct index_frame *f)
{
	return index_source(l->index, f->source)->id;
}

static int fetch_prepare(struct fetch *w, struct err *e)
{
	int r = 0;

	if (!w->coder)
		r = frame_coder_new(&w->coder);
	if (r == 0 && !w->buffer) {
		w->buffer = malloc(STORE_COALESCE);
		r = w->buffer ? 0 : -ENOMEM;
	}
	return r < 0 ? err_errno(e, -r, "make buffers for a fetch") : 0;
}

/* What an idle worker need not hold. */
static void fetch_release(struct fetch *w)
{
	w->coder = frame_coder_free(w->coder);
	free(take(w->buffer));
}

static int fetch_unplaced(const struct layer *l, uint32_t id, int code,
			  struct err *e)
{
	return err_errno(e, code, "write %u pages of %s to their layer",
			 layer_stored(l, id)->pages,
			 index_layer_name(layer_part(l, id)));
}

/* Verify and place frame @i of the job; -EBADMSG has no sentence yet. */
static int fetch_place(struct fetch *w, unsigned i, const uint8_t *stored,
		       struct err *e)
{
	struct layer *l = w->layer;
	uint32_t id = w->ids[i];
	const struct index_frame *f = layer_stored(l, id);
	const void *raw = NULL;
	int r = frame_decode(w->coder, f, stored, &raw);

	if (r == -EBADMSG)
		return r;
	if (r < 0)
		return err_errno(e, -r, "decompress a frame");
	r = room_place(l, id, raw);
	if (r < 0)
		return fetch_unplaced(l, id, -r, e);
	PAGER_COUNT(l->stats->filled_bytes, f->pages * (uint64_t)INDEX_PAGE);
	if (w->ahead)
		PAGER_COUNT(l->stats->frames_prefetch, 1);
	else
		PAGER_COUNT(l->stats->frames_demand, 1);
	return 0;
}

/* What became of it. */
static void fetch_placed(struct fetch *w, unsigned i, int r,
			 const struct err *e)
{
	if (r == -EBADMSG || r == -ENOSPC)
		fetch_later(w, i, e);
	else
		fetch_report(w, i, r < 0 ? e : NULL, r < 0);
}

/* Its file is full: true, and it waits. */
static bool fetch_full(struct fetch *w, unsigned i)
{
	struct err e = ERR_NULL;

	if (!room_lacks(w->layer, w->ids[i]))
		return false;
	fetch_unplaced(w->layer, w->ids[i], ENOSPC, &e);
	fetch_later(w, i, &e);
	return true;
}

/* From the cache; true when the frame is settled, in whatever way. */
static bool fetch_cached(struct fetch *w, unsigned i)
{
	struct layer *l = w->layer;
	struct cache *c = l->engine->config.cache;
	const struct index_frame *f = layer_stored(l, w->ids[i]);
	struct err e = ERR_NULL;
	int r;

	if (!c ||
	    !cache_get(c, fetch_image(l, f), f->offset, f->stored, w->buffer))
		return false;
	r = fetch_place(w, i, w->buffer, &e);
	if (r == -EBADMSG) {
		cache_forget(c, fetch_image(l, f), f->offset, f->stored);
		PAGER_COUNT(l->stats->bad_frames, 1);
		return false;
	}
	PAGER_COUNT(l->stats->cached_bytes, f->stored);
	fetch_placed(w, i, r, &e);
	return true;
}

/* Until @ns have passed; false when the layer ends. */
static bool fetch_pause(struct fetch *w, uint64_t ns)
{
	struct timespec until = timespec_at(clock_mono_ns() + ns);
	struct layer *l = w->layer;
	bool go;

	layer_lock(l);
	while (!l->ending)
		if (pthread_cond_timedwait(&l->end, &l->lock, &until) ==
		    ETIMEDOUT)
			break;
	go = !l->ending;
	layer_unlock(l);
	return go;
}

/* One request, which the store repeats as it sees fit. */
static int fetch_ask(struct fetch *w, const char *object, uint64_t offset,
		     size_t len, void *p, struct err *e)
{
	struct layer *l = w->layer;
	struct line *line = NULL;
	int r;

	if (!l->has_store)
		return err_set(e, ENODATA,
			       "the image is not complete, and has no store");
	r = line_take(l, &line, e);
	if (r < 0)
		return r;
	r = store_get(line->conn, object, offset, len, p, w->deadline_ns, e);
	/* Now, and not after the frames are in their places: who waits for
	 * them may have the next request. */
	line_give(l, line, r);
	return r;
}

/* @len bytes at frame @i's offset. Ahead of demand it is tried until the
 * deadline: somebody else's frames are not waited for meanwhile. */
static int fetch_get(struct fetch *w, unsigned i, size_t len, void *p,
		     struct err *e)
{
	struct layer *l = w->layer;
	const struct index_frame *f = layer_stored(l, w->ids[i]);
	char object[REFERENCE_OBJECT_MAX];
	uint64_t pause_ns = FETCH_PAUSE_MIN_NS, now;
	unsigned bad = 0;
	int r;

	if (l->frames[w->ids[i]].rests)
		PAGER_COUNT(l->stats->retries, 1);
	reference_pack_object(fetch_image(l, f), object);
	for (;;) {
		r = fetch_ask(w, object, f->offset, len, p, e);
		if (r == 0) {
			PAGER_COUNT(l->stats->fetched_bytes, len);
			*e = (struct err)ERR_NULL;
			return 0;
		}
		if (r == -EBADMSG && w->ahead && ++bad == FETCH_BAD_TRIES)
			return r;
		if (r == STORE_MISS)
			r = err_set(e, ENOENT, "%s is not in store %s", object,
				    l->spec.name);
		now = clock_mono_ns();
		if (!w->ahead || !l->has_store ||
		    now + FETCH_LAST_NS >= w->deadline_ns)
			return r;
		/* The last try is near the deadline, however long pauses
		 * have become. */
		pause_ns =
			min(pause_ns, w->deadline_ns - now - FETCH_LAST_NS / 2);
		if (!fetch_pause(w, pause_ns))
			return err_set(e, ECANCELED, "the layer is closed");
		PAGER_COUNT(l->stats->retries, 1);
		pause_ns = min(pause_ns * 2, (uint64_t)FETCH_PAUSE_MAX_NS);
	}
}

/* Frame @i came wrong: fetch it by itself, which may help at once. What lies now
 * may also be right in a while (a proxy with an old object): it rests then, and
 * has one try each time. */
static void fetch_again(struct fetch *w, unsigned i, uint8_t *stored)
{
	struct layer *l = w->layer;
	const struct index_frame *f = layer_stored(l, w->ids[i]);
	unsigned tries = l->frames[w->ids[i]].rests ? 1 : FETCH_BAD_TRIES;
	struct err e = ERR_NULL;
	int r = -EBADMSG;

	for (unsigned n = 1; r == -EBADMSG; n++) {
		PAGER_COUNT(l->stats->bad_frames, 1);
		if (n >= tries ||
		    (n > 1 && !fetch_pause(w, FETCH_PAUSE_MIN_NS)))
			break;
		PAGER_COUNT(l->stats->retries, 1);
		r = fetch_get(w, i, f->stored, stored, &e);
		if (r < 0) {
			fetch_later(w, i, &e);
			return;
		}
		r = fetch_place(w, i, stored, &e);
	}
	if (r == -EBADMSG)
		err_set(&e, EBADMSG,
			"the pack of image %s in store %s is damaged: %u bytes at %llu are not what the index says",
			fetch_image(l, f), l->spec.name, f->stored,
			(unsigned long long)f->offset);
	w->keep[i] = r == 0;
	fetch_placed(w, i, r, &e);
}

/* Frames [first, first + n), whose bytes came together: the good ones first,
 * nobody waits for the others' sake. */
static void fetch_settle(struct fetch *w, unsigned first, unsigned n,
			 uint8_t *stored)
{
	uint8_t *p = stored;

	for (unsigned i = first; i < first + n; i++) {
		struct err e = ERR_NULL;
		int r = fetch_place(w, i, p, &e);

		w->keep[i] = r == 0;
		w->bad[i] = r == -EBADMSG;
		if (!w->bad[i])
			fetch_placed(w, i, r, &e);
		p += layer_stored(w->layer, w->ids[i])->stored;
	}
	p = stored;
	for (unsigned i = first; i < first + n; i++) {
		if (w->bad[i])
			fetch_again(w, i, p);
		p += layer_stored(w->layer, w->ids[i])->stored;
	}
}

static void fetch_keep(struct fetch *w, unsigned i, const uint8_t *stored)
{
	struct layer *l = w->layer;
	const struct index_frame *f = layer_stored(l, w->ids[i]);

	if (l->engine->config.cache && w->keep[i])
		cache_put(l->engine->config.cache, fetch_image(l, f), f->offset,
			  f->stored, stored);
}

/* Frames [first, first + n) of the job, which touch, from the store. */
static void fetch_stored(struct fetch *w, unsigned first, unsigned n)
{
	struct layer *l = w->layer;
	struct err e = ERR_NULL;
	size_t len = 0, at = 0;
	int r;

	for (unsigned i = first; i < first + n; i++)
		len += layer_stored(l, w->ids[i])->stored;
	must(len <= STORE_COALESCE);
	r = fetch_get(w, first, len, w->buffer, &e);
	if (r == -EBADMSG && n > 1) {
		/* The pack is too short, say: maybe not for all of them. */
		for (unsigned i = first; i < first + n; i++)
			fetch_stored(w, i, 1);
		return;
	}
	if (r < 0) {
		for (unsigned i = first; i < first + n; i++)
			fetch_later(w, i, &e);
		return;
	}
	fetch_settle(w, first, n, w->buffer);
	for (unsigned i = first; i < first + n; i++) {
		fetch_keep(w, i, w->buffer + at);
		at += layer_stored(l, w->ids[i])->stored;
	}
}

static void fetch_work(struct fetch *w)
{
	struct err e = ERR_NULL;
	unsigned i, n;

	if (fetch_prepare(w, &e) < 0) {
		for (i = 0; i < w->n; i++)
			fetch_report(w, i, &e, true);
		return;
	}
	for (i = 0; i < w->n; i++)
		if (!fetch_full(w, i))
			fetch_cached(w, i);
	for (i = 0; i < w->n; i += n) {
		for (n = 0; i + n < w->n && !w->have[i + n]; n++)
			;
		if (n)
			fetch_stored(w, i, n);
		else
			n = 1;
	}
}

/* ---- threads ---- */

/* Nothing to take: wait for something, for frames that rest, and for the time to
 * let go of what is not used. The lock is held. */
static void fetch_idle(struct fetch *w)
{
	struct layer *l = w->layer;
	uint64_t idle_ns = w->coder ? w->done_ns : UINT64_MAX;
	uint64_t until_ns = min(idle_ns, line_idle_ns(l));
	struct timespec until;
	uint64_t now_ns;

	if (until_ns != UINT64_MAX)
		until_ns += FETCH_IDLE_NS;
	until_ns = min(until_ns, queue_again_ns(l));
	if (until_ns == UINT64_MAX) {
		must(pthread_cond_wait(&l->work, &l->lock) == 0);
		return;
	}
	until = timespec_at(until_ns);
	if (pthread_cond_timedwait(&l->work, &l->lock, &until) != ETIMEDOUT)
		return;
	now_ns = clock_mono_ns();
	layer_unlock(l);
	if (w->coder && now_ns >= w->done_ns + FETCH_IDLE_NS)
		fetch_release(w);
	line_close(l, now_ns - FETCH_IDLE_NS);
	layer_lock(l);
}

static void *fetch_main(void *arg)
{
	struct fetch *w = arg;
	struct layer *l = w->layer;

	layer_lock(l);
	while (!l->ending) {
		if (!queue_take(w)) {
			fetch_idle(w);
			continue;
		}
		layer_unlock(l);
		fetch_work(w);
		w->done_ns = clock_mono_ns();
		layer_lock(l);
		if (w->ahead)
			l->ahead_busy--;
	}
	layer_unlock(l);
	fetch_release(w);
	line_close(l, UINT64_MAX);
	layer_lock(l);
	l->n_alive--;
	layer_unlock(l);
	engine_kick(l->engine);
	return NULL;
}

static int fetch_start_one(struct fetch *w)
{
	pthread_attr_t attr;
	int r = pthread_attr_init(&attr);

	if (r)
		return -r;
	must(pthread_attr_setstacksize(&attr, FETCH_STACK) == 0);
	r = pthread_create(&w->thread, &attr, fetch_main, w);
	must(pthread_attr_destroy(&attr) == 0);
	if (r == 0) /* for ps only */
		err_drop(pthread_setname_np(w->thread, "byre-fetch"));
	return -r;
}

int fetch_start(struct layer *l, unsigned n, struct err *e)
{
	sigset_t all, old;
	int r = 0;

	l->workers = calloc(n, sizeof(*l->workers));
	if (!l->workers)
		return err_errno(e, ENOMEM, "make %u workers", n);
	/* Before the first of them looks: what a run may be depends on it. */
	layer_lock(l);
	l->n_workers = n;
	sigfillset(&all);
	must(pthread_sigmask(SIG_SETMASK, &all, &old) == 0);
	for (unsigned i = 0; i < n && r == 0; i++) {
		l->workers[i].layer = l;
		r = fetch_start_one(&l->workers[i]);
		if (r == 0)
			l->n_alive++;
		else
			l->n_workers = i;
	}
	must(pthread_sigmask(SIG_SETMASK, &old, NULL) == 0);
	layer_unlock(l);
	return r < 0 ? err_errno(e, -r, "start %u threads", n) : 0;
}

void fetch_end(struct layer *l)
{
	layer_lock(l);
	l->ending = true;
	line_cancel(l);
	must(pthread_cond_broadcast(&l->work) == 0);
	must(pthread_cond_broadcast(&l->end) == 0);
	layer_unlock(l);
}

void fetch_join(struct layer *l)
{
	for (unsigned i = 0; i < l->n_workers; i++)
		must(pthread_join(l->workers[i].thread, NULL) == 0);
	l->n_workers = 0;
	free(take(l->workers));
}
