/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * An allocator that can be told to fail
 *
 * A test compiles the module under test in (#include "folder/noun.c") between
 * macros that put these in the place of calloc, realloc and free, and lets one
 * allocation after the other fail until none does.
 */
#include "base/test.h"

#include <stdbool.h>
#include <stdlib.h>

static long sweep_left = -1; /* allocations until one fails; < 0: none does */
static bool sweep_failed;
static long sweep_balance;

static inline bool sweep_now(void)
{
	if (sweep_left < 0 || sweep_left-- > 0)
		return false;
	sweep_failed = true;
	return true;
}

static inline void *sweep_calloc(size_t n, size_t size)
{
	void *p = sweep_now() ? NULL : calloc(n, size);

	sweep_balance += p != NULL;
	return p;
}

static inline void *sweep_realloc(void *old, size_t size)
{
	void *p = sweep_now() ? NULL : realloc(old, size);

	sweep_balance += p && !old;
	return p;
}

static inline void sweep_free(void *p)
{
	sweep_balance -= p != NULL;
	free(p);
}

/* Live again and again; in the n-th life the n-th allocation fails. Nothing may
 * be left, and there must be more than @at_least of them. */
static inline void sweep(void (*life)(void), long at_least)
{
	for (long n = 0;; n++) {
		sweep_failed = false;
		sweep_left = n;
		life();
		sweep_left = -1;
		check(sweep_balance == 0);
		if (!sweep_failed) {
			check(n > at_least);
			return;
		}
		check(n < 1000);
	}
}
