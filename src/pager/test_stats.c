/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts as a line, and latencies
 */
#include "pager/stats.h"

#include "base/test.h"

static void test_latency(void)
{
	struct pager_layer_stats s = { 0 };

	check(pager_layer_stats_us(&s, 1, 2) == 0);
	s.latency[0] = 1; /* below 1 us */
	check(pager_layer_stats_us(&s, 1, 2) == 1);
	check(pager_layer_stats_us(&s, 1, 1) == 1);
	s.latency[0] = 98;
	s.latency[3] = 1;
	s.latency[10] = 1;
	check(pager_layer_stats_us(&s, 1, 2) == 1);
	check(pager_layer_stats_us(&s, 99, 100) == 8);
	check(pager_layer_stats_us(&s, 1, 1) == 1024);
	/* The last one is open: its lower bound. */
	s.latency[PAGER_LATENCY_BUCKETS - 1] = 1;
	check(pager_layer_stats_us(&s, 1, 1) ==
	      1ull << (PAGER_LATENCY_BUCKETS - 2));
}

static void test_line(void)
{
	struct pager_layer_stats s;
	char line[PAGER_STATS_LINE], cut[20];

	/* The longest there is ends with what comes last. */
	memset(&s, 0xff, sizeof(s));
	pager_layer_stats_print(&s, line, sizeof(line));
	check(strstr(line, "disk_present_bytes=18446744073709551615 "));
	check(strstr(line, " latency_us_max="));
	check(strlen(line) < sizeof(line) - 24);
	memset(&s, 0, sizeof(s));
	s.guests = 2;
	s.faults = 345;
	s.latency[4] = 1;
	pager_layer_stats_print(&s, line, sizeof(line));
	check(!strncmp(line, "guests=2 faults=345 faults_present=0 ", 37));
	check(strstr(line, " latency_us_p50=16 latency_us_p99=16 "
			   "latency_us_max=16"));
	pager_layer_stats_print(&s, cut, sizeof(cut));
	check_str(cut, "guests=2 faults=345");
}

int main(void)
{
	test_latency();
	test_line();
	return 0;
}
