/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answer to a request, as it comes in
 *
 * Here is decided what to believe of a server. The head is judged as soon as
 * it is whole, so that a wrong answer costs no body:
 *
 *	range   206 with the Content-Range that was asked for, to the byte; a
 *	        200 means that Range is not known there, and is not read even
 *	        when it would hold the bytes
 *	all     any 2xx whose body is not larger than what was allowed
 *	size    any 2xx with a Content-Length
 *
 * Invariants:
 *  1. Nothing is stored before the head was judged good, and never more than
 *     was asked for.
 *  2. A->lie is final. What may pass is decided by the status, or, for a body
 *     that is too short, by its end.
 *  3. Heads, error bodies and memory have maxima; memory is taken as bytes
 *     come, or once when their number was announced and allowed.
 *
 * Whether the bytes are the right ones only a digest can tell.
 */
#include "image/store_answer.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/parse.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

/* Of everything before the body; real ones stay below 2 KiB. */
#define ANSWER_HEAD_MAX (64u << 10)
/* Of an error's body: read so that the connection can be kept. */
#define ANSWER_ERROR_MAX (64u << 10)
/* A server may ask for patience, but not for ever. */
#define ANSWER_PAUSE_MAX_S 30
/* First room for a body whose length is not known. */
#define ANSWER_ROOM_MIN ((size_t)16 << 10)

void answer_init(struct answer *a, const struct transfer_request *q,
		 bool direct)
{
	*a = (struct answer){ .q = q,
			      .direct = direct && q->want == TRANSFER_RANGE };
}

void answer_deinit(struct answer *a)
{
	free(a->own);
	transfer_answer_clear(&a->out);
	*a = (struct answer){ 0 };
}

static bool answer_is_ok(const struct answer *a)
{
	return a->out.status >= 200 && a->out.status < 300;
}

/* ---- the head ---- */

/* The value of a header that has this name, NULL otherwise. Lines end with
 * \r\n; @size holds any value that we look at. */
static const char *head_value(const char *line, size_t len, const char *name,
			      char *out, size_t size)
{
	size_t n = strlen(name);

	if (len <= n || strncasecmp(line, name, n) != 0 || line[n] != ':')
		return NULL;
	line += n + 1;
	len -= n + 1;
	while (len && (*line == ' ' || *line == '\t'))
		line++, len--;
	while (len && strchr(" \t\r\n", line[len - 1]))
		len--;
	if (len >= size || memchr(line, '\0', len))
		return NULL;
	memcpy(out, line, len);
	out[len] = '\0';
	return out;
}

/* "bytes FIRST-LAST/TOTAL" */
static bool head_range(const char *s, uint64_t *first, uint64_t *last)
{
	char a[24], b[24];
	size_t n;

	if (strncasecmp(s, "bytes ", 6) != 0)
		return false;
	s += 6;
	n = strspn(s, "0123456789");
	if (n >= sizeof(a) || s[n] != '-')
		return false;
	memcpy(a, s, n);
	a[n] = '\0';
	s += n + 1;
	n = strspn(s, "0123456789");
	if (n >= sizeof(b) || s[n] != '/')
		return false;
	memcpy(b, s, n);
	b[n] = '\0';
	return parse_u64(a, first) == 0 && parse_u64(b, last) == 0;
}

static void head_line(struct answer *a, const char *line, size_t len)
{
	char value[TRANSFER_ETAG_MAX] = { 0 };
	uint64_t n;

	if (head_value(line, len, "content-length", value, sizeof(value)))
		a->has_length = parse_u64(value, &a->length) == 0;
	else if (head_value(line, len, "content-range", value, sizeof(value)))
		a->has_range = head_range(value, &a->first, &a->last);
	else if (head_value(line, len, "content-encoding", value,
			    sizeof(value)))
		a->encoded = strcasecmp(value, "identity") != 0;
	else if (head_value(line, len, "etag", value, sizeof(value)))
		memcpy(a->out.etag, value, sizeof(a->out.etag));
	else if (head_value(line, len, "retry-after", value, sizeof(value)) &&
		 parse_u64(value, &n) == 0)
		a->pause_ns = min(n, (uint64_t)ANSWER_PAUSE_MAX_S) * NS_PER_SEC;
}

