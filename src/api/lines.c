/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A long job told as it happens
 *
 *	job's events --> lines in a bounded buffer --> the client
 *
 * A job goes at its own pace and cannot be made to wait for a reader, so the
 * buffer between them has a limit. What does not fit is left out: output is
 * counted, and a line says how much; progress within a step is simply told
 * later. That a step begins and the result are few and small, and have room of
 * their own.
 *
 * Invariants:
 *  1. l->job is set from lines_answer() to the done event, and the job is
 *     abandoned when the request ends before that.
 *  2. The last line is the result, and is always sent to a client that still
 *     reads.
 *  3. Lines are whole: a character that two pieces of output share is put
 *     together first.
 */
#include "api/lines.h"

#include "api/request.h"
#include "api/utf8.h"
#include "base/guard.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

/* Lines waiting for a slow reader: minutes of a chatty warm command. */
#define LINES_MAX (1u << 20)
/* Kept free for steps and the result: a hundred of them. */
#define LINES_RESERVE 65536u
/* Output is cut to lines of at most this much. */
#define LINES_OUTPUT_MAX 8192u

struct lines {
	struct request *rq;
	const struct lines_kind *kind;
	void *job; /* NULL: ended */
	char name[64];
	char step[32]; /* begun last, */
	char detail[ERR_MSG_MAX];
	uint64_t done; /* and how far it was told to be */
	struct buf text;
	uint64_t dropped; /* output bytes left out since the last line */
	char part[4]; /* beginning of a character, */
	size_t part_len; /* to be completed by more output */
	bool ended;
};

/* Takes @line. */
static void lines_add(struct lines *l, json_t *line)
{
	guard_free char *text = line ? request_json_text(line) : NULL;

	json_decref(line);
	if (!text || buf_addf(&l->text, "%s\n", text) < 0)
		log_warn("template=%s request=%s line=dropped", l->name,
			 l->kind->verb);
	request_more(l->rq);
}

static void lines_text(struct lines *l, const char *p, size_t len)
{
	json_t *text;

	/* JSON may need six bytes for one. */
	if (buf_room(&l->text) < LINES_RESERVE + 6 * len) {
		l->dropped += len;
		return;
	}
	if (l->dropped) {
		text = json_sprintf("\n[%llu bytes left out]\n",
				    (unsigned long long)l->dropped);
		l->dropped = 0;
		lines_add(l, json_pack("{s:o}", "output", text));
	}
	lines_add(l, json_pack("{s:o}", "output", utf8_json(p, len)));
}

static void lines_on_step(void *arg, const char *step, const char *detail,
			  uint64_t done, uint64_t total)
{
	struct lines *l = arg;

	if (!detail)
		detail = "";
	if (done > l->done && strcmp(step, l->step) == 0 &&
	    strcmp(detail, l->detail) == 0 &&
	    buf_room(&l->text) < LINES_RESERVE)
		return;
	snprintf(l->step, sizeof(l->step), "%s", step);
	snprintf(l->detail, sizeof(l->detail), "%s", detail);
	l->done = done;
	lines_add(l, json_pack("{s:s, s:o, s:I, s:I}", "step", step, "detail",
			       utf8_json_text(detail), "done", (json_int_t)done,
			       "total", (json_int_t)total));
}

static void lines_on_output(void *arg, const void *p, size_t len)
{
	struct lines *l = arg;
	const char *in = p;

	while (len) {
		char piece[LINES_OUTPUT_MAX];
		size_t n = min(len, sizeof(piece) - l->part_len);
		size_t whole;

		memcpy(piece, l->part, l->part_len);
		memcpy(piece + l->part_len, in, n);
		in += n;
		len -= n;
		n += l->part_len;
		whole = utf8_whole(piece, n);
		l->part_len = n - whole;
		memcpy(l->part, piece + whole, l->part_len);
		if (whole)
			lines_text(l, piece, whole);
	}
}

static void lines_on_done(void *arg, const struct err *e)
{
	struct lines *l = arg;
	const char *name = strerrorname_np(e->code);
	void *job = take(l->job);

	l->ended = true;
	if (l->part_len)
		lines_text(l, l->part, l->part_len);
	if (e->code) {
		log_warn("template=%s request=%s error=\"%s\"", l->name,
			 l->kind->verb, e->msg);
		lines_add(l, json_pack("{s:o, s:s}", "error",
				       utf8_json_text(e->msg), "errno",
				       name ? name : "EIO"));
		return;
	}
	log_info("template=%s request=%s", l->name, l->kind->verb);
	lines_add(l, l->kind->result(l->rq, l->name, job));
}

const struct job_events lines_events = {
	.step = lines_on_step,
	.output = lines_on_output,
	.done = lines_on_done,
};

static ssize_t lines_read(struct request *rq, char *p, size_t size)
{
	struct lines *l = rq->op;
	size_t n = min(size, buf_len(&l->text));

	if (n == 0)
		return l->ended ? -1 : 0;
	memcpy(p, buf_data(&l->text), n);
	buf_consume(&l->text, n);
	return (ssize_t)n;
}

struct lines *lines_new(struct request *rq, const struct lines_kind *kind,
			const char *name)
{
	struct lines *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->rq = rq;
	l->kind = kind;
	buf_init(&l->text, LINES_MAX);
	snprintf(l->name, sizeof(l->name), "%s", name);
	return l;
}

struct lines *lines_free(struct lines *l)
{
	if (!l)
		return NULL;
	if (l->job) {
		log_info("template=%s request=%s given_up=1", l->name,
			 l->kind->verb);
		l->kind->abandon(l->job);
	}
	buf_deinit(&l->text);
	free(l);
	return NULL;
}

static void lines_end(struct request *rq)
{
	lines_free(rq->op);
}

void lines_answer(struct lines *l, void *job)
{
	l->job = job;
	request_answer_stream(l->rq, "application/x-ndjson", lines_read, l,
			      lines_end);
}
