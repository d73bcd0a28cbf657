/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One HTTP request and its answer
 *
 * libcurl speaks HTTP, store_answer.c decides what to believe, this file what
 * to ask and when to ask twice. A connection has one multi handle and two easy handles,
 * the legs: the first carries every request, the second a hedge. Both are kept,
 * and with them their sockets.
 *
 *	first leg  o-----------(slow)----------------> answer | abandoned
 *	second leg             o------> answer         | never started
 *
 * The first leg that ends well wins. One that fails in a way that may pass
 * leaves the other a chance; one that fails for good decides.
 *
 * Invariants:
 *  1. The first leg writes to the caller's memory, the second to its own,
 *     which is copied if it wins: both run in one thread, and the loser is
 *     removed before the winner is copied.
 *  2. Outside transfer_run() no leg is in the multi handle.
 *  3. TLS is verified, redirects are not followed (a store is where the spec
 *     says; its credentials go nowhere else), only http and https are spoken.
 *  4. Waiting ends with the deadline or a cancel: the eventfd is polled with
 *     the sockets. A name server that hangs is left behind, with its thread.
 *
 * Legs never share a connection, HTTP/2 or not: whatever makes the first slow
 * on its connection, the second must not queue behind.
 *
 * Proxies come from the environment, as everywhere with libcurl.
 */
#include "image/store_transfer.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/version.h"
#include "image/store_answer.h"
#include "image/store_hedge.h"

#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>

/* A SYN that is lost twice is repeated after 1 and 3 s; then try again. */
#define TRANSFER_CONNECT_MS 3000L
/* So slow (below) for so long. Who takes a body may think about it longer: S3
 * assembles parts while we wait. */
#define TRANSFER_STALL_S 3L
/* Bytes per second below which a read is as good as stalled: a page a second
 * is no memory. */
#define TRANSFER_SLOW 4096L
#define TRANSFER_BODY_STALL_S 60L
/* Fewer system calls per MiB; libcurl's default is 16 KiB. */
#define TRANSFER_BUFFER (256L << 10)
/* A turn of the loop, when nothing else ends it. */
#define TRANSFER_TURN_MS 1000

struct transfer_leg {
	struct transfer *t;
	CURL *easy;
	bool running;
	const struct transfer_request *q;
	struct answer answer;
	char why[CURL_ERROR_SIZE]; /* libcurl's sentence */
};

struct transfer {
	struct store_conn *conn;
	struct hedge *hedge;
	const char *ca;
	CURLM *multi;
	struct transfer_leg leg[2];
};

/* ---- judging ---- */

/* scheme://host:port of a URL, for sentences. */
static int host_len(const char *url)
{
	const char *host = strstr(url, "://");

	return host ? (int)(host + 3 - url + (long)strcspn(host + 3, "/?")) : 0;
}

/* A handshake that was cut off may work the next time; one that was refused
 * does not. libcurl has one code for both. */
static bool leg_was_cut(const struct transfer_leg *l)
{
	long os_error = 0;

	curl_easy_getinfo(l->easy, CURLINFO_OS_ERRNO, &os_error);
	return os_error == ECONNRESET || os_error == EPIPE ||
	       strstr(l->why, "SYSCALL") || strstr(l->why, "onnection") ||
	       strstr(l->why, "unexpected eof");
}

static bool leg_may_pass(const struct transfer_leg *l, CURLcode code)
{
	static const CURLcode may[] = {
		CURLE_COULDNT_RESOLVE_PROXY,
		CURLE_COULDNT_RESOLVE_HOST,
		CURLE_COULDNT_CONNECT,
		CURLE_OPERATION_TIMEDOUT,
		CURLE_PARTIAL_FILE,
		CURLE_GOT_NOTHING,
		CURLE_SEND_ERROR,
		CURLE_RECV_ERROR,
		CURLE_HTTP2,
		CURLE_HTTP2_STREAM,
		CURLE_AGAIN,
		CURLE_NO_CONNECTION_AVAILABLE,
	};

	for (size_t i = 0; i < nitems(may); i++)
		if (code == may[i])
			return true;
	return code == CURLE_SSL_CONNECT_ERROR && leg_was_cut(l);
}

static int transfer_curl(const struct transfer_leg *l, CURLcode code,
			 struct err *e)
{
	const char *why = l->why[0] ? l->why : curl_easy_strerror(code);
	int host = host_len(l->q->url);

