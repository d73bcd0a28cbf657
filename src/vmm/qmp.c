/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QMP over a unix socket
 *
 * The protocol is one JSON object per line in both directions. QEMU greets,
 * wants qmp_capabilities first, then answers commands in order with "return" or
 * "error"; lines with "event" come in between.
 *
 * Model: a ring of pending commands (callback and name), an input buffer that
 * holds at most one unfinished line, an output buffer that is nearly always
 * empty because commands are small and QEMU reads promptly.
 *
 * Invariants:
 *  1. Replies match the ring's head; one that nothing waits for breaks the
 *     connection. There are no ids: QEMU reads its control socket byte by byte,
 *     with half a dozen system calls for each, so every byte counts.
 *  2. A command that carries an fd is sent by itself: the output buffer is empty
 *     before, and the fd rides on its first byte.
 *  3. After `broken` nothing is called any more. Callbacks may free the
 *     connection: q->busy and q->dead see to it that it is not touched then.
 *
 * QEMU is trusted no more than a guest that has broken into it: lines are
 * bounded, and anything that is not the protocol ends the connection.
 */
#include "vmm/qmp.h"

#include "base/buf.h"
#include "base/fdpass.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/loop.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* query-* replies we use are below 16 KiB. */
#define QMP_LINE_MAX (1u << 20)
#define QMP_OUT_MAX (1u << 18)
/* Of 4 KiB in one turn of the loop. */
#define QMP_READS 16

struct qmp_pending {
	const char *name; /* static text */
	qmp_done_fn done;
	void *arg;
};

struct qmp {
	struct loop *loop;
	struct loop_fd source;
	int fd;
	const struct qmp_events *events;
	void *arg;
	struct buf in, out;
	struct qmp_pending pending[QMP_PENDING_MAX];
	size_t head, count;
	unsigned busy; /* depth of callbacks under way */
	bool dead; /* freed while busy */
	bool broken;
};

static void qmp_destroy(struct qmp *q)
{
	buf_deinit(&q->in);
	buf_deinit(&q->out);
	free(q);
}

struct qmp *qmp_free(struct qmp *q)
{
	if (!q)
		return NULL;
	loop_fd_del(&q->source);
	fd_close(&q->fd);
	q->broken = true;
	q->dead = true;
	if (!q->busy)
		qmp_destroy(q);
	return NULL;
}

static void qmp_enter(struct qmp *q)
{
	q->busy++;
}

/* False when the connection was freed meanwhile. */
static bool qmp_leave(struct qmp *q)
{
	q->busy--;
	if (!q->dead)
		return true;
	if (!q->busy)
		qmp_destroy(q);
	return false;
}

static void qmp_break(struct qmp *q, const struct err *e)
{
	if (q->broken)
		return;
	q->broken = true;
	loop_fd_del(&q->source);
	fd_close(&q->fd);
	qmp_enter(q);
	while (q->count && !q->dead) {
		struct qmp_pending p = q->pending[q->head];

		q->head = (q->head + 1) % QMP_PENDING_MAX;
		q->count--;
		if (p.done)
			p.done(p.arg, NULL, e);
	}
	if (!q->dead)
		q->events->broken(q->arg, e);
	qmp_leave(q);
}

static void qmp_break_errno(struct qmp *q, int code, const char *what)
{
	struct err e = ERR_NULL;

	err_errno(&e, code, "%s control socket", what);
	qmp_break(q, &e);
}

static void qmp_watch(struct qmp *q)
{
	loop_fd_set(&q->source, EPOLLIN | (buf_len(&q->out) ? EPOLLOUT : 0u));
}

/* Write what can be written now. @fd rides on the first byte. */
static int qmp_flush(struct qmp *q, int fd)
{
	while (buf_len(&q->out)) {
		ssize_t n = fdpass_send(q->fd, buf_data(&q->out),
					buf_len(&q->out), &fd, fd >= 0,
					MSG_DONTWAIT);

		if (n == -EAGAIN)
			return fd >= 0 ? -EAGAIN : 0;
		if (n < 0)
			return (int)n;
		fd = -1;
		buf_consume(&q->out, (size_t)n);
	}
	return 0;
}

