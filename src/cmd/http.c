/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The head and the framing of an HTTP/1.1 response
 *
 * Why not libcurl: the byre command starts for every little thing, and libcurl
 * with all it drags in costs more time to link dynamically than the request
 * takes; and half of our requests are upgrades, which libcurl leaves to us.
 *
 *	HTTP/1.1 200 OK\r\n          status line
 *	Content-Type: ...\r\n        fields
 *	\r\n
 *	body                         Content-Length, chunks, or till the end
 *
 * 1. The socket's other end is our own daemon, but who can replace a socket can
 *    send anything: every length is bounded before it is used, nothing is
 *    guessed, and what two readers could understand differently is refused
 *    (bare CR or LF, folded fields, length together with chunks, two lengths).
 * 2. Nothing is kept between calls for the head: it is parsed again from its
 *    first byte when more has come. Heads are a few hundred bytes in one packet.
 * 3. The body's state is struct http_body. A call gives one stretch of data at
 *    most, and points into the caller's bytes.
 *
 * Not here: sockets (client.c), JSON, requests.
 */
#include "cmd/http.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

/* A stretch of the head. */
struct http_text {
	const char *p;
	size_t len;
};

static bool http_text_is(struct http_text t, const char *s)
{
	return t.len == strlen(s) && !strncasecmp(t.p, s, t.len);
}

/* Copy what may stand in a token; longer is cut, for it is then none we know.
 */
static void http_text_copy(struct http_text t, char *out, size_t size)
{
	size_t n = min(t.len, size - 1);

	for (size_t i = 0; i < n; i++)
		out[i] = (char)tolower((unsigned char)t.p[i]);
	out[n] = '\0';
}

static struct http_text http_trim(struct http_text t)
{
	while (t.len && (*t.p == ' ' || *t.p == '\t')) {
		t.p++;
		t.len--;
	}
	while (t.len && (t.p[t.len - 1] == ' ' || t.p[t.len - 1] == '\t'))
		t.len--;
	return t;
}

static int http_decimal(struct http_text t, uint64_t *ret)
{
	uint64_t n = 0;

	if (!t.len || t.len > 18) /* 10^18 fits */
		return -EBADMSG;
	for (size_t i = 0; i < t.len; i++) {
		if (t.p[i] < '0' || t.p[i] > '9')
			return -EBADMSG;
		n = n * 10 + (uint64_t)(t.p[i] - '0');
	}
	*ret = n;
	return 0;
}

/* The line at *p, without its end, and *p moves behind it. -EBADMSG: control
 * characters, bare CR or LF. */
static int http_line(const char **p, const char *end, struct http_text *ret)
{
	const char *at = *p;

	for (; at < end; at++)
		if ((unsigned char)*at < ' ' && *at != '\t')
			break;
	if (end - at < 2 || at[0] != '\r' || at[1] != '\n')
		return -EBADMSG;
	*ret = (struct http_text){ *p, (size_t)(at - *p) };
	*p = at + 2;
	return 0;
}

/* "HTTP/1.1 200 OK" */
static int http_status_line(struct http_text t, int *ret)
{
	static const char version[] = "HTTP/1.1 ";
	uint64_t status = 0;
	size_t at = sizeof(version) - 1;

	if (t.len < at + 3 || memcmp(t.p, version, at))
		return -EBADMSG;
	if (http_decimal((struct http_text){ t.p + at, 3 }, &status) < 0)
		return -EBADMSG;
	if (t.len > at + 3 && t.p[at + 3] != ' ')
		return -EBADMSG;
	/* No informational answers: we never ask for them. */
	if (status != 101 && (status < 200 || status > 599))
		return -EBADMSG;
	*ret = (int)status;
	return 0;
}

/* Token characters of RFC 9110. */
static bool http_name_ok(struct http_text t)
{
	if (!t.len)
		return false;
	for (size_t i = 0; i < t.len; i++)
		if (!isalnum((unsigned char)t.p[i]) &&
		    !memchr("!#$%&'*+-.^_`|~", t.p[i], 15))
			return false;
	return true;
}

