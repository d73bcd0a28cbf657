/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queue of a layer: what a worker does next
 *
 *	demand   the owners in turn, one frame each; frames that touch it in the
 *	         pack come along when somebody wants them, too
 *	ahead    a cursor over the frames in the order of the pack, first over
 *	         what is hot, then over the rest. It takes runs that touch:
 *	         short ones first, so that the first pages come early and every
 *	         worker has something, then longer ones, which cost less
 *	resting  frames that did not come (damaged, their pack away) and that
 *	         somebody waits for. Each rests longer than the time before; then
 *	         it is demand again. A worker that is not fetching is free: a
 *	         few frames that will not come hold up nobody else's
 *
 * Invariants:
 *  1. Demand goes first, and prefetch never holds all workers.
 *  2. The lock is held by who calls; nothing here takes it, or waits.
 *  3. A frame rests until shortly before its deadline at most, so its last try
 *     is made by then, and its failure told.
 *  4. While frames rest, a worker that waits does so until the first one's time
 *     at most, unless all are busy: who puts a frame first, and who was woken
 *     and found a job, wakes another one.
 */
#include "pager/object.h"

#include "base/clock.h"

#include <string.h>

/* Runs of a prefetch: the first of each worker, and then twice as long each
 * time all have had one, up to STORE_COALESCE. */
#define AHEAD_BYTES_MIN (1u << 20)
/* Between tries of a frame, beyond the store's own ones. What may pass within a
 * fault's patience is found soon, what lasts is not asked for often. */
#define QUEUE_REST_MIN_NS (50 * NS_PER_MS)
#define QUEUE_REST_MAX_NS (2 * NS_PER_SEC)

static bool queue_touch(const struct layer *l, uint32_t a, uint32_t b)
{
	const struct index_frame *x = layer_stored(l, a),
				 *y = layer_stored(l, b);

	return x->source == y->source && x->offset + x->stored == y->offset;
}

static void queue_add(struct fetch *w, uint32_t id)
{
	struct layer_frame *f = &w->layer->frames[id];

	if (frame_state(f) == FRAME_QUEUED)
		list_del(&f->link);
	frame_set(f, FRAME_FETCHING);
	if (w->ahead)
		f->flags |= FRAME_TAKEN_AHEAD;
	w->ids[w->n++] = id;
}

/* The run of frames in @state around place @at, within @most bytes. */
static void queue_take_run(struct fetch *w, uint32_t at, enum frame_state state,
			   uint64_t most)
{
	struct layer *l = w->layer;
	uint32_t low = at, high = at;
	uint64_t bytes = layer_stored(l, l->order[at])->stored;

	while (low > 0 && high - low + 1 < FETCH_FRAMES_MAX &&
	       frame_state(&l->frames[l->order[low - 1]]) == state &&
	       queue_touch(l, l->order[low - 1], l->order[low])) {
		bytes += layer_stored(l, l->order[low - 1])->stored;
		if (bytes > most)
			break;
		low--;
	}
	while (bytes <= most && high + 1 < l->n_ordered &&
	       high - low + 1 < FETCH_FRAMES_MAX &&
	       frame_state(&l->frames[l->order[high + 1]]) == state &&
	       queue_touch(l, l->order[high], l->order[high + 1])) {
		bytes += layer_stored(l, l->order[high + 1])->stored;
		if (bytes > most)
			break;
		high++;
	}
	for (uint32_t i = low; i <= high; i++)
		queue_add(w, l->order[i]);
}

static bool queue_take_demand(struct fetch *w)
{
	struct layer *l = w->layer;

	while (!list_empty(&l->turns)) {
		struct owner *o = list_entry(l->turns.next, struct owner, turn);
		struct layer_frame *f;

		list_del(&o->turn);
		if (list_empty(&o->frames)) /* all came along with others */
			continue;
		f = list_entry(o->frames.next, struct layer_frame, link);
		w->ahead = false;
		queue_take_run(w, l->rank[f - l->frames], FRAME_QUEUED,
			       STORE_COALESCE);
		if (!list_empty(&o->frames))
			list_add_tail(&l->turns, &o->turn);
		return true;
	}
	return false;
}

/* Hot memory is the even frames. */
static bool queue_ahead_fits(const struct layer *l, uint32_t id)
{
	return frame_state(&l->frames[id]) == FRAME_AHEAD &&
	       (!l->ahead_hot || id % 2 == 0);
}

