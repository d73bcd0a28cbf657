/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The target of a request: path segments and query parameters, decoded
 *
 *	/v1/sandboxes/my%2dbox/logs?follow=1
 *	   v1 | sandboxes | my-box | logs      follow = "1"
 *
 * The HTTP library would decode the path for us, but before it is split: an
 * encoded slash would then change which route is taken, an encoded NUL would
 * cut the path. So the raw text is taken and split first; each piece is
 * decoded afterwards, alone.
 *
 * Invariants:
 *  1. A slash in a segment, or & and = in a parameter, came encoded and
 *     separates nothing.
 *  2. Every piece is a C string without control characters: it can go into a
 *     sentence, a log line, a database key.
 *  3. What is refused is refused whole; nothing is repaired.
 *
 * It does not know routes or names: whether a piece means anything is for
 * route.c and the registry.
 */
#include "api/target.h"

#include "base/guard.h"

#include <errno.h>
#include <string.h>

static int target_hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Decode @s in place; @plus: '+' is a space (queries only). */
static int target_decode(char *s, bool plus)
{
	char *out = s;

	for (; *s; s++) {
		char c = *s;

		if (c == '%') {
			int hi = target_hex(s[1]);
			int lo = hi < 0 ? -1 : target_hex(s[2]);

			if (lo < 0)
				return -EINVAL;
			c = (char)(hi << 4 | lo);
			s += 2;
		} else if (plus && c == '+') {
			c = ' ';
		}
		if ((unsigned char)c < ' ' || c == 0x7f)
			return -EINVAL;
		*out++ = c;
	}
	*out = '\0';
	return 0;
}

static int target_parse_path(struct target *t, char *path, struct err *e)
{
	char *segment;

	if (*path++ != '/')
		return err_set(e, EINVAL, "the path must begin with /");
	while ((segment = strsep(&path, "/"))) {
		if (t->n_segments == TARGET_SEGMENTS_MAX)
			return err_set(e, ENOENT, "no such path");
		if (target_decode(segment, false) < 0)
			return err_set(e, EINVAL,
				       "the path has a bad %%-escape or a "
				       "control character");
		t->segment[t->n_segments++] = segment;
	}
	return 0;
}

static int target_parse_query(struct target *t, char *query, struct err *e)
{
	char *pair;

	while ((pair = strsep(&query, "&"))) {
		char *value = strchr(pair, '=');

		if (value)
			*value++ = '\0';
		else
			value = pair + strlen(pair);
		if (target_decode(pair, true) < 0 ||
		    target_decode(value, true) < 0)
			return err_set(e, EINVAL,
				       "the query has a bad %%-escape or a "
				       "control character");
		if (target_query(t, pair))
			return err_set(e, EINVAL,
				       "query parameter %s is given twice",
				       pair);
		if (t->n_query == TARGET_QUERY_MAX)
			return err_set(e, EINVAL,
				       "more than %d query parameters",
				       TARGET_QUERY_MAX);
		t->query[t->n_query++] =
			(struct target_parameter){ pair, value };
	}
	return 0;
}

int target_parse(const char *uri, struct target *ret, struct err *e)
{
	guard(target_deinit) struct target t = TARGET_NULL;
	char *query;
	int r;

	t.mem = strdup(uri);
	if (!t.mem)
		return err_errno(e, ENOMEM, "read the path");
	query = strchr(t.mem, '?');
	if (query)
		*query++ = '\0';
	r = target_parse_path(&t, t.mem, e);
	if (r == 0 && query && *query)
		r = target_parse_query(&t, query, e);
	if (r < 0)
		return r;
	*ret = t;
	t.mem = NULL;
	return 0;
}

void target_deinit(struct target *t)
{
	free(t->mem);
	*t = (struct target)TARGET_NULL;
}

const char *target_query(const struct target *t, const char *key)
{
	for (size_t i = 0; i < t->n_query; i++)
		if (strcmp(t->query[i].key, key) == 0)
			return t->query[i].value;
	return NULL;
}

int target_query_flag(const struct target *t, const char *key, bool *ret,
		      struct err *e)
{
	const char *value = target_query(t, key);

	if (value && strcmp(value, "0") != 0 && strcmp(value, "1") != 0)
		return err_set(e, EINVAL, "query parameter %s must be 0 or 1",
			       key);
	*ret = value && *value == '1';
	return 0;
}
