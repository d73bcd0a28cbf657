/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Squeezing a guest: its free memory out through the balloon, and back
 *
 * Memory that the guest has freed is full of old bytes. The balloon takes all
 * of it but a reserve, and the VMM discards what it took; given back, it is
 * zero and costs nothing.
 */
#include "base/err.h"
#include "base/loop.h"

#include <stdbool.h>
#include <stdint.h>

struct vmm;

/* Left free: less makes the guest reclaim what was just warmed. */
#define SQUEEZE_RESERVE (48ull << 20)

/* @e->code is 0 when the guest has all its memory back. */
typedef void (*squeeze_fn)(void *arg, const struct err *e);

/* Embedded in its owner; zeroed before. */
struct squeeze {
	struct loop *loop;
	struct vmm *vmm; /* borrowed */
	struct loop_timer timer;
	squeeze_fn done;
	void *arg;
	uint64_t memory_bytes;
	uint64_t target, last;
	unsigned stall; /* polls without progress */
	bool deflating;
};

/* @free_bytes: what the guest says is free. False when that is not worth it,
 * or not possible: @done is not called then. */
bool squeeze_start(struct squeeze *s, struct loop *loop, struct vmm *vmm,
		   uint64_t memory_bytes, uint64_t free_bytes, squeeze_fn done,
		   void *arg);
/* The VMM is going: no more calls. */
void squeeze_stop(struct squeeze *s);
