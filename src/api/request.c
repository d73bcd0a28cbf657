/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One HTTP request: from its first line to its last byte of answer
 *
 *	HEAD --> BODY --> HANDLER ---------> ANSWERED --> (nothing)
 *	  |                 |                   ^             ^
 *	  |                 v                   |             |
 *	  |              WAITING ---------------+             |
 *	  |                 |                   |             |
 *	  |                 +-------> GONE <----+             |
 *	  |                             |                     |
 *	  +-----------------------------+---------------------+
 *
 * HEAD -> BODY [request_head], BODY -> HANDLER [request_step, at the end of
 * the body], HANDLER -> WAITING [request_wait], HANDLER, WAITING -> ANSWERED
 * [answer_put], WAITING, ANSWERED -> GONE [the client hung up while parked, or
 * the daemon ends], any -> (nothing) [request_free: the HTTP library says that
 * the request is over].
 *
 * Parking. While a request waits for the registry, or a streamed answer for
 * its source, the connection is suspended: the library drops it from its
 * epoll, and would not see the client hang up. So the fd is watched in our own
 * loop for the duration, for HUP alone (a client that only closed its writing
 * side still wants its answer).
 *
 * Invariants:
 *  1. A request is in the library's hands (it will call) or parked (it will
 *     not, until request_more); never both.
 *  2. end() is called once, from request_free(), and nowhere else: a hang-up
 *     does not cancel anything by itself, it resumes the connection, which
 *     the library then closes.
 *  3. At most REQUEST_BODY_MAX bytes of body are kept, whatever is sent.
 *  4. When request_free() runs the fd is still open: the watch can go.
 */
#include "api/request.h"

#include "api/route.h"
#include "api/server.h"
#include "base/guard.h"
#include "base/log.h"
#include "base/parse.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <string.h>

/* A body that is too long and has no Content-Length can only be read to its
 * end before the refusal; beyond this the connection is cut instead. */
#define REQUEST_DRAIN_MAX (16ull * REQUEST_BODY_MAX)

struct request *request_new(struct api *api, struct MHD_Connection *connection,
			    const char *uri)
{
	struct request *rq = calloc(1, sizeof(*rq));

	if (!rq)
		return NULL;
	rq->api = api;
	rq->connection = connection;
	rq->state = REQUEST_HEAD;
	rq->hangup = (struct loop_fd)LOOP_FD_NULL;
	buf_init(&rq->body, REQUEST_BODY_MAX + 1);
	if (target_parse(uri, &rq->target, &rq->target_err) < 0)
		rq->target = (struct target)TARGET_NULL;
	list_add_tail(&api->requests, &rq->link);
	return rq;
}

struct request *request_free(struct request *rq)
{
	if (!rq)
		return NULL;
	if (rq->end)
		rq->end(rq);
	loop_fd_del(&rq->hangup);
	if (rq->response)
		MHD_destroy_response(rq->response);
	list_del(&rq->link);
	buf_deinit(&rq->body);
	target_deinit(&rq->target);
	free(rq);
	return NULL;
}

const char *request_text(struct request *rq, size_t *ret_len)
{
	const char *text = buf_text(&rq->body);

	/* Out of memory looks like no body, which no handler accepts. */
	*ret_len = text ? buf_len(&rq->body) : 0;
	return text ? text : "";
}

const char *request_header(const struct request *rq, const char *name)
{
	return MHD_lookup_connection_value(rq->connection, MHD_HEADER_KIND,
					   name);
}

static void request_on_hangup(struct loop_fd *f, uint32_t events)
{
	struct request *rq = container_of(f, struct request, hangup);

	(void)events;
	rq->state = REQUEST_GONE;
	request_more(rq);
}

void request_park(struct request *rq)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(
		rq->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	int r;

	must(!rq->parked);
	rq->parked = true;
	MHD_suspend_connection(rq->connection);
	r = loop_fd_add(rq->api->config.loop, &rq->hangup, info->connect_fd, 0,
			request_on_hangup);
	if (r < 0) /* then a hang-up shows when the answer is written */
		log_warn("request=%s watch=hangup error=\"%s\"", rq->method,
			 strerror(-r));
}

void request_more(struct request *rq)
{
	if (!rq->parked)
		return;
	rq->parked = false;
	loop_fd_del(&rq->hangup);
	MHD_resume_connection(rq->connection);
	api_wake(rq->api);
}

void request_wait(struct request *rq, void *op, void (*end)(struct request *))
{
	must(rq->state == REQUEST_HANDLER);
	rq->state = REQUEST_WAITING;
	rq->op = op;
	rq->end = end;
}

void request_abort(struct request *rq)
{
	request_hang_up(rq);
	rq->state = REQUEST_GONE;
	request_more(rq);
}

static bool request_queue(struct request *rq)
{
	struct MHD_Response *response = take(rq->response);
	enum MHD_Result r;

	if (!response)
		return false;
	r = MHD_queue_response(rq->connection, rq->status, response);
	MHD_destroy_response(response);
	return r == MHD_YES;
}

static bool request_too_large(struct request *rq)
{
	struct err e = ERR_NULL;

	err_set(&e, E2BIG, "the body is larger than %u bytes",
		REQUEST_BODY_MAX);
	rq->state = REQUEST_HANDLER;
	request_answer_error(rq, &e);
	return request_queue(rq);
}

/* A body that says beforehand that it is too large is refused unread. */
static bool request_head(struct request *rq, const char *method)
{
	const char *length = request_header(rq, MHD_HTTP_HEADER_CONTENT_LENGTH);
	uint64_t bytes;

	snprintf(rq->method, sizeof(rq->method), "%s", method);
	rq->state = REQUEST_BODY;
	if (length && parse_u64(length, &bytes) == 0 &&
	    bytes > REQUEST_BODY_MAX)
		return request_too_large(rq);
	return true;
}

static bool request_body(struct request *rq, const char *data, size_t len)
{
	rq->body_bytes += len;
	if (rq->body_bytes > REQUEST_DRAIN_MAX)
		return false;
	if (rq->body_bytes > REQUEST_BODY_MAX)
		buf_consume(&rq->body, buf_len(&rq->body));
	else if (buf_add(&rq->body, data, len) < 0)
		return false;
	return true;
}

static bool request_handle(struct request *rq)
{
	if (rq->body_bytes > REQUEST_BODY_MAX)
		return request_too_large(rq);
	rq->state = REQUEST_HANDLER;
	route_call(rq);
	must(rq->state == REQUEST_WAITING || rq->state == REQUEST_ANSWERED);
	if (rq->state == REQUEST_ANSWERED)
		return request_queue(rq);
	request_park(rq);
	return true;
}

bool request_step(struct request *rq, const char *method, const char *data,
		  size_t len)
{
	switch (rq->state) {
	case REQUEST_HEAD:
		return request_head(rq, method);
	case REQUEST_BODY:
		return len ? request_body(rq, data, len) : request_handle(rq);
	case REQUEST_ANSWERED:
		return request_queue(rq);
	case REQUEST_GONE:
		return false;
	case REQUEST_HANDLER:
	case REQUEST_WAITING:
	case REQUEST_STATE_COUNT:
		break;
	}
	must(!"a state in which the library calls");
	return false;
}
