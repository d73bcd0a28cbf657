/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Object stores behind one table of operations
 *
 * This file is what all kinds of stores share: the spec, the names of objects,
 * the counters, cancelling, and the engine that repeats a try until it is
 * done. A kind (store_dir.c, store_http.c, store_s3.c) makes one try at a time
 * and says of a failure whether it may pass.
 *
 *	try --0, MISS, <0--> end
 *	 ^ |
 *	 | STORE_AGAIN
 *	 | v
 *	pause: random in [0, 50 ms * 2^n], at most 2 s; longer if the server
 *	       asked for it; ends early when the connection is cancelled
 *
 * The pause is fully random because those who fail together (a server that
 * restarts under a herd) must not come back together.
 *
 * Invariants:
 *  1. A call ends by its deadline, late by what the kind cannot interrupt:
 *     nothing over a network, one disk access of a directory. No try begins
 *     after the deadline.
 *  2. Whoever is late learns the cause of the last try, not just that time
 *     passed.
 *  3. STORE_AGAIN does not leave this file; -ETIMEDOUT comes from here only.
 *  4. A store outlives its connections; store_free() insists on it.
 *  5. A sentence names the store and the object, and nothing that is secret:
 *     URLs cannot hold a password or a query, store_check() sees to it.
 *
 * Cancelling is an eventfd that stays readable, beside a flag: there is no
 * moment in which a wake-up could be lost, and waits of every kind (a pause
 * here, sockets in store_transfer.c) can watch it.
 *
 * It is not a cache, and it does not know what it carries: digests are the
 * business of who knows them.
 */
#include "image/store_ops.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/parse.h"
#include "image/store_note.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>

/* A connection that was just refused may work at once after a restart of the
 * server; the second and third try lie within a fault's patience. */
#define STORE_PAUSE_MIN_NS (50 * NS_PER_MS)
#define STORE_PAUSE_MAX_NS (2 * NS_PER_SEC)
/* No point in another try when less than this is left. */
#define STORE_LAST_TRY_NS (100 * NS_PER_MS)

static const struct {
	const char *prefix;
	const struct store_ops *ops;
} store_kinds[] = {
	{ "dir://", &store_dir_ops },   { "/", &store_dir_ops },
	{ "http://", &store_http_ops }, { "https://", &store_http_ops },
	{ "s3://", &store_s3_ops },
};

/* ---- specs ---- */

static const struct store_ops *store_kind(const char *url)
{
	for (size_t i = 0; i < nitems(store_kinds); i++)
		if (!strncmp(url, store_kinds[i].prefix,
			     strlen(store_kinds[i].prefix)))
			return store_kinds[i].ops;
	return NULL;
}

/* Terminated, and without control characters. */
static bool store_text_ok(const char *s, size_t size)
{
	size_t len = strnlen(s, size);

	for (size_t i = 0; i < len; i++)
		if ((unsigned char)s[i] < ' ' || s[i] == 0x7f)
			return false;
	return len < size;
}

/* What can be part of a URL as it is. The part before the first slash has no
 * @: that would be a password. */
static bool store_url_ok(const char *url, struct err *e)
{
	const char *host = strstr(url, "://");

	if (host && memchr(host + 3, '@', strcspn(host + 3, "/"))) {
		err_set(e, EINVAL, "credentials do not belong into a URL");
		return false;
	}
	for (const char *s = url; *s; s++)
		if (*s <= ' ' || *s > '~' || strchr("?#\"<>\\^`{|}", *s)) {
			err_set(e, EINVAL,
				"the URL has a character that is not allowed there");
			return false;
		}
	return true;
}

