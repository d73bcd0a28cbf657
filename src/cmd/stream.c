/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent stream, client side
 *
 *	      begin -> wire_put -> send                   next
 *	caller ------------------------> out     in <------------- frames
 *	                                  |       ^
 *	                                  v pump  |
 *	                                  socket (the daemon)
 *
 * The daemon answers for the guest's manners, but a guest's bytes are in there,
 * so nothing is believed: a peer that sends more than its window, frames for a
 * stream that is not open, or garbage ends the connection.
 *
 * 1. DATA is sent only against credit, so `out` holds at most one window per
 *    channel, and control frames. Who sends many control frames (cp: ENTRY)
 *    drains in between; STREAM_OUT_MAX is the end of patience.
 * 2. `in` holds at most two frames. What a frame points to dies with the next
 *    call, which consumes it.
 * 3. Credit is given back in pieces of STREAM_CREDIT_MIN or more: a sender
 *    stops at an empty window only, of which we can hold back but a part.
 * 4. held + what may still come <= WIRE_WINDOW for each channel: a caller that
 *    queues what it receives needs room for one window.
 * 5. When the connection breaks, frames that came before are still handed out;
 *    the error comes when one is asked for and there is none.
 * 6. After RESULT nothing of a stream is heard: numbers are not reused on a
 *    connection, but for the probe's.
 */
#include "cmd/stream.h"

#include "cmd/client.h"
#include "cmd/interrupt.h"
#include "base/guard.h"
#include "base/io.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

/* A quarter of the window: a frame in four costs a CREDIT. */
#define STREAM_CREDIT_MIN (WIRE_WINDOW / 4)
/* One frame to look at, and as much again to receive into. */
#define STREAM_IN_MAX (2u * WIRE_FRAME_MAX)
/* A window of DATA in whole frames, and room for control frames. */
#define STREAM_OUT_MAX (WIRE_WINDOW + 16u * WIRE_FRAME_MAX)

/* The number of the stream that a probe is: none of ours gets that far. */
#define STREAM_PROBE UINT32_MAX

static int stream_fail(const struct stream *s, int code, const char *what,
		       struct err *e)
{
	return err_set(e, code, "talk to sandbox %s: %s", s->id, what);
}

void stream_deinit(struct stream *s)
{
	fd_close(&s->fd);
	buf_deinit(&s->in);
	buf_deinit(&s->out);
	free(s->mem);
	s->mem = NULL;
}

int stream_connect(struct stream *s, const char *id, struct err *e)
{
	guard(client_deinit) struct client c = CLIENT_NULL;
	guard_free char *path = client_path("/v1/sandboxes/", id, "/stream");
	int r;

	*s = (struct stream)STREAM_NULL;
	snprintf(s->id, sizeof(s->id), "%s", id);
	buf_init(&s->in, STREAM_IN_MAX);
	buf_init(&s->out, STREAM_OUT_MAX);
	s->mem = malloc(WIRE_FRAME_MAX);
	if (!path || !s->mem)
		return stream_fail(s, ENOMEM, strerror(ENOMEM), e);
	r = client_upgrade(&c, path, STREAM_PROTOCOL, e);
	if (r < 0)
		return r;
	r = buf_add(&s->in, buf_data(&c.in), buf_len(&c.in));
	if (r < 0)
		return stream_fail(s, -r, strerror(-r), e);
	s->fd = fd_take(&c.fd);
	r = io_set_nonblock(s->fd, true);
	return r < 0 ? stream_fail(s, -r, strerror(-r), e) : 0;
}

/* ---- sending ---- */

struct wire_out *stream_begin(struct stream *s, uint8_t type)
{
	wire_begin(&s->frame, s->mem, WIRE_FRAME_MAX, type, 0, s->number);
	return &s->frame;
}

struct wire_out *stream_begin_open(struct stream *s, uint8_t type)
{
	must(!s->open);
	s->open = true;
	s->number++;
	for (int i = 0; i < WIRE_CHANNEL_COUNT; i++) {
		s->credit[i] = WIRE_WINDOW;
		s->owed[i] = s->held[i] = 0;
	}
	return stream_begin(s, type);
}

static int stream_queue(struct stream *s, const void *p, size_t len,
			struct err *e)
{
	int r = buf_add(&s->out, p, len);

	return r < 0 ? stream_fail(s, -r, strerror(-r), e) : 0;
}

int stream_send(struct stream *s, struct err *e)
{
	int len = wire_end(&s->frame);

	if (len < 0)
		return stream_fail(s, -len,
				   "the command line is longer than 64 KiB", e);
	return stream_queue(s, s->mem, (size_t)len, e);
}

