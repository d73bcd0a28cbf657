/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Key and number
 *
 * /proc/meminfo, /proc/PID/status and /proc/PID/smaps say "Key:", blanks, a
 * decimal number, and most times " kB". The kernel writes them, but a
 * container's /proc may be a FUSE file system (lxcfs) with its own ideas, so
 * the text is foreign: signs, overflow and trailing matter are refused, and
 * nothing is clamped. Lines end in a newline or in the terminator.
 */
#include "ledger/proctext.h"

#include <errno.h>
#include <string.h>

bool proctext_is(const char *line, const char *key)
{
	size_t len = strlen(key);

	return strncmp(line, key, len) == 0 && line[len] == ':';
}

static const char *proctext_blanks(const char *s)
{
	while (*s == ' ' || *s == '\t')
		s++;
	return s;
}

/* The number behind the colon; *ret_rest is what follows it and its blanks. */
static int proctext_scan(const char *line, uint64_t *ret, const char **ret_rest)
{
	const char *s = strchr(line, ':');
	uint64_t n = 0;

	if (!s)
		return -EINVAL;
	s = proctext_blanks(s + 1);
	if (*s < '0' || *s > '9')
		return -EINVAL;
	for (; *s >= '0' && *s <= '9'; s++)
		if (__builtin_mul_overflow(n, 10, &n) ||
		    __builtin_add_overflow(n, *s - '0', &n))
			return -ERANGE;
	*ret = n;
	*ret_rest = proctext_blanks(s);
	return 0;
}

static bool proctext_ends(const char *s)
{
	s = proctext_blanks(s);
	return *s == '\n' || *s == '\0';
}

int proctext_number(const char *line, uint64_t *ret)
{
	const char *rest;
	uint64_t n;
	int r;

	r = proctext_scan(line, &n, &rest);
	if (r < 0)
		return r;
	if (!proctext_ends(rest))
		return -EINVAL;
	*ret = n;
	return 0;
}

int proctext_bytes(const char *line, uint64_t *ret)
{
	const char *rest;
	uint64_t n;
	int r;

	r = proctext_scan(line, &n, &rest);
	if (r < 0)
		return r;
	if (rest[0] == 'k' && rest[1] == 'B') {
		rest += 2;
		if (__builtin_mul_overflow(n, 1024, &n))
			return -ERANGE;
	}
	if (!proctext_ends(rest))
		return -EINVAL;
	*ret = n;
	return 0;
}

char *proctext_quote(const char *line, char *out, size_t size)
{
	size_t i;

	for (i = 0; i + 1 < size && line[i] && line[i] != '\n'; i++)
		out[i] = line[i] >= ' ' && line[i] <= '~' ? line[i] : '?';
	out[i] = '\0';
	return out;
}
