/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent channel, host side
 *
 * A connected socket to the VMM's virtio-serial port; wire.h frames in both
 * directions. The agent is the guest's, so everything it sends is hostile until
 * checked; it can break its own channel and nothing else.
 *
 *	GREETING --HELLO with our nonce--> READY --anything wrong--> BROKEN
 *
 * Frames given before READY go out right behind our HELLO: the agent answers in
 * order, and what it says before its HELLO is thrown away here.
 *
 * Invariants:
 *  1. Each number in use is in `streams` (an owner waits) or among `ghosts` (the
 *     owner left, RESULT is still to come); their sum is at most
 *     WIRE_STREAMS_MAX, what the agent can hold.
 *  2. DATA for an owner is handed over at once and never stored; an agent that
 *     sends more than the window we granted breaks the channel.
 *  3. Ghosts' DATA is acknowledged and dropped, so that their RESULT is not
 *     stuck behind it.
 *  4. Callbacks may free the channel or abandon streams: `busy` and `dead` as in
 *     qmp.c.
 */
#include "sandbox/channel.h"

#include "base/buf.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/loop.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* Credit is returned in lumps of a quarter window. */
#define CHANNEL_CREDIT_LUMP (WIRE_WINDOW / 4)
/* Streams are told they may write again when the queue has fallen to this. */
#define CHANNEL_QUEUE_LOW (CHANNEL_QUEUE_MAX / 2)
/* Room behind that for the channel's own frames (CREDIT, CLOSE: below 64 bytes
 * each, a few per stream): owners that fill the queue must not break it. */
#define CHANNEL_QUEUE_RESERVE 65536u

struct channel_ghost {
	uint32_t number;
	struct list link;
};

struct channel {
	struct loop *loop;
	struct loop_fd source;
	int fd;
	const struct channel_events *events;
	void *arg;
	struct buf in, out;
	uint8_t nonce[WIRE_NONCE];
	bool ready;
	bool broken;
	struct err doom; /* why it will break on the loop's next turn */
	bool blocked; /* the queue was full: owners wait for `writable` */
	struct list streams;
	struct list ghosts;
	size_t n_streams; /* both lists */
	uint32_t last_number;
	/* unsent credit and unacknowledged bytes, by stream and channel, live
	 * in the stream's slot */
	struct channel_slot {
		uint32_t number;
		uint32_t owed[WIRE_CHANNEL_COUNT]; /* credit not yet sent */
		uint32_t held[WIRE_CHANNEL_COUNT]; /* DATA not credited */
	} slot[WIRE_STREAMS_MAX];
	unsigned busy;
	bool dead;
};

static void channel_destroy(struct channel *c)
{
	buf_deinit(&c->in);
	buf_deinit(&c->out);
	free(c);
}

static void channel_drop_ghosts(struct channel *c)
{
	struct channel_ghost *g, *tmp;

	list_for_each (g, tmp, &c->ghosts, struct channel_ghost, link) {
		list_del(&g->link);
		free(g);
	}
}

/* Every owner hears of it, once. */
static void channel_tell_broken(struct channel *c, const struct err *e)
{
	while (!list_empty(&c->streams)) {
		struct channel_stream *s = list_entry(
			c->streams.next, struct channel_stream, link);

		list_del(&s->link);
		s->channel = NULL;
		s->broken(s, e);
	}
}

struct channel *channel_free(struct channel *c)
{
	struct err e = ERR_NULL;

	if (!c)
		return NULL;
	c->broken = true;
	c->busy++; /* who is told may free it, too */
	err_set(&e, ECONNRESET, "agent channel: the sandbox has ended");
	channel_tell_broken(c, &e);
	channel_drop_ghosts(c);
	loop_fd_del(&c->source);
	fd_close(&c->fd);
	c->dead = true;
	c->busy--;
	if (!c->busy)
		channel_destroy(c);
	return NULL;
}

static bool channel_leave(struct channel *c)
{
	c->busy--;
	if (!c->dead)
		return true;
	if (!c->busy)
		channel_destroy(c);
	return false;
}