int stream_data(struct stream *s, uint8_t ch, const void *p, size_t len,
		struct err *e)
{
	const uint8_t *at = p;
	uint8_t header[WIRE_HEADER];
	uint32_t n;
	int r;

	must(len <= s->credit[ch]);
	while (len) {
		n = (uint32_t)min(len, (size_t)WIRE_PAYLOAD_MAX);
		wire_header(header, WIRE_DATA, ch, s->number, n);
		r = stream_queue(s, header, sizeof(header), e);
		if (r < 0)
			return r;
		r = stream_queue(s, at, n, e);
		if (r < 0)
			return r;
		s->credit[ch] -= n;
		at += n;
		len -= n;
	}
	return 0;
}

int stream_eof(struct stream *s, uint8_t ch, struct err *e)
{
	uint8_t header[WIRE_HEADER];

	wire_header(header, WIRE_EOF, ch, s->number, 0);
	return stream_queue(s, header, sizeof(header), e);
}

int stream_signal(struct stream *s, int sig, struct err *e)
{
	wire_put_u64(stream_begin(s, WIRE_SIGNAL), WIRE_K_SIGNAL,
		     (uint64_t)sig);
	return stream_send(s, e);
}

/* FACTS: whoever answers that takes signals, too, and has timers that run. */
int stream_probe(struct stream *s, struct err *e)
{
	s->answered = false;
	if (s->probing)
		return 0;
	s->probing = true;
	wire_begin(&s->frame, s->mem, WIRE_FRAME_MAX, WIRE_FACTS, 0,
		   STREAM_PROBE);
	return stream_send(s, e);
}

bool stream_answered(const struct stream *s)
{
	return s->answered;
}

int stream_credit(struct stream *s, uint8_t ch, size_t bytes, struct err *e)
{
	struct wire_out *o = &s->frame;

	must(bytes <= s->held[ch] - s->owed[ch]);
	s->owed[ch] += bytes;
	if (s->owed[ch] < STREAM_CREDIT_MIN || !s->open)
		return 0;
	wire_begin(o, s->mem, WIRE_FRAME_MAX, WIRE_CREDIT, ch, s->number);
	wire_put_u64(o, WIRE_K_BYTES, s->owed[ch]);
	s->held[ch] -= s->owed[ch];
	s->owed[ch] = 0;
	return stream_send(s, e);
}

/* ---- the socket ---- */

short stream_events(const struct stream *s)
{
	return buf_len(&s->out) ? POLLIN | POLLOUT : POLLIN;
}

/* When the other side is gone nothing can be sent any more, but what it sent
 * before may still be received: the end is what recv() says. */
