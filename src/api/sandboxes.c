/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /v1/sandboxes: create, look, pause, resume, remove
 *
 * The registry does the work and calls back; a request waits for that parked.
 * When its client hangs up the registry is told to forget the request, and
 * nothing else: a create that was begun goes on (sandbox.h).
 *
 * Invariants:
 *  1. The argument of every registry callback is the request; request_free()
 *     always ends in sandbox_forget(), so none arrives for a freed one.
 *  2. One log line per change, when it has happened.
 */
#include "api/sandboxes.h"

#include "api/handlers.h"
#include "api/request.h"
#include "api/server.h"
#include "api/utf8.h"
#include "base/clock.h"
#include "base/guard.h"
#include "base/log.h"
#include "sandbox/sandbox.h"

#include <errno.h>
#include <microhttpd.h>
#include <string.h>
#include <time.h>

/* RFC 3339 in UTC with milliseconds; null for 0. */
static json_t *sandbox_json_time(uint64_t real_ns)
{
	time_t sec = (time_t)(real_ns / NS_PER_SEC);
	struct tm tm = { 0 };
	char text[40];

	if (!real_ns || !gmtime_r(&sec, &tm))
		return json_null();
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	return json_sprintf("%s.%03uZ", text,
			    (unsigned)(real_ns % NS_PER_SEC / NS_PER_MS));
}

/* Three decimals: microseconds are as far as these clocks can be trusted. */
static json_t *sandbox_json_ms(uint64_t ns)
{
	return json_real((double)((ns + 500) / 1000) / 1e3);
}

static json_t *sandbox_json_timings(const struct sandbox_timings *t)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o}", "spawn",
			 sandbox_json_ms(t->spawn_ns), "load",
			 sandbox_json_ms(t->load_ns), "identity",
			 sandbox_json_ms(t->identity_ns), "ready",
			 sandbox_json_ms(t->ready_ns), "total",
			 sandbox_json_ms(t->total_ns));
}

json_t *sandbox_json(const struct sandbox *s)
{
	struct sandbox_info i = sandbox_info(s);

	return json_pack(
		"{s:s, s:o, s:o, s:s, s:o, s:o, s:o, s:I, s:I, s:s,"
		" s:o, s:o, s:o}",
		"id", i.id, "name", utf8_json_text(i.name[0] ? i.name : NULL),
		"template", utf8_json_text(i.template), "state",
		sandbox_state_name(i.state), "pid",
		i.pid ? json_integer(i.pid) : json_null(), "created",
		sandbox_json_time(i.created_real_ns), "ends",
		sandbox_json_time(i.ends_real_ns), "memory_bytes",
		(json_int_t)i.memory_bytes, "vcpus", (json_int_t)i.vcpus, "net",
		i.net ? "user" : "none", "cause", utf8_json_text(i.cause),
		"paused_because", utf8_json_text(i.paused_because),
		"timings_ms", sandbox_json_timings(&i.timings));
}

/* The sandbox that the path names; NULL: answered with 404. */
static struct sandbox *sandbox_named(struct request *rq, const char *verb)
{
	struct sandbox *s = registry_find(rq->api->config.registry, rq->param);
	struct err e = ERR_NULL;

	if (!s) {
		err_set(&e, ENOENT, "%s sandbox %s: no such sandbox", verb,
			rq->param);
		request_answer_error(rq, &e);
	}
	return s;
}

static void sandbox_request_end(struct request *rq)
{
	sandbox_forget(rq->api->config.registry, rq);
}

/* A request to the registry was made: wait for it, or say why not. */
static void sandbox_request_made(struct request *rq, int r, const struct err *e)
{
	if (r < 0)
		request_answer_error(rq, e);
	else
		request_wait(rq, NULL, sandbox_request_end);
}

void handle_sandboxes(struct request *rq)
{
	struct registry *r = rq->api->config.registry;
	json_t *list = json_array();

	for (struct sandbox *s = registry_next(r, NULL); list && s;
	     s = registry_next(r, s))
		if (json_array_append_new(list, sandbox_json(s)) < 0) {
			json_decref(list);
			list = NULL;
		}
	request_answer(rq, MHD_HTTP_OK, list);
}

void handle_sandbox(struct request *rq)
{
	struct sandbox *s = sandbox_named(rq, "inspect");

	if (s)
		request_answer(rq, MHD_HTTP_OK, sandbox_json(s));
}

static void sandbox_created(void *arg, struct sandbox *s, const struct err *e)
{
	struct request *rq = arg;

	if (e->code) {
		request_answer_error(rq, e);
		return;
	}
	log_info("sandbox=%s request=create", sandbox_info(s).id);
	request_answer(rq, MHD_HTTP_CREATED, sandbox_json(s));
}

void handle_sandbox_create(struct request *rq)
{
	guard(sandbox_body_deinit) struct sandbox_body b = SANDBOX_BODY_NULL;
	struct sandbox_options options;
	struct err e = ERR_NULL;
	const char *text;
	size_t len;
	int r;

	text = request_text(rq, &len);
	r = sandbox_body_parse(text, len, &b, &e);
	if (r < 0) {
		request_answer_error(rq, &e);
		return;
	}
	options = (struct sandbox_options){
		.template = b.template,
		.name = b.name,
		.ttl_ns = b.ttl_ns,
		.net_user = b.net == 1,
		.env = (const char *const *)b.env,
		.n_env = b.n_env,
	};
	r = sandbox_create(rq->api->config.registry, &options, sandbox_created,
			   rq, &e);
	sandbox_request_made(rq, r, &e);
}

/* Paused or resumed, whichever it was: the state says it. */
static void sandbox_switched(void *arg, struct sandbox *s, const struct err *e)
{
	struct request *rq = arg;
	struct sandbox_info i;

	if (e->code) {
		request_answer_error(rq, e);
		return;
	}
	i = sandbox_info(s);
	log_info("sandbox=%s request=%s", i.id,
		 i.state == SANDBOX_PAUSED ? "pause" : "resume");
	request_answer(rq, MHD_HTTP_OK, sandbox_json(s));
}

void handle_sandbox_pause(struct request *rq)
{
	struct sandbox *s = sandbox_named(rq, "pause");
	struct err e = ERR_NULL;

	if (s)
		sandbox_request_made(
			rq, sandbox_pause(s, sandbox_switched, rq, &e), &e);
}

void handle_sandbox_resume(struct request *rq)
{
	struct sandbox *s = sandbox_named(rq, "resume");
	struct err e = ERR_NULL;

	if (s)
		sandbox_request_made(
			rq, sandbox_resume(s, sandbox_switched, rq, &e), &e);
}

static void sandbox_removed(void *arg, struct sandbox *s, const struct err *e)
{
	struct request *rq = arg;

	(void)s;
	if (e->code) {
		request_answer_error(rq, e);
		return;
	}
	log_info("sandbox=%s request=remove", rq->param);
	request_answer_empty(rq);
}

void handle_sandbox_remove(struct request *rq)
{
	struct err e = ERR_NULL;
	struct sandbox *s;
	bool force;

	if (target_query_flag(&rq->target, "force", &force, &e) < 0) {
		request_answer_error(rq, &e);
		return;
	}
	s = sandbox_named(rq, "remove");
	if (s)
		sandbox_request_made(
			rq, sandbox_remove(s, force, sandbox_removed, rq, &e),
			&e);
}
