/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The log: one line, one event, key=value, the sandbox first
 *
 * Lines go to stderr with a wall-clock time and a level. Only programs' main
 * functions, the API, and the objects that act for the daemon (registry, bake)
 * log; libraries return errors.
 */
#include "base/must.h"

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARN,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
	LOG_LEVEL_COUNT,
};

/* Lines above this level are dropped; INFO at start. */
void log_set_level(enum log_level level);

void log_line(enum log_level level, const char *fmt, ...) printf_like(2, 3);

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)
