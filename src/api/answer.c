/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answers a request can get
 *
 *	JSON        status and document, known at once
 *	problem     the same, from a struct err (problem.c)
 *	nothing     204
 *	stream      pieces as they come, chunked; the connection closes behind
 *	upgrade     101, then the connection is somebody else's
 *
 * Each of them only makes the HTTP library's response object and stores it in
 * the request; request.c hands it over when the library asks, which is on the
 * way out of the handler or after the suspended connection was resumed.
 *
 * Invariants:
 *  1. A request is answered once. An answer for a client that has hung up is
 *     dropped here, so handlers need not know.
 *  2. Running out of memory while answering closes the connection: a client
 *     sees no answer rather than a wrong one.
 *  3. A streamed answer is its connection's last: MHD's idle timeout must be
 *     off while it waits for its source, and would stay off afterwards.
 */
#include "api/request.h"

#include "api/problem.h"
#include "api/server.h"
#include "base/guard.h"
#include "base/log.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <string.h>

/* Bytes a streamed answer asks its source for at once. */
#define ANSWER_PIECE 32768

/* Reals are milliseconds with three decimals: 12 digits print them as they are
 * up to eleven days, where 17 would print 83.123 as 83.123000000000005. */
#define ANSWER_REAL_DIGITS 12

static void answer_put(struct request *rq, unsigned status,
		       struct MHD_Response *response)
{
	if (rq->state == REQUEST_GONE) {
		if (response)
			MHD_destroy_response(response);
		return;
	}
	must(rq->state == REQUEST_HANDLER || rq->state == REQUEST_WAITING);
	must(!rq->response);
	rq->status = status;
	rq->response = response; /* NULL: request_step() closes */
	rq->state = REQUEST_ANSWERED;
	request_more(rq);
}

static bool answer_header(struct MHD_Response *response, const char *name,
			  const char *value)
{
	return MHD_add_response_header(response, name, value) == MHD_YES;
}

char *request_json_text(const json_t *j)
{
	return json_dumps(j, JSON_COMPACT |
				     JSON_REAL_PRECISION(ANSWER_REAL_DIGITS));
}

static struct MHD_Response *answer_json(json_t *body, const char *type)
{
	guard_free char *text = request_json_text(body);
	struct MHD_Response *response;

	if (!text)
		return NULL;
	response = MHD_create_response_from_buffer(strlen(text), text,
						   MHD_RESPMEM_MUST_FREE);
	if (!response)
		return NULL;
	text = NULL; /* the response's now */
	if (!answer_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type)) {
		MHD_destroy_response(response);
		return NULL;
	}
	return response;
}

void request_answer(struct request *rq, unsigned status, json_t *body)
{
	answer_put(rq, status,
		   body ? answer_json(body, "application/json") : NULL);
	json_decref(body);
}

void request_answer_empty(struct request *rq)
{
	answer_put(rq, MHD_HTTP_NO_CONTENT,
		   MHD_create_response_from_buffer(0, NULL,
						   MHD_RESPMEM_PERSISTENT));
}

void request_answer_problem(struct request *rq, unsigned status,
			    const struct err *e, const char *header,
			    const char *value)
{
	json_t *body = problem_json(status, e->code, e->msg);
	struct MHD_Response *response = body ? answer_json(body, PROBLEM_TYPE)
					     : NULL;

	json_decref(body);
	if (response && header && !answer_header(response, header, value)) {
		MHD_destroy_response(response);
		response = NULL;
	}
	if (status >= MHD_HTTP_INTERNAL_SERVER_ERROR)
		log_warn("request=%s status=%u error=\"%s\"", rq->method,
			 status, e->msg);
	answer_put(rq, status, response);
}

void request_answer_error(struct request *rq, const struct err *e)
{
	must(e->code > 0);
	request_answer_problem(rq, problem_status(e->code), e, NULL, NULL);
}

static ssize_t answer_read(void *arg, uint64_t pos, char *p, size_t size)
{
	struct request *rq = arg;
	ssize_t n;

	(void)pos;
	if (rq->state == REQUEST_GONE)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	n = rq->read(rq, p, size);
	if (n < 0)
		return MHD_CONTENT_READER_END_OF_STREAM;
	if (n == 0)
		request_park(rq);
	return n;
}

void request_answer_stream(struct request *rq, const char *type,
			   request_read_fn read, void *op,
			   void (*end)(struct request *))
{
	struct MHD_Response *response = MHD_create_response_from_callback(
		MHD_SIZE_UNKNOWN, ANSWER_PIECE, answer_read, rq, NULL);

	rq->read = read;
	rq->op = op;
	rq->end = end;
	if (response &&
	    (!answer_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type) ||
	     !answer_header(response, MHD_HTTP_HEADER_CONNECTION, "close") ||
	     MHD_set_connection_option(rq->connection,
				       MHD_CONNECTION_OPTION_TIMEOUT,
				       0u) != MHD_YES)) {
		MHD_destroy_response(response);
		response = NULL;
	}
	answer_put(rq, MHD_HTTP_OK, response);
}

static void answer_upgraded(void *arg, struct MHD_Connection *connection,
			    void *request, const char *extra, size_t len,
			    MHD_socket fd,
			    struct MHD_UpgradeResponseHandle *upgrade)
{
	struct request *rq = arg;

	(void)connection;
	(void)request;
	rq->upgrade = upgrade;
	rq->upgraded(rq, fd, extra, len);
}

void request_answer_upgrade(struct request *rq, const char *protocol,
			    request_upgraded_fn upgraded, void *op,
			    void (*end)(struct request *))
{
	struct MHD_Response *response =
		MHD_create_response_for_upgrade(answer_upgraded, rq);

	rq->upgraded = upgraded;
	rq->op = op;
	rq->end = end;
	if (response &&
	    !answer_header(response, MHD_HTTP_HEADER_UPGRADE, protocol)) {
		MHD_destroy_response(response);
		response = NULL;
	}
	answer_put(rq, MHD_HTTP_SWITCHING_PROTOCOLS, response);
}

void request_hang_up(struct request *rq)
{
	struct MHD_UpgradeResponseHandle *upgrade = take(rq->upgrade);

	if (!upgrade)
		return;
	must(MHD_upgrade_action(upgrade, MHD_UPGRADE_ACTION_CLOSE) == MHD_YES);
	api_wake(rq->api);
}
