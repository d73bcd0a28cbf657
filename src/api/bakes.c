/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /v1/templates: a bake, told as it happens (lines.c)
 */
#include "api/bakes.h"

#include "api/handlers.h"
#include "api/lines.h"
#include "api/request.h"
#include "api/server.h"
#include "api/templates.h"
#include "base/guard.h"

#include <errno.h>

static void bake_lines_abandon(void *job)
{
	bake_abandon(job);
}

static json_t *bake_lines_result(struct request *rq, const char *name,
				 unused void *job)
{
	struct templates *t = rq->api->config.templates;

	return json_pack("{s:o}", "template", template_json_find(t, name));
}

static const struct lines_kind bake_lines = {
	.verb = "bake",
	.abandon = bake_lines_abandon,
	.result = bake_lines_result,
};

static int bake_lines_start(struct request *rq, const struct bake_body *b,
			    struct err *e)
{
	struct lines *l = lines_new(rq, &bake_lines, b->options.name);
	struct bake *bake = NULL;
	int r;

	if (!l)
		return err_errno(e, ENOMEM, "bake %s", b->options.name);
	r = bake_start(rq->api->config.bake, &b->options, &lines_events, l,
		       &bake, e);
	if (r < 0) {
		lines_free(l);
		return r;
	}
	lines_answer(l, bake);
	return 0;
}

void handle_bake(struct request *rq)
{
	guard(bake_body_deinit) struct bake_body b = BAKE_BODY_NULL;
	struct err e = ERR_NULL;
	const char *text;
	size_t len;

	text = request_text(rq, &len);
	if (bake_body_parse(text, len, &b, &e) < 0) {
		request_answer_error(rq, &e);
		return;
	}
	if (bake_lines_start(rq, &b, &e) < 0)
		request_answer_error(rq, &e);
}
