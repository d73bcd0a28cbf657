/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layers: what is here, what is wanted, prefetch, eviction
 *
 * A layer is the memory of an image (a memfd that guests map) and its disk (a
 * sparse file that is read over NBD). Both fill up with frames. A fault or a
 * read asks for a frame by layer_want(); the workers (fetch.c) report; the
 * poller settles here, and wakes who waits: guests (guest.c), and readers
 * of the disk (need.c).
 *
 * Invariants:
 *  1. A frame is PRESENT only when all of its pages are in the file. Readers
 *     of the disk see that without a lock: the state is stored with release
 *     after the worker's writes, and loaded with acquire.
 *  2. Only the poller makes a frame PRESENT, or ABSENT again; so what it saw
 *     in a turn holds until it does something about it.
 *  3. Eviction takes PRESENT frames of memory; what is asked for or being
 *     fetched is never touched. Holes are punched over pages of the frame and
 *     zero pages between them, never over the chunk's other frame.
 *  4. Each guest and reader waits until its own deadline, whoever asked for the
 *     frame before. A failure that may pass is final for those whose deadline
 *     it is; for the others the frame is fetched again.
 *  5. A layer that was removed is freed when its workers have ended and no
 *     thread is in layer_need_disk(); nobody waits for that.
 */
#include "pager/object.h"

#include "base/guard.h"
#include "image/bitmap.h"

#include <errno.h>
#include <fcntl.h>

void owner_init(struct owner *o)
{
	list_init(&o->turn);
	list_init(&o->frames);
}

/* ---- asking ---- */

void layer_want_locked(struct layer *l, uint32_t id, struct owner *owner,
		       uint64_t now_ns)
{
	struct layer_frame *f = &l->frames[id];

	if (!f->asked_ns)
		f->asked_ns = now_ns;
	if (frame_state(f) != FRAME_ABSENT && frame_state(f) != FRAME_AHEAD)
		return;
	queue_put(l, id, owner);
}

void layer_want(struct layer *l, uint32_t id, struct owner *owner,
		uint64_t now_ns)
{
	layer_lock(l);
	layer_want_locked(l, id, owner, now_ns);
	layer_unlock(l);
}

void layer_used(struct layer *l, uint32_t id)
{
	struct layer_frame *f = &l->frames[id];

	must(id < l->n_frames);
	f->flags |= FRAME_USED;
	if (f->flags & FRAME_EARLY &&
	    atomic_fetch_and(&f->flags, (uint8_t)~FRAME_EARLY) & FRAME_EARLY)
		PAGER_COUNT(l->stats->prefetch_hits, 1);
}

void layer_disown(struct layer *l, struct owner *owner)
{
	layer_lock(l);
	list_del(&owner->turn);
	while (!list_empty(&owner->frames)) {
		struct list *link = owner->frames.next;

		list_del(link);
		list_add_tail(&l->readers.frames, link);
	}
	if (!list_empty(&l->readers.frames) && list_empty(&l->readers.turn))
		list_add_tail(&l->turns, &l->readers.turn);
	layer_unlock(l);
}

struct layer *layer_find(struct engine *g, uint32_t number)
{
	return number < PAGER_LAYERS_MAX ? g->layers[number] : NULL;
}

int layer_disk_fd(struct engine *g, uint32_t number)
{
	struct layer *l;
	int fd;

	engine_lock(g);
	l = layer_find(g, number);
	fd = l ? l->disk_fd : -1;
	engine_unlock(g);
	return fd;
}

/* ---- settling ---- */

static uint64_t *layer_gauge(struct layer *l, uint32_t id)
{
	return id < l->n_memory ? &l->stats->memory_present_bytes
				: &l->stats->disk_present_bytes;
}

