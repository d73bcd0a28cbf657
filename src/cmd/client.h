/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Client of the daemon's API (doc/api.md), blocking
 *
 * One connection per request: on a unix socket that costs 30 us, and nobody
 * has to remember in which state a connection was left.
 */
#include "base/buf.h"
#include "base/err.h"
#include "cmd/http.h"

#include <jansson.h>

/* A request or an answer read as a whole: a herd of 10000 is 8 MiB. */
#define CLIENT_BODY_MAX (64u << 20)

struct client {
	int fd;
	struct buf in; /* received, not yet consumed */
	size_t held; /* of which the last client_read() gave out */
	struct http_head head;
	struct http_body body;
	char what[160]; /* "GET /v1/mem", for sentences */
};

#define CLIENT_NULL      \
	{                \
		.fd = -1 \
	}

enum {
	CLIENT_END = 1, /* the body is over */
	CLIENT_TIMEOUT = 2,
};

/* $BYRE_RUN, or its default. */
const char *client_run(void);

/* "/v1/sandboxes/" + escaped name + "/logs", in fresh memory; NULL when out of
 * it. */
char *client_path(const char *before, const char *name, const char *behind);

/* The number for "ENOENT"; EIO for what it does not know. NULL will do. */
int client_errno(const char *name);

/* Send a request (@body may be NULL) and read the answer's head. An answer
 * that says it did not work becomes the error it carries. */
int client_open(struct client *c, const char *method, const char *path,
		const json_t *body, struct err *e) must_check;

/* The next bytes of the answer's body, at least one, good until the next call:
 * 0. CLIENT_END, CLIENT_TIMEOUT (@timeout_ms -1: never). */
int client_read(struct client *c, int timeout_ms, const uint8_t **ret,
		size_t *ret_n, struct err *e) must_check;

/* Ask for an upgrade to @protocol. The socket and what was already received
 * behind the head stay in c->fd and c->in. */
int client_upgrade(struct client *c, const char *path, const char *protocol,
		   struct err *e) must_check;

/* Hang up. Idempotent. */
void client_deinit(struct client *c);

/* A request from its start to its end; *ret (may be NULL) is NULL when the
 * answer has no body. */
int client_call(const char *method, const char *path, const json_t *body,
		json_t **ret, struct err *e) must_check;

/* The same for one sandbox: METHOD /v1/sandboxes/ID + @behind. */
int client_sandbox(const char *method, const char *id, const char *behind,
		   json_t **ret, struct err *e) must_check;
