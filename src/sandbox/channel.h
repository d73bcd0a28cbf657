/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The agent channel of one sandbox, host side
 *
 * Connects to the VMM's agent socket, greets the agent, and multiplexes
 * streams (agent/wire.h). It never holds more than one window of data per
 * stream and direction: a stream's owner takes DATA when it comes, and gives
 * credit when the bytes have left its own hands; nothing is queued here for a
 * slow owner. Frames to the guest are queued up to the window the agent
 * granted, control frames up to CHANNEL_QUEUE_MAX; more is -ENOBUFS.
 */
#include "agent/wire.h"
#include "base/err.h"
#include "base/list.h"

#include <stdbool.h>
#include <stdint.h>

struct loop;
struct channel;
struct channel_stream;

/* Bytes waiting to be written to one guest: a full window for each of a few
 * busy streams, and always room for control frames. */
#define CHANNEL_QUEUE_MAX (4u << 20)

struct channel_events {
	/* The agent has answered HELLO. May be NULL. */
	void (*ready)(void *arg);
	/* The last open stream was closed. May be NULL. */
	void (*idle)(void *arg);
	/* The channel broke (closed, protocol error): every stream has been
	 * told; only channel_free() is left. */
	void (*broken)(void *arg, const struct err *e);
};

/* Embedded in its owner. */
struct channel_stream {
	struct channel *channel; /* NULL while not open */
	uint32_t number;
	uint64_t credit[WIRE_CHANNEL_COUNT]; /* DATA bytes we may send */
	struct list link;
	/* Any frame of this stream but CREDIT. RESULT is the last: the stream
	 * is closed when it is delivered. */
	void (*frame)(struct channel_stream *s, const struct wire_frame *f);
	/* The agent granted more credit. May be NULL. */
	void (*writable)(struct channel_stream *s);
	/* The channel is gone; the stream is closed. */
	void (*broken)(struct channel_stream *s, const struct err *e);
};

/* @connected: a socket connected to the agent port, taken. @fresh: the agent
 * is at a frame boundary (just booted or restored), so no padding is sent. */
int channel_new(struct loop *loop, int connected_take, bool fresh,
		const struct channel_events *events, void *arg,
		struct channel **ret, struct err *e) must_check;
struct channel *channel_free(struct channel *c);

/* Send an opening frame (EXEC, IDENTITY, PUT, GET, FACTS, SETTLE, POWEROFF),
 * made by the caller with wire_begin(); its stream number is patched in here.
 * May be called before `ready`: the agent answers in order. -EMFILE when
 * WIRE_STREAMS_MAX are open. */
int channel_open(struct channel *c, struct channel_stream *s, uint8_t *frame,
		 size_t len) must_check;

/* Send another frame on an open stream; the number is patched in. DATA is
 * charged against s->credit: -EAGAIN when it does not fit. */
int channel_send(struct channel_stream *s, uint8_t *frame,
		 size_t len) must_check;

/* @bytes of @ch have left the owner's hands. */
void channel_credit(struct channel_stream *s, enum wire_channel ch,
		    uint64_t bytes);

/* The owner goes away: the agent is told to CLOSE, what still comes is thrown
 * away. Idempotent. */
void channel_abandon(struct channel_stream *s);

size_t channel_streams(const struct channel *c);
