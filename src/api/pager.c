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

/* null: there was no fault. */
static json_t *pager_quantile(const struct pager_layer_stats *s, uint64_t part,
			      uint64_t whole)
{
	uint64_t us = pager_layer_stats_us(s, part, whole);

	return us ? json_integer((json_int_t)us) : json_null();
}

static json_t *pager_latency(const struct pager_layer_stats *s)
{
	return json_pack("{s:o, s:o, s:o}", "p50", pager_quantile(s, 1, 2),
			 "p99", pager_quantile(s, 99, 100), "max_bucket",
			 pager_quantile(s, 1, 1));
}

static json_t *pager_histogram(const struct pager_layer_stats *s)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < PAGER_LATENCY_BUCKETS; i++)
		json_array_append_new(list, json_integer((json_int_t)PAGER_GET(
						    s->latency[i])));
	return list;
}

static bool pager_set(json_t *j, const char *key, uint64_t n)
{
	return json_object_set_new(j, key, json_integer((json_int_t)n)) == 0;
}

static json_t *pager_layer_json(const struct template_info *t,
				const struct pager_layer *l)
{
	const struct pager_layer_stats *s = pager_layer_stats(l);
	json_t *j = json_pack(
		"{s:o, s:o, s:b, s:o, s:o}", "template",
		utf8_json_text(t->name), "dir", utf8_json_text(t->dir), "whole",
		(int)pager_layer_whole(l), "latency_us", pager_latency(s),
		"latency_histogram", pager_histogram(s));
	bool ok = pager_set(j, "prefetch_waste", pager_prefetch_waste(s));
	const char *key;
	uint64_t n;

	for (size_t i = 0; ok; i++) {
		key = pager_layer_stats_number(s, i, &n);
		if (!key)
			break;
		ok = pager_set(j, key, n);
	}
	/* Also while a pager is being started again. */
	ok = ok && pager_set(j, "guests", pager_layer_guests(l));
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