/* The lock is held. */
static void layer_settle_good(struct layer *l, uint32_t id)
{
	struct layer_frame *f = &l->frames[id];
	uint8_t ahead = f->flags & FRAME_TAKEN_AHEAD;

	if (ahead && f->asked_ns)
		PAGER_COUNT(l->stats->prefetch_hits, 1);
	else if (ahead)
		f->flags |= FRAME_EARLY;
	if (f->asked_ns)
		f->flags |= FRAME_USED;
	f->asked_ns = 0;
	f->rests = 0;
	frame_set(f, FRAME_PRESENT);
	layer_signal(l, id, 0);
}

/* A failure that may pass is final for those whose deadline is that near: the
 * workers stop trying FETCH_LAST_NS before it, and this turn's time is older than
 * their report. */
#define LAYER_LATE_NS (2 * FETCH_LAST_NS)

static void layer_set_late(struct layer *l, const struct layer_frame *f,
			   uint64_t now_ns)
{
	uint64_t deadline_ns = l->engine->config.deadline_ns;

	l->late_ns = UINT64_MAX;
	if (!(f->flags & FRAME_HOPELESS))
		l->late_ns =
			max(now_ns + LAYER_LATE_NS, deadline_ns) - deadline_ns;
}

/* As layer_readers_since(), of guests. */
static uint64_t layer_guests_since(const struct layer *l, uint32_t id)
{
	uint64_t since_ns = UINT64_MAX;
	struct guest *t, *tmp;

	list_for_each (t, tmp, &l->waiting, struct guest, in_waiting)
		for (const struct waiter *w = t->waiters;
		     w < t->waiters + t->n_waiters; w++)
			if (!w->parked && w->since_ns > l->late_ns &&
			    guest_waits_for(l, w, id))
				since_ns = min(since_ns, w->since_ns);
	return since_ns;
}

/* Fetched again for who has time to wait, longest since @since_ns; failed for
 * all others. The lock is held. */
static void layer_settle_bad(struct layer *l, uint32_t id, int code,
			     uint64_t since_ns)
{
	struct layer_frame *f = &l->frames[id];

	since_ns = min(since_ns, layer_readers_since(l, id));
	frame_set(f, FRAME_ABSENT);
	f->asked_ns = 0;
	layer_signal(l, id, code);
	if (since_ns == UINT64_MAX)
		f->rests = 0;
	else
		layer_want_locked(l, id, &l->readers, since_ns);
}

static void layer_good(struct layer *l, uint32_t id, uint64_t now_ns)
{
	struct layer_frame *f = &l->frames[id];

	layer_lock(l);
	layer_settle_good(l, id);
	f->flags &= (uint8_t)~FRAME_TAKEN_AHEAD;
	layer_unlock(l);
	l->missing--;
	PAGER_COUNT(*layer_gauge(l, id), layer_frame_bytes(l, id));
	if (id < l->n_memory)
		guest_arrived(l, id, now_ns);
}

static void layer_bad(struct layer *l, uint32_t id, const struct err *why,
		      uint64_t now_ns)
{
	struct layer_frame *f = &l->frames[id];
	uint64_t since_ns = UINT64_MAX;

	layer_set_late(l, f, now_ns);
	if (id < l->n_memory)
		since_ns = layer_guests_since(l, id);
	layer_lock(l);
	layer_settle_bad(l, id, -why->code, since_ns);
	f->flags &= (uint8_t) ~(FRAME_TAKEN_AHEAD | FRAME_HOPELESS);
	layer_unlock(l);
	if (id < l->n_memory)
		guest_refused(l, id, why);
}

/* One result; false: there is none. */
static bool layer_settle_one(struct layer *l, uint64_t now_ns)
{
	struct layer_frame *f;
	struct err *why;
	uint32_t id;

	layer_lock(l);
	if (list_empty(&l->results)) {
		layer_unlock(l);
		return false;
	}
	f = list_entry(l->results.next, struct layer_frame, link);
	id = (uint32_t)(f - l->frames);
	list_del(&f->link);
	why = take(f->why);
	layer_unlock(l);
	if (why)
		layer_bad(l, id, why, now_ns);
	else
		layer_good(l, id, now_ns);
	fetch_why_free(why);
	return true;
}

