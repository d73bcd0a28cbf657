/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop: events, removal inside callbacks, order of timers
 */
#include "base/loop.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/time.h>

static void test_turn(struct loop *l, int timeout_ms)
{
	struct err e = ERR_NULL;

	check(loop_turn(l, timeout_ms, &e) == 0);
}

static int test_eventfd(unsigned count)
{
	int fd = eventfd(count, EFD_CLOEXEC | EFD_NONBLOCK);

	check(fd >= 0);
	return fd;
}

/* Sources that know each other and what to do to each other. */
struct herd {
	struct loop_fd f;
	struct herd *victim; /* removed when called */
	struct herd *muted; /* gets no more events when called */
	int calls;
	uint32_t events;
};

static void herd_ready(struct loop_fd *f, uint32_t events)
{
	struct herd *h = container_of(f, struct herd, f);

	h->calls++;
	h->events = events;
	if (h->victim)
		loop_fd_del(&h->victim->f);
	if (h->muted)
		loop_fd_set(&h->muted->f, 0);
}

static void test_fds(struct loop *l)
{
	struct herd h = { .f = LOOP_FD_NULL };
	int fds[2];

	check(pipe2(fds, O_CLOEXEC) == 0);
	loop_fd_del(&h.f); /* not added: nothing */
	check(loop_fd_add(l, &h.f, fds[0], EPOLLIN, herd_ready) == 0);
	check(l->n_fds == 1);
	test_turn(l, 0);
	check(h.calls == 0);
	check(write(fds[1], "x", 1) == 1);
	test_turn(l, -1);
	check(h.calls == 1 && h.events == EPOLLIN);
	test_turn(l, -1); /* level-triggered */
	check(h.calls == 2);
	loop_fd_set(&h.f, 0);
	test_turn(l, 0);
	check(h.calls == 2);
	loop_fd_set(&h.f, EPOLLIN);
	test_turn(l, 0);
	check(h.calls == 3);
	close(fds[1]);
	loop_fd_set(&h.f, 0);
	test_turn(l, -1);
	check(h.calls == 4 && h.events == EPOLLHUP); /* not to be declined */
	h.victim = &h;
	test_turn(l, -1);
	check(h.calls == 5 && !h.f.loop);
	check(l->n_fds == 0);
	test_turn(l, 0);
	check(h.calls == 5);
	loop_fd_del(&h.f);
	close(fds[0]);
}

/* Whoever is called first removes the other one; both are ready. */
static void test_removal(struct loop *l)
{
	struct herd a = { .f = LOOP_FD_NULL }, b = { .f = LOOP_FD_NULL };
	guard_fd int fd_a = test_eventfd(1);
	guard_fd int fd_b = test_eventfd(1);

	a.victim = &b;
	b.victim = &a;
	check(loop_fd_add(l, &a.f, fd_a, EPOLLIN, herd_ready) == 0);
	check(loop_fd_add(l, &b.f, fd_b, EPOLLIN, herd_ready) == 0);
	test_turn(l, -1);
	check(a.calls + b.calls == 1);
	loop_fd_del(&a.f);
	loop_fd_del(&b.f);

	/* The same, with a change of events: acts within the turn. */
	a = (struct herd){ .f = LOOP_FD_NULL, .muted = &b };
	b = (struct herd){ .f = LOOP_FD_NULL, .muted = &a };
	check(loop_fd_add(l, &a.f, fd_a, EPOLLIN, herd_ready) == 0);
	check(loop_fd_add(l, &b.f, fd_b, EPOLLIN, herd_ready) == 0);
	test_turn(l, -1);
	check(a.calls + b.calls == 1);
	loop_fd_del(&a.f);
	loop_fd_del(&b.f);
}

/* More ready sources than one turn takes: all get theirs. */
static void test_many(struct loop *l)
{
	static struct herd herd[300];
	guard_fd int fd = test_eventfd(1);
	int fds[nitems(herd)], turns = 0, quiet = 0;

	for (size_t i = 0; i < nitems(herd); i++) {
		herd[i] = (struct herd){ .f = LOOP_FD_NULL };
		fds[i] = dup(fd);
		check(fds[i] >= 0);
		check(loop_fd_add(l, &herd[i].f, fds[i], EPOLLIN, herd_ready) ==
		      0);
	}
	do {
		test_turn(l, 0);
		quiet = 0;
		for (size_t i = 0; i < nitems(herd); i++)
			quiet += herd[i].calls == 0;
	} while (quiet && ++turns < 10);
	check(!quiet);
	for (size_t i = 0; i < nitems(herd); i++) {
		loop_fd_del(&herd[i].f);
		close(fds[i]);
	}
}

static void test_errors(struct loop *l)
{
	struct loop_fd f = LOOP_FD_NULL;
	guard_fd int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	check(fd >= 0);
	check(loop_fd_add(l, &f, fd, EPOLLIN, herd_ready) == -EPERM);
	check(!f.loop);
	check(loop_fd_add(l, &f, -1, EPOLLIN, herd_ready) == -EBADF);
	check(l->n_fds == 0);
}

struct bell {
	struct loop_timer t;
	int rings;
};

static uint64_t bell_last_ns;
static int bell_total;

static void bell_ring(struct loop_timer *t)
{
	struct bell *b = container_of(t, struct bell, t);

	check(!t->loop);
	b->rings++;
	bell_total++;
	check(t->due_ns >= bell_last_ns);
	bell_last_ns = t->due_ns;
}

