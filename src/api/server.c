/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The API server: libmicrohttpd in our loop
 *
 * The library parses HTTP and owns the connections. It has an epoll of its own
 * with every connection in it; that epoll's fd is one source of our loop, so
 * there is no second thread and no second place that waits:
 *
 *	loop --fd ready, or timer due--> MHD_run --> request_step --> route.c
 *	  ^                                   |
 *	  | api_wake: timer due now           v
 *	registry, bake, worker callback <-- handlers
 *
 * With external polling the library has no way to say that a connection was
 * resumed (its flag for that is ignored then), so whoever resumes one calls
 * api_wake(), which runs the library at the end of the loop's turn.
 *
 * Invariants:
 *  1. MHD_run is called from server_run() alone, never from inside a callback
 *     of the library.
 *  2. After every MHD_run the timer is set to what the library asks for, so
 *     its timeouts and half-done work are never forgotten.
 *  3. Every struct request was made by server_uri() and is freed by
 *     server_completed(); the library promises the second for each first.
 *  4. The library is stopped only when no request is parked: it would abort
 *     the process otherwise.
 *
 * It knows nothing of routes or JSON.
 */
#include "api/server.h"

#include "api/follow.h"
#include "api/mem.h"
#include "api/request.h"
#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/log.h"

#include <errno.h>
#include <microhttpd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* A herd of 256 sandboxes with a few commands each, and as many again that
 * come and go; each costs two fds and, while it streams, some 80 KB. */
#define SERVER_CONNECTIONS_MAX 1024u
/* Idle keep-alive, and a client that stops in mid-request. */
#define SERVER_IDLE_S 30u
/* Request line and headers, and the pieces of a body. Targets are shorter than
 * 200 bytes; the rest is room for the library's buffers. */
#define SERVER_MEMORY_BYTES ((size_t)32768)
/* MHD_run calls in one turn while it has work left: a short request is done
 * in three; a client that keeps it busy yields to the rest of the loop. */
#define SERVER_RUNS_MAX 8

static void *server_uri(void *arg, const char *uri,
			struct MHD_Connection *connection)
{
	return request_new(arg, connection, uri ? uri : "");
}

static enum MHD_Result server_handle(void *arg,
				     struct MHD_Connection *connection,
				     const char *url, const char *method,
				     const char *version, const char *data,
				     size_t *len, void **request)
{
	struct request *rq = *request;
	size_t n = *len;

	(void)arg;
	(void)connection;
	(void)url;
	(void)version;
	if (!rq) /* out of memory in server_uri() */
		return MHD_NO;
	*len = 0;
	return request_step(rq, method, data, n) ? MHD_YES : MHD_NO;
}

static void server_completed(void *arg, struct MHD_Connection *connection,
			     void **request,
			     enum MHD_RequestTerminationCode code)
{
	(void)arg;
	(void)connection;
	(void)code;
	*request = request_free(*request);
}

__attribute__((format(printf, 2, 0))) static void
server_library_log(void *arg, const char *fmt, va_list ap)
{
	char line[256];

	(void)arg;
	vsnprintf(line, sizeof(line), fmt, ap);
	line[strcspn(line, "\n")] = '\0';
	log_debug("http=\"%s\"", line);
}

static void server_on_timer(struct loop_timer *t);

static void server_arm(struct api *a, uint64_t wait_ns)
{
	if (loop_timer_set(a->config.loop, &a->timer,
			   a->config.loop->now_ns + wait_ns,
			   server_on_timer) < 0)
		log_error("api=timer error=\"out of memory\"");
}

void api_wake(struct api *a)
{
	a->woken = true;
	if (!a->running)
		server_arm(a, 0);
}

static void server_run(struct api *a)
{
	MHD_UNSIGNED_LONG_LONG wait_ms = 0;
	int runs = 0;
	bool waits;

	a->running = true;
	do {
		a->woken = false;
		MHD_run(a->mhd);
		waits = MHD_get_timeout(a->mhd, &wait_ms) == MHD_YES;
	} while ((a->woken || (waits && wait_ms == 0)) &&
		 ++runs < SERVER_RUNS_MAX);
	a->running = false;
	loop_timer_del(&a->timer);
	if (a->woken)
		server_arm(a, 0);
	else if (waits)
		server_arm(a, wait_ms * NS_PER_MS);
}

