/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A relay with delay and rate
 *
 * One thread, one epoll. Each direction of a connection (a pipe) is a ring of
 * bytes and a queue of pieces with the time at which each may leave. A piece
 * departs when the line is free (all pipes of a direction share one line, which
 * the rate makes slow) and arrives the delay later.
 *
 * Invariants:
 *  1. Pieces of a pipe are in order of their due times.
 *  2. A pipe reads only what its ring has room for: a slow reader slows its
 *     writer, as TCP would.
 *  3. A direction that ended is passed on (shutdown) behind its last byte; when
 *     both have, or one broke, the connection goes.
 */
#include "cmd/throttle.h"

#include "base/clock.h"
#include "base/guard.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define THROTTLE_CONNECTIONS 64
/* 1 Gbit/s for 30 ms, and a power of two. */
#define THROTTLE_RING (4u << 20)
#define THROTTLE_PIECES 1024
#define THROTTLE_READ 65536u

struct piece {
	uint64_t due_ns;
	uint32_t len;
};

struct pipe {
	int from, to;
	uint8_t *ring;
	uint64_t in, out; /* bytes ever */
	struct piece piece[THROTTLE_PIECES];
	unsigned first, n;
	bool ended, passed_on; /* end of file seen; told the other side */
};

struct connection {
	struct throttle *owner;
	uint64_t ready_ns; /* the handshake is over */
	struct pipe pipe[2];
	int fd[2];
};

struct throttle {
	pthread_t thread;
	int epoll_fd, listen_fd, stop_fd;
	uint16_t port, target;
	uint64_t delay_ns, rate_bits;
	uint64_t free_ns[2]; /* when each direction's line is free */
	struct connection *connection[THROTTLE_CONNECTIONS];
};

static struct connection *connection_free(struct connection *c)
{
	for (int i = 0; i < 2; i++) {
		if (c->fd[i] >= 0)
			close(c->fd[i]);
		free(c->pipe[i].ring);
	}
	free(c);
	return NULL;
}

static int throttle_watch(struct throttle *t, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLET };

	return epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, fd, &ev);
}

