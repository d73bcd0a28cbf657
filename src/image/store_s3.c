/* SPDX-License-Identifier: Apache-2.0 */
/*
 * S3 as a store
 *
 *	endpoint given      ENDPOINT/BUCKET/PREFIX/OBJECT (path style)
 *	no endpoint         https://BUCKET.s3.REGION.amazonaws.com/PREFIX/OBJECT
 *
 * Reading is what store_http.c does, signed. A small object is one PUT, which
 * S3 makes visible whole; large ones are store_multipart.c's.
 *
 * Invariants:
 *  1. A request is signed anew for every try: a signature is good for some
 *     minutes only.
 *  2. Without keys requests are not signed, which public buckets allow for
 *     reading; nothing is written then.
 *  3. Keys are read once, when the store is opened (who holds it for long opens
 *     it anew when they are refused: EACCES), and wiped when it is
 *     freed. Headers that hold a token or a signature are wiped behind each
 *     try, as far as they are ours (libcurl keeps what it sends for a moment).
 *  4. Of a server's error only its code, one word, gets into a sentence.
 *
 * S3 says 403 for an object that is not there when listing is not allowed
 * either: that is EACCES here, not a miss.
 */
#include "image/store_s3.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "image/store_sign.h"

#include <curl/curl.h>
#include <errno.h>
#include <string.h>

#define S3_REGION "us-east-1"
/* "InvalidAccessKeyId"; the longest are about 40. */
#define S3_CODE_MAX 64

/* ---- the spec ---- */

#define S3_LOWER "abcdefghijklmnopqrstuvwxyz0123456789"

/* s3://BUCKET[/PREFIX] */
static bool s3_url_ok(const char *url)
{
	const char *bucket = url + strlen("s3://"), *prefix;
	size_t n = strspn(bucket, S3_LOWER ".-");

	if (n < 3 || n > 63 || !strchr(S3_LOWER, bucket[0]))
		return false;
	if (bucket[n] == '\0' || !strcmp(bucket + n, "/"))
		return true;
	prefix = bucket + n + 1;
	return bucket[n] == '/' && store_object_ok(prefix);
}

static int s3_check(const struct store_spec *spec, struct err *e)
{
	const char *host;

	if (!s3_url_ok(spec->url))
		return err_set(
			e, EINVAL,
			"the URL is not s3://BUCKET or s3://BUCKET/PREFIX");
	if (spec->region[strspn(spec->region, S3_LOWER "-")])
		return err_set(e, EINVAL, "a region is letters, digits and -");
	if (!spec->endpoint[0])
		return 0;
	host = strstr(spec->endpoint, "://");
	if (!transfer_url_ok(spec->endpoint) || !host || strchr(host + 3, '/'))
		return err_set(e, EINVAL,
			       "the endpoint is not http(s)://HOST[:PORT]");
	return 0;
}

/* As in the Host header: without a port that goes without saying. */
static void s3_drop_port(char *origin)
{
	const char *usual = strncmp(origin, "https:", 6) ? ":80" : ":443";
	size_t len = strlen(origin), n = strlen(usual);

	if (len > n && !strcmp(origin + len - n, usual))
		origin[len - n] = '\0';
}

static void s3_set_origin(struct s3 *s)
{
	const struct store_spec *spec = &s->store.spec;
	const char *bucket = spec->url + strlen("s3://");
	int n = (int)strcspn(bucket, "/");
	const char *prefix = bucket + n;

	if (!strcmp(prefix, "/"))
		prefix = "";
	s->region = spec->region[0] ? spec->region : S3_REGION;
	if (spec->endpoint[0]) {
		snprintf(s->origin, sizeof(s->origin), "%s", spec->endpoint);
		snprintf(s->base, sizeof(s->base), "/%.*s%s", n, bucket,
			 prefix);
	} else {
		snprintf(s->origin, sizeof(s->origin),
			 "https://%.*s.s3.%s.amazonaws.com", n, bucket,
			 s->region);
		snprintf(s->base, sizeof(s->base), "%s", prefix);
	}
	s3_drop_port(s->origin);
	s->host = strstr(s->origin, "://") + 3;
}

