/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log: one line, one event
 *
 *	2026-11-22T17:55:58.123Z info  sandbox=ox state=running wake_ms=83
 *
 * Invariants:
 *  1. One event is one write(2), so lines of several threads and processes on
 *     one pipe do not mix (a line is at most PIPE_BUF bytes).
 *  2. One event is one line: control characters, which guests and peers can
 *     smuggle into names and error sentences, are replaced.
 *  3. Logging changes nothing: errno survives, and a stderr that is gone or
 *     full loses the line, never the program.
 *
 * It is not a logging system: no files, no rotation. journald or a shell
 * redirection does that better.
 */
#include "base/log.h"

#include "base/clock.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const log_names[] = {
	[LOG_LEVEL_ERROR] = "error",
	[LOG_LEVEL_WARN] = "warn",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
};
static_assert(nitems(log_names) == LOG_LEVEL_COUNT, "a name per level");

/* The one piece of state; pool threads read it while the loop may set it. */
static _Atomic int log_level_max = LOG_LEVEL_INFO;

void log_set_level(enum log_level level)
{
	must(level < LOG_LEVEL_COUNT);
	atomic_store_explicit(&log_level_max, (int)level, memory_order_relaxed);
}

static size_t log_head(enum log_level level, char *out, size_t size)
{
	uint64_t now_ns = clock_real_ns();
	time_t sec = (time_t)(now_ns / NS_PER_SEC);
	struct tm tm = { 0 };
	size_t len;

	must(gmtime_r(&sec, &tm));
	len = strftime(out, size, "%Y-%m-%dT%H:%M:%S", &tm);
	len += (size_t)snprintf(out + len, size - len, ".%03uZ %-5s ",
				(unsigned)(now_ns % NS_PER_SEC / NS_PER_MS),
				log_names[level]);
	must(len < size);
	return len;
}

void log_line(enum log_level level, const char *fmt, ...)
{
	int saved = errno;
	char line[PIPE_BUF];
	size_t head, len;
	va_list ap;

	must(level < LOG_LEVEL_COUNT);
	if ((int)level >
	    atomic_load_explicit(&log_level_max, memory_order_relaxed))
		return;
	head = log_head(level, line, sizeof(line));
	va_start(ap, fmt);
	if (vsnprintf(line + head, sizeof(line) - head, fmt, ap) < 0)
		line[head] = '\0';
	va_end(ap);
	len = head + strlen(line + head);
	for (size_t i = head; i < len; i++)
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = '?';
	line[len++] = '\n'; /* in the place of the terminator */
	while (write(STDERR_FILENO, line, len) < 0 && errno == EINTR)
		;
	errno = saved;
}
