/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any server that knows Range, as a store to read from
 *
 *	GET  URL/OBJECT  with Range: bytes=A-B, answered by 206 and exactly
 *	                 those bytes, or without, for small objects
 *	HEAD URL/OBJECT  for the size
 *
 * A directory that was filled as a dir:// store and is served by a plain web
 * server is one. There is no standard by which such a server takes objects in
 * a way that is atomic and can be resumed, so it takes none.
 *
 * Invariants:
 *  1. An object's URL is the spec's and the object's name, which needs no
 *     escaping (store_object_ok); no query, no credentials.
 *  2. No proxy and no server may compress or cut: store_transfer.c checks
 *     every head.
 */
#include "base/guard.h"
#include "base/io.h"
#include "image/store_hedge.h"
#include "image/store_transfer.h"

#include <errno.h>
#include <string.h>

struct store_http {
	struct store store;
	struct hedge hedge;
};

struct store_http_conn {
	struct store_conn conn;
	struct transfer *transfer;
};

static int http_check(const struct store_spec *spec, struct err *e)
{
	if (!transfer_url_ok(spec->url))
		return err_set(e, EINVAL,
			       "the URL is not http(s)://HOST[:PORT]/PATH");
	if (strstr(spec->url, "/../") || strstr(spec->url, "/./"))
		return err_set(e, EINVAL, "the URL has . or .. in its path");
	return 0;
}

static int http_open(struct store *s, unused struct err *e)
{
	hedge_init(&container_of(s, struct store_http, store)->hedge);
	return 0;
}

static void http_close(unused struct store *s)
{
}

static int http_connect(struct store_conn *c, struct err *e)
{
	struct store_http_conn *h =
		container_of(c, struct store_http_conn, conn);
	struct store_http *s = container_of(c->store, struct store_http, store);

	return transfer_new(c, &s->hedge, c->store->spec.ca, &h->transfer, e);
}

static void http_disconnect(struct store_conn *c)
{
	struct store_http_conn *h =
		container_of(c, struct store_http_conn, conn);

	h->transfer = transfer_free(h->transfer);
}

/* The slashes at the end of the spec's URL do not count. */
static char *http_url(const struct store_conn *c, const char *object)
{
	const char *url = c->store->spec.url;
	size_t n = strlen(url);

	while (url[n - 1] == '/')
		n--;
	return io_path("%.*s/%s", (int)n, url, object);
}

static int http_run(struct store_conn *c, const struct store_call *call,
		    enum transfer_want want, struct transfer_answer *a,
		    struct err *e)
{
	struct store_http_conn *h =
		container_of(c, struct store_http_conn, conn);
	guard_free char *url = http_url(c, call->object);
	const struct transfer_request q = { .url = url,
					    .want = want,
					    .offset = call->offset,
					    .len = call->len,
					    .into = call->into };

	if (!url)
		return err_errno(e, ENOMEM, "make a URL");
	return transfer_run(h->transfer, &q, a, e);
}

static int http_get(struct store_conn *c, struct store_call *call,
		    struct err *e)
{
	guard(transfer_answer_clear) struct transfer_answer a = { 0 };

	return http_run(c, call, TRANSFER_RANGE, &a, e);
}

static int http_get_all(struct store_conn *c, struct store_call *call,
			struct err *e)
{
	guard(transfer_answer_clear) struct transfer_answer a = { 0 };
	int r = http_run(c, call, TRANSFER_ALL, &a, e);

	if (r == 0) {
		call->all = take(a.all);
		call->all_len = a.all_len;
	}
	return r;
}

static int http_head(struct store_conn *c, struct store_call *call,
		     struct err *e)
{
	guard(transfer_answer_clear) struct transfer_answer a = { 0 };
	int r = http_run(c, call, TRANSFER_SIZE, &a, e);

	if (r == 0)
		call->bytes = a.bytes;
	return r;
}

static int http_put(unused struct store_conn *c, unused struct store_call *call,
		    struct err *e)
{
	return err_set(
		e, EOPNOTSUPP,
		"an HTTP store can only be read; write to its directory or to s3://");
}

static int http_upload(struct store_conn *c,
		       unused const struct store_upload *u, struct err *e)
{
	return http_put(c, NULL, e);
}

const struct store_ops store_http_ops = {
	.store_bytes = sizeof(struct store_http),
	.conn_bytes = sizeof(struct store_http_conn),
	.check = http_check,
	.open = http_open,
	.close = http_close,
	.connect = http_connect,
	.disconnect = http_disconnect,
	.get = http_get,
	.get_all = http_get_all,
	.head = http_head,
	.put = http_put,
	.upload = http_upload,
};