static int store_check_texts(const struct store_spec *spec, struct err *e)
{
	if (!store_text_ok(spec->name, sizeof(spec->name)) ||
	    !parse_name_ok(spec->name))
		return err_set(e, EINVAL,
			       "a store's name is 1 to 63 of A-Za-z0-9_.-");
	if (!store_text_ok(spec->url, sizeof(spec->url)) ||
	    !store_text_ok(spec->endpoint, sizeof(spec->endpoint)) ||
	    !store_text_ok(spec->region, sizeof(spec->region)) ||
	    !store_text_ok(spec->credentials, sizeof(spec->credentials)) ||
	    !store_text_ok(spec->ca, sizeof(spec->ca)))
		return err_set(
			e, EINVAL,
			"store %s: a value is too long or has control characters",
			spec->name);
	return 0;
}

static int store_check_values(const struct store_spec *spec, struct err *e)
{
	const struct store_ops *ops = store_kind(spec->url);

	if (!ops)
		return err_set(
			e, EINVAL,
			"a URL begins with /, dir://, http://, https:// or s3://");
	if (ops != &store_dir_ops && !store_url_ok(spec->url, e))
		return -EINVAL;
	if (!store_url_ok(spec->endpoint, e))
		return -EINVAL;
	if (ops != &store_s3_ops &&
	    (spec->endpoint[0] || spec->region[0] || spec->credentials[0]))
		return err_set(
			e, EINVAL,
			"endpoint, region and credentials are for s3:// only");
	return ops->check(spec, e);
}

int store_check(const struct store_spec *spec, struct err *e)
{
	int r = store_check_texts(spec, e);

	if (r < 0)
		return r;
	r = store_check_values(spec, e);
	if (r < 0)
		err_prefix(e, "store %s", spec->name);
	return r;
}

bool store_object_ok(const char *object)
{
	const char *s = object;

	if (strlen(object) >= STORE_OBJECT_MAX)
		return false;
	for (;;) {
		size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmn"
				     "opqrstuvwxyz0123456789_.-");

		if (n == 0 || (n == 1 && s[0] == '.') ||
		    (n == 2 && s[0] == '.' && s[1] == '.'))
			return false;
		if (s[n] == '\0')
			return true;
		if (s[n] != '/')
			return false;
		s += n + 1;
	}
}

/* ---- stores and connections ---- */

static void store_freep(struct store **s)
{
	store_free(*s);
}

int store_open(const struct store_spec *spec, struct store **ret, struct err *e)
{
	guard(store_freep) struct store *s = NULL;
	const struct store_ops *ops;
	int r;

	r = store_check(spec, e);
	if (r < 0)
		return r;
	ops = store_kind(spec->url);
	must(ops && ops->store_bytes >= sizeof(*s));
	s = calloc(1, ops->store_bytes);
	if (!s)
		return err_errno(e, ENOMEM, "open store %s", spec->name);
	s->ops = ops;
	s->spec = *spec;
	r = ops->open(s, e);
	if (r < 0) {
		err_prefix(e, "open store %s", spec->name);
		return r;
	}
	*ret = take(s);
	return 0;
}

struct store *store_free(struct store *s)
{
	if (s) {
		must(atomic_load(&s->conns) == 0);
		s->ops->close(s);
		free(s);
	}
	return NULL;
}

const struct store_spec *store_spec(const struct store *s)
{
	return &s->spec;
}

static uint64_t store_counter(const struct store *s, enum store_counter which)
{
	return atomic_load_explicit(&s->counter[which], memory_order_relaxed);
}

struct store_counts store_counts(const struct store *s)
{
	return (struct store_counts){
		.requests = store_counter(s, STORE_REQUESTS),
		.retries = store_counter(s, STORE_RETRIES),
		.hedges = store_counter(s, STORE_HEDGES),
		.hedges_won = store_counter(s, STORE_HEDGES_WON),
		.failures = store_counter(s, STORE_FAILURES),
		.bytes = store_counter(s, STORE_BYTES),
	};
}

static void store_conn_freep(struct store_conn **c)
{
	store_conn_free(*c);
}

