/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The target of a request: path segments and query parameters, decoded
 */
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

/* The deepest route has four segments, the widest query one parameter; more
 * than these cannot match anything. */
#define TARGET_SEGMENTS_MAX 8
#define TARGET_QUERY_MAX 8

struct target_parameter {
	const char *key;
	const char *value; /* "" when none was given */
};

struct target {
	char *mem; /* everything points in here */
	size_t n_segments;
	const char *segment[TARGET_SEGMENTS_MAX];
	size_t n_query;
	struct target_parameter query[TARGET_QUERY_MAX];
};

#define TARGET_NULL         \
	{                   \
		.mem = NULL \
	}

/* @uri as it stood in the request line. Decoded text holds no NUL and no
 * control characters. */
int target_parse(const char *uri, struct target *ret, struct err *e) must_check;
void target_deinit(struct target *t);

/* The value of a query parameter; NULL when it was not given. */
const char *target_query(const struct target *t, const char *key);
/* "1" or "0"; absent is false. */
int target_query_flag(const struct target *t, const char *key, bool *ret,
		      struct err *e) must_check;
