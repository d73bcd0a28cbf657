/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GET /v1/mem and /v1/mem/ID: the ledger
 *
 * A count is work for the whole herd, and a dashboard that asks every second
 * from ten windows must not multiply it. So one count runs at a time; requests
 * that come meanwhile wait for the next one (the one under way may have passed
 * the pages they care about) and share it.
 *
 *	request --> waiting --count starts--> served --count done--> answered
 *
 * If nobody in `waiting` asks for everything, only the sandboxes that are
 * asked for are counted.
 *
 * Invariants:
 *  1. A struct mem_wait is in exactly one of the lists while its request is
 *     unanswered; it leaves when the request ends, for whatever reason.
 *  2. m->count is the count under way; the worker has it. A struct mem that
 *     goes first lets go of it (owner = NULL), and it frees itself.
 */
#include "api/mem.h"

#include "api/count.h"
#include "api/handlers.h"
#include "api/request.h"
#include "api/server.h"
#include "base/guard.h"
#include "template/template.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <string.h>

struct mem {
	struct api *api;
	struct list waiting; /* for the next count */
	struct list served; /* by the one under way */
	struct count *count; /* NULL: none under way */
};

struct mem_wait {
	struct list link;
	struct request *rq;
	char id[SANDBOX_ID_MAX]; /* "": everything */
};

int mem_new(struct api *api, struct mem **ret, struct err *e)
{
	struct mem *m = calloc(1, sizeof(*m));

	if (!m)
		return err_errno(e, ENOMEM, "start the ledger");
	m->api = api;
	list_init(&m->waiting);
	list_init(&m->served);
	*ret = m;
	return 0;
}

struct mem *mem_free(struct mem *m)
{
	if (!m)
		return NULL;
	must(list_empty(&m->waiting));
	must(list_empty(&m->served));
	if (m->count)
		m->count->owner = NULL;
	free(m);
	return NULL;
}

static void mem_wait_end(struct request *rq)
{
	struct mem_wait *w = rq->op;

	list_del(&w->link);
	free(w);
}

static bool mem_wanted(const struct mem *m, const char *id)
{
	struct mem_wait *w, *tmp;

	list_for_each (w, tmp, &m->waiting, struct mem_wait, link)
		if (!w->id[0] || strcmp(w->id, id) == 0)
			return true;
	return false;
}

static int mem_gather_templates(struct mem *m, struct count *c, struct err *e)
{
	struct templates *t = m->api->config.templates;
	int r = 0;

	for (size_t i = 0; r == 0 && i < templates_count(t); i++) {
		struct template_info info = templates_info(t, i);

		if (info.manifest)
			r = count_add_template(c, &info, e);
	}
	return r;
}

/* Images that no template has any more. */
static int mem_gather_replaced(struct mem *m, struct count *c, struct err *e)
{
	struct registry *registry = m->api->config.registry;
	struct templates *t = m->api->config.templates;
	struct sandbox_layer l;
	int r = 0;

	for (struct sandbox *s = registry_next(registry, NULL); s && r == 0;
	     s = registry_next(registry, s))
		if (sandbox_layer(s, &l) && !templates_has_image(t, l.image))
			r = count_add_replaced(c, &l, e);
	return r;
}

static int mem_gather(struct mem *m, struct count *c, struct err *e)
{
	struct registry *registry = m->api->config.registry;
	int r = 0;

	for (struct sandbox *s = registry_next(registry, NULL); s && r == 0;
	     s = registry_next(registry, s))
		if (mem_wanted(m, sandbox_info(s).id))
			r = count_add_sandbox(c, s, e);
	if (r == 0 && mem_wanted(m, ""))
		r = mem_gather_templates(m, c, e);
	if (r == 0 && mem_wanted(m, ""))
		r = mem_gather_replaced(m, c, e);
	return r;
}

static void mem_answer(const struct count *c, struct mem_wait *w)
{
	struct err e = c->err;
	bool found = true;
	json_t *body;

	if (e.code) {
		request_answer_error(w->rq, &e);
		return;
	}
	body = w->id[0] ? count_json_sandbox(c, w->id, &found) : count_json(c);
	if (found) {
		request_answer(w->rq, MHD_HTTP_OK, body);
		return;
	}
	err_set(&e, ESRCH, "count memory of sandbox %s: it does not run",
		w->rq->param);
	request_answer_error(w->rq, &e);
}

static void mem_fail(struct list *waits, const struct err *e)
{
	struct mem_wait *w, *tmp;

	list_for_each (w, tmp, waits, struct mem_wait, link) {
		list_del(&w->link);
		request_answer_error(w->rq, e);
	}
}

static void mem_on_done(struct worker_job *job);

/* Begin a count for everybody in `waiting`. */
static void mem_start(struct mem *m)
{
	struct count *c = NULL;
	struct mem_wait *w, *tmp;
	struct err e = ERR_NULL;
	int r;

	r = count_new(m, m->api->config.proc_root, &c, &e);
	if (r == 0)
		r = mem_gather(m, c, &e);
	if (r < 0) {
		count_free(c);
		mem_fail(&m->waiting, &e);
		return;
	}
	list_for_each (w, tmp, &m->waiting, struct mem_wait, link) {
		list_del(&w->link);
		list_add_tail(&m->served, &w->link);
	}
	m->count = c;
	worker_submit(m->api->config.worker, &c->job, count_run, mem_on_done);
}

static void mem_on_done(struct worker_job *job)
{
	struct count *c = container_of(job, struct count, job);
	struct mem *m = c->owner;
	struct mem_wait *w, *tmp;

	if (m) {
		m->count = NULL;
		list_for_each (w, tmp, &m->served, struct mem_wait, link) {
			list_del(&w->link);
			mem_answer(c, w);
		}
		if (!list_empty(&m->waiting))
			mem_start(m);
	}
	count_free(c);
}

void handle_mem(struct request *rq)
{
	struct mem *m = rq->api->mem;
	struct sandbox *s = NULL;
	struct err e = ERR_NULL;
	struct mem_wait *w;

	if (rq->param) {
		s = registry_find(rq->api->config.registry, rq->param);
		if (!s) {
			err_set(&e, ENOENT,
				"count memory of sandbox %s: no such sandbox",
				rq->param);
			request_answer_error(rq, &e);
			return;
		}
	}
	w = calloc(1, sizeof(*w));
	if (!w) {
		err_errno(&e, ENOMEM, "count memory");
		request_answer_error(rq, &e);
		return;
	}
	w->rq = rq;
	if (s)
		snprintf(w->id, sizeof(w->id), "%s", sandbox_info(s).id);
	list_add_tail(&m->waiting, &w->link);
	request_wait(rq, w, mem_wait_end);
	if (!m->count)
		mem_start(m);
}
