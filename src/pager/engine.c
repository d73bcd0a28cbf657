/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine of the pager: what the poller waits for, and its turns
 *
 *	guests' uffds ----+
 *	guests' pidfds ---+--> epoll --> a turn of the poller
 *	the owner's fds --+                | layer_want()      ^ results, kick
 *	kick (eventfd) ---+                v                   |
 *	                             queue of a layer --> its workers
 *
 * A turn takes what epoll has, at most TURN_SOURCES of them, and of each uffd
 * one read; then it tries again what the kernel could not do before (parked
 * faults), and buries what ended in the turn. epoll hands out what is ready in
 * rotation, so a guest that faults without pause costs the others one read of
 * theirs, never more.
 *
 * Invariants:
 *  1. Nothing in a turn waits: no store, no file but layers that are memory,
 *     no worker. The locks are held for list operations only.
 *  2. Objects that epoll may still name live until the turn's end: they are
 *     moved to a list of graves, with their fd taken out of epoll.
 *  3. Callbacks to the owner are made when no list is being walked that they
 *     could change: they may call every function of engine.h but engine_run()
 *     and engine_free().
 *  4. A guest's uffd is closed by guest_forget(), at the end of its process,
 *     or with the engine; a page fault never leads there. While the uffd is
 *     open somewhere a thread waits for its page and cannot read zeros.
 *  5. After engine_run() has returned nobody settles what workers report, so
 *     readers of the disk are refused (deaf) rather than left waiting.
 *
 * It is not a protocol: who says which guests and layers there are is the
 * owner's matter.
 */
#include "pager/object.h"

#include "base/clock.h"
#include "base/guard.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

/* Events of one epoll_wait(). */
#define TURN_SOURCES 64
/* Parked faults are tried again after that: the thread that surrenders memory
 * needs microseconds, and an event that it waits for ends the wait anyway. */
#define TURN_PARKED_MS 1
#define HUGE_BYTES (2u << 20)
/* Of a layer, when the owner names no number: they wait more than they work.
 * With eight, 20 ms away and at 1 Gbit/s, 0.90 of the line is used; with four
 * 0.84, with twelve no more. */
#define WORKERS_MIN 8u

struct watch {
	struct source source;
	struct engine *engine;
	struct list link;
	void (*fn)(void *arg, int fd);
	void *arg;
	int fd;
};

/* ---- sources ---- */

int source_add(struct engine *g, struct source *s)
{
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = s };

	return epoll_ctl(g->epoll_fd, EPOLL_CTL_ADD, s->fd, &e) < 0 ? -errno
								    : 0;
}

void source_del(struct engine *g, struct source *s)
{
	if (s->fd < 0)
		return;
	/* It can only have been closed by somebody else. */
	err_drop(epoll_ctl(g->epoll_fd, EPOLL_CTL_DEL, s->fd, NULL));
	s->fd = -1;
}

static void watch_ready(struct source *s, unused uint32_t events,
			unused uint64_t now_ns)
{
	struct watch *w = container_of(s, struct watch, source);

	w->fn(w->arg, w->fd);
}

int engine_watch(struct engine *g, int fd, void (*fn)(void *arg, int fd),
		 void *arg)
{
	guard_free struct watch *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	w->source = (struct source){ .ready = watch_ready, .fd = fd };
	w->engine = g;
	w->fn = fn;
	w->arg = arg;
	w->fd = fd;
	r = source_add(g, &w->source);
	if (r < 0)
		return r;
	list_add_tail(&g->watches, &w->link);
	take(w);
	return 0;
}

void engine_unwatch(struct engine *g, int fd)
{
	struct watch *w, *tmp;

	list_for_each (w, tmp, &g->watches, struct watch, link) {
		if (w->fd != fd)
			continue;
		source_del(g, &w->source);
		list_del(&w->link);
		list_add_tail(&g->watch_graves, &w->link);
	}
}

void engine_kick(struct engine *g)
{
	const uint64_t one = 1;

	/* Only 2^64 unread kicks could make it fail. */
	must(write(g->kick_fd, &one, sizeof(one)) == sizeof(one));
}

static void engine_reap(struct engine *g, bool wait)
{
	struct layer *l, *tmp;

	list_for_each (l, tmp, &g->leaving, struct layer, leaving)
		layer_reap(l, wait);
}

/* Results, a layer that ended, engine_stop(): look at all of it. */
static void engine_kicked(struct source *s, unused uint32_t events,
			  uint64_t now_ns)
{
	struct engine *g = container_of(s, struct engine, kick);
	uint64_t count = 0;

	/* Before looking: what comes after the look kicks again. */
	must(read(g->kick_fd, &count, sizeof(count)) == sizeof(count) ||
	     errno == EAGAIN);
	for (unsigned i = 0; i < PAGER_LAYERS_MAX; i++)
		if (g->layers[i])
			layer_settle(g->layers[i], now_ns);
	for (unsigned i = 0; i < PAGER_LAYERS_MAX; i++)
		if (g->layers[i])
			layer_tell_whole(g->layers[i]);
	engine_reap(g, false);
}

/* ---- turns ---- */

static void engine_bury(struct engine *g)
{
	struct guest *t, *t_tmp;
	struct watch *w, *w_tmp;

	list_for_each (t, t_tmp, &g->graves, struct guest, in_engine)
		guest_free(t);
	list_for_each (w, w_tmp, &g->watch_graves, struct watch, link) {
		list_del(&w->link);
		free(w);
	}
}

