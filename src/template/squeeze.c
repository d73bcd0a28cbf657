/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Down, until the balloon is as large as it was asked to be or grows no more;
 * then up, until the guest has everything again. The balloon follows in its own
 * time and tells nothing, so it is asked ten times a second.
 */
#include "template/squeeze.h"

#include "base/clock.h"
#include "vmm/vmm.h"

#include <errno.h>

#define SQUEEZE_POLL_NS (100 * NS_PER_MS)
/* Polls without progress: a guest that cannot give more has given all; one that
 * does not take back what is offered is broken. */
#define SQUEEZE_STALL_DOWN 15
#define SQUEEZE_STALL_UP 150
/* Below this there is nothing to win. */
#define SQUEEZE_MIN (16ull << 20)
/* Balloon sizes in whole chunks. */
#define SQUEEZE_ALIGN (4ull << 20)

static void squeeze_poll(struct loop_timer *t);

static void squeeze_end(struct squeeze *s, const struct err *e)
{
	squeeze_fn done = s->done;

	squeeze_stop(s);
	if (done)
		done(s->arg, e);
}

static void squeeze_fail(struct squeeze *s, int code, const char *what)
{
	struct err e = ERR_NULL;

	err_set(&e, code, "squeeze: %s", what);
	squeeze_end(s, &e);
}

static void squeeze_wait(struct squeeze *s)
{
	if (loop_timer_set(s->loop, &s->timer,
			   s->loop->now_ns + SQUEEZE_POLL_NS, squeeze_poll) < 0)
		squeeze_fail(s, ENOMEM, "timer");
}

static void squeeze_asked(void *arg, const struct err *e)
{
	struct squeeze *s = arg;

	if (!s->done)
		return;
	if (e->code)
		squeeze_end(s, e);
	else
		squeeze_wait(s);
}

static void squeeze_to(struct squeeze *s, uint64_t bytes)
{
	s->target = bytes;
	s->stall = 0;
	if (vmm_balloon_set(s->vmm, bytes, squeeze_asked, s) < 0)
		squeeze_fail(s, EIO, "the VMM cannot be asked");
}

static void squeeze_state(void *arg, const struct err *e,
			  const struct vmm_balloon *now)
{
	struct squeeze *s = arg;
	bool there;

	if (!s->done)
		return;
	if (e->code) {
		squeeze_end(s, e);
		return;
	}
	s->stall = now->actual_bytes == s->last ? s->stall + 1 : 0;
	s->last = now->actual_bytes;
	there = now->actual_bytes == s->target;
	if (s->deflating && there)
		squeeze_end(s, e);
	else if (s->deflating && s->stall >= SQUEEZE_STALL_UP)
		squeeze_fail(s, ETIMEDOUT,
			     "the guest does not take its memory back");
	else if (!s->deflating && (there || s->stall >= SQUEEZE_STALL_DOWN)) {
		s->deflating = true;
		squeeze_to(s, s->memory_bytes);
	} else {
		squeeze_wait(s);
	}
}

static void squeeze_poll(struct loop_timer *t)
{
	struct squeeze *s = container_of(t, struct squeeze, timer);

	if (vmm_balloon_get(s->vmm, squeeze_state, s) < 0)
		squeeze_fail(s, EIO, "the VMM cannot be asked");
}

bool squeeze_start(struct squeeze *s, struct loop *loop, struct vmm *vmm,
		   uint64_t memory_bytes, uint64_t free_bytes, squeeze_fn done,
		   void *arg)
{
	if (free_bytes > memory_bytes ||
	    free_bytes < SQUEEZE_RESERVE + SQUEEZE_MIN)
		return false;
	*s = (struct squeeze){
		.loop = loop,
		.vmm = vmm,
		.done = done,
		.arg = arg,
		.memory_bytes = memory_bytes,
	};
	squeeze_to(s, (memory_bytes - (free_bytes - SQUEEZE_RESERVE)) &
			      ~(SQUEEZE_ALIGN - 1));
	return true;
}

void squeeze_stop(struct squeeze *s)
{
	loop_timer_del(&s->timer);
	s->done = NULL;
}