static int throttle_dial(const struct throttle *t)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_port = htons(t->target),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	if (fd < 0)
		return -1;
	if (connect(fd, (struct sockaddr *)&at, sizeof(at)) < 0) {
		close(fd);
		return -1;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

static void throttle_accept(struct throttle *t, uint64_t now)
{
	int fd = accept4(t->listen_fd, NULL, NULL, SOCK_CLOEXEC), one = 1;
	struct connection *c;
	unsigned i;

	if (fd < 0)
		return;
	for (i = 0; i < THROTTLE_CONNECTIONS && t->connection[i]; i++)
		;
	c = i < THROTTLE_CONNECTIONS ? calloc(1, sizeof(*c)) : NULL;
	if (!c) {
		close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c->owner = t;
	c->ready_ns = now + 2 * t->delay_ns;
	c->fd[0] = fd;
	c->fd[1] = throttle_dial(t);
	for (int p = 0; p < 2; p++) {
		c->pipe[p].from = c->fd[p];
		c->pipe[p].to = c->fd[!p];
		c->pipe[p].ring = malloc(THROTTLE_RING);
	}
	if (c->fd[1] < 0 || !c->pipe[0].ring || !c->pipe[1].ring ||
	    throttle_watch(t, c->fd[0]) < 0 ||
	    throttle_watch(t, c->fd[1]) < 0) {
		connection_free(c);
		return;
	}
	t->connection[i] = c;
}

/* False: the connection broke. */
static bool pipe_read(struct connection *c, int side, uint64_t now)
{
	struct throttle *t = c->owner;
	struct pipe *p = &c->pipe[side];

	while (!p->ended && p->n < THROTTLE_PIECES) {
		uint64_t room = THROTTLE_RING - (p->in - p->out);
		uint64_t at = p->in % THROTTLE_RING;
		uint64_t len = min(min(room, THROTTLE_RING - at),
				   (uint64_t)THROTTLE_READ);
		uint64_t depart = max(max(now, t->free_ns[side]), c->ready_ns);
		ssize_t n;

		if (len == 0)
			return true;
		n = recv(p->from, p->ring + at, len, MSG_DONTWAIT);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		if (n == 0) {
			p->ended = true;
			return true;
		}
		if (t->rate_bits)
			depart += (uint64_t)n * 8 * NS_PER_SEC / t->rate_bits;
		t->free_ns[side] = max(depart, t->free_ns[side]);
		p->piece[(p->first + p->n++) % THROTTLE_PIECES] =
			(struct piece){ depart + t->delay_ns, (uint32_t)n };
		p->in += (uint64_t)n;
	}
	return true;
}

static bool pipe_write(struct pipe *p, uint64_t now)
{
	while (p->n) {
		struct piece *piece = &p->piece[p->first];
		uint64_t at = p->out % THROTTLE_RING;
		size_t len = min((uint64_t)piece->len, THROTTLE_RING - at);
		ssize_t n;

		if (piece->due_ns > now)
			return true;
		n = send(p->to, p->ring + at, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		p->out += (uint64_t)n;
		piece->len -= (uint32_t)n;
		if (!piece->len) {
			p->first = (p->first + 1) % THROTTLE_PIECES;
			p->n--;
		}
	}
	if (p->ended && !p->passed_on) {
		shutdown(p->to, SHUT_WR);
		p->passed_on = true;
	}
	return true;
}

/* When something has to be done next; UINT64_MAX: when a socket says so. */
static uint64_t throttle_turn(struct throttle *t, uint64_t now)
{
	uint64_t next = UINT64_MAX;

	for (unsigned i = 0; i < THROTTLE_CONNECTIONS; i++) {
		struct connection *c = t->connection[i];
		bool ok = true;

		for (int p = 0; c && ok && p < 2; p++) {
			ok = pipe_read(c, p, now) &&
			     pipe_write(&c->pipe[p], now);
			/* Room again: an edge will not tell. */
			ok = ok && pipe_read(c, p, now);
			if (c->pipe[p].n)
				next = min(next,
					   max(now + 1,
					       c->pipe[p]
						       .piece[c->pipe[p].first]
						       .due_ns));
		}
		if (c &&
		    (!ok || (c->pipe[0].passed_on && c->pipe[1].passed_on)))
			t->connection[i] = connection_free(c);
	}
	return next;
}

static void *throttle_main(void *arg)
{
	struct throttle *t = arg;
	struct epoll_event ev[16];
	uint64_t next = UINT64_MAX;

	for (;;) {
		uint64_t now = clock_mono_ns();
		uint64_t wait = next > now ? next - now : 0;
		struct timespec ts = { (time_t)(wait / NS_PER_SEC),
				       (long)(wait % NS_PER_SEC) };
		int n = epoll_pwait2(t->epoll_fd, ev, nitems(ev),
				     next == UINT64_MAX ? NULL : &ts, NULL);

		now = clock_mono_ns();
		for (int i = 0; i < n; i++) {
			if (ev[i].data.fd == t->stop_fd)
				return NULL;
			if (ev[i].data.fd == t->listen_fd)
				throttle_accept(t, now);
		}
		next = throttle_turn(t, now);
	}
}

static int throttle_open(struct throttle *t)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct epoll_event ev = { .events = EPOLLIN };
	socklen_t len = sizeof(at);

	t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	t->stop_fd = eventfd(0, EFD_CLOEXEC);
	t->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (t->epoll_fd < 0 || t->stop_fd < 0 || t->listen_fd < 0 ||
	    bind(t->listen_fd, (struct sockaddr *)&at, sizeof(at)) < 0 ||
	    listen(t->listen_fd, THROTTLE_CONNECTIONS) < 0 ||
	    getsockname(t->listen_fd, (struct sockaddr *)&at, &len) < 0)
		return -errno;
	t->port = ntohs(at.sin_port);
	ev.data.fd = t->stop_fd;
	if (epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, t->stop_fd, &ev) < 0)
		return -errno;
	ev.data.fd = t->listen_fd;
	if (epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, t->listen_fd, &ev) < 0)
		return -errno;
	return -pthread_create(&t->thread, NULL, throttle_main, t);
}

static struct throttle *throttle_close(struct throttle *t)
{
	for (unsigned i = 0; i < THROTTLE_CONNECTIONS; i++)
		if (t->connection[i])
			connection_free(t->connection[i]);
	fd_close(&t->epoll_fd);
	fd_close(&t->stop_fd);
	fd_close(&t->listen_fd);
	free(t);
	return NULL;
}

int throttle_new(uint16_t target_port, uint64_t delay_ns, uint64_t rate_bits,
		 struct throttle **ret, struct err *e)
{
	struct throttle *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return err_errno(e, ENOMEM, "relay");
	t->epoll_fd = t->listen_fd = t->stop_fd = -1;
	t->target = target_port;
	t->delay_ns = delay_ns;
	t->rate_bits = rate_bits;
	r = throttle_open(t);
	if (r < 0) {
		throttle_close(t);
		return err_errno(e, -r, "relay to port %u", target_port);
	}
	*ret = t;
	return 0;
}

struct throttle *throttle_free(struct throttle *t)
{
	uint64_t one = 1;

	if (!t)
		return NULL;
	if (write(t->stop_fd, &one, sizeof(one)) == sizeof(one))
		pthread_join(t->thread, NULL);
	return throttle_close(t);
}

uint16_t throttle_port(const struct throttle *t)
{
	return t->port;
}
