/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * One HTTP request: from its first line to its last byte of answer
 *
 * A handler is called once, on the loop, with the whole request. It answers at
 * once, or says that it waits and answers later, exactly once.
 */
#include "api/target.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/list.h"
#include "base/loop.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct api;
struct MHD_Connection;
struct MHD_Response;
struct MHD_UpgradeResponseHandle;
struct request;

/* The largest sensible body is a bake with 32 warm commands. */
#define REQUEST_BODY_MAX (1u << 20)

enum request_state {
	REQUEST_HEAD,
	REQUEST_BODY,
	REQUEST_HANDLER,
	REQUEST_WAITING,
	REQUEST_ANSWERED,
	REQUEST_GONE,
	REQUEST_STATE_COUNT,
};

/* Fill at most @size bytes: how many, 0 for none now (request_more() follows),
 * -1 at the end. */
typedef ssize_t (*request_read_fn)(struct request *rq, char *p, size_t size);

/* The connection is the caller's, to read and write until
 * request_hang_up(); @extra is what the client sent ahead. */
typedef void (*request_upgraded_fn)(struct request *rq, int fd,
				    const void *extra, size_t len);

struct request {
	struct api *api;
	struct list link; /* in api->requests */
	struct MHD_Connection *connection;
	enum request_state state;
	bool parked; /* suspended in the HTTP library */
	struct loop_fd hangup; /* watched while parked */
	char method[16];
	struct target target;
	struct err target_err; /* code 0: the target could be read */
	struct buf body;
	uint64_t body_bytes; /* sent, also those not kept */
	const char *param; /* what the route's star stands for */

	/* the answer, until it is handed to the HTTP library */
	unsigned status;
	struct MHD_Response *response;
	/* its source, when it is made piece by piece */
	request_read_fn read;
	request_upgraded_fn upgraded;
	struct MHD_UpgradeResponseHandle *upgrade;

	/* the handler's own */
	void *op;
	void (*end)(struct request *rq);
};

/* ---- for handlers ---- */

/*
 * Promise an answer for later. @end (may be NULL) is called once when the
 * request is over, answered or not: the client may hang up at any time, and
 * nothing may answer afterwards.
 */
void request_wait(struct request *rq, void *op, void (*end)(struct request *));

/* Takes @body; NULL (out of memory) becomes a problem. */
void request_answer(struct request *rq, unsigned status, json_t *body);
/* 204 */
void request_answer_empty(struct request *rq);
void request_answer_error(struct request *rq, const struct err *e);
/* With a status of its own; @header (may be NULL) goes with it. */
void request_answer_problem(struct request *rq, unsigned status,
			    const struct err *e, const char *header,
			    const char *value);
/* 200, then what @read gives until it ends; @op and @end as above. */
void request_answer_stream(struct request *rq, const char *type,
			   request_read_fn read, void *op,
			   void (*end)(struct request *));
/* After @read gave 0: it has more, or has ended. */
void request_more(struct request *rq);
/* 101, then the raw connection. */
void request_answer_upgrade(struct request *rq, const char *protocol,
			    request_upgraded_fn upgraded, void *op,
			    void (*end)(struct request *));
void request_hang_up(struct request *rq);

/* Fresh text of a JSON value, as all our answers print it. */
char *request_json_text(const json_t *j);

/* The body as terminated text, as long as the request lives. */
const char *request_text(struct request *rq, size_t *ret_len);

/* A request header's value; NULL when it was not sent. */
const char *request_header(const struct request *rq, const char *name);

/* ---- for answer.c and server.c ---- */

/* Suspend the connection until request_more(). */
void request_park(struct request *rq);

/* NULL when out of memory. */
struct request *request_new(struct api *api, struct MHD_Connection *connection,
			    const char *uri);
/* Over, in whatever way. */
struct request *request_free(struct request *rq);
/* The HTTP library calls: with the head, with every piece of the body, at its
 * end, and after each request_answer that was waited for. false: close the
 * connection. */
bool request_step(struct request *rq, const char *method, const char *data,
		  size_t len);
/* The daemon ends. */
void request_abort(struct request *rq);
