/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GET /v1/sandboxes/ID/stream: from HTTP to frames
 *
 *	GET /v1/sandboxes/web/stream HTTP/1.1
 *	Connection: Upgrade
 *	Upgrade: byre-agent/1
 *
 * is answered with 101, and from then on the connection is relay.c's. What is
 * here is the way in (headers, is the sandbox there and running) and the way
 * out (the HTTP library closes the socket, when told).
 *
 * Invariants:
 *  1. The sandbox is remembered by its id, never by pointer: a connection may
 *     outlive it, and a name may come to mean another.
 *  2. The relay is freed in the request's end, before the library closes the
 *     socket.
 */
#include "api/handlers.h"
#include "api/relay.h"
#include "api/request.h"
#include "api/server.h"
#include "base/guard.h"
#include "base/log.h"
#include "sandbox/sandbox.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <string.h>

#define UPGRADE_PROTOCOL "byre-agent/1"

struct upgrade {
	struct request *rq;
	char id[SANDBOX_ID_MAX];
	struct relay *relay;
};

/* Is @word one of the comma-separated @list? */
static bool upgrade_listed(const char *list, const char *word)
{
	while (list && *list) {
		size_t len;

		list += strspn(list, ", \t");
		len = strcspn(list, ", \t");
		if (len == strlen(word) && strncasecmp(list, word, len) == 0)
			return true;
		list += len;
	}
	return false;
}

static struct channel *upgrade_channel(void *arg, struct err *e)
{
	struct upgrade *u = arg;
	struct sandbox *s = registry_find(u->rq->api->config.registry, u->id);

	if (s)
		return sandbox_channel(s, e);
	err_set(e, ENOENT, "sandbox %s has been removed", u->id);
	return NULL;
}

static void upgrade_closed(void *arg)
{
	struct upgrade *u = arg;

	request_hang_up(u->rq);
}

static void upgrade_begin(struct request *rq, int fd, const void *extra,
			  size_t len)
{
	static const struct relay_events events = {
		.channel = upgrade_channel,
		.closed = upgrade_closed,
	};
	struct upgrade *u = rq->op;
	struct err e = ERR_NULL;

	if (relay_new(rq->api->config.loop, fd, &events, u, &u->relay, &e) <
	    0) {
		log_warn("sandbox=%s stream=failed error=\"%s\"", u->id, e.msg);
		request_hang_up(rq);
		return;
	}
	relay_feed(u->relay, extra, len);
}

static void upgrade_end(struct request *rq)
{
	struct upgrade *u = rq->op;

	relay_free(u->relay);
	free(u);
}

/* What a stream is for is known to the client alone (run a command, copy a
 * file), and it puts that before what is said here. */
static int upgrade_check(struct request *rq, struct sandbox **ret,
			 struct err *e)
{
	struct sandbox *s = registry_find(rq->api->config.registry, rq->param);

	if (!s)
		return err_set(e, ENOENT, "no such sandbox");
	if (!sandbox_channel(s, e))
		return -e->code;
	*ret = s;
	return 0;
}

void handle_stream(struct request *rq)
{
	struct err e = ERR_NULL;
	struct sandbox *s = NULL;
	struct upgrade *u;

	if (!upgrade_listed(request_header(rq, MHD_HTTP_HEADER_CONNECTION),
			    "upgrade") ||
	    !upgrade_listed(request_header(rq, MHD_HTTP_HEADER_UPGRADE),
			    UPGRADE_PROTOCOL)) {
		err_set(&e, EPROTO,
			"stream to sandbox %s: ask to upgrade to %s", rq->param,
			UPGRADE_PROTOCOL);
		request_answer_problem(rq, MHD_HTTP_UPGRADE_REQUIRED, &e,
				       MHD_HTTP_HEADER_UPGRADE,
				       UPGRADE_PROTOCOL);
		return;
	}
	if (upgrade_check(rq, &s, &e) < 0) {
		request_answer_error(rq, &e);
		return;
	}
	u = calloc(1, sizeof(*u));
	if (!u) {
		err_errno(&e, ENOMEM, "stream to sandbox %s", rq->param);
		request_answer_error(rq, &e);
		return;
	}
	u->rq = rq;
	snprintf(u->id, sizeof(u->id), "%s", sandbox_info(s).id);
	request_answer_upgrade(rq, UPGRADE_PROTOCOL, upgrade_begin, u,
			       upgrade_end);
}