	if (code == CURLE_OUT_OF_MEMORY)
		return err_errno(e, ENOMEM, "%.*s", host, l->q->url);
	if (leg_may_pass(l, code)) {
		err_set(e, EAGAIN, "%.*s: %s", host, l->q->url, why);
		return STORE_AGAIN;
	}
	return err_set(e, EPROTO, "%.*s: %s", host, l->q->url, why);
}

static int leg_judge(const struct transfer_leg *l, CURLcode code, struct err *e)
{
	int r;

	if (code == CURLE_OK)
		return answer_end(&l->answer, e);
	if (answer_decided(&l->answer, &r, e))
		return r;
	return transfer_curl(l, code, e);
}

static size_t leg_on_head(char *line, size_t size, size_t n, void *arg)
{
	struct transfer_leg *l = arg;

	return answer_head(&l->answer, line, size * n) ? size * n : 0;
}

static size_t leg_on_body(char *p, size_t size, size_t n, void *arg)
{
	struct transfer_leg *l = arg;

	store_add(l->t->conn->store, STORE_BYTES, size * n);
	return answer_body(&l->answer, p, size * n) ? size * n : 0;
}

/* ---- legs ---- */

static void leg_set_body(struct transfer_leg *l)
{
	const struct transfer_request *q = l->q;

	if (!q->method) {
		curl_easy_setopt(l->easy, CURLOPT_NOBODY,
				 (long)(q->want == TRANSFER_SIZE));
		return;
	}
	/* A body in memory, which libcurl can send again by itself. */
	if (q->body) {
		curl_easy_setopt(l->easy, CURLOPT_POSTFIELDS, q->body);
		curl_easy_setopt(l->easy, CURLOPT_POSTFIELDSIZE_LARGE,
				 (curl_off_t)q->body_len);
	}
	curl_easy_setopt(l->easy, CURLOPT_CUSTOMREQUEST, q->method);
}

static void leg_set_request(struct transfer_leg *l)
{
	const struct transfer_request *q = l->q;
	char range[48];

	curl_easy_setopt(l->easy, CURLOPT_URL, q->url);
	curl_easy_setopt(l->easy, CURLOPT_HTTPHEADER, q->headers);
	curl_easy_setopt(l->easy, CURLOPT_LOW_SPEED_LIMIT,
			 q->body ? 1L : TRANSFER_SLOW);
	curl_easy_setopt(l->easy, CURLOPT_LOW_SPEED_TIME,
			 q->body ? TRANSFER_BODY_STALL_S : TRANSFER_STALL_S);
	if (q->want == TRANSFER_RANGE) {
		snprintf(range, sizeof(range), "%" PRIu64 "-%" PRIu64,
			 q->offset, q->offset + q->len - 1);
		curl_easy_setopt(l->easy, CURLOPT_RANGE, range);
	}
	leg_set_body(l);
}

static void leg_set_callbacks(struct transfer_leg *l)
{
	curl_easy_setopt(l->easy, CURLOPT_PRIVATE, l);
	curl_easy_setopt(l->easy, CURLOPT_ERRORBUFFER, l->why);
	curl_easy_setopt(l->easy, CURLOPT_HEADERFUNCTION, leg_on_head);
	curl_easy_setopt(l->easy, CURLOPT_HEADERDATA, l);
	curl_easy_setopt(l->easy, CURLOPT_WRITEFUNCTION, leg_on_body);
	curl_easy_setopt(l->easy, CURLOPT_WRITEDATA, l);
}

static void leg_set_net(struct transfer_leg *l)
{
	CURL *easy = l->easy;

	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, TRANSFER_CONNECT_MS);
	curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, TRANSFER_BUFFER);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_2TLS);
	curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "byre/" BYRE_VERSION);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
	if (l->t->ca[0]) {
		curl_easy_setopt(easy, CURLOPT_CAINFO, l->t->ca);
		/* That bundle, and not the system's besides. */
		curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	}
}