/* A new answer: that of a proxy or "100 Continue" does not count. */
static void head_begin(struct answer *a, const char *line, size_t len)
{
	char text[16] = { 0 };
	const char *code;

	memcpy(text, line, min(len, sizeof(text) - 1));
	code = strchr(text, ' ');
	a->out.status = code ? atoi(code + 1) : 0;
	a->encoded = a->has_length = a->has_range = false;
	a->out.etag[0] = '\0';
	a->pause_ns = 0;
}

static void head_judge_range(struct answer *a)
{
	const struct transfer_request *q = a->q;

	if (a->out.status == 200)
		err_set(&a->lie, EPROTO,
			"the server answered 200 for a range: it does not know Range requests");
	else if (a->out.status != 206)
		err_set(&a->lie, EPROTO, "the server answered %d for a range",
			a->out.status);
	else if (!a->has_range)
		err_set(&a->lie, EBADMSG,
			"the server sent a part without saying which");
	else if (a->first == q->offset && a->last < q->offset + q->len - 1)
		err_set(&a->lie, EBADMSG,
			"the object ends at %" PRIu64
			", inside the range that was asked for",
			a->last + 1);
	else if (a->first != q->offset || a->last != q->offset + q->len - 1)
		err_set(&a->lie, EBADMSG,
			"the server sent bytes %" PRIu64 "-%" PRIu64
			" when asked for %" PRIu64 "-%" PRIu64,
			a->first, a->last, q->offset, q->offset + q->len - 1);
	else if (a->has_length && a->length > q->len)
		err_set(&a->lie, EBADMSG,
			"the server sent %" PRIu64 " bytes when asked for %zu",
			a->length, q->len);
}

/* The whole head is there; what is no success is judged at the end. */
static void head_judge(struct answer *a)
{
	a->head_done = true;
	if (!answer_is_ok(a))
		return;
	if (a->encoded)
		err_set(&a->lie, EPROTO,
			"the server changed the encoding of the body");
	else if (a->q->want == TRANSFER_RANGE)
		head_judge_range(a);
	else if (a->q->want == TRANSFER_ALL && a->has_length &&
		 a->length > a->q->len)
		err_set(&a->lie, E2BIG, "more than %zu bytes", a->q->len);
	else if (a->q->want == TRANSFER_SIZE && !a->has_length)
		err_set(&a->lie, EPROTO, "the server did not tell the size");
}

bool answer_head(struct answer *a, const char *line, size_t len)
{
	a->head_bytes += len;
	if (a->head_bytes > ANSWER_HEAD_MAX)
		err_set(&a->lie, EPROTO, "the server's headers do not end");
	else if (a->head_done || !len) /* trailers */
		return true;
	else if (len > 5 && !memcmp(line, "HTTP/", 5))
		head_begin(a, line, len);
	else if (line[0] != '\r' && line[0] != '\n')
		head_line(a, line, len);
	else if (a->out.status >= 200)
		head_judge(a);
	return !a->lie.code;
}

/* ---- the body ---- */

/* The body of an error: its beginning is kept. */
static bool answer_error_body(struct answer *a, const void *p, size_t len)
{
	size_t n = min(len, sizeof(a->out.said) - 1 - a->said_len);

	memcpy(a->out.said + a->said_len, p, n);
	a->said_len += n;
	a->error_bytes += len;
	return a->error_bytes <= ANSWER_ERROR_MAX;
}

/* Room for @need bytes, no more than were allowed, and a terminator. */
static bool answer_reserve(struct answer *a, size_t need)
{
	size_t room = max(a->room * 2, ANSWER_ROOM_MIN);
	char *more;

	if (a->own && need <= a->room)
		return true;
	if (a->q->want == TRANSFER_RANGE)
		room = a->q->len;
	else if (a->has_length)
		room = a->length;
	room = min(max(room, need), a->q->len);
	more = realloc(a->own, room + 1);
	if (!more)
		return false;
	a->own = more;
	a->room = room;
	return true;
}