static void channel_break(struct channel *c, const struct err *e)
{
	if (c->broken)
		return;
	c->broken = true;
	loop_fd_del(&c->source);
	fd_close(&c->fd);
	channel_drop_ghosts(c);
	c->busy++;
	channel_tell_broken(c, e);
	if (!c->dead)
		c->events->broken(c->arg, e);
	channel_leave(c);
}

static void channel_break_code(struct channel *c, int code, const char *what)
{
	struct err e = ERR_NULL;

	err_errno(&e, code, "agent channel: %s", what);
	channel_break(c, &e);
}

/* Break, but not now: the caller stands in a function of ours that owners call,
 * and must not hear of it from inside. The socket's end wakes the loop. */
static void channel_doom(struct channel *c, int code, const char *what)
{
	if (c->doom.code == 0)
		err_errno(&c->doom, code, "agent channel: %s", what);
	shutdown(c->fd, SHUT_RDWR);
}

/* ---- slots: the accounts of a stream number ---- */

static struct channel_slot *channel_slot(struct channel *c, uint32_t number)
{
	for (size_t i = 0; i < WIRE_STREAMS_MAX; i++)
		if (c->slot[i].number == number)
			return &c->slot[i];
	return NULL;
}

static void channel_slot_release(struct channel *c, uint32_t number)
{
	struct channel_slot *slot = channel_slot(c, number);

	must(slot);
	memset(slot, 0, sizeof(*slot));
	c->n_streams--;
	if (c->n_streams == 0 && c->events->idle)
		c->events->idle(c->arg);
}

/* ---- output ---- */

static void channel_watch(struct channel *c)
{
	loop_fd_set(&c->source, EPOLLIN | (buf_len(&c->out) ? EPOLLOUT : 0u));
}

static void channel_flush(struct channel *c)
{
	while (buf_len(&c->out)) {
		ssize_t n = send(c->fd, buf_data(&c->out), buf_len(&c->out),
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			channel_doom(c, errno, "write");
			break;
		}
		buf_consume(&c->out, (size_t)n);
	}
	channel_watch(c);
}

/* For the channel itself. */
static int channel_queue(struct channel *c, const uint8_t *frame, size_t len)
{
	if (c->broken)
		return -EPIPE;
	if (buf_room(&c->out) < len)
		return -ENOBUFS;
	return buf_add(&c->out, frame, len);
}

/* For owners. */
static int channel_queue_owned(struct channel *c, const uint8_t *frame,
			       size_t len)
{
	if (buf_len(&c->out) + len > CHANNEL_QUEUE_MAX)
		return -ENOBUFS;
	return channel_queue(c, frame, len);
}

static void channel_send_credit(struct channel *c, uint32_t number,
				enum wire_channel ch, uint64_t bytes)
{
	uint8_t mem[64];
	struct wire_out o;
	int n;

	wire_begin(&o, mem, sizeof(mem), WIRE_CREDIT, (uint8_t)ch, number);
	wire_put_u64(&o, WIRE_K_BYTES, bytes);
	n = wire_end(&o);
	must(n > 0);
	/* Losing credit would hang the stream; the queue is only ever full of
	 * what a client sent without the agent reading: give up on it. */
	if (channel_queue(c, mem, (size_t)n) < 0)
		channel_doom(c, ENOBUFS, "the agent does not read");
	else
		channel_flush(c);
}

static void channel_owe(struct channel *c, uint32_t number,
			enum wire_channel ch, uint64_t bytes)
{
	struct channel_slot *slot = channel_slot(c, number);
	uint32_t owed;

	if (!slot)
		return;
	must(bytes <= slot->held[ch]);
	slot->held[ch] -= (uint32_t)bytes;
	slot->owed[ch] += (uint32_t)bytes;
	owed = slot->owed[ch];
	if (owed < CHANNEL_CREDIT_LUMP)
		return;
	slot->owed[ch] = 0;
	channel_send_credit(c, number, ch, owed);
}

