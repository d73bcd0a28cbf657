/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Wire frames between one client and the agents' channels
 *
 * A client on a byte stream (an upgraded HTTP connection) opens streams under
 * numbers of its own; the relay opens them on a channel, renumbers what passes
 * in both directions, and refuses what is not a client's to send.
 */
#include "base/err.h"
#include "base/loop.h"

struct channel;
struct relay;

struct relay_events {
	/* The channel to open a stream on; NULL and why not in @e. Asked each
	 * time: a channel may go and come back between streams. */
	struct channel *(*channel)(void *arg, struct err *e);
	/* The client has gone, or broke the protocol: every stream is
	 * abandoned, the fd is no longer watched, only relay_free() is left,
	 * later: not from inside. */
	void (*closed)(void *arg);
};

/* @fd: connected, borrowed, open as long as the relay. */
int relay_new(struct loop *loop, int fd, const struct relay_events *events,
	      void *arg, struct relay **ret, struct err *e) must_check;
struct relay *relay_free(struct relay *r);

/* Bytes that were read from the client before the relay had it. */
void relay_feed(struct relay *r, const void *p, size_t len);
