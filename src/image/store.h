/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Object stores behind one table of operations
 *
 *	dir:///PATH or /PATH     a directory
 *	http://, https://        any server that knows Range; read only
 *	s3://BUCKET/PREFIX       S3 by SigV4; endpoint from the spec
 *
 * A store is shared by threads; a connection is one thread's at a time and keeps
 * its sockets open. Every call ends by its deadline. Inside it a request that
 * fails in a way that may pass (no connection, reset, time-out, 429, 5xx, short
 * body) is repeated with jittered, growing pauses, and one that is slow is
 * hedged: a second one is sent, the first answer wins. What can not pass (404,
 * 401, 403, a 200 for a range, TLS verification) fails at once.
 *
 * Credentials come from the environment (AWS_ACCESS_KEY_ID,
 * AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN) or a file of the same form as
 * ~/.aws/credentials; they are never in a sentence or a log.
 */
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STORE_NAME_MAX 64
#define STORE_URL_MAX 512
#define STORE_PATH_MAX 256
/* Ranges that are fetched together when they touch. */
#define STORE_COALESCE (8u << 20)
/* A part of a multipart upload. S3 wants 5 MiB at least, 10,000 at most. */
#define STORE_PART (16u << 20)
/* Outcome: there is no such object. */
#define STORE_MISS 1

struct store_spec {
	char name[STORE_NAME_MAX];
	char url[STORE_URL_MAX];
	char endpoint[STORE_URL_MAX]; /* s3: http(s)://host:port; "": AWS's */
	char region[64]; /* s3; "": us-east-1 */
	char credentials[STORE_PATH_MAX]; /* file; "": environment */
	char ca[STORE_PATH_MAX]; /* CA bundle; "": the system's */
};

/* Since the store was opened; read at any time. */
struct store_counts {
	uint64_t requests, retries, hedges, hedges_won, failures;
	uint64_t bytes; /* of bodies received */
};

struct store;
struct store_conn;

/* Is this a usable spec? Opens nothing. */
int store_check(const struct store_spec *spec, struct err *e) must_check;
int store_open(const struct store_spec *spec, struct store **ret,
	       struct err *e) must_check;
struct store *store_free(struct store *s); /* connections first */
const struct store_spec *store_spec(const struct store *s);
struct store_counts store_counts(const struct store *s);

int store_connect(struct store *s, struct store_conn **ret,
		  struct err *e) must_check;
struct store_conn *store_conn_free(struct store_conn *c);
/* Called from another thread: calls under way and to come end with ECANCELED.
 * Stays so until set to false. */
void store_conn_cancel(struct store_conn *c, bool cancel);

/* @deadline_ns: monotonic. Exactly @len bytes or an error; never more than
 * asked is written. STORE_MISS, or <0: ETIMEDOUT at the deadline with what the
 * last try said, EBADMSG for a server that lies, EACCES, EPROTO... */
int store_get(struct store_conn *c, const char *object, uint64_t offset,
	      size_t len, void *p, uint64_t deadline_ns,
	      struct err *e) must_check;
/* A whole small object, fresh and zero-terminated; E2BIG above @max. */
int store_get_all(struct store_conn *c, const char *object, size_t max,
		  char **ret, size_t *ret_len, uint64_t deadline_ns,
		  struct err *e) must_check;
/* Size of an object. */
int store_head(struct store_conn *c, const char *object, uint64_t *ret_bytes,
	       uint64_t deadline_ns, struct err *e) must_check;
/* A small object in one step: readers see the old one or the new one. */
int store_put(struct store_conn *c, const char *object, const void *p,
	      size_t len, uint64_t deadline_ns, struct err *e) must_check;
/*
 * A file as an object; invisible until it is whole. Interrupted, it goes on
 * where it was: @note is the path of a small file that this call keeps while
 * it is under way and removes at its end. An object of that name and size that
 * is there already is left alone. @progress as in image/pack.h.
 */
int store_upload(struct store_conn *c, const char *object, int fd,
		 uint64_t bytes, const char *note,
		 int (*progress)(void *arg, uint64_t done, uint64_t total),
		 void *arg, struct err *e) must_check;
/* The same, whatever is there: readers see the old object or the new one. */
int store_replace(struct store_conn *c, const char *object, int fd,
		  uint64_t bytes, const char *note,
		  int (*progress)(void *arg, uint64_t done, uint64_t total),
		  void *arg, struct err *e) must_check;
