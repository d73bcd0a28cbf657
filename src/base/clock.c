/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time in nanoseconds
 *
 * Two clocks: monotonic for every interval and deadline, real for what people
 * read. Neither call can fail on Linux with a valid clock and address, so the
 * results are plain numbers. 64 bits of nanoseconds last until the year 2554.
 *
 * Only the loop and programs' main functions call these; the rest is handed
 * the time, which is what makes it testable.
 */
#include "base/clock.h"

#include "base/must.h"

#include <time.h>

static uint64_t clock_read_ns(clockid_t id)
{
	struct timespec ts = { 0 };

	must(clock_gettime(id, &ts) == 0);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

uint64_t clock_mono_ns(void)
{
	return clock_read_ns(CLOCK_MONOTONIC);
}

uint64_t clock_real_ns(void)
{
	return clock_read_ns(CLOCK_REALTIME);
}

char *clock_rfc3339(uint64_t real_ns, char out[32])
{
	time_t t = (time_t)(real_ns / NS_PER_SEC);
	struct tm tm = { 0 };

	gmtime_r(&t, &tm);
	strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
	return out;
}
