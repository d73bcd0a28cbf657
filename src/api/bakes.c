/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /v1/templates: a bake, told as it happens
 *
 *	bake callbacks --> lines in a bounded buffer --> the client
 *
 * A bake goes at its own pace and cannot be made to wait for a reader, so the
 * buffer between them has a limit, and what does not fit is counted instead of
 * kept. Only output of warm commands is ever left out, and a line says how
 * much: steps and the result are few and small, and have room of their own.
 *
 * Invariants:
 *  1. s->bake is set from bake_start() to the done event, and the bake is
 *     given up when the request ends before that.
 *  2. The last line is the result, and is always sent to a client that still
 *     reads.
 *  3. Lines are whole: a character that two pieces of output share is put
 *     together first.
 */
#include "api/bakes.h"

#include "api/handlers.h"
#include "api/request.h"
#include "api/server.h"
#include "api/templates.h"
#include "api/utf8.h"
#include "base/guard.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

/* Lines waiting for a slow reader: minutes of a chatty warm command. */
#define BAKE_LINES_MAX (1u << 20)
/* Kept free for steps and the result: a hundred of them. */
#define BAKE_LINES_RESERVE 65536u
/* Output is cut to lines of at most this much. */
#define BAKE_OUTPUT_MAX 8192u

struct bake_stream {
	struct request *rq;
	struct bake *bake; /* NULL: ended */
	char name[64];
	struct buf lines;
	uint64_t dropped; /* output bytes left out since the last line */
	char part[4]; /* beginning of a character, */
	size_t part_len; /* to be completed by more output */
	bool ended;
};

/* Takes @line. */
static void bake_stream_add(struct bake_stream *s, json_t *line)
{
	guard_free char *text = line ? request_json_text(line) : NULL;

	json_decref(line);
	if (!text || buf_addf(&s->lines, "%s\n", text) < 0)
		log_warn("template=%s request=bake line=dropped", s->name);
	request_more(s->rq);
}

static void bake_stream_text(struct bake_stream *s, const char *p, size_t len)
{
	json_t *text;

	/* JSON may need six bytes for one. */
	if (buf_room(&s->lines) < BAKE_LINES_RESERVE + 6 * len) {
		s->dropped += len;
		return;
	}
	if (s->dropped) {
		text = json_sprintf("\n[%llu bytes left out]\n",
				    (unsigned long long)s->dropped);
		s->dropped = 0;
		bake_stream_add(s, json_pack("{s:o}", "output", text));
	}
	bake_stream_add(s, json_pack("{s:o}", "output", utf8_json(p, len)));
}

static void bake_on_step(void *arg, const char *step, const char *detail,
			 unsigned done, unsigned total)
{
	struct bake_stream *s = arg;

	bake_stream_add(s, json_pack("{s:s, s:o, s:i, s:i}", "step", step,
				     "detail",
				     utf8_json_text(detail ? detail : ""),
				     "done", (int)done, "total", (int)total));
}

static void bake_on_output(void *arg, const void *p, size_t len)
{
	struct bake_stream *s = arg;
	const char *in = p;

	while (len) {
		char piece[BAKE_OUTPUT_MAX];
		size_t n = min(len, sizeof(piece) - s->part_len);
		size_t whole;

		memcpy(piece, s->part, s->part_len);
		memcpy(piece + s->part_len, in, n);
		in += n;
		len -= n;
		n += s->part_len;
		whole = utf8_whole(piece, n);
		s->part_len = n - whole;
		memcpy(s->part, piece + whole, s->part_len);
		if (whole)
			bake_stream_text(s, piece, whole);
	}
}

static void bake_on_done(void *arg, const struct err *e)
{
	struct bake_stream *s = arg;
	struct templates *t = s->rq->api->config.templates;
	const char *name = strerrorname_np(e->code);

	s->bake = NULL;
	s->ended = true;
	if (s->part_len)
		bake_stream_text(s, s->part, s->part_len);
	if (e->code) {
		log_warn("template=%s request=bake error=\"%s\"", s->name,
			 e->msg);
		bake_stream_add(s, json_pack("{s:o, s:s}", "error",
					     utf8_json_text(e->msg), "errno",
					     name ? name : "EIO"));
		return;
	}
	log_info("template=%s request=bake", s->name);
	bake_stream_add(s, json_pack("{s:o}", "template",
				     template_json_find(t, s->name)));
}

static ssize_t bake_read(struct request *rq, char *p, size_t size)
{
	struct bake_stream *s = rq->op;
	size_t n = min(size, buf_len(&s->lines));

	if (n == 0)
		return s->ended ? -1 : 0;
	memcpy(p, buf_data(&s->lines), n);
	buf_consume(&s->lines, n);
	return (ssize_t)n;
}

static struct bake_stream *bake_stream_free(struct bake_stream *s)
{
	if (!s)
		return NULL;
	if (s->bake) {
		log_info("template=%s request=bake given_up=1", s->name);
		bake_abandon(s->bake);
	}
	buf_deinit(&s->lines);
	free(s);
	return NULL;
}

static void bake_stream_end(struct request *rq)
{
	bake_stream_free(rq->op);
}

static int bake_stream_start(struct request *rq, const struct bake_body *b,
			     struct err *e)
{
	static const struct bake_events events = {
		.step = bake_on_step,
		.output = bake_on_output,
		.done = bake_on_done,
	};
	struct bake_stream *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_errno(e, ENOMEM, "bake %s", b->options.name);
	s->rq = rq;
	buf_init(&s->lines, BAKE_LINES_MAX);
	snprintf(s->name, sizeof(s->name), "%s", b->options.name);
	r = bake_start(rq->api->config.bake, &b->options, &events, s, &s->bake,
		       e);
	if (r < 0) {
		s->bake = NULL;
		bake_stream_free(s);
		return r;
	}
	request_answer_stream(rq, "application/x-ndjson", bake_read, s,
			      bake_stream_end);
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
		err_prefix(&e, "bake");
		request_answer_error(rq, &e);
		return;
	}
	if (bake_stream_start(rq, &b, &e) < 0)
		request_answer_error(rq, &e);
}
