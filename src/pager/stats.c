/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the pager counts, by name
 *
 * One table for both who show it: GET /v1/pager, and the line for a log of a
 * pager that has no daemon and so no API.
 *
 * Invariants:
 *  1. Latencies are never told too small: each value is the upper bound of the
 *     bucket that the quantile is in. Only the last bucket has none.
 *  2. Nobody is kept from counting: numbers are of about the same time.
 */
#include "pager/stats.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

static const struct {
	const char *key;
	size_t offset;
} stats_numbers[] = {
#define STATS_NUMBER(name)                                      \
	{                                                       \
#name, offsetof(struct pager_layer_stats, name) \
	}
	STATS_NUMBER(guests),
	STATS_NUMBER(faults),
	STATS_NUMBER(faults_present),
	STATS_NUMBER(faults_zero),
	STATS_NUMBER(faults_waited),
	STATS_NUMBER(disk_reads),
	STATS_NUMBER(disk_read_bytes),
	STATS_NUMBER(fetched_bytes),
	STATS_NUMBER(cached_bytes),
	STATS_NUMBER(filled_bytes),
	STATS_NUMBER(zero_bytes),
	STATS_NUMBER(frames_demand),
	STATS_NUMBER(frames_prefetch),
	STATS_NUMBER(prefetch_hits),
	STATS_NUMBER(retries),
	STATS_NUMBER(hedges),
	STATS_NUMBER(bad_frames),
	STATS_NUMBER(failed_guests),
	STATS_NUMBER(evicted_bytes),
	STATS_NUMBER(memory_present_bytes),
	STATS_NUMBER(disk_present_bytes),
};

/* All but the latencies are in the table. */
static_assert(nitems(stats_numbers) + PAGER_LATENCY_BUCKETS ==
		      sizeof(struct pager_layer_stats) / sizeof(uint64_t),
	      "a name per number");

const char *pager_layer_stats_number(const struct pager_layer_stats *s,
				     size_t i, uint64_t *ret)
{
	const char *at;

	if (i >= nitems(stats_numbers))
		return NULL;
	at = (const char *)s + stats_numbers[i].offset;
	*ret = PAGER_GET(*(const uint64_t *)(const void *)at);
	return stats_numbers[i].key;
}

uint64_t pager_layer_stats_us(const struct pager_layer_stats *s, uint64_t part,
			      uint64_t whole)
{
	uint64_t n[PAGER_LATENCY_BUCKETS], all = 0, sum = 0;
	unsigned i = 0;

	for (i = 0; i < PAGER_LATENCY_BUCKETS; i++) {
		n[i] = PAGER_GET(s->latency[i]);
		all += n[i];
	}
	for (i = 0; all && i < PAGER_LATENCY_BUCKETS - 1; i++) {
		sum += n[i];
		if (sum * whole >= all * part)
			break;
	}
	return all ? 1ull << min(i, PAGER_LATENCY_BUCKETS - 2u) : 0;
}

void pager_layer_stats_print(const struct pager_layer_stats *s, char *out,
			     size_t size)
{
	size_t len = 0;
	const char *key;
	uint64_t n;

	must(size);
	out[0] = '\0';
	for (size_t i = 0; len < size; i++) {
		key = pager_layer_stats_number(s, i, &n);
		if (!key)
			break;
		len += (size_t)snprintf(out + len, size - len,
					"%s=%" PRIu64 " ", key, n);
	}
	if (len < size)
		snprintf(out + len, size - len,
			 "latency_us_p50=%" PRIu64 " latency_us_p99=%" PRIu64
			 " latency_us_max=%" PRIu64,
			 pager_layer_stats_us(s, 1, 2),
			 pager_layer_stats_us(s, 99, 100),
			 pager_layer_stats_us(s, 1, 1));
}
