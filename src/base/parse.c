/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text to numbers and back
 *
 * Invariants:
 *  1. All of the text is the number: no leading space or sign, no trailing
 *     anything. What is not understood is -EINVAL, what does not fit -ERANGE;
 *     nothing is clamped.
 *  2. No locale and no floating point: the point is '.', and "1.1G" is the
 *     same number of bytes on every machine.
 *  3. The formatters write at most 16 bytes and round to what a person reads;
 *     exact values go out as plain integers, in their own field.
 *
 * Fractions are computed in 128 bits: 18 digits (60 bits) times the largest
 * unit (a day, 47 bits; T, 40 bits) fit with room to spare.
 */
#include "base/parse.h"

#include "base/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* 10^18 is the largest power of ten whose every multiple below 10 fits. */
#define PARSE_FRACTION_DIGITS_MAX 18

/* What a name may have; see the header's expression. */
#define PARSE_NAME_MAX 63

/* The room the formatters are promised. */
#define FORMAT_MAX 16

/* whole.fraction, the fraction as parts of `scale`. */
struct parse_number {
	uint64_t whole;
	uint64_t fraction;
	uint64_t scale; /* a power of ten; 1 without a fraction */
};

static bool parse_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Advances *s over a run of digits, at least one. */
static int parse_digits(const char **s, uint64_t *ret)
{
	uint64_t n = 0;

	if (!parse_digit(**s))
		return -EINVAL;
	for (; parse_digit(**s); (*s)++)
		if (__builtin_mul_overflow(n, 10u, &n) ||
		    __builtin_add_overflow(n, (uint64_t)(**s - '0'), &n))
			return -ERANGE;
	*ret = n;
	return 0;
}

static int parse_number(const char **s, struct parse_number *ret)
{
	struct parse_number n = { .scale = 1 };
	const char *first;
	int r;

	r = parse_digits(s, &n.whole);
	if (r < 0)
		return r;
	if (**s == '.') {
		first = ++*s;
		r = parse_digits(s, &n.fraction);
		if (r < 0)
			return r;
		if (*s - first > PARSE_FRACTION_DIGITS_MAX)
			return -ERANGE;
		for (; first < *s; first++)
			n.scale *= 10;
	}
	*ret = n;
	return 0;
}

static int parse_scale(const struct parse_number *n, uint64_t unit,
		       uint64_t *ret)
{
	unsigned __int128 v = (unsigned __int128)n->whole * unit;

	v += (unsigned __int128)n->fraction * unit / n->scale;
	if (v > UINT64_MAX)
		return -ERANGE;
	*ret = (uint64_t)v;
	return 0;
}

int parse_u64(const char *s, uint64_t *ret)
{
	uint64_t n = 0;
	int r;

	r = parse_digits(&s, &n);
	/* Junk behind too many digits is junk first. */
	if (*(s + strspn(s, "0123456789")) != '\0')
		return -EINVAL;
	if (r < 0)
		return r;
	*ret = n;
	return 0;
}

/* 0 when there is none. */
static uint64_t parse_byte_unit(char c)
{
	switch (c) {
	case 'k':
	case 'K':
		return 1ull << 10;
	case 'M':
		return 1ull << 20;
	case 'G':
		return 1ull << 30;
	case 'T':
		return 1ull << 40;
	}
	return 0;
}

int parse_bytes(const char *s, uint64_t *ret)
{
	struct parse_number n = { 0 };
	uint64_t unit;
	int r;

	r = parse_number(&s, &n);
	if (r < 0)
		return r;
	unit = parse_byte_unit(*s);
	if (unit) {
		s++;
		if (*s == 'i')
			s++;
		if (*s == 'B')
			s++;
	} else if (n.scale != 1) {
		return -EINVAL;
	} else {
		unit = 1;
	}
	if (*s != '\0')
		return -EINVAL;
	return parse_scale(&n, unit, ret);
}

struct parse_unit {
	const char *name;
	uint64_t unit;
};