/* What the fields said, before it is known whether it fits together. */
struct http_seen {
	bool length;
	bool chunked;
};

static int http_field_known(struct http_head *h, struct http_seen *seen,
			    struct http_text name, struct http_text value)
{
	if (http_text_is(name, "Content-Length")) {
		if (seen->length)
			return -EBADMSG;
		seen->length = true;
		return http_decimal(value, &h->length);
	}
	if (http_text_is(name, "Transfer-Encoding")) {
		if (seen->chunked || !http_text_is(value, "chunked"))
			return -EBADMSG;
		seen->chunked = true;
	}
	if (http_text_is(name, "Content-Type")) {
		const char *semi = memchr(value.p, ';', value.len);

		if (semi)
			value.len = (size_t)(semi - value.p);
		http_text_copy(http_trim(value), h->type, sizeof(h->type));
	}
	if (http_text_is(name, "Upgrade"))
		http_text_copy(value, h->upgrade, sizeof(h->upgrade));
	return 0;
}

static int http_field(struct http_head *h, struct http_seen *seen,
		      struct http_text line)
{
	const char *colon = memchr(line.p, ':', line.len);
	struct http_text name, value;

	if (!colon)
		return -EBADMSG;
	name = (struct http_text){ line.p, (size_t)(colon - line.p) };
	value = (struct http_text){ colon + 1, line.len - name.len - 1 };
	if (!http_name_ok(name))
		return -EBADMSG; /* a folded field starts with a blank */
	return http_field_known(h, seen, name, http_trim(value));
}

static int http_framing(struct http_head *h, const struct http_seen *seen)
{
	if (seen->length && seen->chunked)
		return -EBADMSG;
	if (h->status == 101)
		h->framing = HTTP_UPGRADED;
	else if (h->status == 204 || h->status == 304)
		h->framing = HTTP_NO_BODY;
	else if (seen->chunked)
		h->framing = HTTP_CHUNKED;
	else if (seen->length)
		h->framing = HTTP_LENGTH;
	else
		h->framing = HTTP_TILL_CLOSE;
	return 0;
}

/* The head proper: @end is behind its empty line. */
static int http_head_read(const char *p, const char *end, struct http_head *h)
{
	struct http_seen seen = { 0 };
	struct http_text line = { 0 };
	unsigned fields = 0;
	int r;

	r = http_line(&p, end, &line);
	if (r < 0)
		return r;
	r = http_status_line(line, &h->status);
	if (r < 0)
		return r;
	for (;;) {
		r = http_line(&p, end, &line);
		if (r < 0)
			return r;
		if (!line.len)
			return http_framing(h, &seen);
		if (++fields > HTTP_FIELDS_MAX)
			return -EBADMSG;
		r = http_field(h, &seen, line);
		if (r < 0)
			return r;
	}
}

int http_head_parse(const uint8_t *p, size_t len, struct http_head *ret,
		    size_t *ret_used)
{
	static const char start[] = "HTTP/1.1 ";
	const char *text = (const char *)p, *end;
	struct http_head h = { 0 };
	int r;

	/* Whoever speaks something else is found out at once. */
	if (memcmp(text, start, min(len, sizeof(start) - 1)))
		return -EBADMSG;
	end = memmem(text, min(len, HTTP_HEAD_MAX), "\r\n\r\n", 4);
	if (!end)
		return len < HTTP_HEAD_MAX ? HTTP_MORE : -EBADMSG;
	end += 4;
	r = http_head_read(text, end, &h);
	if (r < 0)
		return r;
	*ret = h;
	*ret_used = (size_t)(end - text);
	return 0;
}

void http_body_init(struct http_body *b, const struct http_head *h)
{
	*b = (struct http_body){ .framing = h->framing };
	switch (h->framing) {
	case HTTP_LENGTH:
		b->left = h->length;
		b->end = !b->left;
		break;
	case HTTP_NO_BODY:
	case HTTP_UPGRADED:
		b->end = true;
		break;
	case HTTP_CHUNKED:
	case HTTP_TILL_CLOSE:
	case HTTP_FRAMING_COUNT:
		break;
	}
}

