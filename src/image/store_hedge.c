/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When to send a request a second time
 *
 * Of a thousand requests to an object store a few take ten or a hundred times
 * as long as the others, and a guest that waits for a page waits for exactly
 * these. A second request, sent when the first is clearly one of them, is
 * almost always fast.
 *
 *	slow      three times the 95th percentile of the last 64 requests of
 *	          about the same size, within [50 ms, 2 s]; 2 s while fewer
 *	          than 8 are known
 *	bounded   each request earns a tenth of a hedge, ten hedges are kept,
 *	          five are there at the beginning
 *
 * Invariants:
 *  1. Hedges are at most a tenth of the requests, and five: a store that is
 *     slow as a whole is not asked twice as much for it. Then the percentile
 *     follows, and hedging stops by itself.
 *  2. Nothing here blocks or fails. A sample lost between two threads makes
 *     no difference; credit is exact.
 */
#include "image/store_hedge.h"

#include "base/must.h"

/* Below this many the 95th percentile means nothing. */
#define HEDGE_SAMPLES_MIN 8
#define HEDGE_FACTOR 3
#define HEDGE_COST 10
#define HEDGE_CREDIT_MAX (10 * HEDGE_COST)

void hedge_init(struct hedge *h)
{
	*h = (struct hedge){ 0 };
	/* The first requests may be the slow ones. */
	atomic_store(&h->credit, HEDGE_CREDIT_MAX / 2);
}

enum hedge_class hedge_class(size_t bytes)
{
	static const size_t upto[] = { 64 << 10, 256 << 10, 1 << 20, 4 << 20 };
	size_t i = 0;

	while (i < nitems(upto) && bytes > upto[i])
		i++;
	return (enum hedge_class)i;
}

void hedge_learn(struct hedge *h, enum hedge_class class, uint64_t ns)
{
	unsigned i = atomic_fetch_add_explicit(&h->of[class].n, 1,
					       memory_order_relaxed);
	uint64_t us = ns / 1000 + 1;

	atomic_store_explicit(&h->of[class].us[i % HEDGE_SAMPLES],
			      (uint32_t)min(us, (uint64_t)UINT32_MAX),
			      memory_order_relaxed);
}

/* Into @v, ascending; returns how many. */
static unsigned hedge_sorted(const struct hedge *h, enum hedge_class class,
			     uint32_t v[HEDGE_SAMPLES])
{
	unsigned n = 0, at;

	for (unsigned i = 0; i < HEDGE_SAMPLES; i++) {
		uint32_t us = atomic_load_explicit(&h->of[class].us[i],
						   memory_order_relaxed);

		if (!us)
			continue;
		for (at = n++; at > 0 && v[at - 1] > us; at--)
			v[at] = v[at - 1];
		v[at] = us;
	}
	return n;
}

uint64_t hedge_delay_ns(const struct hedge *h, enum hedge_class class)
{
	uint32_t v[HEDGE_SAMPLES];
	unsigned n = hedge_sorted(h, class, v);
	uint64_t ns;

	if (n < HEDGE_SAMPLES_MIN)
		return HEDGE_MAX_NS;
	ns = (uint64_t)v[(n * 95 - 1) / 100] * 1000 * HEDGE_FACTOR;
	return min(max(ns, HEDGE_MIN_NS), HEDGE_MAX_NS);
}

void hedge_earn(struct hedge *h)
{
	int had = atomic_load(&h->credit);

	while (had < HEDGE_CREDIT_MAX &&
	       !atomic_compare_exchange_weak(&h->credit, &had, had + 1))
		;
}

bool hedge_spend(struct hedge *h)
{
	int had = atomic_load(&h->credit);

	while (had >= HEDGE_COST)
		if (atomic_compare_exchange_weak(&h->credit, &had,
						 had - HEDGE_COST))
			return true;
	return false;
}
