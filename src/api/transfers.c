/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /v1/push and /v1/pull: transfers, told as they happen (lines.c)
 *
 * A push's last line says besides the template what became of it in the store;
 * a pull's is the template as it is here now.
 */
#include "api/transfers.h"

#include "api/fields.h"
#include "api/handlers.h"
#include "api/lines.h"
#include "api/request.h"
#include "api/server.h"
#include "api/templates.h"
#include "api/utf8.h"

#include <errno.h>

static struct transfer_config transfers_config(const struct api *a)
{
	return (struct transfer_config){
		.root = a->config.root,
		.loop = a->config.loop,
		.templates = a->config.templates,
		.stores = a->config.stores,
	};
}

/* Lines for who asked. Without stores there is nowhere to send to. */
static int transfers_begin(struct request *rq, const struct lines_kind *kind,
			   const char *name, struct lines **ret, struct err *e)
{
	if (!rq->api->config.stores)
		return err_set(e, ENOTSUP, "this daemon keeps no stores");
	*ret = lines_new(rq, kind, name);
	return *ret ? 0 : err_errno(e, ENOMEM, "%s", kind->verb);
}

/* @r: whether @job has begun; @l may be NULL when it has not. */
static void transfers_answer(struct request *rq, int r, struct lines *l,
			     void *job, const struct err *e)
{
	if (r == 0) {
		lines_answer(l, job);
	} else {
		lines_free(l);
		request_answer_error(rq, e);
	}
}

/* ---- push ---- */

static void push_lines_abandon(void *job)
{
	push_abandon(job);
}

static json_t *push_lines_result(struct request *rq, const char *name,
				 void *job)
{
	const struct push_result *p = push_result(job);

	return json_pack("{s:o, s:{s:s, s:o, s:I, s:I, s:I, s:b}}", "template",
			 template_json_find(rq->api->config.templates, name),
			 "push", "image", p->image, "parent",
			 utf8_json_text(p->parent[0] ? p->parent : NULL),
			 "index_bytes", (json_int_t)p->index_bytes,
			 "pack_bytes", (json_int_t)p->pack_bytes,
			 "shared_bytes", (json_int_t)p->shared_bytes, "sent",
			 (int)p->sent);
}

static const struct lines_kind push_lines = {
	.verb = "push",
	.abandon = push_lines_abandon,
	.result = push_lines_result,
};

void handle_push(struct request *rq)
{
	const struct transfer_config config = transfers_config(rq->api);
	struct push_body b = { .root = NULL };
	struct lines *l = NULL;
	struct push *job = NULL;
	struct err e = ERR_NULL;
	const char *text;
	size_t len;
	int r;

	text = request_text(rq, &len);
	r = push_body_parse(text, len, &b, &e);
	if (r < 0)
		err_prefix(&e, "push");
	else
		r = transfers_begin(rq, &push_lines, b.options.template, &l,
				    &e);
	if (r == 0)
		r = push_start(&config, &b.options, &lines_events, l, &job, &e);
	transfers_answer(rq, r, l, job, &e);
	json_decref(b.root);
}

/* ---- pull ---- */

static void pull_lines_abandon(void *job)
{
	pull_abandon(job);
}

static json_t *pull_lines_result(struct request *rq, const char *name,
				 unused void *job)
{
	struct templates *t = rq->api->config.templates;

	return json_pack("{s:o}", "template", template_json_find(t, name));
}

static const struct lines_kind pull_lines = {
	.verb = "pull",
	.abandon = pull_lines_abandon,
	.result = pull_lines_result,
};

void handle_pull(struct request *rq)
{
	const struct transfer_config config = transfers_config(rq->api);
	struct pull_body b = { .root = NULL };
	const struct pull_options *o = &b.options;
	struct lines *l = NULL;
	struct pull *job = NULL;
	struct err e = ERR_NULL;
	const char *text;
	size_t len;
	int r;

	text = request_text(rq, &len);
	r = pull_body_parse(text, len, &b, &e);
	if (r < 0)
		err_prefix(&e, "pull");
	else
		r = transfers_begin(rq, &pull_lines,
				    o->name ? o->name : o->template, &l, &e);
	if (r == 0)
		r = pull_start(&config, o, &lines_events, l, &job, &e);
	transfers_answer(rq, r, l, job, &e);
	json_decref(b.root);
}
