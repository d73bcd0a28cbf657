/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Requests to S3 (internal to the stores)
 */
#include "image/store_credentials.h"
#include "image/store_hedge.h"
#include "image/store_transfer.h"

/* scheme, host and port, or what becomes one from bucket and region. */
#define S3_HOST_MAX (STORE_URL_MAX + 128)
#define S3_QUERY_MAX (3 * 1024 + 128)

struct s3 {
	struct store store;
	struct hedge hedge;
	struct credentials credentials;
	char origin[S3_HOST_MAX]; /* https://host:port */
	char base[S3_HOST_MAX]; /* path in front of objects, "" or "/..." */
	const char *host; /* inside the origin, as in the Host header */
	const char *region;
};

struct s3_conn {
	struct store_conn conn;
	struct transfer *transfer;
};

struct s3_request {
	const char *method; /* NULL: GET or HEAD */
	const char *object;
	const char *query; /* escaped and sorted; NULL: none */
	const void *body;
	size_t body_len;
	enum transfer_want want;
	uint64_t offset;
	size_t len;
	void *into;
};

/* One try, signed if there are keys; as transfer_run(). */
int s3_run(struct store_conn *c, const struct s3_request *q,
	   struct transfer_answer *a, struct err *e) must_check;

/* EACCES, saying where keys are looked for, when there are none. */
int s3_may_write(const struct store_conn *c, struct err *e) must_check;

/* The text of the first <TAG> from *@at on; moves behind it. Only for answers
 * of a few known forms: no attributes, no nesting of the tag in itself. */
bool s3_tag(const char **at, const char *tag, char *out, size_t size);

/* In store_multipart.c. */
int s3_upload(struct store_conn *c, const struct store_upload *u,
	      struct err *e) must_check;
/* In store_s3.c, for it. */
int s3_head(struct store_conn *c, struct store_call *call,
	    struct err *e) must_check;
int s3_put(struct store_conn *c, struct store_call *call,
	   struct err *e) must_check;
