/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs of the daemon that tell how they go
 *
 * The daemon does the work and tells, line by line of JSON: steps, output of
 * what runs in it, at the end the template or an error. Hanging up gives the
 * job up, so Ctrl-C needs nothing from us. What was said is shown when the job
 * fails, or as it comes with -v.
 */
#include "cmd/job.h"

#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/print.h"
#include "cmd/progress.h"
#include "base/clock.h"
#include "base/guard.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* One line: the daemon cuts output at 8 KiB, which JSON may make 48. */
#define JOB_LINE_MAX (256u << 10)
/* The clock of the progress line. */
#define JOB_TICK_MS 250

enum {
	JOB_DONE = 1, /* the last line has come */
};

int job_set(json_t *body, const char *key, json_t *value, struct err *e)
{
	if (json_object_set_new(body, key, value) < 0)
		return err_set(e, EINVAL, "%s: not text in UTF-8", key);
	return 0;
}

int job_set_text(json_t *body, const char *key, const char *text, struct err *e)
{
	return text ? job_set(body, key, json_string(text), e) : 0;
}

static void job_step(const struct job *job, struct progress *p,
		     const json_t *line)
{
	const char *step = print_text(line, "step");
	const char *detail = print_text(line, "detail");
	uint64_t done = print_number(line, "done");
	uint64_t total = print_number(line, "total");

	if (job->bytes)
		progress_bytes(p, step, detail, done, total, clock_mono_ns());
	else
		progress_step(p, step, detail, (unsigned)done, (unsigned)total,
			      clock_mono_ns());
}

static int job_line(const struct job *job, struct progress *p, json_t *line,
		    json_t **ret, struct err *e)
{
	json_t *output = json_object_get(line, "output");

	if (json_object_get(line, "error"))
		return err_set(e, client_errno(print_text(line, "errno")), "%s",
			       print_text(line, "error"));
	if (json_object_get(line, "template")) {
		*ret = json_incref(line);
		return JOB_DONE;
	}
	if (output)
		progress_output(p, json_string_value(output),
				json_string_length(output));
	else if (json_object_get(line, "step"))
		job_step(job, p, line);
	return 0;
}

/* The whole lines in @b. */
static int job_lines(const struct job *job, struct progress *p, struct buf *b,
		     json_t **ret, struct err *e)
{
	const char *text, *end;
	json_t *line;
	int r;

	for (;;) {
		text = (const char *)buf_data(b);
		end = buf_len(b) ? memchr(text, '\n', buf_len(b)) : NULL;
		if (!end)
			return 0;
		line = json_loadb(text, (size_t)(end - text), 0, NULL);
		if (!line)
			return err_set(e, EBADMSG,
				       "%s: the daemon makes no sense",
				       job->verb);
		r = job_line(job, p, line, ret, e);
		json_decref(line);
		if (r)
			return r;
		buf_consume(b, (size_t)(end - text) + 1);
	}
}

static int job_read(const struct job *job, struct client *c, struct progress *p,
		    struct buf *b, json_t **ret, struct err *e)
{
	const uint8_t *at = NULL;
	size_t n = 0;
	int r;

	for (;;) {
		r = client_read(c, JOB_TICK_MS, &at, &n, e);
		if (r < 0)
			return r;
		progress_tick(p, clock_mono_ns());
		if (r == CLIENT_TIMEOUT)
			continue;
		if (r == CLIENT_END)
			return err_set(e, ECONNRESET,
				       "%s: the daemon went away", job->verb);
		r = buf_add(b, at, n);
		if (r < 0)
			return err_errno(e, -r, "%s: a line of the answer",
					 job->verb);
		r = job_lines(job, p, b, ret, e);
		if (r)
			return r;
	}
}

int job_follow(const struct job *job, const json_t *body, json_t **ret,
	       struct err *e)
{
	guard(client_deinit) struct client c = CLIENT_NULL;
	guard(progress_deinit) struct progress p;
	guard(buf_deinit) struct buf b = BUF_NULL(JOB_LINE_MAX);
	int r;

	progress_init(&p, job->verbose, clock_mono_ns());
	r = client_open(&c, "POST", job->path, body, e);
	if (r == 0)
		r = job_read(job, &c, &p, &b, ret, e);
	if (r < 0)
		progress_failed(&p);
	return r < 0 ? r : 0;
}

int job_template(const struct job *job, const json_t *body, bool json)
{
	json_auto_t *last = NULL;
	struct err e = ERR_NULL;

	if (job_follow(job, body, &last, &e) < 0)
		return cmd_fail(&e);
	if (json)
		print_json(json_object_get(last, "template"));
	else
		puts(print_text(json_object_get(last, "template"), "name"));
	return cmd_end(CMD_OK);
}
