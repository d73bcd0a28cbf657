/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The event loop: one thread, one epoll
 *
 * Sources are embedded in their owners and found again by container_of. A
 * source may remove itself or any other source inside a callback; the loop
 * never touches a removed source again. The time is read once per turn:
 * loop->now_ns (monotonic).
 */
#include "base/err.h"
#include "base/list.h"

#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>

struct loop;
struct loop_fd;
struct loop_timer;

/* @events: the EPOLL bits that are ready. */
typedef void (*loop_fd_fn)(struct loop_fd *f, uint32_t events);
typedef void (*loop_timer_fn)(struct loop_timer *t);

/* Watches an fd it does not own. */
struct loop_fd {
	struct loop *loop; /* NULL while not added */
	int fd;
	uint32_t events;
	loop_fd_fn fn;
	struct list ready; /* in this turn's list */
	uint32_t revents;
};

#define LOOP_FD_NULL     \
	{                \
		.fd = -1 \
	}

/* One shot. */
struct loop_timer {
	struct loop *loop; /* NULL while not armed */
	uint64_t due_ns; /* monotonic */
	loop_timer_fn fn;
	size_t index; /* in the heap */
};

#define LOOP_TIMER_NULL      \
	{                    \
		.loop = NULL \
	}

struct loop {
	int epoll_fd;
	uint64_t now_ns;
	bool stop;
	struct list ready;
	struct loop_timer **heap; /* by due_ns */
	size_t heap_len, heap_size;
	size_t n_fds;
};

#define LOOP_NULL              \
	{                      \
		.epoll_fd = -1 \
	}

int loop_init(struct loop *l, struct err *e) must_check;
/* All sources must be gone. */
void loop_deinit(struct loop *l);

/* Turn until loop_stop(), which may come first. */
int loop_run(struct loop *l, struct err *e) must_check;
/* One turn, waiting at most @timeout_ms (-1: for ever). */
int loop_turn(struct loop *l, int timeout_ms, struct err *e) must_check;
void loop_stop(struct loop *l);

/* Level-triggered. EPERM when the fd cannot be polled (a plain file). */
int loop_fd_add(struct loop *l, struct loop_fd *f, int fd, uint32_t events,
		loop_fd_fn fn) must_check;
void loop_fd_set(struct loop_fd *f, uint32_t events);
/* Idempotent. The fd must still be open. */
void loop_fd_del(struct loop_fd *f);

/* Arm or move. -ENOMEM only. */
int loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t due_ns,
		   loop_timer_fn fn) must_check;
void loop_timer_del(struct loop_timer *t);