void channel_credit(struct channel_stream *s, enum wire_channel ch,
		    uint64_t bytes)
{
	if (s->channel && bytes)
		channel_owe(s->channel, s->number, ch, bytes);
}

static void channel_patch(uint8_t *frame, uint32_t number)
{
	frame[4] = (uint8_t)number;
	frame[5] = (uint8_t)(number >> 8);
	frame[6] = (uint8_t)(number >> 16);
	frame[7] = (uint8_t)(number >> 24);
}

int channel_open(struct channel *c, struct channel_stream *s, uint8_t *frame,
		 size_t len)
{
	struct channel_slot *slot;
	int r;

	must(!s->channel);
	if (c->broken)
		return -EPIPE;
	slot = channel_slot(c, 0);
	if (!slot)
		return -EMFILE;
	do
		c->last_number++;
	while (c->last_number == 0 || channel_slot(c, c->last_number));
	channel_patch(frame, c->last_number);
	r = channel_queue_owned(c, frame, len);
	if (r < 0)
		return r;
	slot->number = c->last_number;
	c->n_streams++;
	s->channel = c;
	s->number = c->last_number;
	for (int i = 0; i < WIRE_CHANNEL_COUNT; i++)
		s->credit[i] = WIRE_WINDOW;
	list_add_tail(&c->streams, &s->link);
	channel_flush(c);
	return 0;
}

int channel_send(struct channel_stream *s, uint8_t *frame, size_t len)
{
	struct channel *c = s->channel;
	bool data = frame[2] == WIRE_DATA;
	uint8_t ch = frame[3];
	int r;

	if (!c)
		return -EPIPE;
	must(!data || ch < WIRE_CHANNEL_COUNT);
	if (data && s->credit[ch] < len - WIRE_HEADER)
		return -EAGAIN;
	channel_patch(frame, s->number);
	r = channel_queue_owned(c, frame, len);
	if (r == -ENOBUFS && data) {
		c->blocked = true;
		return -EAGAIN;
	}
	if (r < 0)
		return r;
	if (data)
		s->credit[ch] -= len - WIRE_HEADER;
	channel_flush(c);
	return 0;
}

void channel_abandon(struct channel_stream *s)
{
	struct channel *c = s->channel;
	uint8_t header[WIRE_HEADER];
	struct channel_ghost *g;
	struct channel_slot *slot;

	if (!c)
		return;
	list_del(&s->link);
	s->channel = NULL;
	g = calloc(1, sizeof(*g));
	if (!g) {
		channel_doom(c, ENOMEM, "abandon a stream");
		return;
	}
	g->number = s->number;
	list_add_tail(&c->ghosts, &g->link);
	wire_header(header, WIRE_CLOSE, 0, s->number, 0);
	if (channel_queue(c, header, sizeof(header)) < 0) {
		channel_doom(c, ENOBUFS, "the agent does not read");
		return;
	}
	/* What the owner had not credited would block the agent's RESULT. */
	slot = channel_slot(c, s->number);
	for (int i = 0; i < WIRE_CHANNEL_COUNT; i++) {
		uint32_t bytes = slot->held[i] + slot->owed[i];

		slot->held[i] = slot->owed[i] = 0;
		if (bytes)
			channel_send_credit(c, g->number, (enum wire_channel)i,
					    bytes);
	}
	channel_flush(c);
}

size_t channel_streams(const struct channel *c)
{
	return c->n_streams;
}

/* ---- input ---- */

static struct channel_stream *channel_find(struct channel *c, uint32_t number)
{
	struct channel_stream *s, *tmp;

	list_for_each (s, tmp, &c->streams, struct channel_stream, link)
		if (s->number == number)
			return s;
	return NULL;
}

static struct channel_ghost *channel_find_ghost(struct channel *c,
						uint32_t number)
{
	struct channel_ghost *g, *tmp;

	list_for_each (g, tmp, &c->ghosts, struct channel_ghost, link)
		if (g->number == number)
			return g;
	return NULL;
}

