/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What verbs print
 *
 * JSON goes out as the daemon gave it: same keys, same order, nothing added.
 * For people, the accessors here are forgiving: an object of a newer or older
 * daemon that lacks a member prints an empty cell, not an error.
 */
#include "cmd/print.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/parse.h"
#include "cmd/table.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

void print_json(const json_t *v)
{
	json_dumpf(v, stdout,
		   JSON_INDENT(2) | JSON_REAL_PRECISION(12) | JSON_ENCODE_ANY);
	putchar('\n');
}

static void print_value(struct table *t, const char *key, const json_t *v)
{
	guard_free char *text = NULL;
	size_t len = strlen(key);
	char human[16];

	if (json_is_string(v)) {
		table_add(t, "%s", json_string_value(v));
		return;
	}
	if (json_is_integer(v) && len > 6 && !strcmp(key + len - 6, "_bytes")) {
		table_add(t, "%lld (%s)", (long long)json_integer_value(v),
			  format_bytes((uint64_t)json_integer_value(v), human));
		return;
	}
	text = json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
	table_add(t, "%s", json_is_null(v) ? "-" : text ? text : "?");
}

static void print_members(struct table *t, const char *prefix, const json_t *o)
{
	const char *key;
	char name[128];
	json_t *v;

	/* The macro wants an object that it could change; it does not. */
	json_object_foreach ((json_t *)(uintptr_t)o, key, v) {
		snprintf(name, sizeof(name), "%s%s%s", prefix,
			 *prefix ? "." : "", key);
		if (json_is_object(v) && !*prefix) {
			print_members(t, key, v);
			continue;
		}
		table_add(t, "%s", name);
		print_value(t, key, v);
	}
}

void print_object(const json_t *o)
{
	struct table t;

	table_init(&t, "KEY|VALUE");
	print_members(&t, "", o);
	table_print(&t);
	table_deinit(&t);
}

const char *print_text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

uint64_t print_number(const json_t *o, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(o, key));

	return n > 0 ? (uint64_t)n : 0;
}

double print_real(const json_t *o, const char *key)
{
	return json_number_value(json_object_get(o, key));
}

const char *print_bytes(const json_t *o, const char *key, char *out)
{
	if (!json_is_integer(json_object_get(o, key)))
		return strcpy(out, "-");
	return format_bytes(print_number(o, key), out);
}

const char *print_age(const char *rfc3339, uint64_t now_ns, char *out)
{
	struct tm tm = { 0 };
	uint64_t then_s, now_s = now_ns / NS_PER_SEC;
	time_t t;

	if (!strptime(rfc3339, "%Y-%m-%dT%H:%M:%S", &tm))
		return strcpy(out, "-");
	t = timegm(&tm);
	if (t < 0)
		return strcpy(out, "-");
	then_s = (uint64_t)t;
	return format_duration_ns(
		(then_s < now_s ? now_s - then_s : then_s - now_s) * NS_PER_SEC,
		out);
}