int store_connect(struct store *s, struct store_conn **ret, struct err *e)
{
	guard(store_conn_freep) struct store_conn *c = NULL;
	int r;

	must(s->ops->conn_bytes >= sizeof(*c));
	c = calloc(1, s->ops->conn_bytes);
	if (!c)
		return err_errno(e, ENOMEM, "connect to store %s",
				 s->spec.name);
	c->store = s;
	atomic_fetch_add(&s->conns, 1);
	c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->wake_fd < 0)
		return err_errno(e, errno, "connect to store %s", s->spec.name);
	r = s->ops->connect(c, e);
	if (r < 0) {
		err_prefix(e, "connect to store %s", s->spec.name);
		return r;
	}
	*ret = take(c);
	return 0;
}

struct store_conn *store_conn_free(struct store_conn *c)
{
	if (c) {
		c->store->ops->disconnect(c);
		fd_close(&c->wake_fd);
		must(atomic_fetch_sub(&c->store->conns, 1) > 0);
		free(c);
	}
	return NULL;
}

void store_conn_cancel(struct store_conn *c, bool cancel)
{
	atomic_store(&c->cancelled, cancel);
	if (cancel) {
		err_drop(eventfd_write(c->wake_fd, 1));
	} else {
		eventfd_t n;

		err_drop(eventfd_read(c->wake_fd, &n));
	}
}

int store_conn_check(const struct store_conn *c, struct err *e)
{
	if (atomic_load(&c->cancelled))
		return err_set(e, ECANCELED, "cancelled");
	return 0;
}

/* ---- the engine ---- */

static uint64_t store_jitter(uint64_t below_ns)
{
	uint64_t x;

	io_random(&x, sizeof(x));
	return x % (below_ns + 1);
}

/* How long to wait before try number @n; 0 when there is no time for it. */
static uint64_t store_pause_ns(const struct store_conn *c, unsigned n,
			       uint64_t left_ns)
{
	uint64_t limit = n < 6 ? STORE_PAUSE_MIN_NS << n : STORE_PAUSE_MAX_NS;
	uint64_t pause = store_jitter(min(limit, STORE_PAUSE_MAX_NS));

	if (left_ns < STORE_LAST_TRY_NS || c->pause_ns >= left_ns)
		return 0;
	pause = max(pause, c->pause_ns);
	if (pause >= left_ns)
		pause = left_ns / 2;
	return max(pause, (uint64_t)1);
}

static void store_sleep(const struct store_conn *c, uint64_t ns)
{
	struct pollfd wake = { .fd = c->wake_fd, .events = POLLIN };
	struct timespec ts = { .tv_sec = (time_t)(ns / NS_PER_SEC),
			       .tv_nsec = (long)(ns % NS_PER_SEC) };

	/* A signal ends it early: a pause is a courtesy, no promise. */
	err_drop(ppoll(&wake, 1, &ts, NULL));
}

static int store_late(unsigned tries, const struct err *last, struct err *e)
{
	if (!tries)
		return err_set(e, ETIMEDOUT, "the deadline has passed already");
	return err_set(e, ETIMEDOUT, "not by the deadline, after %u tries: %s",
		       tries, last->msg);
}

static uint64_t store_left_ns(uint64_t deadline_ns)
{
	uint64_t now = clock_mono_ns();

	return now < deadline_ns ? deadline_ns - now : 0;
}

int store_repeat(struct store_conn *c, store_try_fn fn, struct store_call *call,
		 uint64_t deadline_ns, struct err *e)
{
	struct err last = ERR_NULL;
	uint64_t pause;
	int r;

	c->deadline_ns = deadline_ns;
	for (unsigned n = 0;; n++) {
		r = store_conn_check(c, e);
		if (r < 0)
			return r;
		if (!store_left_ns(deadline_ns))
			return store_late(n, &last, e);
		if (n)
			store_add(c->store, STORE_RETRIES, 1);
		c->pause_ns = 0;
		r = fn(c, call, &last);
		if (r < 0)
			return err_set(e, -r, "%s", last.msg);
		if (r != STORE_AGAIN)
			return r;
		pause = store_pause_ns(c, n, store_left_ns(deadline_ns));
		if (!pause)
			return store_late(n + 1, &last, e);
		store_sleep(c, pause);
	}
}