static int leg_start(struct transfer_leg *l, const struct transfer_request *q,
		     struct err *e)
{
	answer_deinit(&l->answer);
	answer_init(&l->answer, q, l == &l->t->leg[0]);
	l->q = q;
	l->why[0] = '\0';
	/* Options fall back to their defaults, connections stay. */
	curl_easy_reset(l->easy);
	leg_set_net(l);
	leg_set_callbacks(l);
	leg_set_request(l);
	if (curl_multi_add_handle(l->t->multi, l->easy) != CURLM_OK)
		return err_errno(e, ENOMEM, "begin a request");
	l->running = true;
	store_add(l->t->conn->store, STORE_REQUESTS, 1);
	return 0;
}

static void leg_stop(struct transfer_leg *l)
{
	if (l->running)
		curl_multi_remove_handle(l->t->multi, l->easy);
	l->running = false;
}

/* ---- a run ---- */

struct transfer_run {
	enum hedge_class class;
	bool may_hedge;
	uint64_t began_ns, hedge_at_ns;
};

/* A leg ended. Returns its result, or -EINPROGRESS while the other may still
 * do better. */
static int transfer_ended(struct transfer *t, struct transfer_run *run,
			  struct transfer_leg *l, CURLcode code,
			  struct transfer_answer *a, struct err *e)
{
	struct transfer_leg *other = &t->leg[l == &t->leg[0]];
	int r;

	r = leg_judge(l, code, e);
	leg_stop(l);
	*a = l->answer.out;
	t->conn->pause_ns = max(t->conn->pause_ns, l->answer.pause_ns);
	if (r == STORE_AGAIN && other->running)
		return -EINPROGRESS;
	leg_stop(other);
	if (r != 0)
		return r;
	hedge_learn(t->hedge, run->class, clock_mono_ns() - run->began_ns);
	if (l == &t->leg[1])
		store_add(t->conn->store, STORE_HEDGES_WON, 1);
	return answer_deliver(&l->answer, a, e);
}

static int transfer_messages(struct transfer *t, struct transfer_run *run,
			     struct transfer_answer *a, struct err *e)
{
	int r = -EINPROGRESS, left;
	CURLMsg *msg;

	while (r == -EINPROGRESS &&
	       (msg = curl_multi_info_read(t->multi, &left))) {
		struct transfer_leg *l = NULL;

		if (msg->msg != CURLMSG_DONE)
			continue;
		for (size_t i = 0; i < nitems(t->leg); i++)
			if (t->leg[i].easy == msg->easy_handle)
				l = &t->leg[i];
		must(l && l->running);
		r = transfer_ended(t, run, l, msg->data.result, a, e);
	}
	return r;
}

static int transfer_late(const struct transfer *t,
			 const struct transfer_run *run, uint64_t now_ns,
			 struct err *e)
{
	const struct transfer_leg *l = &t->leg[0];
	uint64_t ms = (now_ns - run->began_ns) / NS_PER_MS;

	if (l->answer.head_done)
		err_set(e, EAGAIN, "%.*s: only %zu bytes in %" PRIu64 " ms",
			host_len(l->q->url), l->q->url, l->answer.got, ms);
	else
		err_set(e, EAGAIN, "%.*s: no answer in %" PRIu64 " ms",
			host_len(l->q->url), l->q->url, ms);
	return STORE_AGAIN;
}

static int transfer_hedge(struct transfer *t, struct transfer_run *run,
			  struct err *e)
{
	run->may_hedge = false;
	if (!t->leg[0].running || !hedge_spend(t->hedge))
		return 0;
	store_add(t->conn->store, STORE_HEDGES, 1);
	return leg_start(&t->leg[1], t->leg[0].q, e);
}

/* Until a socket, the eventfd, libcurl's own timers, or @until. */
static void transfer_wait(struct transfer *t, uint64_t now_ns,
			  uint64_t until_ns)
{
	struct curl_waitfd wake = { .fd = t->conn->wake_fd,
				    .events = CURL_WAIT_POLLIN };
	uint64_t ms = (until_ns - now_ns) / NS_PER_MS + 1;

	curl_multi_poll(t->multi, &wake, 1,
			(int)min(ms, (uint64_t)TRANSFER_TURN_MS), NULL);
}

static int transfer_turn(struct transfer *t, struct transfer_run *run,
			 struct transfer_answer *a, struct err *e)
{
	uint64_t now, until = t->conn->deadline_ns;
	int running, r;