/* What the store counts, since the last time. */
static void layer_publish(struct layer *l)
{
	const struct store_counts now = line_counts(l);

	PAGER_COUNT(l->stats->retries, now.retries - l->counts.retries);
	PAGER_COUNT(l->stats->hedges, now.hedges - l->counts.hedges);
	l->counts = now;
}

void layer_settle(struct layer *l, uint64_t now_ns)
{
	bool any = false;

	while (layer_settle_one(l, now_ns))
		any = true;
	if (any)
		layer_publish(l);
}

void layer_tell_whole(struct layer *l)
{
	struct engine *g = l->engine;

	if (l->missing || l->told_whole)
		return;
	l->told_whole = true;
	if (g->events.layer_whole)
		g->events.layer_whole(g->config.arg, l->number);
}

/* ---- prefetch and eviction ---- */

int layer_prefetch(struct engine *g, uint32_t number, bool all, struct err *e)
{
	struct layer *l = layer_find(g, number);

	if (!l)
		return err_set(e, ENOENT, "there is no layer %u", number);
	layer_lock(l);
	for (uint32_t id = 0; id < l->n_frames; id++) {
		struct layer_frame *f = &l->frames[id];

		if (!all && id % 2) /* not hot */
			continue;
		if (frame_state(f) != FRAME_ABSENT)
			continue;
		frame_set(f, FRAME_AHEAD);
	}
	l->ahead = l->ahead_hot = true;
	l->ahead_at = 0;
	l->ahead_jobs = 0;
	must(pthread_cond_broadcast(&l->work) == 0);
	layer_unlock(l);
	return 0;
}

/* Holes over the pages of frame @id of memory. */
static int layer_punch(struct layer *l, uint32_t id)
{
	const struct bitmap zero = index_zeromap(l->index, INDEX_MEMORY);
	uint64_t page = (uint64_t)(id / 2) * INDEX_CHUNK_PAGES, from, to;
	uint64_t end = min(page + INDEX_CHUNK_PAGES, zero.n);

	while (page < end) {
		if (!index_in_frame(l->index, INDEX_MEMORY, id, page)) {
			page++;
			continue;
		}
		for (from = to = page; page < end; page++)
			if (index_in_frame(l->index, INDEX_MEMORY, id, page))
				to = page + 1;
			else if (!bitmap_get(&zero, page))
				break;
		if (fallocate(l->memory_fd,
			      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      (off_t)(from * INDEX_PAGE),
			      (off_t)((to - from) * INDEX_PAGE)) < 0)
			return -errno;
	}
	return 0;
}

/* Frame @id, if it may go: what was not wanted since the hand last came. */
static uint64_t layer_evict_frame(struct layer *l, uint32_t id)
{
	struct layer_frame *f = &l->frames[id];
	uint64_t bytes = layer_frame_bytes(l, id);

	if (!bytes || !layer_has(l, id))
		return 0;
	if (atomic_fetch_and(&f->flags, (uint8_t)~FRAME_USED) & FRAME_USED)
		return 0;
	layer_lock(l);
	frame_set(f, FRAME_ABSENT);
	f->flags = 0;
	layer_unlock(l);
	l->missing++;
	PAGER_COUNT(l->stats->memory_present_bytes, -bytes);
	/* What a failing punch leaves is fetched and written once more. */
	if (layer_punch(l, id) < 0)
		return 0;
	PAGER_COUNT(l->stats->evicted_bytes, bytes);
	return bytes;
}

uint64_t layer_evict(struct engine *g, uint32_t number, uint64_t bytes)
{
	struct layer *l = layer_find(g, number);
	uint64_t done = 0;

	if (!l || !l->has_store)
		return 0;
	/* Twice around: the first time may only have cleared marks. */
	for (uint64_t n = 2ull * l->n_memory; n && done < bytes; n--) {
		done += layer_evict_frame(l, l->hand);
		l->hand = (l->hand + 1) % l->n_memory;
	}
	return done;
}

