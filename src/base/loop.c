/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop: one thread, one epoll
 *
 * A turn is: wait, read the clock once, note every ready source in a list of
 * its own, call the sources from that list, run the timers that are due.
 *
 *	epoll_wait -> ready list -> fd callbacks -> heap -> timer callbacks
 *
 * Invariants:
 *  1. Between epoll_wait and the first callback every event has moved from
 *     the kernel's array to the ready list; a source that is removed leaves
 *     the list. So a callback may remove (and free) any source, itself
 *     included, and no pointer to it is left here.
 *  2. A callback sees only events it asks for at that moment (and ERR, HUP,
 *     which cannot be declined): loop_fd_set() acts within the turn.
 *  3. heap[i]->index == i; a timer is in the heap if and only if its loop is
 *     set. It leaves the heap before its callback, which may arm it again.
 *  4. One turn runs at most as many timers as were armed when it began with
 *     them: a timer that arms itself for the past cannot starve the fds.
 *  5. now_ns changes only in loop_turn, after the wait.
 *
 * It does not own fds, does not handle signals (use a signalfd) and is not
 * thread-safe: other threads reach it through an eventfd (see worker.c).
 */
#include "base/loop.h"

#include "base/clock.h"
#include "base/guard.h"

#include <errno.h>
#include <limits.h>

/* Events taken per turn. The kernel rotates its list, so a larger herd of
 * ready fds is served in several turns, in order. */
#define LOOP_EVENTS_MAX 64

/* Timers a fresh heap has room for; a sandbox uses two or three. */
#define LOOP_HEAP_MIN 64

int loop_init(struct loop *l, struct err *e)
{
	*l = (struct loop)LOOP_NULL;
	list_init(&l->ready);
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll_fd < 0)
		return err_errno(e, errno, "create an epoll");
	l->now_ns = clock_mono_ns();
	return 0;
}

void loop_deinit(struct loop *l)
{
	must(l->n_fds == 0);
	must(l->heap_len == 0);
	fd_close(&l->epoll_fd);
	free(l->heap);
	*l = (struct loop)LOOP_NULL;
}

/* Milliseconds until the first timer, rounded up so that it is due when we
 * wake, and at most @timeout_ms. The clock is read afresh: callbacks of the
 * last turn have used up some of the time. */
static int loop_timeout_ms(const struct loop *l, int timeout_ms)
{
	uint64_t now_ns, ms;

	if (!l->heap_len)
		return timeout_ms;
	now_ns = clock_mono_ns();
	if (l->heap[0]->due_ns <= now_ns)
		return 0;
	ms = (l->heap[0]->due_ns - now_ns - 1) / NS_PER_MS + 1;
	if (timeout_ms >= 0 && ms > (uint64_t)timeout_ms)
		return timeout_ms;
	return (int)min(ms, (uint64_t)INT_MAX);
}

static void loop_run_fds(struct loop *l)
{
	while (!list_empty(&l->ready)) {
		struct loop_fd *f =
			list_entry(l->ready.next, struct loop_fd, ready);
		uint32_t events = f->revents &
				  (f->events | EPOLLERR | EPOLLHUP);

		list_del(&f->ready);
		f->revents = 0;
		if (events)
			f->fn(f, events);
	}
}

static void loop_run_timers(struct loop *l)
{
	for (size_t n = l->heap_len; n && l->heap_len; n--) {
		struct loop_timer *t = l->heap[0];

		if (t->due_ns > l->now_ns)
			break;
		loop_timer_del(t);
		t->fn(t);
	}
}

int loop_turn(struct loop *l, int timeout_ms, struct err *e)
{
	struct epoll_event events[LOOP_EVENTS_MAX];
	int n;

	must(list_empty(&l->ready)); /* turns do not nest */
	n = epoll_wait(l->epoll_fd, events, nitems(events),
		       loop_timeout_ms(l, timeout_ms));
	if (n < 0) {
		if (errno != EINTR)
			return err_errno(e, errno, "wait for events");
		n = 0;
	}
	l->now_ns = clock_mono_ns();
	for (int i = 0; i < n; i++) {
		struct loop_fd *f = events[i].data.ptr;

		f->revents = events[i].events;
		list_add_tail(&l->ready, &f->ready);
	}
	loop_run_fds(l);
	loop_run_timers(l);
	return 0;
}