int qmp_command(struct qmp *q, const char *name, json_t *arguments, int fd,
		qmp_done_fn done, void *arg)
{
	guard_free char *text = NULL;
	struct qmp_pending *p;
	json_t *cmd;
	int r;

	cmd = json_pack("{s:s, s:o*}", "execute", name, "arguments", arguments);
	if (!cmd)
		return -ENOMEM;
	text = json_dumps(cmd, JSON_COMPACT);
	json_decref(cmd);
	if (!text)
		return -ENOMEM;
	if (q->broken)
		return -EPIPE;
	if (q->count == QMP_PENDING_MAX)
		return -EBUSY;
	if (fd >= 0 && buf_len(&q->out))
		return -EAGAIN;
	r = buf_addf(&q->out, "%s\n", text);
	if (r < 0)
		return r;
	r = qmp_flush(q, fd);
	if (r < 0) {
		/* Nothing of it has left, and nothing was before it. */
		if (fd >= 0)
			buf_consume(&q->out, buf_len(&q->out));
		return r;
	}
	qmp_watch(q);
	p = &q->pending[(q->head + q->count++) % QMP_PENDING_MAX];
	*p = (struct qmp_pending){ name, done, arg };
	return 0;
}

static void qmp_reply(struct qmp *q, json_t *result, json_t *error)
{
	struct qmp_pending p;
	struct err e = ERR_NULL;

	if (!q->count) {
		qmp_break_errno(q, EPROTO, "unexpected reply on");
		return;
	}
	p = q->pending[q->head];
	q->head = (q->head + 1) % QMP_PENDING_MAX;
	q->count--;
	if (error) {
		const char *desc =
			json_string_value(json_object_get(error, "desc"));

		err_set(&e, EIO, "%s: %s", p.name, desc ? desc : "refused");
	}
	if (p.done)
		p.done(p.arg, error ? NULL : result, &e);
}

static void qmp_message(struct qmp *q, json_t *msg)
{
	json_t *event = json_object_get(msg, "event");
	json_t *result = json_object_get(msg, "return");
	json_t *error = json_object_get(msg, "error");

	if (json_is_string(event))
		q->events->event(q->arg, json_string_value(event),
				 json_object_get(msg, "data"));
	else if (result || error)
		qmp_reply(q, result, error);
	else if (json_object_get(msg, "QMP"))
		q->events->greeting(q->arg);
	else
		qmp_break_errno(q, EPROTO, "unknown message on");
}

/* Handle every whole line. False when the connection is gone. */
static bool qmp_lines(struct qmp *q)
{
	while (!q->broken) {
		char *p = (char *)buf_data(&q->in);
		char *nl = buf_len(&q->in) ? memchr(p, '\n', buf_len(&q->in))
					   : NULL;
		json_error_t je;
		json_t *msg;

		if (!nl)
			return true;
		msg = json_loadb(p, (size_t)(nl - p), 0, &je);
		buf_consume(&q->in, (size_t)(nl - p) + 1);
		if (!msg) {
			qmp_break_errno(q, EPROTO, "bad JSON on");
			return false;
		}
		qmp_enter(q);
		qmp_message(q, msg);
		json_decref(msg);
		if (!qmp_leave(q))
			return false;
	}
	return false;
}

static void qmp_readable(struct qmp *q)
{
	/* Then others' turn: a VMM may have been taken over and never stop. */
	for (int turns = 0; turns < QMP_READS; turns++) {
		uint8_t *p = buf_reserve(&q->in, 4096);
		ssize_t n;

		if (!p) {
			qmp_break_errno(q, EMSGSIZE, "endless line on");
			return;
		}
		n = recv(q->fd, p, 4096, MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			qmp_break_errno(q, n < 0 ? errno : ECONNRESET,
					"lost the");
			return;
		}
		buf_commit(&q->in, (size_t)n);
		if (!qmp_lines(q))
			return;
	}
}

static void qmp_ready(struct loop_fd *f, uint32_t events)
{
	struct qmp *q = container_of(f, struct qmp, source);

	if (events & EPOLLOUT) {
		int r = qmp_flush(q, -1);

		if (r < 0) {
			qmp_break_errno(q, -r, "write to the");
			return;
		}
		qmp_watch(q);
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		qmp_enter(q);
		qmp_readable(q);
		qmp_leave(q);
	}
}

int qmp_new(struct loop *loop, int connected_take,
	    const struct qmp_events *events, void *arg, struct qmp **ret,
	    struct err *e)
{
	struct qmp *q = calloc(1, sizeof(*q));
	int r;

	if (!q) {
		fd_close(&connected_take);
		return err_errno(e, ENOMEM, "control connection");
	}
	q->loop = loop;
	q->source = (struct loop_fd)LOOP_FD_NULL;
	q->fd = connected_take;
	q->events = events;
	q->arg = arg;
	buf_init(&q->in, QMP_LINE_MAX);
	buf_init(&q->out, QMP_OUT_MAX);
	r = loop_fd_add(loop, &q->source, q->fd, EPOLLIN, qmp_ready);
	if (r == 0)
		r = qmp_command(q, "qmp_capabilities", NULL, -1, NULL, NULL);
	if (r < 0) {
		qmp_free(q);
		return err_errno(e, -r, "control connection");
	}
	*ret = q;
	return 0;
}