	if (curl_multi_perform(t->multi, &running) != CURLM_OK)
		return err_errno(e, EIO, "libcurl");
	r = transfer_messages(t, run, a, e);
	if (r != -EINPROGRESS)
		return r;
	r = store_conn_check(t->conn, e);
	if (r < 0)
		return r;
	now = clock_mono_ns();
	if (now >= until)
		return transfer_late(t, run, now, e);
	if (run->may_hedge && now >= run->hedge_at_ns) {
		r = transfer_hedge(t, run, e);
		return r < 0 ? r : -EINPROGRESS;
	}
	if (run->may_hedge)
		until = min(until, run->hedge_at_ns);
	transfer_wait(t, now, until);
	return -EINPROGRESS;
}

int transfer_run(struct transfer *t, const struct transfer_request *q,
		 struct transfer_answer *ret, struct err *e)
{
	struct transfer_run run = { .may_hedge = !q->method,
				    .began_ns = clock_mono_ns() };
	int r;

	transfer_answer_clear(ret);
	run.class = q->want == TRANSFER_RANGE ? hedge_class(q->len)
					      : HEDGE_WHOLE;
	run.hedge_at_ns = run.began_ns + hedge_delay_ns(t->hedge, run.class);
	hedge_earn(t->hedge);
	r = leg_start(&t->leg[0], q, e);
	if (r == 0)
		r = -EINPROGRESS;
	while (r == -EINPROGRESS)
		r = transfer_turn(t, &run, ret, e);
	for (size_t i = 0; i < nitems(t->leg); i++) {
		leg_stop(&t->leg[i]);
		answer_deinit(&t->leg[i].answer);
	}
	return r;
}

/* ---- making and ending ---- */

static pthread_once_t transfer_once = PTHREAD_ONCE_INIT;
static CURLcode transfer_global = CURLE_FAILED_INIT;

static void transfer_global_init(void)
{
	transfer_global = curl_global_init(CURL_GLOBAL_DEFAULT);
}

static void transfer_freep(struct transfer **t)
{
	transfer_free(*t);
}

int transfer_new(struct store_conn *c, struct hedge *h, const char *ca,
		 struct transfer **ret, struct err *e)
{
	guard(transfer_freep) struct transfer *t = calloc(1, sizeof(*t));

	if (!t)
		return err_errno(e, ENOMEM, "connect");
	must(!pthread_once(&transfer_once, transfer_global_init));
	if (transfer_global != CURLE_OK)
		return err_set(e, EIO, "libcurl does not start: %s",
			       curl_easy_strerror(transfer_global));
	*t = (struct transfer){ .conn = c, .hedge = h, .ca = ca };
	t->multi = curl_multi_init();
	if (!t->multi)
		return err_errno(e, ENOMEM, "connect");
	curl_multi_setopt(t->multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
	for (size_t i = 0; i < nitems(t->leg); i++) {
		t->leg[i].t = t;
		t->leg[i].easy = curl_easy_init();
		if (!t->leg[i].easy)
			return err_errno(e, ENOMEM, "connect");
	}
	*ret = take(t);
	return 0;
}

struct transfer *transfer_free(struct transfer *t)
{
	if (t) {
		for (size_t i = 0; i < nitems(t->leg); i++) {
			answer_deinit(&t->leg[i].answer);
			curl_easy_cleanup(t->leg[i].easy);
		}
		curl_multi_cleanup(t->multi);
		free(t);
	}
	return NULL;
}

bool transfer_url_ok(const char *url)
{
	const char *host = strstr(url, "://");
	size_t n;
	uint64_t port;

	if (!host || (strncmp(url, "http://", 7) != 0 &&
		      strncmp(url, "https://", 8) != 0))
		return false;
	host += 3;
	if (host[0] == '[') { /* IPv6 */
		n = 1 + strspn(host + 1, "0123456789abcdefABCDEF:.");
		if (host[n++] != ']')
			return false;
	} else {
		n = strspn(host, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmn"
				 "opqrstuvwxyz0123456789.-_");
	}
	if (!n || host[n] == '\0' || host[n] == '/')
		return n > 0;
	if (host[n++] != ':')
		return false;
	host += n;
	n = strspn(host, "0123456789");
	if (!n || n > 5 || (host[n] && host[n] != '/'))
		return false;
	port = (uint64_t)atoi(host);
	return port > 0 && port < 65536;
}
