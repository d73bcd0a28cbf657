/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The console log of one guest: what it writes to its serial port, in a file
 *
 * The file never passes CONSOLE_LOG_MAX: when it would, its older half is cut
 * away in place (a reader sees it shrink). A guest that floods is read at
 * CONSOLE_RATE at most; the rest waits in the VMM, which slows the guest.
 */
#include "base/err.h"

#include <stdbool.h>

struct console;
struct loop;

#define CONSOLE_LOG_MAX (1u << 20)
/* Bytes per CONSOLE_TICK_NS. A kernel's boot messages are some 30 KiB. */
#define CONSOLE_RATE 65536u
#define CONSOLE_TICK_NS (100 * 1000000ull)

/* @connected: taken. The file at @path is appended to, made if missing. */
int console_new(struct loop *loop, int connected_take, const char *path,
		struct console **ret, struct err *e) must_check;
/* Reads what is still there, without waiting, then closes. */
struct console *console_free(struct console *c);

/* The last line of a log that is not empty, or why the kernel panicked; for
 * error messages, so printable ASCII. "" if none. */
void console_last_line(const char *path, char *out, size_t size);
/* Did a kernel panic end this log? Then @out says why. The guest wrote it. */
bool console_panicked(const char *path, char *out, size_t size);
