/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stores over HTTP: a server in this process that behaves, or misbehaves in
 * one way at a time; times are only ever judged by generous upper bounds
 */
#include "image/store.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/socket.h>

#define OBJECT_BYTES (1u << 20)
#define CONNS_MAX 512

enum mode {
	OK,
	FULL200, /* the whole object for a range */
	SHORT, /* half of what it announced */
	LONG, /* announces more than asked */
	LONG_CHUNKED, /* sends more than asked without announcing it */
	OTHER_RANGE,
	NO_RANGE,
	ENCODED,
	FAIL, /* "left" times 500, then OK */
	BUSY, /* "left" times 429 with Retry-After: 1, then OK */
	ALWAYS_503,
	HANG,
	RESET, /* "left" times, then OK */
	DRIP, /* "left" requests byte by byte, the others OK */
	MISS,
	FORBIDDEN,
	REDIRECT,
	GARBAGE,
	HEAD_FOR_EVER,
};

static struct {
	int fd;
	uint16_t port;
	atomic_int mode, left, requests;
	atomic_bool end;
	pthread_t accept, conn[CONNS_MAX];
	int n;
	unsigned char object[OBJECT_BYTES];
} srv;

struct ask {
	bool head, ranged;
	uint64_t first, last;
};

/* ---- the server ---- */

static bool say(int fd, const void *p, size_t len)
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

printf_like(2, 3) static bool say_text(int fd, const char *fmt, ...)
{
	char text[1024];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return say(fd, text, (size_t)n);
}

/* Until the peer goes or the test ends. */
static void linger(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };

	while (!srv.end && poll(&p, 1, 50) == 0)
		;
}

static bool listen_for(int fd, struct ask *q)
{
	char text[4096];
	size_t len = 0;
	char *range;

	*q = (struct ask){ .last = OBJECT_BYTES - 1 };
	do {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t n;

		while (!srv.end && poll(&p, 1, 50) == 0)
			;
		if (srv.end || len == sizeof(text) - 1)
			return false;
		n = recv(fd, text + len, sizeof(text) - 1 - len, 0);
		if (n <= 0)
			return false;
		len += (size_t)n;
		text[len] = '\0';
	} while (!strstr(text, "\r\n\r\n"));
	q->head = !strncmp(text, "HEAD ", 5);
	range = strstr(text, "Range: bytes=");
	if (range)
		q->ranged = sscanf(range, "Range: bytes=%" SCNu64 "-%" SCNu64,
				   &q->first, &q->last) == 2;
	check(q->last >= q->first);
	return true;
}

static bool answer_good(int fd, const struct ask *q)
{
	uint64_t len = q->last - q->first + 1;
	bool ok;

	if (q->last >= OBJECT_BYTES)
		return say_text(fd,
				"HTTP/1.1 416 No\r\nContent-Length: 0\r\n\r\n");
	if (q->ranged)
		ok = say_text(fd,
			      "HTTP/1.1 206 Partial\r\nContent-Length: %" PRIu64
			      "\r\nContent-Range: bytes %" PRIu64 "-%" PRIu64
			      "/%u\r\n\r\n",
			      len, q->first, q->last, OBJECT_BYTES);
	else
		ok = say_text(fd,
			      "HTTP/1.1 200 OK\r\nContent-Length: %u\r\n\r\n",
			      OBJECT_BYTES);
	return ok && (q->head || say(fd, srv.object + q->first, len));
}

/* With this status line, these headers, and @n bytes. */
static bool answer_odd(int fd, const struct ask *q, const char *head,
		       uint64_t announced, uint64_t n)
{
	return say_text(fd,
			"HTTP/1.1 206 Partial\r\nContent-Length: %" PRIu64
			"\r\n%s\r\n",
			announced, head) &&
	       say(fd, srv.object + q->first, n);
}

