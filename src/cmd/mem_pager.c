/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the pager counts, on a terminal
 *
 *	pager      its process, and how often it was started
 *	cache      frames kept on this host's disk, for all templates
 *	layers     a row each: guests, faults and how long they took, where the
 *	           bytes came from, frames that were fetched ahead and how many
 *	           of them nobody has wanted, and what went wrong
 */
#include "cmd/mem.h"

#include "cmd/print.h"
#include "cmd/table.h"
#include "base/parse.h"

#include <stdio.h>

static void mem_pager_number(struct table *t, const json_t *x, const char *key)
{
	table_add(t, "%llu", (unsigned long long)print_number(x, key));
}

/* An upper bound; "-" where nothing was measured. */
static void mem_pager_us(struct table *t, const json_t *latency,
			 const char *key)
{
	char out[16];

	if (!json_is_integer(json_object_get(latency, key)))
		table_add(t, "%s", "-");
	else
		table_add(t, "%s",
			  format_duration_ns(print_number(latency, key) * 1000,
					     out));
}

static void mem_pager_layer(struct table *t, const json_t *x)
{
	const json_t *latency = json_object_get(x, "latency_us");
	char size[16];

	table_add(t, "%s", print_text(x, "template"));
	mem_pager_number(t, x, "guests");
	mem_pager_number(t, x, "faults");
	mem_pager_number(t, x, "faults_waited");
	mem_pager_us(t, latency, "p50");
	mem_pager_us(t, latency, "p99");
	table_add(t, "%s", print_bytes(x, "fetched_bytes", size));
	table_add(t, "%s", print_bytes(x, "cached_bytes", size));
	table_add(t, "%s", print_bytes(x, "filled_bytes", size));
	table_add(t, "%s", print_bytes(x, "evicted_bytes", size));
	mem_pager_number(t, x, "frames_prefetch");
	mem_pager_number(t, x, "prefetch_waste");
	mem_pager_number(t, x, "retries");
	mem_pager_number(t, x, "bad_frames");
}

void mem_print_pager(const json_t *pager)
{
	const json_t *cache = json_object_get(pager, "cache");
	const json_t *layers = json_object_get(pager, "layers");
	char a[16], b[16];
	struct table t;
	json_t *x;
	size_t i;

	if (print_number(pager, "pid"))
		printf("pager: process %llu, started %llu times\n",
		       (unsigned long long)print_number(pager, "pid"),
		       (unsigned long long)print_number(pager, "starts"));
	else
		puts("pager: not running");
	printf("cache: %s of %s, %llu hits, %llu misses\n",
	       print_bytes(cache, "bytes", a), print_bytes(cache, "budget", b),
	       (unsigned long long)print_number(cache, "hits"),
	       (unsigned long long)print_number(cache, "misses"));
	if (!json_array_size(layers))
		return;
	table_init(&t,
		   "TEMPLATE|>GUESTS|>FAULTS|>WAITED|>P50|>P99|>FETCHED"
		   "|>CACHED|>FILLED|>EVICTED|>AHEAD|>WASTED|>RETRIES|>BAD");
	json_array_foreach (layers, i, x)
		mem_pager_layer(&t, x);
	putchar('\n');
	table_print(&t);
	table_deinit(&t);
}
