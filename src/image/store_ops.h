/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What a kind of store is to store.c (internal to the stores)
 *
 * A kind embeds struct store and struct store_conn as first members of its
 * own, of the sizes that its table names. Its operations make one try each;
 * store.c repeats them.
 */
#include "image/store.h"

#include <stdatomic.h>

/* Outcome of one try: failed in a way that may pass; the sentence says how. */
#define STORE_AGAIN 2

enum store_counter {
	STORE_REQUESTS,
	STORE_RETRIES,
	STORE_HEDGES,
	STORE_HEDGES_WON,
	STORE_FAILURES,
	STORE_BYTES,
	STORE_COUNTER_COUNT
};

struct store_ops;

struct store {
	const struct store_ops *ops;
	struct store_spec spec;
	_Atomic uint64_t counter[STORE_COUNTER_COUNT];
	_Atomic unsigned conns;
};

struct store_conn {
	struct store *store;
	int wake_fd; /* readable while cancelled */
	atomic_bool cancelled;
	/* Of the call under way. */
	uint64_t deadline_ns;
	uint64_t pause_ns; /* set by a try: before the next one, at least */
};

/* The arguments of a call; each operation knows which are its own. */
struct store_call {
	const char *object;
	uint64_t offset;
	size_t len; /* get, put; get_all: at most */
	void *into;
	const void *from;
	/* Results. */
	char *all;
	size_t all_len;
	uint64_t bytes;
};

struct store_upload {
	const char *object;
	int fd;
	uint64_t bytes;
	const char *note;
	bool replace; /* what is there does not count */
	int (*progress)(void *arg, uint64_t done, uint64_t total);
	void *arg;
};

typedef int (*store_try_fn)(struct store_conn *c, struct store_call *call,
			    struct err *e);

struct store_ops {
	size_t store_bytes, conn_bytes;
	/* The part of the URL behind the scheme is the kind's to judge. */
	int (*check)(const struct store_spec *spec, struct err *e);
	int (*open)(struct store *s, struct err *e);
	void (*close)(struct store *s); /* of what open made, half-made too */
	int (*connect)(struct store_conn *c, struct err *e);
	void (*disconnect)(struct store_conn *c);
	/* 0, STORE_MISS, STORE_AGAIN, <0. */
	store_try_fn get, get_all, head, put;
	/* The whole of it; makes its own tries by store_repeat(). */
	int (*upload)(struct store_conn *c, const struct store_upload *u,
		      struct err *e);
};

extern const struct store_ops store_dir_ops, store_http_ops, store_s3_ops;

/* Until it is done, cannot be, is cancelled or late. The sentence is the
 * cause only. */
int store_repeat(struct store_conn *c, store_try_fn fn, struct store_call *call,
		 uint64_t deadline_ns, struct err *e) must_check;

/* Does the connection's owner want to go on? -ECANCELED. */
int store_conn_check(const struct store_conn *c, struct err *e) must_check;

static inline void store_add(struct store *s, enum store_counter which,
			     uint64_t n)
{
	atomic_fetch_add_explicit(&s->counter[which], n, memory_order_relaxed);
}

/* Parts of names: components of [A-Za-z0-9_.-], none of them . or .. */
bool store_object_ok(const char *object);
