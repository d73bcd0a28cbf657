/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * One HTTP request and its answer (internal to the stores)
 *
 * One try: it ends with an answer that was checked against the request, or
 * with a failure that is judged: may it pass? A GET that is slow is hedged.
 */
#include "image/store_ops.h"

struct curl_slist;
struct hedge;
struct transfer;

/* S3's codes and our sentences need only the beginning of an error's body. */
#define TRANSFER_SAID_MAX 1024
/* S3's are 34 or 39 bytes. */
#define TRANSFER_ETAG_MAX 128

enum transfer_want {
	TRANSFER_RANGE, /* exactly @len bytes at @offset, to @into */
	TRANSFER_ALL, /* the body, at most @len bytes, fresh memory */
	TRANSFER_SIZE, /* HEAD */
	TRANSFER_WANT_COUNT
};

struct transfer_request {
	const char *url;
	const char *method; /* NULL: GET, or HEAD for TRANSFER_SIZE */
	struct curl_slist *headers;
	const void *body; /* with a method only */
	size_t body_len;
	enum transfer_want want;
	uint64_t offset;
	size_t len;
	void *into;
};

/* What was said is there with failures too. */
struct transfer_answer {
	int status; /* 0: none came */
	char *all; /* zero-terminated */
	size_t all_len;
	uint64_t bytes; /* TRANSFER_SIZE */
	char etag[TRANSFER_ETAG_MAX];
	char said[TRANSFER_SAID_MAX]; /* the beginning of an error's body */
};

/* @ca: CA bundle, "" the system's. Borrows everything. */
int transfer_new(struct store_conn *c, struct hedge *h, const char *ca,
		 struct transfer **ret, struct err *e) must_check;
struct transfer *transfer_free(struct transfer *t);

/* 0, STORE_MISS, STORE_AGAIN, <0. Frees and fills *ret in every case. */
int transfer_run(struct transfer *t, const struct transfer_request *q,
		 struct transfer_answer *ret, struct err *e) must_check;
void transfer_answer_clear(struct transfer_answer *a);

/* Is http(s)://host[:port]/... one? The host only, nothing is looked up. */
bool transfer_url_ok(const char *url);
