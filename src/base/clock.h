/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Time in nanoseconds
 *
 * Only the loop (once per turn), programs' main functions and measurements
 * call these; everything below the loop is handed the time.
 */
#include <stdint.h>

#define NS_PER_SEC 1000000000ull
#define NS_PER_MS 1000000ull

uint64_t clock_mono_ns(void);
uint64_t clock_real_ns(void);

/* RFC 3339 in UTC, whole seconds: "2026-11-22T17:54:00Z". Returns @out. */
char *clock_rfc3339(uint64_t real_ns, char out[32]);