static void channel_for_ghost(struct channel *c, struct channel_ghost *g,
			      const struct wire_frame *f)
{
	if (f->type == WIRE_DATA) {
		struct channel_slot *slot = channel_slot(c, g->number);

		slot->held[f->channel] += f->len;
		channel_owe(c, g->number, (enum wire_channel)f->channel,
			    f->len);
	} else if (f->type == WIRE_RESULT) {
		channel_slot_release(c, g->number);
		list_del(&g->link);
		free(g);
	}
}

static void channel_on_credit(struct channel_stream *s,
			      const struct wire_frame *f)
{
	uint64_t bytes;

	/* More than the window outstanding is a lie; it is not believed. */
	if (wire_find_u64(f, WIRE_K_BYTES, &bytes) < 0 ||
	    bytes > WIRE_WINDOW - s->credit[f->channel])
		return;
	s->credit[f->channel] += bytes;
	if (s->writable)
		s->writable(s);
}

static void channel_for_stream(struct channel *c, struct channel_stream *s,
			       const struct wire_frame *f)
{
	struct channel_slot *slot = channel_slot(c, s->number);

	switch ((enum wire_type)f->type) {
	case WIRE_CREDIT:
		channel_on_credit(s, f);
		return;
	case WIRE_DATA:
		if (f->len > WIRE_WINDOW - slot->held[f->channel] -
				     slot->owed[f->channel]) {
			channel_break_code(c, EPROTO,
					   "more data than it was granted");
			return;
		}
		slot->held[f->channel] += f->len;
		break;
	case WIRE_RESULT:
		channel_slot_release(c, s->number);
		list_del(&s->link);
		s->channel = NULL;
		break;
	case WIRE_STARTED:
	case WIRE_ENTRY:
	case WIRE_EOF:
		break;
	case WIRE_NONE:
	case WIRE_HELLO:
	case WIRE_IDENTITY:
	case WIRE_EXEC:
	case WIRE_RESIZE:
	case WIRE_SIGNAL:
	case WIRE_CLOSE:
	case WIRE_PUT:
	case WIRE_GET:
	case WIRE_FACTS:
	case WIRE_SETTLE:
	case WIRE_POWEROFF:
	case WIRE_TYPE_COUNT:
		return; /* not an agent's to send */
	}
	s->frame(s, f);
}

static void channel_frame(struct channel *c, const struct wire_frame *f)
{
	struct channel_stream *s;
	struct channel_ghost *g;

	if (f->channel >= WIRE_CHANNEL_COUNT)
		return;
	s = channel_find(c, f->stream);
	if (s) {
		channel_for_stream(c, s, f);
		return;
	}
	g = channel_find_ghost(c, f->stream);
	if (g)
		channel_for_ghost(c, g, f);
}

/* Before READY: what comes from an earlier connection may imitate anything but
 * our nonce. False when the channel is gone. */
static bool channel_synchronise(struct channel *c)
{
	size_t used = 0;
	int r = wire_sync(buf_data(&c->in), buf_len(&c->in), c->nonce, &used);

	buf_consume(&c->in, used);
	if (r == WIRE_MORE)
		return true;
	c->ready = true;
	c->busy++;
	if (c->events->ready)
		c->events->ready(c->arg);
	return channel_leave(c);
}

/* Every whole frame in the buffer. False when the channel is gone. */
static bool channel_frames(struct channel *c)
{
	if (!c->ready && buf_len(&c->in) && !channel_synchronise(c))
		return false;
	if (!c->ready)
		return true;
	while (buf_len(&c->in)) {
		struct wire_frame f;
		size_t used = 0;
		int r = wire_next(buf_data(&c->in), buf_len(&c->in), &f, &used,
				  NULL);

		if (r == 0) {
			c->busy++;
			channel_frame(c, &f);
			if (!channel_leave(c))
				return false;
		}
		if (c->broken)
			return false;
		buf_consume(&c->in, used);
		if (r == WIRE_MORE)
			break;
	}
	return true;
}

