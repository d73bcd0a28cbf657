/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buckets
 *
 * Six accounts and their sum. The counters are plain uint64_t: the largest
 * herd this program could promise (65536 guests of PLAN_RAM_MAX, 2^40 bytes)
 * is 2^56, so no addition here can wrap.
 *
 * What makes a page one or the other is judged in pagemap.c; this file only
 * knows that the six are complete and disjoint.
 */
#include "ledger/buckets.h"

uint64_t buckets_sum(const struct buckets *b)
{
	return b->shared + b->private + b->swapped + b->zero + b->balloon +
	       b->absent;
}

void buckets_add(struct buckets *sum, const struct buckets *b)
{
	sum->shared += b->shared;
	sum->private += b->private;
	sum->swapped += b->swapped;
	sum->zero += b->zero;
	sum->balloon += b->balloon;
	sum->absent += b->absent;
}
