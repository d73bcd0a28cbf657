/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GET /v1/pager: what streaming does and costs
 *
 * The pager counts in memory that it shares with the daemon (pager/stats.h), so
 * asking disturbs nobody and works while it is being started again. Numbers are
 * of about the same time, not of the same.
 *
 * latency_us comes from the histogram: each value is the upper bound of the
 * bucket the quantile is in, so it is never told too small, and at most twice
 * what it was. The last bucket has no bound and is told as its lower one.
 *
 * Layers are found by the templates' directories; one that a removed template
 * left to its last guests is in the totals of nobody.
 */
#include "api/handlers.h"
#include "api/request.h"
#include "api/server.h"
#include "api/utf8.h"
#include "pager/client.h"
#include "template/template.h"

#include <microhttpd.h>

/* Upper bound of bucket @i. */
static json_int_t pager_bucket_us(unsigned i)
{
	return (json_int_t)(1ull << min(i, PAGER_LATENCY_BUCKETS - 2u));
}

/* The bucket below whose bound @part of @whole of all faults lie. */
static json_t *pager_quantile(const uint64_t *n, uint64_t all, uint64_t part,
			      uint64_t whole)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < PAGER_LATENCY_BUCKETS; i++) {
		sum += n[i];
		if (all && sum * whole >= all * part)
			return json_integer(pager_bucket_us(i));
	}
	return json_null();
}

static json_t *pager_latency(const struct pager_layer_stats *s,
			     json_t **ret_histogram)
{
	uint64_t n[PAGER_LATENCY_BUCKETS], all = 0;

	*ret_histogram = json_array();
	for (unsigned i = 0; i < PAGER_LATENCY_BUCKETS; i++) {
		n[i] = PAGER_GET(s->latency[i]);
		all += n[i];
		json_array_append_new(*ret_histogram,
				      json_integer((json_int_t)n[i]));
	}
	return json_pack("{s:o, s:o, s:o}", "p50", pager_quantile(n, all, 1, 2),
			 "p99", pager_quantile(n, all, 99, 100), "max_bucket",
			 pager_quantile(n, all, 1, 1));
}

static const struct {
	const char *key;
	size_t offset;
} pager_numbers[] = {
#define PAGER_NUMBER(name)                                      \
	{                                                       \
#name, offsetof(struct pager_layer_stats, name) \
	}
	PAGER_NUMBER(faults),
	PAGER_NUMBER(faults_present),
	PAGER_NUMBER(faults_zero),
	PAGER_NUMBER(faults_waited),
	PAGER_NUMBER(disk_reads),
	PAGER_NUMBER(disk_read_bytes),
	PAGER_NUMBER(fetched_bytes),
	PAGER_NUMBER(cached_bytes),
	PAGER_NUMBER(filled_bytes),
	PAGER_NUMBER(zero_bytes),
	PAGER_NUMBER(frames_demand),
	PAGER_NUMBER(frames_prefetch),
	PAGER_NUMBER(prefetch_hits),
	PAGER_NUMBER(retries),
	PAGER_NUMBER(hedges),
	PAGER_NUMBER(bad_frames),
	PAGER_NUMBER(failed_guests),
	PAGER_NUMBER(evicted_bytes),
	PAGER_NUMBER(memory_present_bytes),
	PAGER_NUMBER(disk_present_bytes),
};

static bool pager_set(json_t *j, const char *key, uint64_t n)
{
	return json_object_set_new(j, key, json_integer((json_int_t)n)) == 0;
}

static json_t *pager_layer_json(const struct template_info *t,
				const struct pager_layer *l)
{
	const struct pager_layer_stats *s = pager_layer_stats(l);
	json_t *histogram, *latency = pager_latency(s, &histogram);
	json_t *j = json_pack("{s:o, s:o, s:i, s:b, s:o, s:o}", "template",
			      utf8_json_text(t->name), "dir",
			      utf8_json_text(t->dir), "guests",
			      (int)pager_layer_guests(l), "whole",
			      (int)pager_layer_whole(l), "latency_us", latency,
			      "latency_histogram", histogram);
	bool ok = pager_set(j, "prefetch_waste", pager_prefetch_waste(s));

	for (size_t i = 0; ok && i < nitems(pager_numbers); i++) {
		const char *base = (const char *)s + pager_numbers[i].offset;
		const uint64_t *n = (const void *)base;

		ok = pager_set(j, pager_numbers[i].key, PAGER_GET(*n));
	}
	if (!ok) {
		json_decref(j);
		j = NULL;
	}
	return j;
}

static json_t *pager_layers_json(const struct api_config *c)
{
	json_t *list = json_array();

	for (size_t i = 0; list && i < templates_count(c->templates); i++) {
		struct template_info t = templates_info(c->templates, i);
		struct pager_layer *l =
			c->pager && t.dir ? pager_layer_find(c->pager, t.dir)
					  : NULL;

		if (l &&
		    json_array_append_new(list, pager_layer_json(&t, l)) < 0) {
			json_decref(list);
			list = NULL;
		}
	}
	return list;
}

void handle_pager(struct request *rq)
{
	static const struct pager_stats none = { 0 };
	const struct api_config *c = &rq->api->config;
	const struct pager_stats *s = c->pager ? pager_stats(c->pager) : &none;
	pid_t pid = c->pager ? pager_pid(c->pager) : 0;

	request_answer(
		rq, MHD_HTTP_OK,
		json_pack("{s:o, s:I, s:{s:I, s:I, s:I, s:I, s:I, s:I}, s:o}",
			  "pid", pid ? json_integer(pid) : json_null(),
			  "starts", (json_int_t)PAGER_GET(s->starts), "cache",
			  "bytes", (json_int_t)PAGER_GET(s->cache_bytes),
			  "budget", (json_int_t)PAGER_GET(s->cache_budget),
			  "hits", (json_int_t)PAGER_GET(s->cache_hits),
			  "misses", (json_int_t)PAGER_GET(s->cache_misses),
			  "evicted_bytes",
			  (json_int_t)PAGER_GET(s->cache_evicted_bytes),
			  "errors", (json_int_t)PAGER_GET(s->cache_errors),
			  "layers", pager_layers_json(c)));
}