/* ---- start and end ---- */

static void layer_free(struct layer *l)
{
	if (!l)
		return;
	must(list_empty(&l->guests) && list_empty(&l->waiting));
	must(list_empty(&l->needs) && l->users == 0);
	while (!list_empty(&l->results)) {
		struct layer_frame *f =
			list_entry(l->results.next, struct layer_frame, link);

		list_del(&f->link);
		fetch_why_free(f->why);
	}
	list_del(&l->leaving);
	free(l->workers);
	free(l->frames);
	free(l->order);
	free(l->rank);
	line_end(l);
	l->index = index_free(l->index);
	fd_close(&l->memory_fd);
	fd_close(&l->disk_fd);
	must(pthread_cond_destroy(&l->work) == 0);
	must(pthread_cond_destroy(&l->end) == 0);
	must(pthread_mutex_destroy(&l->lock) == 0);
	free(l);
}

static void layer_freep(struct layer **l)
{
	layer_free(*l);
}

static void layer_init(struct layer *l)
{
	pthread_condattr_t attr;

	must(pthread_condattr_init(&attr) == 0);
	must(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
	must(pthread_mutex_init(&l->lock, NULL) == 0);
	must(pthread_cond_init(&l->work, &attr) == 0);
	must(pthread_cond_init(&l->end, &attr) == 0);
	must(pthread_condattr_destroy(&attr) == 0);
	l->memory_fd = l->disk_fd = -1;
	list_init(&l->turns);
	list_init(&l->resting);
	list_init(&l->results);
	list_init(&l->needs);
	list_init(&l->outlets);
	list_init(&l->lines_busy);
	list_init(&l->lines_idle);
	list_init(&l->guests);
	list_init(&l->waiting);
	list_init(&l->leaving);
	owner_init(&l->readers);
}

static int layer_fds(struct layer *l, int memory_fd, int disk_fd, struct err *e)
{
	l->memory_fd = fcntl(memory_fd, F_DUPFD_CLOEXEC, 0);
	if (l->memory_fd < 0)
		return err_errno(e, errno, "keep the memory of a layer");
	if (disk_fd < 0)
		return 0;
	l->disk_fd = fcntl(disk_fd, F_DUPFD_CLOEXEC, 0);
	if (l->disk_fd < 0)
		return err_errno(e, errno, "keep the disk of a layer");
	return 0;
}

static int layer_compare(const void *a, const void *b, void *arg)
{
	const struct index_frame *x = layer_stored(arg, *(const uint32_t *)a),
				 *y = layer_stored(arg, *(const uint32_t *)b);

	if (x->source != y->source)
		return x->source < y->source ? -1 : 1;
	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return 0;
}

static int layer_order(struct layer *l, struct err *e)
{
	size_t n;

	l->n_memory = index_frames(l->index, INDEX_MEMORY);
	l->n_frames = l->n_memory;
	if (l->disk_fd >= 0)
		l->n_frames += index_frames(l->index, INDEX_DISK);
	n = max(l->n_frames, 1u);
	l->frames = calloc(n, sizeof(*l->frames));
	l->order = calloc(n, sizeof(*l->order));
	l->rank = calloc(n, sizeof(*l->rank));
	if (!l->frames || !l->order || !l->rank)
		return err_errno(e, ENOMEM, "keep account of %u frames",
				 l->n_frames);
	for (uint32_t id = 0; id < l->n_frames; id++)
		if (layer_stored(l, id)->stored)
			l->order[l->n_ordered++] = id;
	qsort_r(l->order, l->n_ordered, sizeof(*l->order), layer_compare, l);
	for (uint32_t i = 0; i < l->n_ordered; i++)
		l->rank[l->order[i]] = i;
	return 0;
}

/* What is present, and the gauges. */
static int layer_look(struct layer *l, struct err *e)
{
	uint64_t zero = index_layer_bytes(l->index, INDEX_MEMORY) -
			index_data_bytes(l->index, INDEX_MEMORY);
	int r = present_scan(l, INDEX_MEMORY, l->memory_fd, e);

	if (r == 0 && l->disk_fd >= 0) {
		r = present_scan(l, INDEX_DISK, l->disk_fd, e);
		zero += index_layer_bytes(l->index, INDEX_DISK) -
			index_data_bytes(l->index, INDEX_DISK);
	}
	if (r < 0)
		return r;
	PAGER_SET(l->stats->memory_present_bytes, 0);
	PAGER_SET(l->stats->disk_present_bytes, 0);
	PAGER_SET(l->stats->zero_bytes, zero);
	PAGER_SET(l->stats->guests, 0);
	for (uint32_t id = 0; id < l->n_frames; id++)
		if (layer_has(l, id))
			PAGER_COUNT(*layer_gauge(l, id),
				    layer_frame_bytes(l, id));
		else
			l->missing++;
	return 0;
}

static int layer_open(struct layer *l, const struct store_spec *store,
		      int memory_fd, int disk_fd, struct err *e)
{
	int r = layer_fds(l, memory_fd, disk_fd, e);

	if (r == 0)
		r = layer_order(l, e);
	if (r == 0)
		r = layer_look(l, e);
	if (r < 0 || !store)
		return r;
	l->has_store = true;
	l->spec = *store;
	return store_check(store, e);
}

/* One worker says the sentence for a layer that needs a store and has none. */
static int layer_start(struct layer *l, struct err *e)
{
	unsigned n = l->has_store ? l->engine->config.workers
		     : l->missing ? 1
				  : 0;
	int r = n ? fetch_start(l, n, e) : 0;

	if (r < 0) {
		fetch_end(l);
		fetch_join(l);
	}
	return r;
}

int layer_add(struct engine *g, uint32_t number, struct index *x_take,
	      const struct store_spec *store, int memory_fd, int disk_fd,
	      struct err *e)
{
	guard(layer_freep) struct layer *l = calloc(1, sizeof(*l));
	int r;

	if (!l) {
		index_free(x_take);
		return err_errno(e, ENOMEM, "make a layer");
	}
	layer_init(l);
	l->index = x_take;
	l->engine = g;
	l->number = number;
	if (number >= PAGER_LAYERS_MAX)
		return err_set(e, EINVAL, "layer %u of at most %u", number,
			       PAGER_LAYERS_MAX);
	if (layer_find(g, number))
		return err_set(e, EEXIST, "there is a layer %u", number);
	l->stats = &g->config.stats->layer[number];
	r = layer_open(l, store, memory_fd, disk_fd, e);
	if (r == 0)
		r = layer_start(l, e);
	if (r < 0)
		return r;
	engine_lock(g);
	g->layers[number] = take(l);
	engine_unlock(g);
	engine_kick(g); /* it may be whole */
	return 0;
}

void layer_remove(struct engine *g, uint32_t number)
{
	struct layer *l = layer_find(g, number);

	if (!l)
		return;
	engine_lock(g);
	g->layers[number] = NULL;
	engine_unlock(g);
	fetch_end(l);
	layer_refuse(l);
	list_add_tail(&g->leaving, &l->leaving);
	guest_orphan(l);
	engine_kick(g);
}

bool layer_reap(struct layer *l, bool wait)
{
	struct engine *g = l->engine;
	bool busy;

	engine_lock(g);
	while (l->users && wait)
		must(pthread_cond_wait(&g->quiet, &g->table_lock) == 0);
	busy = l->users != 0;
	engine_unlock(g);
	layer_lock(l);
	if (!wait)
		busy = busy || l->n_alive;
	layer_unlock(l);
	if (busy)
		return false;
	fetch_join(l);
	layer_free(l);
	return true;
}