static void stream_pump_out(struct stream *s)
{
	ssize_t n;

	while (buf_len(&s->out)) {
		n = send(s->fd, buf_data(&s->out), buf_len(&s->out),
			 MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		buf_consume(&s->out, n < 0 ? buf_len(&s->out) : (size_t)n);
	}
}

static int stream_pump_in(struct stream *s, struct err *e)
{
	size_t room = buf_room(&s->in);
	uint8_t *to;
	ssize_t n;

	if (!room)
		return 0;
	to = buf_reserve(&s->in, room);
	if (!to)
		return stream_fail(s, ENOMEM, strerror(ENOMEM), e);
	do {
		n = recv(s->fd, to, room, MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && errno != EAGAIN)
		s->broken = errno;
	if (n == 0)
		s->broken = ECONNRESET;
	if (n > 0)
		buf_commit(&s->in, (size_t)n);
	return 0;
}

int stream_pump(struct stream *s, struct err *e)
{
	buf_consume(&s->in, s->used);
	s->used = 0;
	stream_pump_out(s);
	return stream_pump_in(s, e);
}

/* No whole frame is there: will one come? */
static int stream_more(const struct stream *s, struct err *e)
{
	if (!s->broken)
		return STREAM_MORE;
	if (s->broken == ECONNRESET)
		return stream_fail(s, ECONNRESET, "the daemon hung up", e);
	return stream_fail(s, s->broken, strerror(s->broken), e);
}

static int stream_take_credit(struct stream *s, const struct wire_frame *f,
			      struct err *e)
{
	uint64_t bytes = 0;

	if (wire_find_u64(f, WIRE_K_BYTES, &bytes) < 0 ||
	    bytes > WIRE_WINDOW - s->credit[f->channel])
		return stream_fail(s, EPROTO, "credit nobody had used", e);
	s->credit[f->channel] += bytes;
	return 0;
}

/* The answer to a probe. An error is the daemon's: the guest is paused, say.
 * That there are too many streams tells nothing about the guest, and is taken
 * for an answer. */
static int stream_probed(struct stream *s, const struct wire_frame *f,
			 struct err *e)
{
	uint64_t error = 0;

	if (f->type != WIRE_RESULT)
		return stream_fail(s, EPROTO, "a probe makes no sense", e);
	s->probing = false;
	s->answered = wire_find_u64(f, WIRE_K_ERRNO, &error) == -ENOENT ||
		      error == EMFILE;
	return 0;
}

/* A frame of the open stream: is it the caller's? 0, STREAM_MORE: no. */
static int stream_sort(struct stream *s, const struct wire_frame *f,
		       struct err *e)
{
	int r;

	if (s->probing && f->stream == STREAM_PROBE) {
		r = stream_probed(s, f, e);
		return r < 0 ? r : STREAM_MORE;
	}
	if (!s->open || f->stream != s->number)
		return stream_fail(s, EPROTO, "a frame nobody asked for", e);
	if (f->type == WIRE_CREDIT) {
		r = stream_take_credit(s, f, e);
		return r < 0 ? r : STREAM_MORE;
	}
	if (f->type == WIRE_DATA) {
		if (f->len > WIRE_WINDOW - s->held[f->channel])
			return stream_fail(s, EPROTO, "data past its window",
					   e);
		s->held[f->channel] += f->len;
	}
	if (f->type == WIRE_RESULT)
		s->open = false;
	return 0;
}

int stream_next(struct stream *s, struct wire_frame *ret, struct err *e)
{
	struct wire_frame f = { 0 };
	size_t skipped = 0;
	int r;

	for (;;) {
		buf_consume(&s->in, s->used);
		s->used = 0;
		if (!buf_len(&s->in))
			return stream_more(s, e);
		r = wire_next(buf_data(&s->in), buf_len(&s->in), &f, &s->used,
			      &skipped);
		if (skipped)
			return stream_fail(s, EPROTO, "garbage", e);
		if (r == WIRE_MORE)
			return stream_more(s, e);
		r = stream_sort(s, &f, e);
		if (r < 0)
			return r;
		if (r == 0)
			break;
	}
	*ret = f;
	return 0;
}

/* ---- waiting ---- */

int stream_poll(struct stream *s, struct err *e)
{
	struct pollfd p = { .fd = s->fd, .events = stream_events(s) };

	if (ppoll(&p, 1, NULL, interrupt_mask()) < 0 && errno != EINTR)
		return stream_fail(s, errno, strerror(errno), e);
	if (interrupt_come())
		return stream_fail(s, EINTR, "interrupted", e);
	return stream_pump(s, e);
}

int stream_wait(struct stream *s, struct wire_frame *ret, struct err *e)
{
	int r;

	stream_pump_out(s);
	for (;;) {
		r = stream_next(s, ret, e);
		if (r != STREAM_MORE)
			return r;
		r = stream_poll(s, e);
		if (r < 0)
			return r;
	}
}

int stream_drain(struct stream *s, size_t bytes, struct err *e)
{
	int r;

	while (buf_len(&s->out) > bytes) {
		r = stream_poll(s, e);
		if (r < 0)
			return r;
	}
	return 0;
}

int stream_result(const struct stream *s, const struct wire_frame *f,
		  struct stream_result *ret, struct err *e)
{
	struct stream_result x = { 0 };
	uint64_t n = 0;
	int r;

	r = wire_find_str(f, WIRE_K_MESSAGE, x.message, sizeof(x.message));
	if (r < 0 && r != -ENOENT)
		snprintf(x.message, sizeof(x.message), "a reason too long");
	if (wire_find_u64(f, WIRE_K_CODE, &n) == 0) {
		x.has_code = true;
		x.code = (int)(n & 255);
	}
	if (wire_find_u64(f, WIRE_K_SIGNAL, &n) == 0)
		x.signal = (int)(n & 127);
	x.timed_out = wire_find_u64(f, WIRE_K_TIMED_OUT, &n) == 0 && n;
	if (wire_find_u64(f, WIRE_K_ERRNO, &n) == 0)
		x.error = n && n < 4096 ? (int)n : EIO;
	if (!x.has_code && !x.signal && !x.timed_out && !x.error)
		return stream_fail(s, EPROTO, "a result that says nothing", e);
	*ret = x;
	return 0;
}

int stream_command(struct stream *s, const char *const *argv,
		   struct stream_result *ret, struct err *e)
{
	struct wire_out *o = stream_begin_open(s, WIRE_EXEC);
	struct wire_frame f = { 0 };
	int r;

	for (; *argv; argv++)
		wire_put_str(o, WIRE_K_ARG, *argv);
	r = stream_send(s, e);
	while (r == 0) {
		r = stream_wait(s, &f, e);
		if (r < 0)
			break;
		if (f.type == WIRE_RESULT)
			return stream_result(s, &f, ret, e);
		if (f.type == WIRE_DATA)
			r = stream_credit(s, f.channel, f.len, e);
	}
	return r;
}
