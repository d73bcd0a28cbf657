/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the pager counts, in memory that daemon and pager share
 *
 * The daemon makes the memfd and hands it to every pager it starts, so counts
 * go on over a pager's death. Writers use relaxed atomics (PAGER_COUNT), readers
 * read: a number is never torn, a set of numbers is of about the same time.
 */
#include "pager/proto.h"

#include <stddef.h>
#include <stdint.h>

/* Bucket i: below 2^i microseconds (the last: everything above). */
#define PAGER_LATENCY_BUCKETS 24

struct pager_layer_stats {
	uint64_t faults; /* userfaultfd events */
	uint64_t faults_present; /* of these: the page was there already */
	uint64_t faults_zero; /* of these: a page that is zero */
	uint64_t faults_waited; /* of these: had to wait for a frame */
	uint64_t latency[PAGER_LATENCY_BUCKETS]; /* event read to wake */
	uint64_t disk_reads; /* NBD requests */
	uint64_t disk_read_bytes;
	uint64_t fetched_bytes; /* stored bytes that came from the store */
	uint64_t cached_bytes; /* stored bytes that came from the local cache */
	uint64_t filled_bytes; /* page bytes written into the layers */
	uint64_t zero_bytes; /* constant: never stored, never fetched */
	uint64_t frames_demand;
	uint64_t frames_prefetch;
	uint64_t
		prefetch_hits; /* prefetched frames that a fault or read hit later */
	uint64_t retries; /* of requests: the store's, and for frames that did
			   * not come or came wrong */
	uint64_t hedges; /* as the store counts them */
	uint64_t bad_frames; /* failed their digest */
	uint64_t failed_guests;
	uint64_t evicted_bytes;
	uint64_t memory_present_bytes; /* gauges: page bytes in the memfd */
	uint64_t disk_present_bytes;
	uint64_t guests;
};

struct pager_stats {
	uint64_t starts; /* of pager processes */
	uint64_t cache_bytes, cache_budget, cache_hits, cache_misses,
		cache_evicted_bytes, cache_errors;
	struct pager_layer_stats layer[PAGER_LAYERS_MAX];
};

/* Number @i of a layer, and its name; NULL behind the last. The latencies are
 * not among them. */
const char *pager_layer_stats_number(const struct pager_layer_stats *s,
				     size_t i, uint64_t *ret);
/* "guests=1 faults=12 ...": every number by its name here, and the p50, p99 and
 * maximum of the latencies. Cut where @size ends; PAGER_STATS_LINE does. */
#define PAGER_STATS_LINE 1536
void pager_layer_stats_print(const struct pager_layer_stats *s, char *out,
			     size_t size);
/* Below so many microseconds @part of @whole of all faults were served; what is
 * in the last bucket counts as its lower bound. 0: there was none. */
uint64_t pager_layer_stats_us(const struct pager_layer_stats *s, uint64_t part,
			      uint64_t whole);

#define PAGER_COUNT(field, n) \
	__atomic_fetch_add(&(field), (uint64_t)(n), __ATOMIC_RELAXED)
#define PAGER_SET(field, n) \
	__atomic_store_n(&(field), (uint64_t)(n), __ATOMIC_RELAXED)
#define PAGER_GET(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)

/* Frames that were fetched ahead and that nobody has wanted so far. */
static inline uint64_t pager_prefetch_waste(const struct pager_layer_stats *s)
{
	/* Looked at first: a hit is counted after its prefetch. */
	uint64_t hits = PAGER_GET(s->prefetch_hits);

	return PAGER_GET(s->frames_prefetch) - hits;
}