static void channel_readable(struct channel *c)
{
	for (int turns = 0; turns < 4; turns++) { /* then others' turn */
		uint8_t *p = buf_reserve(&c->in, WIRE_FRAME_MAX);
		ssize_t n;

		if (!p) {
			channel_break_code(c, ENOMEM, "read");
			return;
		}
		n = recv(c->fd, p, WIRE_FRAME_MAX, MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0 && c->doom.code) {
			struct err doom = c->doom;

			channel_break(c, &doom);
			return;
		}
		if (n <= 0) {
			channel_break_code(c, n < 0 ? errno : ECONNRESET,
					   "closed by the VMM");
			return;
		}
		buf_commit(&c->in, (size_t)n);
		if (!channel_frames(c))
			return;
		if ((size_t)n < WIRE_FRAME_MAX)
			return;
	}
}

/* In turn, so that one who fills the queue again does not always come first.
 * The callback may do away with any stream, hence no pointer across it. */
static void channel_unblock(struct channel *c)
{
	size_t n = c->n_streams;

	if (!c->blocked || buf_len(&c->out) > CHANNEL_QUEUE_LOW)
		return;
	c->blocked = false;
	while (n-- && !c->broken && !c->blocked && !list_empty(&c->streams)) {
		struct channel_stream *s = list_entry(
			c->streams.next, struct channel_stream, link);

		list_del(&s->link);
		list_add_tail(&c->streams, &s->link);
		if (s->writable)
			s->writable(s);
	}
}

static void channel_ready(struct loop_fd *f, uint32_t events)
{
	struct channel *c = container_of(f, struct channel, source);

	c->busy++;
	if (events & EPOLLOUT) {
		channel_flush(c);
		channel_unblock(c);
	}
	if (!c->broken && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		channel_readable(c);
	channel_leave(c);
}

/* ---- birth ---- */

static int channel_greet(struct channel *c, bool fresh)
{
	static const uint8_t zeros[WIRE_FRAME_MAX];
	uint8_t mem[128];
	struct wire_out o;
	int n, r = 0;

	if (!fresh)
		r = channel_queue(c, zeros, sizeof(zeros));
	if (r < 0)
		return r;
	io_random(c->nonce, sizeof(c->nonce));
	wire_begin(&o, mem, sizeof(mem), WIRE_HELLO, 0, 0);
	wire_put(&o, WIRE_K_NONCE, c->nonce, sizeof(c->nonce));
	wire_put_u64(&o, WIRE_K_VERSION, WIRE_VERSION);
	n = wire_end(&o);
	if (n < 0)
		return n;
	return channel_queue(c, mem, (size_t)n);
}

int channel_new(struct loop *loop, int connected_take, bool fresh,
		const struct channel_events *events, void *arg,
		struct channel **ret, struct err *e)
{
	struct channel *c = calloc(1, sizeof(*c));
	int r;

	if (!c) {
		fd_close(&connected_take);
		return err_errno(e, ENOMEM, "agent channel");
	}
	c->loop = loop;
	c->source = (struct loop_fd)LOOP_FD_NULL;
	c->fd = connected_take;
	c->events = events;
	c->arg = arg;
	list_init(&c->streams);
	list_init(&c->ghosts);
	/* One unfinished frame and one read. */
	buf_init(&c->in, 2 * WIRE_FRAME_MAX);
	buf_init(&c->out, CHANNEL_QUEUE_MAX + CHANNEL_QUEUE_RESERVE);
	r = loop_fd_add(loop, &c->source, c->fd, EPOLLIN, channel_ready);
	if (r == 0)
		r = channel_greet(c, fresh);
	if (r < 0) {
		channel_free(c);
		return err_errno(e, -r, "agent channel");
	}
	/* Sent on the loop's next turn, so that a failure is not told before
	 * this returns. */
	channel_watch(c);
	*ret = c;
	return 0;
}
