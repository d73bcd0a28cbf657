/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A directory over HTTP for tests of the engine: ranges, connections that are
 * kept, and a judge that may refuse a request
 */
#include "base/io.h"
#include "base/test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#define HTTP_CONNS_MAX 512

struct http_ask {
	char head[4096];
	char path[512]; /* behind the URL's prefix */
	uint64_t first, last;
};

struct http {
	const char *dir, *prefix; /* a URL's path begins with it; not "" */
	/* The status of the answer; 206: what was asked for. */
	int (*judge)(void *arg, const struct http_ask *q);
	void *arg;
	int fd;
	uint16_t port;
	atomic_bool end;
	atomic_uint accepted; /* connections */
	pthread_t thread, conn[HTTP_CONNS_MAX];
};

struct http_conn {
	struct http *h;
	int fd;
};

static inline bool http_say(int fd, const void *p, size_t len)
{
	while (len) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		p = (const char *)p + n;
		len -= (size_t)n;
	}
	return true;
}

/* One request's head; false: the peer, or the test, ends. */
static inline bool http_listen(const struct http_conn *c, struct http_ask *q)
{
	size_t len = 0;
	const char *range, *path;

	*q = (struct http_ask){ 0 };
	do {
		struct pollfd p = { .fd = c->fd, .events = POLLIN };
		ssize_t n;

		while (!c->h->end && poll(&p, 1, 20) == 0)
			;
		if (c->h->end || len == sizeof(q->head) - 1)
			return false;
		n = recv(c->fd, q->head + len, sizeof(q->head) - 1 - len, 0);
		if (n <= 0)
			return false;
		len += (size_t)n;
	} while (!strstr(q->head, "\r\n\r\n"));
	path = strstr(q->head, c->h->prefix);
	range = strstr(q->head, "Range: bytes=");
	check(path && range);
	check(sscanf(path + strlen(c->h->prefix), "%511[^ ]", q->path) == 1);
	check(sscanf(range, "Range: bytes=%" SCNu64 "-%" SCNu64, &q->first,
		     &q->last) == 2);
	return true;
}

static inline bool http_status(int fd, int status)
{
	char text[128];
	int n = snprintf(text, sizeof(text),
			 "HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n", status);

	return http_say(fd, text, (size_t)n);
}

static inline bool http_answer(const struct http_conn *c,
			       const struct http_ask *q)
{
	uint64_t len = q->last - q->first + 1;
	char path[1024], head[256];
	uint8_t *p;
	int fd, n, status = c->h->judge ? c->h->judge(c->h->arg, q) : 206;
	bool ok;

	if (status != 206)
		return http_status(c->fd, status);
	snprintf(path, sizeof(path), "%s%s", c->h->dir, q->path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return http_status(c->fd, 404);
	p = malloc(len);
	check(p && io_pread_full(fd, p, len, q->first) == (ssize_t)len);
	close(fd);
	n = snprintf(head, sizeof(head),
		     "HTTP/1.1 206 Here\r\nContent-Length: %" PRIu64
		     "\r\nContent-Range: bytes %" PRIu64 "-%" PRIu64
		     "/*\r\n\r\n",
		     len, q->first, q->last);
	ok = http_say(c->fd, head, (size_t)n) && http_say(c->fd, p, len);
	free(p);
	return ok;
}

static inline void *http_serve(void *arg)
{
	struct http_conn *c = arg;
	struct http_ask q;

	while (http_listen(c, &q) && http_answer(c, &q))
		;
	close(c->fd);
	free(c);
	return NULL;
}

static inline void *http_accept(void *arg)
{
	struct http *h = arg;

	for (;;) {
		int fd = accept4(h->fd, NULL, NULL, SOCK_CLOEXEC);
		struct http_conn *c;

		if (fd < 0)
			return NULL;
		check(h->accepted < HTTP_CONNS_MAX);
		check(!setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 },
				  sizeof(int)));
		c = malloc(sizeof(*c));
		check(c);
		*c = (struct http_conn){ .h = h, .fd = fd };
		check(!pthread_create(&h->conn[h->accepted], NULL, http_serve,
				      c));
		h->accepted++;
	}
}

/* @h has dir, prefix, judge and arg. */
static inline void http_start(struct http *h)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);

	h->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	check(h->fd >= 0 && !bind(h->fd, (struct sockaddr *)&a, len));
	check(!listen(h->fd, 64));
	check(!getsockname(h->fd, (struct sockaddr *)&a, &len));
	h->port = ntohs(a.sin_port);
	check(!pthread_create(&h->thread, NULL, http_accept, h));
}

static inline void http_end(struct http *h)
{
	h->end = true;
	shutdown(h->fd, SHUT_RDWR);
	check(!pthread_join(h->thread, NULL));
	for (unsigned i = 0; i < h->accepted; i++)
		check(!pthread_join(h->conn[i], NULL));
	close(h->fd);
}