static uint64_t queue_ahead_bytes(const struct layer *l)
{
	unsigned rounds = l->ahead_jobs / l->n_workers;

	return min((uint64_t)AHEAD_BYTES_MIN << min(rounds, 16u),
		   (uint64_t)STORE_COALESCE);
}

/* At least one worker is left for demand. */
static unsigned queue_ahead_max(const struct layer *l)
{
	return max(l->n_workers - max(l->n_workers / 4, 1u), 1u);
}

static bool queue_take_ahead(struct fetch *w)
{
	struct layer *l = w->layer;

	if (!l->ahead || l->ahead_busy >= queue_ahead_max(l))
		return false;
	for (;;) {
		while (l->ahead_at < l->n_ordered &&
		       !queue_ahead_fits(l, l->order[l->ahead_at]))
			l->ahead_at++;
		if (l->ahead_at < l->n_ordered)
			break;
		l->ahead_at = 0;
		if (!l->ahead_hot) {
			l->ahead = false;
			return false;
		}
		l->ahead_hot = false;
	}
	w->ahead = true;
	queue_take_run(w, l->ahead_at, FRAME_AHEAD, queue_ahead_bytes(l));
	l->ahead_busy++;
	l->ahead_jobs++;
	return true;
}

void queue_put(struct layer *l, uint32_t id, struct owner *owner)
{
	struct layer_frame *f = &l->frames[id];

	frame_set(f, FRAME_QUEUED);
	list_add_tail(&owner->frames, &f->link);
	if (list_empty(&owner->turn))
		list_add_tail(&l->turns, &owner->turn);
	must(pthread_cond_signal(&l->work) == 0);
}

bool queue_rest(struct layer *l, uint32_t id, uint64_t now_ns)
{
	struct layer_frame *f = &l->frames[id];
	uint64_t end = f->asked_ns + l->engine->config.deadline_ns;
	uint64_t rest = QUEUE_REST_MIN_NS << min(f->rests, (uint8_t)8);
	struct list *at = l->resting.prev;

	if (!f->asked_ns || l->ending || now_ns + FETCH_LAST_NS >= end)
		return false;
	/* The last try is near the deadline, however long rests have become. */
	f->again_ns = now_ns + min(min(rest, (uint64_t)QUEUE_REST_MAX_NS),
				   end - now_ns - FETCH_LAST_NS / 2);
	f->rests += f->rests < UINT8_MAX;
	frame_set(f, FRAME_RESTING);
	while (at != &l->resting &&
	       list_entry(at, struct layer_frame, link)->again_ns > f->again_ns)
		at = at->prev;
	list_add_tail(at->next, &f->link);
	if (at == &l->resting)
		must(pthread_cond_signal(&l->work) == 0);
	return true;
}

uint64_t queue_again_ns(const struct layer *l)
{
	if (list_empty(&l->resting))
		return UINT64_MAX;
	return list_entry(l->resting.next, struct layer_frame, link)->again_ns;
}

/* Those that have rested are demand, of nobody in particular. */
static void queue_wake(struct layer *l)
{
	uint64_t now_ns;

	if (list_empty(&l->resting))
		return;
	now_ns = clock_mono_ns();
	while (queue_again_ns(l) <= now_ns) {
		struct layer_frame *f =
			list_entry(l->resting.next, struct layer_frame, link);

		list_del(&f->link);
		queue_put(l, (uint32_t)(f - l->frames), &l->readers);
	}
}

bool queue_take(struct fetch *w)
{
	struct layer *l = w->layer;
	uint64_t asked = UINT64_MAX;

	w->n = 0;
	queue_wake(l);
	if (!queue_take_demand(w) && !queue_take_ahead(w))
		return false;
	if (!list_empty(&l->resting)) /* invariant 4 */
		must(pthread_cond_signal(&l->work) == 0);
	for (unsigned i = 0; i < w->n; i++) {
		uint64_t t = l->frames[w->ids[i]].asked_ns;

		if (t)
			asked = min(asked, t);
	}
	if (asked == UINT64_MAX)
		asked = clock_mono_ns();
	w->deadline_ns = asked + l->engine->config.deadline_ns;
	memset(w->have, 0, sizeof(w->have));
	memset(w->keep, 0, sizeof(w->keep));
	return true;
}