static bool answer_chunked(int fd, const struct ask *q, const char *head,
			   uint64_t n)
{
	return say_text(
		       fd,
		       "HTTP/1.1 206 Partial\r\nTransfer-Encoding: chunked\r\n%s\r\n%" PRIx64
		       "\r\n",
		       head, n) &&
	       say(fd, srv.object + q->first, n) &&
	       say_text(fd, "\r\n0\r\n\r\n");
}

static bool answer_drip(int fd, const struct ask *q, const char *head,
			uint64_t len)
{
	bool ok = answer_odd(fd, q, head, len, 1);

	for (uint64_t i = 1; ok && !srv.end && i < len; i++) {
		usleep(20000);
		ok = say(fd, srv.object + q->first + i, 1);
	}
	return ok;
}

static bool answer_reset(int fd)
{
	const struct linger now = { .l_onoff = 1 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	return false;
}

static bool answer_for_ever(int fd)
{
	bool ok = say_text(fd, "HTTP/1.1 206 Partial\r\n");

	for (int i = 0; ok && i < 100000; i++)
		ok = say_text(fd, "X-Line-%d: and another one\r\n", i);
	return false;
}

static bool answer(int fd, const struct ask *q)
{
	bool counted = atomic_fetch_sub(&srv.left, 1) > 0;
	uint64_t len = q->last - q->first + 1;
	char range[128];

	snprintf(range, sizeof(range),
		 "Content-Range: bytes %" PRIu64 "-%" PRIu64 "/%u\r\n",
		 q->first, q->last, OBJECT_BYTES);
	switch ((enum mode)srv.mode) {
	case OK:
		break;
	case FULL200:
		return answer_good(fd,
				   &(struct ask){ .last = OBJECT_BYTES - 1 });
	case SHORT:
		err_drop(answer_odd(fd, q, range, len, len / 2));
		return false;
	case LONG:
		return answer_odd(fd, q, range, len + 10, len + 10);
	case LONG_CHUNKED:
		return answer_chunked(fd, q, range, len + 10);
	case OTHER_RANGE:
		return answer_odd(fd, q, "Content-Range: bytes 7-8/1048576\r\n",
				  len, len);
	case NO_RANGE:
		return answer_odd(fd, q, "", len, len);
	case ENCODED:
		return answer_odd(fd, q, "Content-Encoding: gzip\r\n", len,
				  len);
	case FAIL:
		if (counted)
			return say_text(
				fd,
				"HTTP/1.1 500 Oh\r\nContent-Length: 3\r\n\r\nno\n");
		break;
	case BUSY:
		if (counted)
			return say_text(
				fd,
				"HTTP/1.1 429 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n");
		break;
	case ALWAYS_503:
		return say_text(fd,
				"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n");
	case HANG:
		linger(fd);
		return false;
	case RESET:
		if (counted)
			return answer_reset(fd);
		break;
	case DRIP:
		if (counted)
			return answer_drip(fd, q, range, len);
		break;
	case MISS:
		return say_text(fd,
				"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
	case FORBIDDEN:
		return say_text(fd,
				"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
	case REDIRECT:
		return say_text(
			fd,
			"HTTP/1.1 302 There\r\nLocation: http://127.0.0.1:%u/b\r\nContent-Length: 0\r\n\r\n",
			srv.port);
	case GARBAGE:
		err_drop(say_text(fd, "SSH-2.0-whatever\r\n\r\n"));
		return false;
	case HEAD_FOR_EVER:
		return answer_for_ever(fd);
	}
	return answer_good(fd, q);
}

static void *serve_conn(void *arg)
{
	guard_fd int fd = (int)(intptr_t)arg;
	struct ask q;

	while (listen_for(fd, &q)) {
		atomic_fetch_add(&srv.requests, 1);
		if (!answer(fd, &q))
			break;
	}
	return NULL;
}

static void *serve(unused void *arg)
{
	for (;;) {
		int fd = accept4(srv.fd, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			return NULL;
		check(srv.n < CONNS_MAX);
		/* A head and a body are two writes. */
		check(!setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 },
				  sizeof(int)));
		check(!pthread_create(&srv.conn[srv.n++], NULL, serve_conn,
				      (void *)(intptr_t)fd));
	}
}

static void server_start(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);

	for (size_t i = 0; i < OBJECT_BYTES; i++)
		srv.object[i] = (unsigned char)(i * 31 + (i >> 8) * 7);
	srv.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	check(srv.fd >= 0 && !bind(srv.fd, (struct sockaddr *)&a, len));
	check(!listen(srv.fd, 64));
	check(!getsockname(srv.fd, (struct sockaddr *)&a, &len));
	srv.port = ntohs(a.sin_port);
	check(!pthread_create(&srv.accept, NULL, serve, NULL));
}

static void server_end(void)
{
	srv.end = true;
	shutdown(srv.fd, SHUT_RDWR);
	check(!pthread_join(srv.accept, NULL));
	for (int i = 0; i < srv.n; i++)
		check(!pthread_join(srv.conn[i], NULL));
	fd_close(&srv.fd);
}

static void behave(enum mode mode, int left)
{
	srv.left = left;
	srv.requests = 0;
	srv.mode = mode;
}

/* ---- the client ---- */

static struct store *the_store;
static struct store_conn *conn;

static void open_store(void)
{
	struct store_spec spec = { .name = "web" };
	struct err e = ERR_NULL;

	snprintf(spec.url, sizeof(spec.url), "http://127.0.0.1:%u/base/",
		 srv.port);
	check(store_open(&spec, &the_store, &e) == 0);
	check(store_connect(the_store, &conn, &e) == 0);
}

static void close_store(void)
{
	conn = store_conn_free(conn);
	the_store = store_free(the_store);
}

static uint64_t in_ms(uint64_t ms)
{
	return clock_mono_ns() + ms * NS_PER_MS;
}

/* A get whose result must be @want, with @word in the sentence; not a byte
 * behind the buffer is touched, and a success has the right ones. */
static void get(uint64_t offset, size_t len, uint64_t ms, int want,
		const char *word)
{
	guard_free unsigned char *p = malloc(len + 64);
	struct err e = ERR_NULL;
	int r;

	check(p);
	memset(p, 0xa5, len + 64);
	r = store_get(conn, "a/b", offset, len, p, in_ms(ms), &e);
	if (r != want || (r < 0 && !strstr(e.msg, word))) {
		fprintf(stderr, "mode %d: %d: %s\n", srv.mode, r, e.msg);
		check(!"as expected");
	}
	for (size_t i = len; i < len + 64; i++)
		check(p[i] == 0xa5);
	if (r == 0)
		check(!memcmp(p, srv.object + offset, len));
	if (r < 0) {
		check(strstr(e.msg, "a/b") && strstr(e.msg, "web"));
		check(e.code == -r);
	}
}

static void test_good(void)
{
	struct err e = ERR_NULL;
	struct store_counts n;
	uint64_t bytes = 0;
	char *all = NULL;
	size_t len = 0;

	behave(OK, 0);
	open_store();
	get(0, 1, 5000, 0, "");
	get(5, 4096, 5000, 0, "");
	get(OBJECT_BYTES - 1, 1, 5000, 0, "");
	get(0, OBJECT_BYTES, 5000, 0, "");
	get(0, 0, 5000, 0, "");
	n = store_counts(the_store);
	check(n.requests == 4 && srv.requests == 4);
	check(n.bytes == 4098 + OBJECT_BYTES);
	check(!n.retries && !n.failures && !n.hedges);
	check(srv.n == 1); /* one connection for all */
	check(store_head(conn, "a/b", &bytes, in_ms(5000), &e) == 0);
	check(bytes == OBJECT_BYTES);
	check(store_get_all(conn, "a/b", OBJECT_BYTES, &all, &len, in_ms(5000),
			    &e) == 0);
	check(len == OBJECT_BYTES && !memcmp(all, srv.object, len));
	check(all[len] == '\0');
	free(all);
	check(store_get_all(conn, "a/b", OBJECT_BYTES - 1, &all, &len,
			    in_ms(5000), &e) == -E2BIG);
	get(OBJECT_BYTES - 1, 2, 5000, -EBADMSG, "no bytes");
	check(store_put(conn, "a/b", "x", 1, in_ms(5000), &e) == -EOPNOTSUPP);
	check(store_upload(conn, "a/b", -1, 1, "/nowhere", NULL, NULL, &e) ==
	      -EOPNOTSUPP);
	check(store_get(conn, "../a", 0, 1, &len, in_ms(5000), &e) == -EINVAL);
	get(0, 1, 0, -ETIMEDOUT, "deadline");
	close_store();
}

/* What cannot pass is said at once, and asked once. */
static void test_final(void)
{
	static const struct {
		enum mode mode;
		int want;
		const char *word;
	} t[] = {
		{ FULL200, -EPROTO, "200 for a range" },
		{ LONG, -EBADMSG, "when asked for" },
		{ LONG_CHUNKED, -EBADMSG, "more than" },
		{ OTHER_RANGE, -EBADMSG, "bytes 7-8" },
		{ NO_RANGE, -EBADMSG, "without saying which" },
		{ ENCODED, -EPROTO, "encoding" },
		{ MISS, STORE_MISS, "" },
		{ FORBIDDEN, -EACCES, "403" },
		{ REDIRECT, -EPROTO, "redirect" },
		{ GARBAGE, -EPROTO, "127.0.0.1" },
		{ HEAD_FOR_EVER, -EPROTO, "headers" },
	};

	for (size_t i = 0; i < nitems(t); i++) {
		behave(t[i].mode, 0);
		open_store();
		get(4096, 8192, 60000, t[i].want, t[i].word);
		check(srv.requests == 1);
		check(store_counts(the_store).failures == (t[i].want < 0));
		/* The connection is of use again. */
		behave(OK, 0);
		get(4096, 8192, 30000, 0, "");
		close_store();
	}
}

static void test_again(void)
{
	static const struct {
		enum mode mode;
		int left;
	} t[] = { { FAIL, 3 }, { RESET, 2 }, { BUSY, 1 } };

	for (size_t i = 0; i < nitems(t); i++) {
		struct store_counts n;

		behave(t[i].mode, t[i].left);
		open_store();
		get(1, 70000, 30000, 0, "");
		n = store_counts(the_store);
		check(n.retries >= 1 && n.retries <= (unsigned)t[i].left);
		check(n.failures == 0);
		close_store();
	}
}

/* Late is late, with the reason. */
static void test_deadline(void)
{
	static const struct {
		enum mode mode;
		const char *word;
	} t[] = { { ALWAYS_503, "503" },
		  { HANG, "no answer" },
		  { SHORT, "bytes" } };

	for (size_t i = 0; i < nitems(t); i++) {
		uint64_t began = clock_mono_ns();

		behave(t[i].mode, 0);
		open_store();
		get(0, 10000, 1000, -ETIMEDOUT, t[i].word);
		check(clock_mono_ns() - began < 10 * NS_PER_SEC);
		check(store_counts(the_store).failures == 1);
		close_store();
	}
}

static void test_nobody_there(void)
{
	struct store_spec spec = { .name = "web" };
	uint64_t began = clock_mono_ns();
	struct err e = ERR_NULL;

	/* Port 1 answers by a reset. */
	snprintf(spec.url, sizeof(spec.url), "http://127.0.0.1:1");
	check(store_open(&spec, &the_store, &e) == 0);
	check(store_connect(the_store, &conn, &e) == 0);
	get(0, 1, 700, -ETIMEDOUT, "127.0.0.1:1");
	check(store_counts(the_store).retries >= 1);
	check(clock_mono_ns() - began < 10 * NS_PER_SEC);
	close_store();
}

/* Many fast ones, then one that would take two minutes. */
static void test_hedge(void)
{
	struct store_counts n;
	uint64_t began;

	behave(OK, 0);
	open_store();
	for (int i = 0; i < 30; i++)
		get(0, 6000, 5000, 0, "");
	began = clock_mono_ns();
	behave(DRIP, 1);
	get(77, 6000, 60000, 0, "");
	check(clock_mono_ns() - began < 20 * NS_PER_SEC);
	n = store_counts(the_store);
	check(n.hedges == 1 && n.hedges_won == 1);
	check(n.retries == 0);
	check(n.requests == 32);
	/* The loser is gone, the connection usable. */
	get(0, 6000, 5000, 0, "");
	close_store();
}

/* A store that is slow as a whole is not asked twice for it. */
static void test_hedge_bound(void)
{
	struct store_counts n;

	behave(OK, 0);
	open_store();
	for (int i = 0; i < 100; i++)
		get(0, 10, 5000, 0, "");
	behave(DRIP, 1 << 30);
	for (int i = 0; i < 5; i++)
		get(0, 10, 5000, 0, "");
	n = store_counts(the_store);
	check(n.hedges <= 1 + n.requests / 10);
	close_store();
}

static void *cancel_soon(unused void *arg)
{
	usleep(200000);
	store_conn_cancel(conn, true);
	return NULL;
}

/* In the middle of a transfer, and of a pause. */
static void test_cancel(void)
{
	static const enum mode modes[] = { HANG, ALWAYS_503 };

	for (size_t i = 0; i < nitems(modes); i++) {
		uint64_t began = clock_mono_ns();
		pthread_t thread;

		behave(modes[i], 0);
		open_store();
		check(!pthread_create(&thread, NULL, cancel_soon, NULL));
		get(0, 10, 60000, -ECANCELED, "cancelled");
		check(!pthread_join(thread, NULL));
		check(clock_mono_ns() - began < 20 * NS_PER_SEC);
		get(0, 10, 60000, -ECANCELED, "cancelled");
		check(store_counts(the_store).failures == 0);
		store_conn_cancel(conn, false);
		behave(OK, 0);
		get(0, 10, 5000, 0, "");
		close_store();
	}
}

static void *read_a_lot(void *arg)
{
	struct store_conn *c = NULL;
	struct err e = ERR_NULL;
	unsigned char p[1000];

	check(store_connect(the_store, &c, &e) == 0);
	for (uint64_t i = 0; i < 100; i++) {
		uint64_t at = (i * 997 + (uintptr_t)arg * 31) % 100000;

		check(store_get(c, "a/b", at, sizeof(p), p, in_ms(30000), &e) ==
		      0);
		check(!memcmp(p, srv.object + at, sizeof(p)));
	}
	store_conn_free(c);
	return NULL;
}

static void test_threads(void)
{
	pthread_t thread[4];

	behave(OK, 0);
	open_store();
	for (uintptr_t i = 0; i < nitems(thread); i++)
		check(!pthread_create(&thread[i], NULL, read_a_lot, (void *)i));
	for (size_t i = 0; i < nitems(thread); i++)
		check(!pthread_join(thread[i], NULL));
	check(store_counts(the_store).bytes >= 400000);
	close_store();
}

int main(void)
{
	/* A proxy of this machine has no business here. */
	unsetenv("http_proxy");
	unsetenv("all_proxy");
	unsetenv("ALL_PROXY");
	server_start();
	test_good();
	test_final();
	test_again();
	test_deadline();
	test_nobody_there();
	test_hedge();
	test_hedge_bound();
	test_cancel();
	test_threads();
	server_end();
	return 0;
}
