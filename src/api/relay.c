/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wire frames between one client and the agents' channels
 *
 *	client --fd--> in --frames, renumbered--> channel_open, channel_send
 *	client <--fd-- outbox <--frames, renumbered-- channel callbacks
 *
 * Flow control is from end to end. The client starts with one window per
 * stream, the one the agent gives, and gets more when the agent gives more: so
 * its DATA always fits the agent's credit and none is ever kept here. Backwards
 * the agent may send what the client has given credit for; if the client does
 * not read, that much waits in the outbox.
 *
 * Frames are passed on in the turn in which they come, in both directions: a
 * command's first byte and last result are what users wait for.
 *
 * What is not governed by credit (ENTRY, SIGNAL, ...) is bounded otherwise.
 * Towards the agent: the channel refuses when its queue is full, then the frame
 * stays in our buffer, the client is not read, and we try again when a stream
 * may write or RELAY_RETRY_NS later ("stalled"). Towards the client: a stream
 * that has more waiting than relay_room() allows is abandoned with ENOBUFS.
 *
 * Invariants:
 *  1. Every opening frame is answered by exactly one RESULT, the agent's or
 *     ours, unless the connection ends first.
 *  2. A stream is in r->streams if and only if the client may use its number;
 *     both sides' RESULT races the client's frames, so those for unknown
 *     numbers are ignored.
 *  3. told == what the client believes to be its credit on STDIN.
 *  4. held[ch] == DATA bytes passed to the client and not credited by it, at
 *     most a window (the channel checks the agent's side of that).
 *  5. Channel callbacks free no stream but their own and never end the relay:
 *     the channel may stand in a walk over its streams. What they find out is
 *     left to the timer.
 *
 * Payloads are the agent's business: they are passed on unread, but for CREDIT.
 */
#include "api/relay.h"

#include "agent/wire.h"
#include "api/outbox.h"
#include "base/guard.h"
#include "base/list.h"
#include "sandbox/channel.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>

/* One whole frame must fit; the rest saves copying when frames do not end
 * where reads do. Below malloc's mmap threshold. */
#define RELAY_IN (WIRE_FRAME_MAX + 32768)
/* While the channel's queue is full and none of our streams will hear of it:
 * the time a virtio port takes to drain a few MiB. */
#define RELAY_RETRY_NS 5000000ull
/* Frames outside credit that may wait for a client: the entries of a tree of
 * 40000 files. */
#define RELAY_SLACK (4u << 20)
/* Two windows of output for each stream, the slack, and as much again that
 * only RESULT may use. */
#define RELAY_OUT_MAX (WIRE_STREAMS_MAX * 2 * WIRE_WINDOW + 2 * RELAY_SLACK)

struct relay {
	struct loop *loop;
	int fd;
	const struct relay_events *events;
	void *arg;
	struct loop_fd source;
	struct loop_timer timer;
	struct list streams;
	size_t n_streams;
	struct outbox out;
	bool stalled; /* the channel's queue is full: do not read */
	int broken; /* -errno: the client's socket failed */
	bool ended;
	size_t in_len;
	uint8_t in[RELAY_IN];
};

struct relay_stream {
	struct channel_stream s;
	struct relay *relay;
	struct list link;
	uint32_t number; /* the client's */
	uint64_t told;
	uint64_t held[WIRE_CHANNEL_COUNT];
};

/* What a client's frame is good for. */
enum relay_rule {
	RELAY_REFUSE,
	RELAY_OPEN,
	RELAY_PASS,
	RELAY_DATA,
	RELAY_CREDIT,
};

static const enum relay_rule relay_rules[] = {
	[WIRE_NONE] = RELAY_REFUSE,     [WIRE_HELLO] = RELAY_REFUSE,
	[WIRE_IDENTITY] = RELAY_REFUSE, [WIRE_EXEC] = RELAY_OPEN,
	[WIRE_RESIZE] = RELAY_PASS,     [WIRE_SIGNAL] = RELAY_PASS,
	[WIRE_CLOSE] = RELAY_PASS,      [WIRE_PUT] = RELAY_OPEN,
	[WIRE_GET] = RELAY_OPEN,        [WIRE_FACTS] = RELAY_OPEN,
	[WIRE_SETTLE] = RELAY_REFUSE,   [WIRE_POWEROFF] = RELAY_REFUSE,
	[WIRE_DATA] = RELAY_DATA,       [WIRE_EOF] = RELAY_DATA,
	[WIRE_CREDIT] = RELAY_CREDIT,   [WIRE_ENTRY] = RELAY_PASS,
	[WIRE_STARTED] = RELAY_REFUSE,  [WIRE_RESULT] = RELAY_REFUSE,
};
static_assert(nitems(relay_rules) == WIRE_TYPE_COUNT, "a rule per frame");

static void relay_on_timer(struct loop_timer *t);

/* What is left to do is done by the timer. If it cannot be set, the socket's
 * hang-up or the next frame gets us there, later. */
static void relay_wake(struct relay *r, uint64_t delay_ns)
{
	err_drop(loop_timer_set(r->loop, &r->timer, r->loop->now_ns + delay_ns,
				relay_on_timer));
}

static void relay_watch(struct relay *r)
{
	if (r->source.loop)
		loop_fd_set(&r->source,
			    (r->stalled ? 0u : EPOLLIN) |
				    (outbox_waiting(&r->out) ? EPOLLOUT : 0u));
}

/* ---- to the client ---- */

static size_t relay_room(const struct relay *r)
{
	size_t most = RELAY_SLACK + r->n_streams * 2 * WIRE_WINDOW;
	size_t now = outbox_waiting(&r->out);

	return now < most ? most - now : 0;
}

/* @err: what the outbox said. A socket that failed ends us, but not here: see
 * invariant 5. */
static void relay_sent(struct relay *r, int err)
{
	if (err < 0) {
		r->broken = err;
		relay_wake(r, 0);
	}
	relay_watch(r);
}

static void relay_send(struct relay *r, const struct wire_frame *f,
		       uint32_t number)
{
	if (!r->broken && !r->ended)
		relay_sent(r, outbox_add(&r->out, f->type, f->channel, number,
					 f->payload, f->len));
}

static void relay_send_result(struct relay *r, uint32_t number,
			      const struct err *e)
{
	if (!r->broken && !r->ended)
		relay_sent(r, outbox_add_result(&r->out, number, e));
}

static void relay_send_credit(struct relay *r, uint32_t number, uint64_t bytes)
{
	if (!r->broken && !r->ended)
		relay_sent(r, outbox_add_credit(&r->out, number, bytes));
}

/* ---- streams ---- */

static void relay_stream_free(struct relay_stream *rs)
{
	channel_abandon(&rs->s);
	list_del(&rs->link);
	rs->relay->n_streams--;
	free(rs);
}

static struct relay_stream *relay_find(struct relay *r, uint32_t number)
{
	struct relay_stream *rs, *tmp;

	list_for_each (rs, tmp, &r->streams, struct relay_stream, link)
		if (rs->number == number)
			return rs;
	return NULL;
}

static void relay_on_frame(struct channel_stream *s, const struct wire_frame *f)
{
	struct relay_stream *rs = container_of(s, struct relay_stream, s);
	struct relay *r = rs->relay;
	struct err e = ERR_NULL;

	if (f->type != WIRE_RESULT && WIRE_HEADER + f->len > relay_room(r)) {
		err_set(&e, ENOBUFS, "the client does not read");
		relay_send_result(r, rs->number, &e);
		relay_stream_free(rs);
		return;
	}
	if (f->type == WIRE_DATA)
		rs->held[f->channel] += f->len;
	relay_send(r, f, rs->number);
	if (f->type == WIRE_RESULT)
		relay_stream_free(rs);
}

static void relay_on_writable(struct channel_stream *s)
{
	struct relay_stream *rs = container_of(s, struct relay_stream, s);
	struct relay *r = rs->relay;
	uint64_t credit = s->credit[WIRE_STDIN];

	if (credit > rs->told) {
		relay_send_credit(r, rs->number, credit - rs->told);
		rs->told = credit;
	}
	if (r->stalled)
		relay_wake(r, 0);
}

static void relay_on_broken(struct channel_stream *s, const struct err *e)
{
	struct relay_stream *rs = container_of(s, struct relay_stream, s);

	relay_send_result(rs->relay, rs->number, e);
	relay_stream_free(rs);
}

/* ---- from the client ---- */

/* 0; -EAGAIN: the channel's queue is full, again later with the same frame;
 * other: the client broke the protocol, *e says how. */
static int relay_open(struct relay *r, const struct wire_frame *f,
		      uint8_t *frame, size_t len, struct err *e)
{
	struct relay_stream *rs;
	struct channel *c;
	struct err why = ERR_NULL;
	int err;

	if (f->stream == 0 || relay_find(r, f->stream))
		return err_set(e, EPROTO, "stream number %" PRIu32 " is in use",
			       f->stream);
	c = r->events->channel(r->arg, &why);
	rs = c ? calloc(1, sizeof(*rs)) : NULL;
	if (!rs) {
		if (c)
			err_errno(&why, ENOMEM, "open a stream");
		relay_send_result(r, f->stream, &why);
		return 0;
	}
	rs->relay = r;
	rs->number = f->stream;
	rs->told = WIRE_WINDOW;
	rs->s.frame = relay_on_frame;
	rs->s.writable = relay_on_writable;
	rs->s.broken = relay_on_broken;
	err = channel_open(c, &rs->s, frame, len);
	if (err < 0) {
		free(rs);
		if (err == -ENOBUFS)
			return -EAGAIN;
		if (err == -EMFILE)
			err_set(&why, EMFILE,
				"%d streams are open in this sandbox",
				WIRE_STREAMS_MAX);
		else
			err_errno(&why, -err, "open a stream");
		relay_send_result(r, f->stream, &why);
		return 0;
	}
	list_add_tail(&r->streams, &rs->link);
	r->n_streams++;
	return 0;
}

static int relay_pass(struct relay_stream *rs, const struct wire_frame *f,
		      uint8_t *frame, size_t len, struct err *e)
{
	bool data = f->type == WIRE_DATA;
	int err;

	if ((data || f->type == WIRE_EOF) && f->channel != WIRE_STDIN)
		return err_set(e, EPROTO, "%s on an output channel",
			       wire_type_name(f->type));
	if (data && f->len > rs->told)
		return err_set(e, EPROTO,
			       "stream %" PRIu32 ": more data than was granted",
			       f->stream);
	err = channel_send(&rs->s, frame, len);
	if (err == -EAGAIN || err == -ENOBUFS)
		return -EAGAIN;
	/* Anything else is the channel's end, of which relay_on_broken() will
	 * tell the client. */
	if (err == 0 && data)
		rs->told -= f->len;
	return 0;
}

static int relay_credit(struct relay_stream *rs, const struct wire_frame *f,
			struct err *e)
{
	uint64_t bytes;

	if (wire_find_u64(f, WIRE_K_BYTES, &bytes) < 0 ||
	    bytes > rs->held[f->channel])
		return err_set(e, EPROTO,
			       "stream %" PRIu32 ": credit for data it was not "
			       "sent",
			       f->stream);
	rs->held[f->channel] -= bytes;
	channel_credit(&rs->s, (enum wire_channel)f->channel, bytes);
	return 0;
}

static int relay_frame(struct relay *r, const struct wire_frame *f,
		       uint8_t *frame, size_t len, struct err *e)
{
	enum relay_rule rule = relay_rules[f->type];
	struct relay_stream *rs;

	if (rule == RELAY_REFUSE)
		return err_set(e, EPROTO, "a client must not send %s",
			       wire_type_name(f->type));
	if (rule == RELAY_OPEN)
		return relay_open(r, f, frame, len, e);
	rs = relay_find(r, f->stream);
	if (!rs)
		return 0; /* crossed the RESULT on its way */
	if (rule == RELAY_CREDIT)
		return relay_credit(rs, f, e);
	return relay_pass(rs, f, frame, len, e);
}

/* ---- the end ---- */

static void relay_stop(struct relay *r)
{
	struct relay_stream *rs, *tmp;

	r->ended = true;
	loop_fd_del(&r->source);
	loop_timer_del(&r->timer);
	list_for_each (rs, tmp, &r->streams, struct relay_stream, link)
		relay_stream_free(rs);
}

static void relay_end(struct relay *r)
{
	if (r->ended)
		return;
	relay_stop(r);
	r->events->closed(r->arg);
}

/* The client broke the protocol: tell it, if its socket takes that, and end. */
static void relay_fail(struct relay *r, const struct err *e)
{
	relay_send_result(r, 0, e);
	relay_end(r);
}

/* ---- input ---- */

static int relay_next(struct relay *r, size_t *pos, struct err *e)
{
	struct wire_frame f;
	size_t used = 0, skipped = 0;
	int err =
		wire_next(r->in + *pos, r->in_len - *pos, &f, &used, &skipped);

	if (skipped)
		return err_set(e, EPROTO, "what was sent is not a frame");
	if (err == WIRE_MORE)
		return WIRE_MORE;
	err = relay_frame(r, &f, r->in + *pos, used, e);
	if (err == 0)
		*pos += used;
	return err;
}

/* Every whole frame in the buffer, as far as the channel takes them. */
static void relay_process(struct relay *r)
{
	struct err e = ERR_NULL;
	size_t pos = 0;
	int err;

	do
		err = relay_next(r, &pos, &e);
	while (err == 0 && !r->broken);
	r->in_len -= pos;
	memmove(r->in, r->in + pos, r->in_len);
	if (r->broken) {
		relay_end(r);
		return;
	}
	if (err < 0 && err != -EAGAIN) {
		relay_fail(r, &e);
		return;
	}
	r->stalled = err == -EAGAIN;
	if (r->stalled)
		relay_wake(r, RELAY_RETRY_NS);
	relay_watch(r);
}

static void relay_read(struct relay *r)
{
	ssize_t n = recv(r->fd, r->in + r->in_len, sizeof(r->in) - r->in_len,
			 MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		relay_end(r);
		return;
	}
	r->in_len += (size_t)n;
	relay_process(r);
}

static void relay_on_timer(struct loop_timer *t)
{
	struct relay *r = container_of(t, struct relay, timer);

	if (r->broken)
		relay_end(r);
	else if (r->stalled)
		relay_process(r);
}

static void relay_on_fd(struct loop_fd *f, uint32_t events)
{
	struct relay *r = container_of(f, struct relay, source);

	if ((events & EPOLLOUT) && !r->broken) {
		r->broken = outbox_flush(&r->out);
		relay_watch(r);
	}
	if (r->broken)
		relay_end(r);
	else if ((events & EPOLLIN) && !r->stalled)
		relay_read(r);
	else if (events & (EPOLLHUP | EPOLLERR))
		relay_end(r);
}

void relay_feed(struct relay *r, const void *p, size_t len)
{
	struct err e = ERR_NULL;

	while (len && !r->ended) {
		size_t n = min(len, sizeof(r->in) - r->in_len);

		if (n == 0) { /* stalled, and more than is ever sent ahead */
			err_set(&e, EPROTO, "too much was sent ahead");
			relay_fail(r, &e);
			return;
		}
		memcpy(r->in + r->in_len, p, n);
		r->in_len += n;
		p = (const uint8_t *)p + n;
		len -= n;
		relay_process(r);
	}
}

/* ---- birth and death ---- */

int relay_new(struct loop *loop, int fd, const struct relay_events *events,
	      void *arg, struct relay **ret, struct err *e)
{
	struct relay *r = malloc(sizeof(*r));
	int err;

	if (!r)
		return err_errno(e, ENOMEM, "relay a client");
	/* Not the buffer: every command pays for a relay. */
	memset(r, 0, offsetof(struct relay, in));
	r->loop = loop;
	r->fd = fd;
	r->events = events;
	r->arg = arg;
	r->source = (struct loop_fd)LOOP_FD_NULL;
	r->timer = (struct loop_timer)LOOP_TIMER_NULL;
	list_init(&r->streams);
	outbox_init(&r->out, fd, RELAY_OUT_MAX);
	err = loop_fd_add(loop, &r->source, fd, EPOLLIN, relay_on_fd);
	if (err < 0) {
		free(r);
		return err_errno(e, -err, "relay a client");
	}
	*ret = r;
	return 0;
}

struct relay *relay_free(struct relay *r)
{
	if (!r)
		return NULL;
	if (!r->ended)
		relay_stop(r);
	outbox_deinit(&r->out);
	free(r);
	return NULL;
}
