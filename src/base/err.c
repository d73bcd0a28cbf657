/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors with a sentence
 *
 * Invariants:
 *  1. The code is positive in struct err and negative in results; it is never
 *     0 once something has been set, so "return err_set(...)" always fails.
 *  2. The sentence is formatted aside and then copied, so that arguments may
 *     point into the very struct that is written.
 *  3. Cutting a long sentence never leaves half a UTF-8 character: sentences
 *     end up in JSON, whose writer would refuse them.
 *  4. errno is neither read nor changed: callers pass it as a value, and may
 *     still need it afterwards.
 *
 * It does not log, allocate or translate. The page fault path does not come
 * here at all: it returns numbers and bumps counters.
 */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Lead bytes of UTF-8 have their two top bits set, followers only the first. */
static void err_trim(char *msg)
{
	size_t len = strlen(msg), back = 1;
	unsigned char c;

	if (len < ERR_MSG_MAX - 1)
		return;
	while (back < 4 && ((unsigned char)msg[len - back] & 0xc0) == 0x80)
		back++;
	c = (unsigned char)msg[len - back];
	if ((c >= 0xc0 && back < 2) || (c >= 0xe0 && back < 3) ||
	    (c >= 0xf0 && back < 4))
		msg[len - back] = '\0';
}

printf_like(3, 0) static void err_format(struct err *e, int code,
					 const char *fmt, va_list ap,
					 const char *behind)
{
	char msg[ERR_MSG_MAX];
	size_t len;
	int n;

	n = vsnprintf(msg, sizeof(msg), fmt, ap);
	if (n < 0)
		msg[0] = '\0';
	len = strlen(msg);
	snprintf(msg + len, sizeof(msg) - len, "%s", behind);
	err_trim(msg);
	memcpy(e->msg, msg, sizeof(msg));
	e->code = code;
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
	int saved = errno;
	va_list ap;

	if (code <= 0)
		code = EIO;
	if (e) {
		va_start(ap, fmt);
		err_format(e, code, fmt, ap, "");
		va_end(ap);
	}
	errno = saved;
	return -code;
}

int err_errno(struct err *e, int code, const char *fmt, ...)
{
	char why[128], behind[130];
	int saved = errno;
	va_list ap;

	if (code <= 0)
		code = EIO;
	if (e) {
		snprintf(behind, sizeof(behind), ": %s",
			 strerror_r(code, why, sizeof(why)));
		va_start(ap, fmt);
		err_format(e, code, fmt, ap, behind);
		va_end(ap);
	}
	errno = saved;
	return -code;
}

int err_prefix(struct err *e, const char *fmt, ...)
{
	char behind[ERR_MSG_MAX + 2];
	int saved = errno, code;
	va_list ap;

	if (!e)
		return -EIO;
	code = e->code > 0 ? e->code : EIO;
	snprintf(behind, sizeof(behind), ": %s", e->msg);
	va_start(ap, fmt);
	err_format(e, code, fmt, ap, behind);
	va_end(ap);
	errno = saved;
	return -code;
}
