/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes of unknown origin as JSON strings
 *
 * Error sentences quote paths and names that a client sent, warm commands
 * print what they like: neither need be UTF-8, which JSON must be, and jansson
 * refuses to make a string of it. Here every byte that does not belong to a
 * well-formed character is shown as U+FFFD, so an answer never fails over its
 * text. NUL is shown so too: JSON could carry it, but C programs cut there.
 *
 * Invariants:
 *  1. The result is never longer than three times the input.
 *  2. Well-formed text comes out unchanged, byte by byte.
 *
 * It knows the table of well-formed sequences (Unicode 15, table 3-7) and
 * nothing else of Unicode.
 */
#include "api/utf8.h"

#include "base/guard.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static const char utf8_replacement[3] = { '\xef', '\xbf', '\xbd' };

/* How long the character that @lead begins is; 0: none begins with it. */
static size_t utf8_size(uint8_t lead)
{
	if (lead < 0x80)
		return 1;
	if (lead >= 0xc2 && lead <= 0xdf)
		return 2;
	if (lead >= 0xe0 && lead <= 0xef)
		return 3;
	if (lead >= 0xf0 && lead <= 0xf4)
		return 4;
	return 0;
}

/* The second byte's range is what rules out overlong forms, surrogates and
 * what lies beyond U+10FFFF. */
static bool utf8_second_ok(uint8_t lead, uint8_t second)
{
	uint8_t lo = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
	uint8_t hi = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;

	return second >= lo && second <= hi;
}

/* Size of the well-formed character at @p, 0 when there is none. */
static size_t utf8_character(const uint8_t *p, size_t len)
{
	size_t size = utf8_size(p[0]);

	if (size == 0 || size > len || p[0] == 0)
		return 0;
	if (size > 1 && !utf8_second_ok(p[0], p[1]))
		return 0;
	for (size_t i = 2; i < size; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return size;
}

json_t *utf8_json(const void *p, size_t len)
{
	const uint8_t *in = p;
	guard_free char *out = NULL;
	size_t n = 0;

	if (len > SIZE_MAX / 3 - 1)
		return NULL;
	out = malloc(len * 3 + 1);
	if (!out)
		return NULL;
	for (size_t i = 0; i < len;) {
		size_t size = utf8_character(in + i, len - i);

		if (size) {
			memcpy(out + n, in + i, size);
			n += size;
			i += size;
			continue;
		}
		memcpy(out + n, utf8_replacement, sizeof(utf8_replacement));
		n += sizeof(utf8_replacement);
		i++;
	}
	return json_stringn_nocheck(out, n);
}

json_t *utf8_json_text(const char *s)
{
	return s ? utf8_json(s, strlen(s)) : json_null();
}

size_t utf8_whole(const void *p, size_t len)
{
	const uint8_t *in = p;

	for (size_t back = 1; back <= 3 && back <= len; back++) {
		uint8_t c = in[len - back];

		if ((c & 0xc0) == 0x80)
			continue; /* look for what it continues */
		return utf8_size(c) > back ? len - back : len;
	}
	return len;
}
