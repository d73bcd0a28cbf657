/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The agent stream, client side
 *
 * An upgraded connection to the daemon that carries the frames of
 * agent/wire.h. One stream is open at a time; the next may be opened on the
 * same connection once the last has had its RESULT.
 */
#include "agent/wire.h"
#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define STREAM_PROTOCOL "byre-agent/1"

struct stream {
	int fd; /* non-blocking */
	uint32_t number; /* of the open stream */
	bool open; /* RESULT has not come */
	bool probing; /* the answer to a probe has not come */
	bool answered; /* it has */
	uint64_t credit[WIRE_CHANNEL_COUNT]; /* DATA bytes we may send */
	uint64_t owed[WIRE_CHANNEL_COUNT]; /* credit not yet given back */
	uint64_t held[WIRE_CHANNEL_COUNT]; /* of its window the peer has used */
	int broken; /* positive errno: the connection is over */
	size_t used; /* of in: the frame last handed out */
	struct buf in;
	struct buf out;
	struct wire_out frame; /* under construction in mem */
	uint8_t *mem;
	char id[64]; /* the sandbox, for sentences */
};

#define STREAM_NULL      \
	{                \
		.fd = -1 \
	}

enum {
	STREAM_MORE = 1, /* no whole frame has come yet */
};

/* How a stream ended. */
struct stream_result {
	bool has_code;
	int code;
	int signal; /* 0: none */
	bool timed_out;
	int error; /* positive errno, 0: none */
	char message[ERR_MSG_MAX];
};

/* Connect to the agent of a sandbox. */
int stream_connect(struct stream *s, const char *id, struct err *e) must_check;
/* Hang up; what runs in an open stream is killed. Idempotent. */
void stream_deinit(struct stream *s);

/* ---- sending: begin, fill with wire_put_*, send ---- */

/* A frame that opens a stream: EXEC, PUT, GET. */
struct wire_out *stream_begin_open(struct stream *s, uint8_t type);
/* Any other. */
struct wire_out *stream_begin(struct stream *s, uint8_t type);
/* Queue it. -EMSGSIZE: what was put in does not fit one frame. */
int stream_send(struct stream *s, struct err *e) must_check;

/* Queue bytes, which must fit s->credit[@ch]. */
int stream_data(struct stream *s, uint8_t ch, const void *p, size_t len,
		struct err *e) must_check;
int stream_eof(struct stream *s, uint8_t ch, struct err *e) must_check;
int stream_signal(struct stream *s, int sig, struct err *e) must_check;
/* Ask whether the guest is there at all, beside the open stream. */
int stream_probe(struct stream *s, struct err *e) must_check;
/* Has it answered since? */
bool stream_answered(const struct stream *s);
/* @bytes of @ch have left our hands. */
int stream_credit(struct stream *s, uint8_t ch, size_t bytes,
		  struct err *e) must_check;

/* ---- the socket, when somebody else polls ---- */

/* POLLIN, and POLLOUT while something waits to be sent. */
short stream_events(const struct stream *s);
/* Send and receive what can be done without waiting. */
int stream_pump(struct stream *s, struct err *e) must_check;
/* The next frame of the open stream (never CREDIT): 0, STREAM_MORE. It is good
 * until the next call. RESULT closes the stream. */
int stream_next(struct stream *s, struct wire_frame *ret,
		struct err *e) must_check;

/* ---- the same, waiting ---- */

/* Wait for the next frame. */
int stream_wait(struct stream *s, struct wire_frame *ret,
		struct err *e) must_check;
/* Wait until at most @bytes are queued; frames may have come by then. */
int stream_drain(struct stream *s, size_t bytes, struct err *e) must_check;
/* Wait for whatever comes first: bytes to read, or room to send. */
int stream_poll(struct stream *s, struct err *e) must_check;

/* Take a RESULT apart. */
int stream_result(const struct stream *s, const struct wire_frame *f,
		  struct stream_result *ret, struct err *e) must_check;

/* Run a command to its end and throw away what it says. */
int stream_command(struct stream *s, const char *const *argv,
		   struct stream_result *ret, struct err *e) must_check;