static const struct parse_unit parse_durations[] = {
	{ "ms", NS_PER_MS },        { "s", NS_PER_SEC },
	{ "", NS_PER_SEC },         { "m", 60 * NS_PER_SEC },
	{ "h", 3600 * NS_PER_SEC }, { "d", 86400 * NS_PER_SEC },
};

int parse_duration_ns(const char *s, uint64_t *ret)
{
	struct parse_number n = { 0 };
	int r;

	r = parse_number(&s, &n);
	if (r < 0)
		return r;
	for (size_t i = 0; i < nitems(parse_durations); i++)
		if (!strcmp(s, parse_durations[i].name))
			return parse_scale(&n, parse_durations[i].unit, ret);
	return -EINVAL;
}

static bool parse_alnum(char c)
{
	return parse_digit(c) || (c >= 'a' && c <= 'z') ||
	       (c >= 'A' && c <= 'Z');
}

bool parse_name_ok(const char *s)
{
	size_t len = 0;

	if (!parse_alnum(s[0]))
		return false;
	for (; s[len]; len++)
		if (len == PARSE_NAME_MAX ||
		    (!parse_alnum(s[len]) && !strchr("_.-", s[len])))
			return false;
	return true;
}

/* One decimal, unless it is 0. */
static void format_tenths(uint64_t tenths, const char *unit, char *out)
{
	must(tenths < 10000000); /* UINT64_MAX ns is 213503 d */
	if (tenths % 10)
		snprintf(out, FORMAT_MAX, "%" PRIu64 ".%u %s", tenths / 10,
			 (unsigned)(tenths % 10), unit);
	else
		snprintf(out, FORMAT_MAX, "%" PRIu64 " %s", tenths / 10, unit);
}

/* @n in tenths of @unit, rounded. Large numbers in small units do not fit;
 * they only have to stay large. */
static uint64_t format_scale(uint64_t n, uint64_t unit)
{
	unsigned __int128 v = ((unsigned __int128)n * 10 + unit / 2) / unit;

	return v > UINT64_MAX ? UINT64_MAX : (uint64_t)v;
}

char *format_bytes(uint64_t bytes, char *out)
{
	static const char *const names[] = { "B",   "KiB", "MiB", "GiB",
					     "TiB", "PiB", "EiB" };
	uint64_t tenths = 0;
	size_t i;

	/* The first unit that needs less than 1024 of it, after rounding. */
	for (i = 0; i < nitems(names); i++) {
		tenths = format_scale(bytes, 1ull << (10 * i));
		if (tenths < 10240)
			break;
	}
	must(i < nitems(names));
	format_tenths(tenths, names[i], out);
	return out;
}

static const struct parse_unit format_durations[] = {
	{ "ns", 1 },
	{ "us", 1000 },
	{ "ms", NS_PER_MS },
	{ "s", NS_PER_SEC },
	{ "m", 60 * NS_PER_SEC },
	{ "h", 3600 * NS_PER_SEC },
	{ "d", 86400 * NS_PER_SEC },
};

/* A tenth says something below ten only. */
static uint64_t format_duration_tenths(uint64_t ns, uint64_t unit)
{
	uint64_t tenths = format_scale(ns, unit);

	if (tenths < 100 || tenths > UINT64_MAX - 5)
		return tenths;
	return (tenths + 5) / 10 * 10;
}

char *format_duration_ns(uint64_t ns, char *out)
{
	const struct parse_unit *u = format_durations;
	const struct parse_unit *last = u + nitems(format_durations) - 1;

	if (!ns)
		return strcpy(out, "0 s");
	/* The first unit that, after rounding, does not make one of the next. */
	while (u < last &&
	       format_duration_tenths(ns, u->unit) >= u[1].unit / u->unit * 10)
		u++;
	format_tenths(format_duration_tenths(ns, u->unit), u->name, out);
	return out;
}

char *format_hex(const void *p, size_t len, char *out)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *bytes = p;

	for (size_t i = 0; i < len; i++) {
		out[2 * i] = digits[bytes[i] >> 4];
		out[2 * i + 1] = digits[bytes[i] & 15];
	}
	out[2 * len] = '\0';
	return out;
}