static int s3_open(struct store *store, struct err *e)
{
	struct s3 *s = container_of(store, struct s3, store);

	hedge_init(&s->hedge);
	s3_set_origin(s);
	return credentials_load(store->spec.credentials, &s->credentials, e);
}

static void s3_close(struct store *store)
{
	credentials_wipe(&container_of(store, struct s3, store)->credentials);
}

static int s3_connect(struct store_conn *c, struct err *e)
{
	struct s3_conn *conn = container_of(c, struct s3_conn, conn);
	struct s3 *s = container_of(c->store, struct s3, store);

	return transfer_new(c, &s->hedge, c->store->spec.ca, &conn->transfer,
			    e);
}

static void s3_disconnect(struct store_conn *c)
{
	struct s3_conn *conn = container_of(c, struct s3_conn, conn);

	conn->transfer = transfer_free(conn->transfer);
}

/* ---- a request ---- */

static void s3_headers_freep(struct curl_slist **list)
{
	for (struct curl_slist *l = *list; l; l = l->next)
		explicit_bzero(l->data, strlen(l->data));
	curl_slist_free_all(*list);
}

static bool s3_header(struct curl_slist **list, const char *name,
		      const char *value)
{
	guard_free char *line = io_path("%s: %s", name, value);
	struct curl_slist *more = NULL;

	if (line) {
		more = curl_slist_append(*list, line);
		explicit_bzero(line, strlen(line));
	}
	if (more)
		*list = more;
	return more;
}

static bool s3_sign(const struct s3 *s, const struct s3_request *q,
		    const char *path, struct curl_slist **list)
{
	const char *method = q->want == TRANSFER_SIZE ? "HEAD" : "GET";
	struct sign sign = { .method = q->method ? q->method : method,
			     .host = s->host,
			     .path = path,
			     .query = q->query ? q->query : "",
			     .region = s->region };
	char date[SIGN_DATE_MAX], authorization[SIGN_AUTHORIZATION_MAX];
	const char *token = s->credentials.token;

	digest_of(q->body ? q->body : "", q->body_len, sign.payload);
	sign_date(clock_real_ns(), date);
	sign_v4(&sign, &s->credentials, date, authorization);
	return s3_header(list, "x-amz-date", date) &&
	       s3_header(list, "x-amz-content-sha256", sign.payload) &&
	       s3_header(list, "Authorization", authorization) &&
	       (!token[0] || s3_header(list, "x-amz-security-token", token));
}

bool s3_tag(const char **at, const char *tag, char *out, size_t size)
{
	char mark[40];
	const char *from, *to;

	snprintf(mark, sizeof(mark), "<%s>", tag);
	from = strstr(*at, mark);
	if (!from)
		return false;
	from += strlen(mark);
	to = strchr(from, '<');
	if (!to || (size_t)(to - from) >= size)
		return false;
	memcpy(out, from, (size_t)(to - from));
	out[to - from] = '\0';
	*at = to;
	return true;
}

/* A failure's code makes the sentence, and sometimes another judgement. */
static int s3_explain(const struct transfer_answer *a, int r, struct err *e)
{
	/* 400, but a matter of time; the rest a matter of keys. */
	static const char *const again[] = { "RequestTimeout", "SlowDown" };
	static const char *const keys[] = { "ExpiredToken", "InvalidToken",
					    "AuthorizationHeaderMalformed" };
	char code[S3_CODE_MAX] = "";
	const char *at = a->said;

	if (!s3_tag(&at, "Code", code, sizeof(code)) || !code[0] ||
	    code[strspn(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmn"
			      "opqrstuvwxyz0123456789.")])
		return r;
	if (r == STORE_MISS)
		return r;
	if (e)
		err_set(e, e->code, "%s (%s)", e->msg, code);
	for (size_t i = 0; i < nitems(again); i++)
		if (!strcmp(code, again[i]))
			return STORE_AGAIN;
	for (size_t i = 0; i < nitems(keys); i++)
		if (!strcmp(code, keys[i]) && e)
			return err_set(e, EACCES, "%s", e->msg);
	return r;
}

