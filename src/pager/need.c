/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Readers of a disk: threads that wait until a range of it is here
 *
 * They are the connections of the NBD server. A thread asks for what is missing
 * itself, under the layer's lock, and sleeps until the poller has settled one
 * of the frames that it wants; then it looks again.
 *
 * Invariants:
 *  1. What is here costs no lock of the layer: frames are PRESENT by an atomic
 *     byte that was stored after their pages.
 *  2. A reader hears of success, failure and end: each of them is signalled
 *     under the lock, and looked for under the lock.
 *  3. A failure is told to who waits for that frame at that moment, and has
 *     done so for as long as one should. Who comes later asks anew.
 *  4. What a reader is told is a number, and it goes to a client that can do
 *     little with it. The sentence goes to the engine's owner (disk_lost), and
 *     goes first.
 *  5. All readers are one owner in the layer's queue: they share it with each
 *     guest's page faults as one more guest would.
 */
#include "pager/object.h"

#include "base/clock.h"

#include <errno.h>
#include <string.h>

/* A thread in layer_need_disk(). */
struct need {
	struct list link;
	uint64_t first, last; /* pages of the disk */
	uint64_t since_ns;
	int code;
	uint32_t lost; /* with a code from a frame: which */
	pthread_cond_t wake;
};

/* Does [first, last] need frame @id of the disk? */
static bool need_wants(const struct layer *l, uint64_t first, uint64_t last,
		       uint32_t id)
{
	uint32_t i = id - l->n_memory;
	uint64_t chunk = i / 2, page = max(first, chunk * INDEX_CHUNK_PAGES),
		 end = min(last, (chunk + 1) * INDEX_CHUNK_PAGES - 1);

	for (; page <= end; page++)
		if (index_in_frame(l->index, INDEX_DISK, i, page))
			return true;
	return false;
}

/* Is some of [first, last] missing? With @since_ns (and the lock), ask for it. */
static bool need_missing(struct layer *l, uint64_t first, uint64_t last,
			 uint64_t since_ns)
{
	uint32_t id = l->n_memory + (uint32_t)(first / INDEX_CHUNK_PAGES) * 2;
	uint32_t end = l->n_memory + (uint32_t)(last / INDEX_CHUNK_PAGES) * 2;
	bool missing = false;

	for (; id <= end + 1; id++) {
		bool has = layer_has(l, id);

		if (has && !(l->frames[id].flags & FRAME_EARLY))
			continue;
		if (!need_wants(l, first, last, id))
			continue;
		if (has) {
			layer_used(l, id);
			continue;
		}
		missing = true;
		if (since_ns)
			layer_want_locked(l, id, &l->readers, since_ns);
	}
	return missing;
}

static int need_wait(struct layer *l, struct need *n)
{
	layer_lock(l);
	list_add_tail(&l->needs, &n->link);
	for (;;) {
		if (l->ending || atomic_load(&l->engine->deaf))
			n->code = -ESHUTDOWN;
		if (n->code || !need_missing(l, n->first, n->last, n->since_ns))
			break;
		must(pthread_cond_wait(&n->wake, &l->lock) == 0);
	}
	list_del(&n->link);
	layer_unlock(l);
	return n->code;
}

/* Frame @id did not come: which bytes, from where, and why. */
static void need_lost(const struct layer *l, uint32_t id, int code)
{
	const struct engine *g = l->engine;
	const struct index_frame *f = layer_stored(l, id);
	const char *image = index_source(l->index, f->source)->id;
	unsigned long long at = f->offset;
	struct err e = ERR_NULL;

	if (!l->has_store)
		err_set(&e, code, "image %s is not complete, and has no store",
			image);
	else if (code == ETIMEDOUT)
		err_set(&e, code,
			"%u bytes at %llu of the pack of image %s did not come from store %s by the deadline",
			f->stored, at, image, l->spec.name);
	else if (code == EBADMSG)
		err_set(&e, code,
			"the pack of image %s in store %s is damaged: %u bytes at %llu are not what the index says",
			image, l->spec.name, f->stored, at);
	else
		err_set(&e, code,
			"%u bytes at %llu of the pack of image %s cannot be had from store %s: %s",
			f->stored, at, image, l->spec.name, strerror(code));
	if (g->events.disk_lost)
		g->events.disk_lost(g->config.arg, l->number, &e);
}

static int layer_need(struct layer *l, uint64_t offset, uint64_t len)
{
	uint64_t bytes =
		l->disk_fd < 0 ? 0 : index_layer_bytes(l->index, INDEX_DISK);
	struct need n = { .first = offset / INDEX_PAGE };
	int r;

	if (offset > bytes || len > bytes - offset)
		return -EINVAL;
	if (!len)
		return 0;
	n.last = (offset + len - 1) / INDEX_PAGE;
	if (!need_missing(l, n.first, n.last, 0))
		return 0;
	n.since_ns = clock_mono_ns();
	must(pthread_cond_init(&n.wake, NULL) == 0);
	r = need_wait(l, &n);
	must(pthread_cond_destroy(&n.wake) == 0);
	if (r < 0 && r != -ESHUTDOWN && r != -ENOSPC && r != -EDQUOT)
		need_lost(l, n.lost, -r);
	return r;
}

int layer_need_disk(struct engine *g, uint32_t number, uint64_t offset,
		    uint64_t len)
{
	struct layer *l;
	bool left;
	int r;

	engine_lock(g);
	l = layer_find(g, number);
	if (l)
		l->users++;
	engine_unlock(g);
	if (!l)
		return -ESHUTDOWN;
	r = layer_need(l, offset, len);
	engine_lock(g);
	left = --l->users == 0 && g->layers[number] != l;
	if (left)
		must(pthread_cond_broadcast(&g->quiet) == 0);
	engine_unlock(g);
	if (left)
		engine_kick(g);
	return r;
}

static bool need_is_for(const struct layer *l, const struct need *n,
			uint32_t id)
{
	return id >= l->n_memory && need_wants(l, n->first, n->last, id);
}

void layer_signal(struct layer *l, uint32_t id, int code)
{
	struct need *n, *tmp;

	list_for_each (n, tmp, &l->needs, struct need, link) {
		if (!need_is_for(l, n, id) ||
		    (code < 0 && n->since_ns > l->late_ns))
			continue;
		if (!n->code) {
			n->code = code;
			n->lost = id;
		}
		must(pthread_cond_signal(&n->wake) == 0);
	}
}

uint64_t layer_readers_since(const struct layer *l, uint32_t id)
{
	uint64_t since_ns = UINT64_MAX;
	struct need *n, *tmp;

	list_for_each (n, tmp, &l->needs, struct need, link)
		if (need_is_for(l, n, id) && n->since_ns > l->late_ns)
			since_ns = min(since_ns, n->since_ns);
	return since_ns;
}

void layer_refuse(struct layer *l)
{
	struct need *n, *tmp;

	layer_lock(l);
	list_for_each (n, tmp, &l->needs, struct need, link) {
		n->code = -ESHUTDOWN;
		must(pthread_cond_signal(&n->wake) == 0);
	}
	layer_unlock(l);
}
