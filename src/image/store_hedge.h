/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * When to send a request a second time (internal to the stores)
 *
 * Shared by the connections of a store; every function may be called by any
 * thread at any time.
 */
#include "base/clock.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Enough that the 95th percentile is not the slowest one, few enough that a
 * change of the network is learnt within seconds. */
#define HEDGE_SAMPLES 64
/* Faster than that no network answers reliably; slower is a fault's patience.*/
#define HEDGE_MIN_NS (50 * NS_PER_MS)
#define HEDGE_MAX_NS (2 * NS_PER_SEC)

enum hedge_class {
	HEDGE_64K, /* one frame */
	HEDGE_256K,
	HEDGE_1M,
	HEDGE_4M,
	HEDGE_MORE,
	HEDGE_WHOLE, /* small objects whose size is not known before */
	HEDGE_CLASS_COUNT
};

struct hedge {
	struct {
		_Atomic uint32_t us[HEDGE_SAMPLES]; /* 0: none yet */
		atomic_uint n;
	} of[HEDGE_CLASS_COUNT];
	atomic_int credit; /* in tenths of a hedge */
};

void hedge_init(struct hedge *h);
enum hedge_class hedge_class(size_t bytes);
/* A request took so long from its first byte out to its last byte in. */
void hedge_learn(struct hedge *h, enum hedge_class class, uint64_t ns);
/* After so long a request of that class is slow. */
uint64_t hedge_delay_ns(const struct hedge *h, enum hedge_class class);
/* A request was sent. */
void hedge_earn(struct hedge *h);
/* May one be hedged now? Then it must be. */
bool hedge_spend(struct hedge *h);
