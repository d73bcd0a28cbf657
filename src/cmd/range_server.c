/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory over HTTP, for benches
 *
 * libmicrohttpd with threads of its own, connections kept alive, one range per
 * request: what any object store does, and no more. Not for anything that is
 * not a bench: it knows no limits.
 */
#include "cmd/range_server.h"

#include "base/guard.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <netinet/in.h>
#include <unistd.h>

/* Connections served at a time, each with a thread. */
#define RANGE_CONNECTIONS 64

struct range_server {
	struct MHD_Daemon *daemon;
	char *dir;
};

static enum MHD_Result range_status(struct MHD_Connection *c, unsigned status)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(
		0, NULL, MHD_RESPMEM_PERSISTENT);
	enum MHD_Result done = MHD_queue_response(c, status, r);

	MHD_destroy_response(r);
	return done;
}

/* "bytes=A-B" or "bytes=A-", inside @bytes; false: no such range. */
static bool range_parse(const char *text, uint64_t bytes, uint64_t *ret_from,
			uint64_t *ret_len)
{
	uint64_t from, to = bytes - 1;
	int n = sscanf(text, "bytes=%" SCNu64 "-%" SCNu64, &from, &to);

	if (n < 1 || from >= bytes || to < from)
		return false;
	*ret_from = from;
	*ret_len = min(to, bytes - 1) - from + 1;
	return true;
}

static enum MHD_Result range_answer(struct MHD_Connection *c, int fd,
				    uint64_t bytes)
{
	const char *range =
		MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Range");
	uint64_t from = 0, len = bytes;
	struct MHD_Response *r;
	enum MHD_Result done;
	char text[96];

	if (range && !range_parse(range, bytes, &from, &len)) {
		close(fd);
		return range_status(c, MHD_HTTP_RANGE_NOT_SATISFIABLE);
	}
	r = MHD_create_response_from_fd_at_offset64(len, fd, from);
	if (!r) {
		close(fd);
		return MHD_NO;
	}
	if (range) {
		snprintf(text, sizeof(text),
			 "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64, from,
			 from + len - 1, bytes);
		MHD_add_response_header(r, "Content-Range", text);
	}
	MHD_add_response_header(r, "Accept-Ranges", "bytes");
	done = MHD_queue_response(
		c, range ? MHD_HTTP_PARTIAL_CONTENT : MHD_HTTP_OK, r);
	MHD_destroy_response(r);
	return done;
}

static enum MHD_Result range_request(void *arg, struct MHD_Connection *c,
				     const char *url, const char *method,
				     unused const char *version,
				     unused const char *upload,
				     unused size_t *upload_size, void **state)
{
	struct range_server *s = arg;
	guard_free char *path = NULL;
	struct stat st;
	int fd;

	if (!*state) { /* the head alone; the answer comes with the next call */
		*state = s;
		return MHD_YES;
	}
	if ((strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0) ||
	    strstr(url, ".."))
		return range_status(c, MHD_HTTP_METHOD_NOT_ALLOWED);
	path = io_path("%s%s", s->dir, url);
	fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		if (fd >= 0)
			close(fd);
		return range_status(c, MHD_HTTP_NOT_FOUND);
	}
	return range_answer(c, fd, (uint64_t)st.st_size);
}

int range_server_new(const char *dir, struct range_server **ret, struct err *e)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct range_server *s = calloc(1, sizeof(*s));

	if (s)
		s->dir = strdup(dir);
	if (!s || !s->dir) {
		free(s);
		return err_errno(e, ENOMEM, "serve %s", dir);
	}
	s->daemon = MHD_start_daemon(
		MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION,
		0, NULL, NULL, range_request, s, MHD_OPTION_SOCK_ADDR,
		(struct sockaddr *)&at, MHD_OPTION_CONNECTION_LIMIT,
		RANGE_CONNECTIONS, MHD_OPTION_END);
	if (!s->daemon) {
		int code = errno ? errno : EIO;

		range_server_free(s);
		return err_errno(e, code, "serve %s over HTTP", dir);
	}
	*ret = s;
	return 0;
}

struct range_server *range_server_free(struct range_server *s)
{
	if (!s)
		return NULL;
	if (s->daemon)
		MHD_stop_daemon(s->daemon);
	free(s->dir);
	free(s);
	return NULL;
}

uint16_t range_server_port(const struct range_server *s)
{
	const union MHD_DaemonInfo *info =
		MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_BIND_PORT);

	return info->port;
}
