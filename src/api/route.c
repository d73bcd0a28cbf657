/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which handler answers a request
 *
 * One table, which is also the first column of doc/api.md. A star stands for
 * one path segment, which the handler finds in rq->param.
 *
 * Invariants:
 *  1. A handler sees only query parameters of its line, and a body only when
 *     its line takes one ({} is no body).
 *  2. A path that exists under other methods answers 405 and names them.
 *
 * Two dozen lines are searched from the top: nothing to gain by more.
 */
#include "api/route.h"

#include "api/fields.h"
#include "api/handlers.h"
#include "api/request.h"
#include "base/guard.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <string.h>

struct route {
	const char *method;
	const char *path;
	void (*fn)(struct request *rq);
	const char *query; /* the parameter it knows */
	bool body;
};

static const struct route routes[] = {
	{ "GET", "/v1/host", handle_host, NULL, false },
	{ "GET", "/v1/templates", handle_templates, NULL, false },
	{ "POST", "/v1/templates", handle_bake, NULL, true },
	{ "GET", "/v1/templates/*", handle_template, NULL, false },
	{ "DELETE", "/v1/templates/*", handle_template_remove, NULL, false },
	{ "POST", "/v1/templates/*/evict", handle_template_evict, NULL, false },
	{ "GET", "/v1/stores", handle_stores, NULL, false },
	{ "POST", "/v1/stores", handle_store_add, NULL, true },
	{ "DELETE", "/v1/stores/*", handle_store_remove, NULL, false },
	{ "POST", "/v1/push", handle_push, NULL, true },
	{ "POST", "/v1/pull", handle_pull, NULL, true },
	{ "GET", "/v1/sandboxes", handle_sandboxes, NULL, false },
	{ "POST", "/v1/sandboxes", handle_sandbox_create, NULL, true },
	{ "GET", "/v1/sandboxes/*", handle_sandbox, NULL, false },
	{ "DELETE", "/v1/sandboxes/*", handle_sandbox_remove, "force", false },
	{ "POST", "/v1/sandboxes/*/pause", handle_sandbox_pause, NULL, false },
	{ "POST", "/v1/sandboxes/*/resume", handle_sandbox_resume, NULL,
	  false },
	{ "GET", "/v1/sandboxes/*/logs", handle_logs, "follow", false },
	{ "GET", "/v1/sandboxes/*/stream", handle_stream, NULL, false },
	{ "GET", "/v1/mem", handle_mem, NULL, false },
	{ "GET", "/v1/mem/*", handle_mem, NULL, false },
	{ "GET", "/v1/pager", handle_pager, NULL, false },
};

/* Does the path fit? *ret_param: what the star stands for, else NULL. */
static bool route_fits(const struct route *r, const struct target *t,
		       const char **ret_param)
{
	const char *p = r->path;
	size_t i;

	*ret_param = NULL;
	for (i = 0; *p == '/' && i < t->n_segments; i++) {
		size_t len = strcspn(++p, "/");

		if (*p == '*') {
			if (!t->segment[i][0])
				return false;
			*ret_param = t->segment[i];
		} else if (strlen(t->segment[i]) != len ||
			   memcmp(t->segment[i], p, len) != 0) {
			return false;
		}
		p += len;
	}
	return !*p && i == t->n_segments;
}

/* The route; or NULL, and the methods the path does have in @allow. */
static const struct route *route_find(struct request *rq, char *allow,
				      size_t size)
{
	size_t used = 0;

	allow[0] = '\0';
	for (size_t i = 0; i < nitems(routes); i++) {
		if (!route_fits(&routes[i], &rq->target, &rq->param))
			continue;
		if (strcmp(routes[i].method, rq->method) == 0)
			return &routes[i];
		used += (size_t)snprintf(allow + used, size - used, "%s%s",
					 used ? ", " : "", routes[i].method);
		must(used < size); /* our own table */
	}
	return NULL;
}

static void route_refuse(struct request *rq, const char *allow)
{
	struct err e = ERR_NULL;

	if (!allow[0]) {
		err_set(&e, ENOENT, "no such path");
		request_answer_error(rq, &e);
		return;
	}
	err_set(&e, EOPNOTSUPP, "the path takes only %s", allow);
	request_answer_problem(rq, MHD_HTTP_METHOD_NOT_ALLOWED, &e,
			       MHD_HTTP_HEADER_ALLOW, allow);
}

/* What every route refuses: parameters and bodies it has no use for. */
static int route_check(const struct route *r, struct request *rq, struct err *e)
{
	const struct target *t = &rq->target;
	guard_json json_t *root = NULL;
	const char *text;
	size_t len;

	for (size_t i = 0; i < t->n_query; i++)
		if (!r->query || strcmp(t->query[i].key, r->query) != 0)
			return err_set(e, EINVAL, "unknown query parameter %s",
				       t->query[i].key);
	if (r->body || !buf_len(&rq->body))
		return 0;
	text = request_text(rq, &len);
	return fields_parse(text, len, NULL, 0, NULL, &root, e);
}

void route_call(struct request *rq)
{
	const struct route *r;
	struct err e = ERR_NULL;
	char allow[64];

	if (rq->target_err.code) {
		request_answer_error(rq, &rq->target_err);
		return;
	}
	r = route_find(rq, allow, sizeof(allow));
	if (!r)
		route_refuse(rq, allow);
	else if (route_check(r, rq, &e) < 0)
		request_answer_error(rq, &e);
	else
		r->fn(rq);
}