/* "1a3;extension": at most 15 digits, which leaves room in 64 bits. */
static int http_chunk_size(struct http_text line, uint64_t *ret)
{
	static const char digits[] = "0123456789abcdef";
	const char *digit;
	uint64_t n = 0;
	size_t i;

	for (i = 0; i < line.len; i++) {
		digit = strchr(digits, tolower((unsigned char)line.p[i]));
		if (!digit || !*digit)
			break;
		if (i == 15)
			return -EBADMSG;
		n = n * 16 + (uint64_t)(digit - digits);
	}
	if (!i || (i < line.len && line.p[i] != ';' && line.p[i] != ' '))
		return -EBADMSG;
	*ret = n;
	return 0;
}

/* A line of the framing, whose text is *ret; *skip moves behind it. */
static int http_body_line(const uint8_t *p, size_t len, size_t *skip,
			  struct http_text *ret)
{
	const char *at = (const char *)p + *skip, *from = at, *end;
	int r;

	/* The same line is too long however much of it is here. */
	len -= *skip;
	end = memmem(at, min(len, HTTP_LINE_MAX), "\r\n", 2);
	if (!end)
		return len < HTTP_LINE_MAX ? HTTP_MORE : -EBADMSG;
	r = http_line(&at, end + 2, ret);
	if (r < 0)
		return r;
	*skip += (size_t)(at - from);
	return 0;
}

/* A step of the chunk's framing. 0: go on. */
static int http_chunk_step(struct http_body *b, struct http_text line)
{
	int r;

	switch (b->chunk) {
	case HTTP_CHUNK_SIZE:
		r = http_chunk_size(line, &b->left);
		if (r < 0)
			return r;
		b->chunk = b->left ? HTTP_CHUNK_DATA : HTTP_CHUNK_TRAILER;
		return 0;
	case HTTP_CHUNK_CRLF:
		b->chunk = HTTP_CHUNK_SIZE;
		return line.len ? -EBADMSG : 0;
	case HTTP_CHUNK_TRAILER:
		b->end = !line.len;
		return ++b->trailers > HTTP_FIELDS_MAX ? -EBADMSG : 0;
	case HTTP_CHUNK_DATA:
	case HTTP_CHUNK_COUNT:
		break;
	}
	must(!"a state of a chunk");
	return -EBADMSG;
}

static int http_body_chunked(struct http_body *b, const uint8_t *p, size_t len,
			     size_t *ret_skip, size_t *ret_data)
{
	struct http_text line = { 0 };
	int r;

	while (b->chunk != HTTP_CHUNK_DATA) {
		r = http_body_line(p, len, ret_skip, &line);
		if (r)
			return r;
		r = http_chunk_step(b, line);
		if (r < 0)
			return r;
		if (b->end)
			return HTTP_END;
	}
	*ret_data = (size_t)min((uint64_t)(len - *ret_skip), b->left);
	b->left -= *ret_data;
	if (!b->left)
		b->chunk = HTTP_CHUNK_CRLF;
	return *ret_data ? 0 : HTTP_MORE;
}

int http_body_next(struct http_body *b, const uint8_t *p, size_t len,
		   size_t *ret_skip, size_t *ret_data)
{
	*ret_skip = *ret_data = 0;
	if (b->end)
		return HTTP_END;
	if (b->framing == HTTP_CHUNKED)
		return http_body_chunked(b, p, len, ret_skip, ret_data);
	if (b->framing == HTTP_TILL_CLOSE) {
		*ret_data = len;
		return len ? 0 : HTTP_MORE;
	}
	*ret_data = (size_t)min((uint64_t)len, b->left);
	b->left -= *ret_data;
	b->end = !b->left;
	return *ret_data ? 0 : HTTP_MORE;
}

bool http_body_may_close(const struct http_body *b)
{
	return b->end || b->framing == HTTP_TILL_CLOSE;
}
