/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Client of the daemon's API
 *
 *	client_open ---> client_read ... CLIENT_END ---> client_deinit
 *	client_upgrade ---> the caller's own protocol on c->fd
 *
 * 1. Errors come from three places and read the same: what the daemon says
 *    (the problem's detail, which names verb and object already), what the
 *    socket says, and answers that make no sense ("answer to GET /v1/mem: ...").
 * 2. The code of a daemon's error is the errno the problem names, so that
 *    callers can tell a sandbox that is gone from one that is busy.
 * 3. No time limits: a create or a bake takes as long as the daemon says, and
 *    a user has Ctrl-C. Whoever must do something meanwhile passes a timeout.
 * 4. Answers are held to CLIENT_BODY_MAX, the receive buffer to one read's
 *    worth: a stream of any length passes through.
 */
#include "cmd/client.h"

#include "base/guard.h"
#include "base/io.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENT_RUN_DEFAULT "/run/byre"

/* One read(); also holds a whole head. */
#define CLIENT_BUFFER_MAX 65536u

static_assert(CLIENT_BUFFER_MAX >= HTTP_HEAD_MAX, "a head fits");

/* Linux's largest errno is 133. */
#define CLIENT_ERRNO_MAX 133

const char *client_run(void)
{
	const char *run = getenv("BYRE_RUN");

	return run && *run ? run : CLIENT_RUN_DEFAULT;
}

char *client_path(const char *before, const char *name, const char *behind)
{
	static const char digits[] = "0123456789ABCDEF";
	size_t at = strlen(before);
	char *path = malloc(at + 3 * strlen(name) + strlen(behind) + 1);

	if (!path)
		return NULL;
	memcpy(path, before, at);
	for (; *name; name++) {
		unsigned char c = (unsigned char)*name;

		if (isalnum(c) || strchr("-_~", c) || (c == '.' && name[1])) {
			path[at++] = (char)c;
			continue;
		}
		path[at++] = '%';
		path[at++] = digits[c >> 4];
		path[at++] = digits[c & 15];
	}
	strcpy(path + at, behind);
	return path;
}

void client_deinit(struct client *c)
{
	fd_close(&c->fd);
	buf_deinit(&c->in);
	c->held = 0;
}

static int client_connect(struct client *c, struct err *e)
{
	guard_free char *path = io_path("%s/api.sock", client_run());
	struct err why = ERR_NULL;
	const char *hint = "";
	int r;

	if (!path)
		return err_errno(e, ENOMEM, "connect to the daemon");
	r = io_connect_unix(path, false, &c->fd, &why);
	if (r >= 0)
		return 0;
	if (r == -ENOENT || r == -ECONNREFUSED)
		hint = " (start it with: byre serve)";
	return err_set(e, -r, "connect to the daemon at %s: %s%s", path,
		       strerror(-r), hint);
}

static int client_write(struct client *c, const void *p, size_t len,
			struct err *e)
{
	const char *at = p;
	ssize_t n;

	while (len) {
		n = send(c->fd, at, len, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		/* A daemon that refuses early says why: read on. */
		if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
			return 0;
		if (n < 0)
			return err_errno(e, errno, "send %s", c->what);
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

static int client_send(struct client *c, const char *method, const char *path,
		       const char *fields, const json_t *body, struct err *e)
{
	struct buf out = BUF_NULL(CLIENT_BODY_MAX);
	guard_free char *text = NULL;
	size_t len = 0;
	int r;

	if (body) {
		text = json_dumps(body, JSON_COMPACT);
		if (!text)
			return err_set(e, EINVAL, "%s: not text in UTF-8",
				       c->what);
		len = strlen(text);
	}
	r = buf_addf(&out, "%s %s HTTP/1.1\r\nHost: byre\r\n%s", method, path,
		     fields);
	if (r >= 0 && body)
		r = buf_addf(&out,
			     "Content-Type: application/json\r\n"
			     "Content-Length: %zu\r\n\r\n%s",
			     len, text);
	else if (r >= 0)
		r = buf_addf(&out, "\r\n");
	if (r >= 0)
		r = client_write(c, buf_data(&out), buf_len(&out), e);
	else
		r = err_errno(e, -r, "send %s", c->what);
	buf_deinit(&out);
	return r;
}

/* Receive some bytes. 0, CLIENT_END: the other side hung up, CLIENT_TIMEOUT. */
static int client_fill(struct client *c, int timeout_ms, struct err *e)
{
	struct pollfd p = { .fd = c->fd, .events = POLLIN };
	size_t room = buf_room(&c->in);
	uint8_t *to = buf_reserve(&c->in, room);
	ssize_t n;

	must(room);
	if (!to)
		return err_errno(e, ENOMEM, "answer to %s", c->what);
	for (;;) {
		if (timeout_ms >= 0 && poll(&p, 1, timeout_ms) == 0)
			return CLIENT_TIMEOUT;
		n = recv(c->fd, to, room, 0);
		if (n >= 0 || errno != EINTR)
			break;
	}
	if (n < 0)
		return err_errno(e, errno, "answer to %s", c->what);
	buf_commit(&c->in, (size_t)n);
	return n ? 0 : CLIENT_END;
}

static int client_nonsense(struct client *c, struct err *e)
{
	return err_set(e, EBADMSG, "answer to %s: this is not what byre speaks",
		       c->what);
}

static int client_cut(struct client *c, struct err *e)
{
	return err_set(e, ECONNRESET, "answer to %s: the daemon hung up",
		       c->what);
}

static int client_head(struct client *c, struct err *e)
{
	size_t used = 0;
	int r;

	do {
		r = client_fill(c, -1, e);
		if (r < 0)
			return r;
		if (r == CLIENT_END)
			return client_cut(c, e);
		r = http_head_parse(buf_data(&c->in), buf_len(&c->in), &c->head,
				    &used);
		if (r < 0)
			return client_nonsense(c, e);
	} while (r == HTTP_MORE);
	buf_consume(&c->in, used);
	http_body_init(&c->body, &c->head);
	return 0;
}

int client_read(struct client *c, int timeout_ms, const uint8_t **ret,
		size_t *ret_n, struct err *e)
{
	size_t skip = 0, n = 0;
	int r;

	buf_consume(&c->in, c->held);
	c->held = 0;
	for (;;) {
		r = http_body_next(&c->body, buf_data(&c->in), buf_len(&c->in),
				   &skip, &n);
		if (r < 0)
			return client_nonsense(c, e);
		buf_consume(&c->in, skip);
		if (r == HTTP_END)
			return CLIENT_END;
		if (r == 0)
			break;
		r = client_fill(c, timeout_ms, e);
		if (r == CLIENT_END)
			return http_body_may_close(&c->body) ? CLIENT_END
							     : client_cut(c, e);
		if (r)
			return r;
	}
	*ret = buf_data(&c->in);
	*ret_n = c->held = n;
	return 0;
}

static int client_read_all(struct client *c, struct buf *b, struct err *e)
{
	const uint8_t *p = NULL;
	size_t n = 0;
	int r;

	for (;;) {
		r = client_read(c, -1, &p, &n, e);
		if (r < 0)
			return r;
		if (r == CLIENT_END)
			return 0;
		r = buf_add(b, p, n);
		if (r < 0)
			return err_errno(e, -r, "answer to %s", c->what);
	}
}

static int client_json(struct client *c, json_t **ret, struct err *e)
{
	struct buf text = BUF_NULL(CLIENT_BODY_MAX);
	json_t *v = NULL;
	int r;

	r = client_read_all(c, &text, e);
	if (r >= 0 && buf_len(&text)) {
		v = json_loadb((const char *)buf_data(&text), buf_len(&text),
			       JSON_REJECT_DUPLICATES, NULL);
		if (!v)
			r = client_nonsense(c, e);
	}
	buf_deinit(&text);
	if (r >= 0)
		*ret = v;
	return r;
}

int client_errno(const char *name)
{
	const char *known;

	for (int i = 1; name && i <= CLIENT_ERRNO_MAX; i++) {
		known = strerrorname_np(i);
		if (known && !strcmp(known, name))
			return i;
	}
	return EIO;
}

/* Turn an answer that says no into the error it carries. */
static int client_problem(struct client *c, struct err *e)
{
	json_auto_t *v = NULL;
	const char *detail, *name;
	int r;

	r = client_json(c, &v, e);
	if (r < 0)
		return r;
	detail = json_string_value(json_object_get(v, "detail"));
	name = json_string_value(json_object_get(v, "errno"));
	if (!detail)
		return err_set(e, EIO, "%s: HTTP status %d", c->what,
			       c->head.status);
	return err_set(e, client_errno(name), "%s", detail);
}

static int client_start(struct client *c, const char *method, const char *path,
			const char *fields, const json_t *body, struct err *e)
{
	int r;

	client_deinit(c);
	buf_init(&c->in, CLIENT_BUFFER_MAX);
	snprintf(c->what, sizeof(c->what), "%s %s", method, path);
	r = client_connect(c, e);
	if (r < 0)
		return r;
	r = client_send(c, method, path, fields, body, e);
	if (r < 0)
		return r;
	r = client_head(c, e);
	if (r < 0)
		return r;
	return c->head.status >= 300 ? client_problem(c, e) : 0;
}

int client_open(struct client *c, const char *method, const char *path,
		const json_t *body, struct err *e)
{
	int r;

	r = client_start(c, method, path, "Connection: close\r\n", body, e);
	if (r < 0)
		return r;
	if (c->head.framing == HTTP_UPGRADED)
		return client_nonsense(c, e);
	return 0;
}

int client_upgrade(struct client *c, const char *path, const char *protocol,
		   struct err *e)
{
	guard_free char *fields =
		io_path("Connection: Upgrade\r\nUpgrade: %s\r\n", protocol);
	int r;

	if (!fields)
		return err_errno(e, ENOMEM, "upgrade %s", path);
	r = client_start(c, "GET", path, fields, NULL, e);
	if (r < 0)
		return r;
	if (c->head.framing != HTTP_UPGRADED ||
	    strcasecmp(c->head.upgrade, protocol))
		return client_nonsense(c, e);
	return 0;
}

int client_call(const char *method, const char *path, const json_t *body,
		json_t **ret, struct err *e)
{
	guard(client_deinit) struct client c = CLIENT_NULL;
	json_t *v = NULL;
	int r;

	r = client_open(&c, method, path, body, e);
	if (r < 0)
		return r;
	r = client_json(&c, &v, e);
	if (r < 0)
		return r;
	if (ret && !v)
		return client_nonsense(&c, e);
	if (ret)
		*ret = v;
	else
		json_decref(v);
	return 0;
}

int client_sandbox(const char *method, const char *id, const char *behind,
		   json_t **ret, struct err *e)
{
	guard_free char *path = client_path("/v1/sandboxes/", id, behind);

	if (!path)
		return err_errno(e, ENOMEM, "%s sandbox %s", method, id);
	return client_call(method, path, NULL, ret, e);
}