int loop_run(struct loop *l, struct err *e)
{
	int r = 0;

	while (!l->stop && r == 0)
		r = loop_turn(l, -1, e);
	l->stop = false;
	return r;
}

void loop_stop(struct loop *l)
{
	l->stop = true;
}

int loop_fd_add(struct loop *l, struct loop_fd *f, int fd, uint32_t events,
		loop_fd_fn fn)
{
	struct epoll_event ev = { .events = events, .data.ptr = f };

	must(!f->loop);
	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
		return -errno;
	f->loop = l;
	f->fd = fd;
	f->events = events;
	f->revents = 0;
	f->fn = fn;
	list_init(&f->ready);
	l->n_fds++;
	return 0;
}

void loop_fd_set(struct loop_fd *f, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = f };

	must(f->loop);
	if (events == f->events)
		return;
	must(epoll_ctl(f->loop->epoll_fd, EPOLL_CTL_MOD, f->fd, &ev) == 0);
	f->events = events;
}

void loop_fd_del(struct loop_fd *f)
{
	struct loop *l = f->loop;

	if (!l)
		return;
	/* Fails only when the fd was closed first. The kernel may then go on
	 * reporting it (if a duplicate lives), with a pointer to freed
	 * memory. */
	must(epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, f->fd, NULL) == 0);
	must(l->n_fds > 0);
	l->n_fds--;
	list_del(&f->ready);
	f->loop = NULL;
	f->fd = -1;
}

static void loop_heap_put(struct loop *l, size_t i, struct loop_timer *t)
{
	l->heap[i] = t;
	t->index = i;
}

static void loop_heap_up(struct loop *l, struct loop_timer *t)
{
	size_t i = t->index;

	while (i > 0) {
		struct loop_timer *parent = l->heap[(i - 1) / 2];

		if (parent->due_ns <= t->due_ns)
			break;
		loop_heap_put(l, i, parent);
		i = (i - 1) / 2;
	}
	loop_heap_put(l, i, t);
}

static void loop_heap_down(struct loop *l, struct loop_timer *t)
{
	size_t i = t->index;

	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= l->heap_len)
			break;
		if (child + 1 < l->heap_len &&
		    l->heap[child + 1]->due_ns < l->heap[child]->due_ns)
			child++;
		if (t->due_ns <= l->heap[child]->due_ns)
			break;
		loop_heap_put(l, i, l->heap[child]);
		i = child;
	}
	loop_heap_put(l, i, t);
}

static int loop_heap_room(struct loop *l)
{
	struct loop_timer **heap;
	size_t size;

	if (l->heap_len < l->heap_size)
		return 0;
	size = max(l->heap_size * 2, (size_t)LOOP_HEAP_MIN);
	heap = reallocarray(l->heap, size, sizeof(struct loop_timer *));
	if (!heap)
		return -ENOMEM;
	l->heap = heap;
	l->heap_size = size;
	return 0;
}

int loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t due_ns,
		   loop_timer_fn fn)
{
	int r;

	if (!t->loop) {
		r = loop_heap_room(l);
		if (r < 0)
			return r;
		t->loop = l;
		loop_heap_put(l, l->heap_len++, t);
	}
	must(t->loop == l);
	t->due_ns = due_ns;
	t->fn = fn;
	loop_heap_up(l, t);
	loop_heap_down(l, t);
	return 0;
}

void loop_timer_del(struct loop_timer *t)
{
	struct loop *l = t->loop;
	struct loop_timer *last;

	if (!l)
		return;
	must(t->index < l->heap_len && l->heap[t->index] == t);
	last = l->heap[--l->heap_len];
	if (last != t) {
		loop_heap_put(l, t->index, last);
		loop_heap_up(l, last);
		loop_heap_down(l, last);
	}
	t->loop = NULL;
}