static void server_on_timer(struct loop_timer *t)
{
	server_run(container_of(t, struct api, timer));
}

static void server_on_fd(struct loop_fd *f, uint32_t events)
{
	(void)events;
	server_run(container_of(f, struct api, fd));
}

static int server_start(struct api *a, int listen_fd_take, struct err *e)
{
	/* The logger comes first: it is for what the others have to say. */
	a->mhd = MHD_start_daemon(
		MHD_USE_EPOLL | MHD_ALLOW_UPGRADE | MHD_ALLOW_SUSPEND_RESUME |
			MHD_USE_ERROR_LOG,
		0, NULL, NULL, server_handle, a, MHD_OPTION_EXTERNAL_LOGGER,
		server_library_log, a, MHD_OPTION_LISTEN_SOCKET, listen_fd_take,
		MHD_OPTION_URI_LOG_CALLBACK, server_uri, a,
		MHD_OPTION_NOTIFY_COMPLETED, server_completed, a,
		MHD_OPTION_CONNECTION_LIMIT, SERVER_CONNECTIONS_MAX,
		MHD_OPTION_CONNECTION_TIMEOUT, SERVER_IDLE_S,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, SERVER_MEMORY_BYTES,
		MHD_OPTION_STRICT_FOR_CLIENT, 1,
		MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
	if (!a->mhd) {
		fd_close(&listen_fd_take);
		return err_set(e, EIO, "start the HTTP server on %s",
			       a->socket_path);
	}
	return 0;
}

static int server_watch(struct api *a, struct err *e)
{
	const union MHD_DaemonInfo *info =
		MHD_get_daemon_info(a->mhd, MHD_DAEMON_INFO_EPOLL_FD);
	int r = loop_fd_add(a->config.loop, &a->fd, info->epoll_fd, EPOLLIN,
			    server_on_fd);

	if (r < 0)
		return err_errno(e, -r, "watch %s", a->socket_path);
	/* Puts the listening socket into the library's epoll. */
	server_run(a);
	return 0;
}

static void api_freep(struct api **a)
{
	api_free(*a);
}

int api_new(const struct api_config *config, struct api **ret, struct err *e)
{
	guard(api_freep) struct api *a = calloc(1, sizeof(*a));
	guard_fd int fd = -1;
	int r;

	if (!a)
		return err_errno(e, ENOMEM, "start the API");
	a->config = *config;
	a->fd = (struct loop_fd)LOOP_FD_NULL;
	a->timer = (struct loop_timer)LOOP_TIMER_NULL;
	list_init(&a->requests);
	/* The library writes with writev and sendfile, which have no
	 * MSG_NOSIGNAL; a client that hangs up must not end the daemon. */
	signal(SIGPIPE, SIG_IGN);
	a->socket_path = io_path("%s/api.sock", config->run);
	if (!a->socket_path)
		return err_errno(e, ENOMEM, "start the API");
	r = mem_new(a, &a->mem, e);
	if (r == 0)
		r = follow_new(config->loop, &a->follow, e);
	if (r == 0)
		r = io_listen_unix(a->socket_path, 0600, &fd, e);
	if (r == 0)
		r = server_start(a, fd_take(&fd), e);
	if (r == 0)
		r = server_watch(a, e);
	if (r < 0)
		return r;
	*ret = take(a);
	return 0;
}

static void server_stop(struct api *a)
{
	struct request *rq, *tmp;

	list_for_each (rq, tmp, &a->requests, struct request, link)
		request_abort(rq);
	MHD_stop_daemon(a->mhd); /* closes the listening socket too */
	must(list_empty(&a->requests));
	unlink(a->socket_path);
}

struct api *api_free(struct api *a)
{
	if (!a)
		return NULL;
	loop_fd_del(&a->fd);
	if (a->mhd)
		server_stop(a);
	loop_timer_del(&a->timer); /* the last requests may have armed it */
	follow_free(a->follow);
	mem_free(a->mem);
	free(a->socket_path);
	free(a);
	return NULL;
}