int s3_run(struct store_conn *c, const struct s3_request *q,
	   struct transfer_answer *a, struct err *e)
{
	struct s3_conn *conn = container_of(c, struct s3_conn, conn);
	const struct s3 *s = container_of(c->store, struct s3, store);
	guard(s3_headers_freep) struct curl_slist *headers = NULL;
	guard_free char *path = io_path("%s/%s", s->base, q->object);
	guard_free char *url = NULL;
	struct transfer_request t = { .method = q->method,
				      .body = q->body,
				      .body_len = q->body_len,
				      .want = q->want,
				      .offset = q->offset,
				      .len = q->len,
				      .into = q->into };
	int r;

	if (path)
		url = io_path("%s%s%s%s", s->origin, path, q->query ? "?" : "",
			      q->query ? q->query : "");
	if (!url ||
	    !s3_header(&headers, "Content-Type", "application/octet-stream") ||
	    /* Off: a part would wait a second for leave to be sent. */
	    !s3_header(&headers, "Expect", "") ||
	    (s->credentials.key[0] && !s3_sign(s, q, path, &headers)))
		return err_errno(e, ENOMEM, "make a request");
	t.url = url;
	t.headers = headers;
	r = transfer_run(conn->transfer, &t, a, e);
	return a->said[0] ? s3_explain(a, r, e) : r;
}

int s3_may_write(const struct store_conn *c, struct err *e)
{
	const struct s3 *s = container_of(c->store, struct s3, store);

	if (s->credentials.key[0])
		return 0;
	return err_set(
		e, EACCES,
		"no credentials: neither a file in the store's configuration, nor AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment");
}

/* ---- calls ---- */

static int s3_get(struct store_conn *c, struct store_call *call, struct err *e)
{
	guard(transfer_answer_clear) struct transfer_answer a = { 0 };
	const struct s3_request q = { .object = call->object,
				      .want = TRANSFER_RANGE,
				      .offset = call->offset,
				      .len = call->len,
				      .into = call->into };

	return s3_run(c, &q, &a, e);
}

static int s3_get_all(struct store_conn *c, struct store_call *call,
		      struct err *e)
{
	guard(transfer_answer_clear) struct transfer_answer a = { 0 };
	const struct s3_request q = { .object = call->object,
				      .want = TRANSFER_ALL,
				      .len = call->len };
	int r = s3_run(c, &q, &a, e);

	if (r == 0) {
		call->all = take(a.all);
		call->all_len = a.all_len;
	}
	return r;
}

int s3_head(struct store_conn *c, struct store_call *call, struct err *e)
{
	guard(transfer_answer_clear) struct transfer_answer a = { 0 };
	const struct s3_request q = { .object = call->object,
				      .want = TRANSFER_SIZE };
	int r = s3_run(c, &q, &a, e);

	if (r == 0)
		call->bytes = a.bytes;
	return r;
}

int s3_put(struct store_conn *c, struct store_call *call, struct err *e)
{
	guard(transfer_answer_clear) struct transfer_answer a = { 0 };
	const struct s3_request q = { .method = "PUT",
				      .object = call->object,
				      .body = call->from ? call->from : "",
				      .body_len = call->len,
				      .want = TRANSFER_ALL,
				      .len = 64 << 10 };
	int r = s3_may_write(c, e);

	if (r < 0)
		return r;
	r = s3_run(c, &q, &a, e);
	if (r == STORE_MISS)
		return err_set(e, ENOENT, "there is no such bucket");
	return r;
}

const struct store_ops store_s3_ops = {
	.store_bytes = sizeof(struct s3),
	.conn_bytes = sizeof(struct s3_conn),
	.check = s3_check,
	.open = s3_open,
	.close = s3_close,
	.connect = s3_connect,
	.disconnect = s3_disconnect,
	.get = s3_get,
	.get_all = s3_get_all,
	.head = s3_head,
	.put = s3_put,
	.upload = s3_upload,
};