static void test_timer(struct loop *l)
{
	struct bell b = { .t = LOOP_TIMER_NULL };
	uint64_t start_ns = clock_mono_ns();

	bell_last_ns = 0;
	loop_timer_del(&b.t); /* not armed: nothing */
	check(loop_timer_set(l, &b.t, start_ns + 20 * NS_PER_MS, bell_ring) ==
	      0);
	test_turn(l, 0);
	check(b.rings == 0);
	/* Rounded up: one turn is enough, and never early. */
	test_turn(l, -1);
	check(b.rings == 1);
	check(l->now_ns >= start_ns + 20 * NS_PER_MS);
	check(l->heap_len == 0);
	/* Moved forward, and back. */
	check(loop_timer_set(l, &b.t, l->now_ns + NS_PER_SEC * 1000,
			     bell_ring) == 0);
	check(loop_timer_set(l, &b.t, l->now_ns, bell_ring) == 0);
	test_turn(l, -1);
	check(b.rings == 2);
	/* The caller's maximum counts, however far the timer is. */
	bell_last_ns = 0;
	check(loop_timer_set(l, &b.t, UINT64_MAX, bell_ring) == 0);
	test_turn(l, 1);
	check(b.rings == 2);
	loop_timer_del(&b.t);
	loop_timer_del(&b.t);
	check(l->heap_len == 0);
}

/* Any order in, due order out, and none that was removed. */
static void test_heap(struct loop *l)
{
	static struct bell bells[1000];
	int expect = 0;

	srandom(2);
	bell_last_ns = 0;
	bell_total = 0;
	for (size_t i = 0; i < nitems(bells); i++)
		bells[i] = (struct bell){ .t = LOOP_TIMER_NULL };
	for (int turn = 0; turn < 20000; turn++) {
		struct bell *b = &bells[(size_t)random() % nitems(bells)];

		if (random() % 3)
			check(loop_timer_set(l, &b->t, 1 + random() % 5000,
					     bell_ring) == 0);
		else
			loop_timer_del(&b->t);
		for (size_t i = 1; turn % 500 == 0 && i < l->heap_len; i++) {
			check(l->heap[i]->index == i);
			check(l->heap[(i - 1) / 2]->due_ns <=
			      l->heap[i]->due_ns);
		}
	}
	for (size_t i = 0; i < nitems(bells); i++)
		expect += bells[i].t.loop != NULL;
	check(l->heap_len == (size_t)expect && expect > 100);
	test_turn(l, -1);
	check(bell_total == expect);
	check(l->heap_len == 0);
}

/* Has its own way back to the loop: a timer that rings has none. */
struct eager {
	struct loop *loop;
	struct loop_timer t;
	int rings;
};

static void eager_ring(struct loop_timer *t)
{
	struct eager *g = container_of(t, struct eager, t);

	g->rings++;
	check(loop_timer_set(g->loop, t, 0, eager_ring) == 0);
}

static void test_eager(struct loop *l)
{
	struct eager g = { .loop = l, .t = LOOP_TIMER_NULL };
	struct herd h = { .f = LOOP_FD_NULL };
	guard_fd int fd = test_eventfd(1);

	check(loop_fd_add(l, &h.f, fd, EPOLLIN, herd_ready) == 0);
	check(loop_timer_set(l, &g.t, 0, eager_ring) == 0);
	for (int turn = 1; turn < 4; turn++) {
		test_turn(l, -1);
		check(g.rings == turn && h.calls == turn);
	}
	loop_timer_del(&g.t);
	loop_fd_del(&h.f);
}

struct stopper {
	struct loop *loop;
	struct loop_timer t;
};

static void stopper_ring(struct loop_timer *t)
{
	loop_stop(container_of(t, struct stopper, t)->loop);
}

static void test_stop(struct loop *l)
{
	struct stopper s = { .loop = l, .t = LOOP_TIMER_NULL };
	struct err e = ERR_NULL;

	for (int i = 0; i < 2; i++) {
		check(loop_timer_set(l, &s.t, l->now_ns + NS_PER_MS,
				     stopper_ring) == 0);
		check(loop_run(l, &e) == 0);
	}
	loop_stop(l); /* before: does not turn at all */
	check(loop_run(l, &e) == 0);
}

static void test_handler(unused int sig)
{
}

/* A signal ends the wait and is no error. */
static void test_signal(struct loop *l)
{
	const struct sigaction act = { .sa_handler = test_handler };
	const struct itimerval soon = { .it_value.tv_usec = 10000 };

	check(sigaction(SIGALRM, &act, NULL) == 0);
	check(setitimer(ITIMER_REAL, &soon, NULL) == 0);
	test_turn(l, -1);
}

static void test_leave_timer(void)
{
	struct loop_timer t = LOOP_TIMER_NULL;
	struct loop l;

	if (loop_init(&l, NULL) < 0 || loop_timer_set(&l, &t, 0, bell_ring) < 0)
		return;
	loop_deinit(&l);
}

static void test_close_first(void)
{
	struct loop_fd f = LOOP_FD_NULL;
	int fd = eventfd(0, EFD_CLOEXEC);
	struct loop l;

	if (loop_init(&l, NULL) < 0 ||
	    loop_fd_add(&l, &f, fd, EPOLLIN, herd_ready) < 0)
		return;
	close(fd);
	loop_fd_del(&f);
}

int main(void)
{
	struct loop none = LOOP_NULL, l;
	struct err e = ERR_NULL;

	loop_deinit(&none);
	check(loop_init(&l, &e) == 0);
	test_fds(&l);
	test_removal(&l);
	test_many(&l);
	test_errors(&l);
	test_timer(&l);
	test_heap(&l);
	test_eager(&l);
	test_stop(&l);
	test_signal(&l);
	loop_deinit(&l);
	loop_deinit(&l);
	check(test_dies(test_leave_timer));
	check(test_dies(test_close_first));
	return 0;
}