static void engine_retry(struct engine *g, uint64_t now_ns)
{
	struct list again = LIST_INIT(again);

	/* Each once: who is parked again is at the tail of another list. */
	while (!list_empty(&g->parked)) {
		struct list *l = g->parked.next;

		list_del(l);
		list_add_tail(&again, l);
	}
	while (!list_empty(&again)) {
		struct guest *t =
			list_entry(again.next, struct guest, in_parked);

		list_del(&t->in_parked);
		guest_retry(t, now_ns);
	}
}

static int engine_turn(struct engine *g)
{
	struct epoll_event events[TURN_SOURCES] = { 0 };
	int timeout = list_empty(&g->parked) ? -1 : TURN_PARKED_MS;
	int n = epoll_wait(g->epoll_fd, events, TURN_SOURCES, timeout);
	uint64_t now_ns;

	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	now_ns = clock_mono_ns();
	for (int i = 0; i < n; i++) {
		struct source *s = events[i].data.ptr;

		if (s->fd >= 0)
			s->ready(s, events[i].events, now_ns);
	}
	if (!list_empty(&g->parked))
		engine_retry(g, now_ns);
	engine_bury(g);
	return 0;
}

int engine_run(struct engine *g, struct err *e)
{
	int r = 0;

	while (r == 0 && !atomic_load(&g->stop))
		r = engine_turn(g);
	atomic_store(&g->deaf, true);
	for (unsigned i = 0; i < PAGER_LAYERS_MAX; i++)
		if (g->layers[i])
			layer_refuse(g->layers[i]);
	if (r < 0)
		return err_errno(e, -r, "wait for page faults");
	return 0;
}

void engine_stop(struct engine *g)
{
	atomic_store(&g->stop, true);
	engine_kick(g);
}

/* ---- start and end ---- */

static void engine_freep(struct engine **g)
{
	engine_free(*g);
}

static void engine_init(struct engine *g, const struct engine_config *config)
{
	static const struct engine_events no_events;

	g->config = *config;
	g->events = config->events ? *config->events : no_events;
	if (!g->config.workers)
		g->config.workers = (unsigned)max(
			sysconf(_SC_NPROCESSORS_ONLN) / 2, (long)WORKERS_MIN);
	if (!g->config.deadline_ns)
		g->config.deadline_ns = PAGER_DEADLINE_NS;
	list_init(&g->watches);
	list_init(&g->guests);
	list_init(&g->parked);
	list_init(&g->graves);
	list_init(&g->watch_graves);
	list_init(&g->leaving);
	must(pthread_mutex_init(&g->table_lock, NULL) == 0);
	must(pthread_cond_init(&g->quiet, NULL) == 0);
	g->epoll_fd = g->kick_fd = g->kick.fd = -1;
}

static void *engine_map(int prot)
{
	void *p = mmap(NULL, HUGE_BYTES, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);

	return p == MAP_FAILED ? NULL : p;
}

int engine_new(const struct engine_config *config, struct engine **ret,
	       struct err *e)
{
	guard(engine_freep) struct engine *g = calloc(1, sizeof(*g));
	int r;

	must(config->stats);
	if (!g)
		return err_errno(e, ENOMEM, "make a pager");
	engine_init(g, config);
	g->bounce = engine_map(PROT_READ | PROT_WRITE);
	g->zeros = engine_map(PROT_READ);
	if (!g->bounce || !g->zeros)
		return err_errno(e, ENOMEM, "make a pager");
	g->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (g->epoll_fd < 0)
		return err_errno(e, errno, "create an epoll");
	g->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (g->kick_fd < 0)
		return err_errno(e, errno, "create an eventfd");
	g->kick = (struct source){ .ready = engine_kicked, .fd = g->kick_fd };
	r = source_add(g, &g->kick);
	if (r < 0)
		return err_errno(e, -r, "watch an eventfd");
	*ret = take(g);
	return 0;
}

static void engine_unmap(const void *p)
{
	if (p)
		must(munmap((void *)(uintptr_t)p, HUGE_BYTES) == 0);
}

struct engine *engine_free(struct engine *g)
{
	struct watch *w, *tmp;

	if (!g)
		return NULL;
	atomic_store(&g->deaf, true);
	/* What the owner did not forget: closed with us, as if we had died. */
	while (!list_empty(&g->guests)) {
		struct guest *t =
			list_entry(g->guests.next, struct guest, in_engine);

		guest_forget(g, t->number);
	}
	list_for_each (w, tmp, &g->watches, struct watch, link)
		engine_unwatch(g, w->fd);
	for (uint32_t i = 0; i < PAGER_LAYERS_MAX; i++)
		layer_remove(g, i);
	engine_reap(g, true);
	engine_bury(g);
	must(list_empty(&g->leaving) && list_empty(&g->parked));
	fd_close(&g->kick_fd);
	fd_close(&g->epoll_fd);
	engine_unmap(g->bounce);
	engine_unmap(g->zeros);
	must(pthread_cond_destroy(&g->quiet) == 0);
	must(pthread_mutex_destroy(&g->table_lock) == 0);
	free(g);
	return NULL;
}