/* ---- calls ---- */

static int store_end(struct store_conn *c, const char *verb, const char *object,
		     int r, struct err *e)
{
	if (r >= 0)
		return r;
	if (r != -ECANCELED)
		store_add(c->store, STORE_FAILURES, 1);
	err_prefix(e, "%s %s in store %s", verb, object, c->store->spec.name);
	return r;
}

static int store_call(struct store_conn *c, const char *verb, store_try_fn fn,
		      struct store_call *call, uint64_t deadline_ns,
		      struct err *e)
{
	int r;

	if (!store_object_ok(call->object))
		return err_set(e, EINVAL,
			       "%s in store %s: not an object's name", verb,
			       c->store->spec.name);
	r = store_repeat(c, fn, call, deadline_ns, e);
	return store_end(c, verb, call->object, r, e);
}

int store_get(struct store_conn *c, const char *object, uint64_t offset,
	      size_t len, void *p, uint64_t deadline_ns, struct err *e)
{
	struct store_call call = {
		.object = object, .offset = offset, .len = len, .into = p
	};

	if (offset > INT64_MAX || len > INT64_MAX - offset)
		return err_set(e, EINVAL, "get %s: range out of bounds",
			       object);
	if (!len)
		return 0;
	return store_call(c, "get", c->store->ops->get, &call, deadline_ns, e);
}

int store_get_all(struct store_conn *c, const char *object, size_t max,
		  char **ret, size_t *ret_len, uint64_t deadline_ns,
		  struct err *e)
{
	struct store_call call = { .object = object,
				   .len = min(max, (size_t)SSIZE_MAX - 2) };
	int r = store_call(c, "get", c->store->ops->get_all, &call, deadline_ns,
			   e);

	if (r != 0)
		return r;
	*ret = call.all;
	if (ret_len)
		*ret_len = call.all_len;
	return 0;
}

int store_head(struct store_conn *c, const char *object, uint64_t *ret_bytes,
	       uint64_t deadline_ns, struct err *e)
{
	struct store_call call = { .object = object };
	int r = store_call(c, "find", c->store->ops->head, &call, deadline_ns,
			   e);

	if (r == 0)
		*ret_bytes = call.bytes;
	return r;
}

int store_put(struct store_conn *c, const char *object, const void *p,
	      size_t len, uint64_t deadline_ns, struct err *e)
{
	struct store_call call = { .object = object, .from = p, .len = len };

	return store_call(c, "put", c->store->ops->put, &call, deadline_ns, e);
}

static int store_upload_run(struct store_conn *c, const struct store_upload *u,
			    struct err *e)
{
	if (!store_object_ok(u->object) || u->bytes > INT64_MAX)
		return err_set(
			e, EINVAL,
			"upload to store %s: not an object's name or size",
			c->store->spec.name);
	return store_end(c, "upload", u->object, c->store->ops->upload(c, u, e),
			 e);
}

int store_upload(struct store_conn *c, const char *object, int fd,
		 uint64_t bytes, const char *note,
		 int (*progress)(void *arg, uint64_t done, uint64_t total),
		 void *arg, struct err *e)
{
	const struct store_upload u = { .object = object,
					.fd = fd,
					.bytes = bytes,
					.note = note,
					.progress = progress,
					.arg = arg };

	return store_upload_run(c, &u, e);
}

int store_replace(struct store_conn *c, const char *object, int fd,
		  uint64_t bytes, const char *note,
		  int (*progress)(void *arg, uint64_t done, uint64_t total),
		  void *arg, struct err *e)
{
	const struct store_upload u = { .object = object,
					.fd = fd,
					.bytes = bytes,
					.note = note,
					.replace = true,
					.progress = progress,
					.arg = arg };

	return store_upload_run(c, &u, e);
}
