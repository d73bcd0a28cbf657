/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clocks: they run, forwards, in nanoseconds
 */
#include "base/clock.h"

#include "base/test.h"

#include <time.h>

int main(void)
{
	uint64_t a = clock_mono_ns(), b;
	time_t wall = time(NULL);
	uint64_t sec;

	usleep(2000);
	b = clock_mono_ns();
	check(b - a >= 2 * NS_PER_MS);
	check(b - a < 60 * NS_PER_SEC);
	sec = clock_real_ns() / NS_PER_SEC;
	check(sec + 1 >= (uint64_t)wall && sec <= (uint64_t)wall + 60);
	return 0;
}