static void answer_too_much(struct answer *a)
{
	if (a->q->want == TRANSFER_RANGE)
		err_set(&a->lie, EBADMSG,
			"the server sent more than the %zu bytes it was asked for",
			a->q->len);
	else
		err_set(&a->lie, E2BIG, "more than %zu bytes", a->q->len);
}

bool answer_body(struct answer *a, const void *p, size_t len)
{
	char *to = a->q->into;

	if (a->lie.code || !a->head_done)
		return false;
	if (!answer_is_ok(a))
		return answer_error_body(a, p, len);
	if (len > a->q->len - a->got) {
		answer_too_much(a);
		return false;
	}
	if (!a->direct) {
		if (!answer_reserve(a, a->got + len)) {
			err_errno(&a->lie, ENOMEM, "%zu bytes", a->q->len);
			return false;
		}
		to = a->own;
	}
	memcpy(to + a->got, p, len);
	a->got += len;
	return true;
}

/* ---- judging ---- */

static int answer_status(const struct answer *a, struct err *e)
{
	switch (a->out.status) {
	case 404:
	case 410:
		return STORE_MISS;
	case 401:
	case 403:
		return err_set(e, EACCES, "the server refuses: HTTP %d",
			       a->out.status);
	case 416:
		if (a->q->want != TRANSFER_RANGE)
			break;
		return err_set(e, EBADMSG,
			       "the object has no bytes %" PRIu64 "-%" PRIu64,
			       a->q->offset, a->q->offset + a->q->len - 1);
	case 408:
	case 425:
	case 429:
		err_set(e, EAGAIN, "HTTP %d", a->out.status);
		return STORE_AGAIN;
	case 501:
	case 505:
		return err_set(e, EPROTO, "HTTP %d", a->out.status);
	}
	if (a->out.status >= 500) {
		err_set(e, EAGAIN, "HTTP %d", a->out.status);
		return STORE_AGAIN;
	}
	if (a->out.status >= 300 && a->out.status < 400)
		return err_set(
			e, EPROTO,
			"the server redirects (HTTP %d), which is not followed",
			a->out.status);
	return err_set(e, EPROTO, "HTTP %d", a->out.status);
}

bool answer_decided(const struct answer *a, int *ret, struct err *e)
{
	if (a->lie.code) {
		*ret = err_set(e, a->lie.code, "%s", a->lie.msg);
		return true;
	}
	/* The status decides, even if the rest of an error's body is cut. */
	if (!a->head_done || answer_is_ok(a))
		return false;
	*ret = answer_status(a, e);
	return true;
}

int answer_end(const struct answer *a, struct err *e)
{
	int r;

	if (answer_decided(a, &r, e))
		return r;
	if (!a->head_done)
		return err_set(e, EPROTO, "the server does not speak HTTP");
	if (a->q->want == TRANSFER_RANGE && a->got < a->q->len) {
		err_set(e, EAGAIN, "the server sent %zu of %zu bytes", a->got,
			a->q->len);
		return STORE_AGAIN;
	}
	return 0;
}

int answer_deliver(struct answer *a, struct transfer_answer *ret, struct err *e)
{
	ret->bytes = a->has_length ? a->length : 0;
	if (a->q->want == TRANSFER_SIZE || a->direct)
		return 0;
	if (!answer_reserve(a, a->got))
		return err_errno(e, ENOMEM, "%zu bytes", a->got);
	if (a->q->want == TRANSFER_RANGE) {
		memcpy(a->q->into, a->own, a->got);
		return 0;
	}
	a->own[a->got] = '\0';
	ret->all = take(a->own);
	ret->all_len = a->got;
	return 0;
}

void transfer_answer_clear(struct transfer_answer *a)
{
	free(a->all);
	*a = (struct transfer_answer){ 0 };
}
