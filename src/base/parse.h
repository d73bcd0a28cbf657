/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Text to numbers and back, with nothing silently clamped
 *
 * All return 0 or -EINVAL / -ERANGE, and leave the result alone then.
 */
#include "base/must.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decimal digits and nothing else. */
int parse_u64(const char *s, uint64_t *ret) must_check;

/* "2G", "512M", "4096", "1.5G"; suffixes k K M G T are powers of 1024, an "i",
 * "B" or "iB" behind them is allowed. A fraction needs a suffix; what is less
 * than a byte is dropped. */
int parse_bytes(const char *s, uint64_t *ret) must_check;

/* "500ms", "5s", "10m", "2h", "1d", "1.5h"; a bare number is seconds. */
int parse_duration_ns(const char *s, uint64_t *ret) must_check;

/* Names of templates and sandboxes: [A-Za-z0-9][A-Za-z0-9_.-]{0,62}. */
bool parse_name_ok(const char *s);

/* "1.5 GiB"; @out holds at least 16 bytes. Returns @out. */
char *format_bytes(uint64_t bytes, char *out);

/* "1.2 s", "85 ms", "10 m"; @out holds at least 16 bytes. Returns @out. */
char *format_duration_ns(uint64_t ns, char *out);

/* Lower-case hex, zero-terminated: @out holds 2 * len + 1. */
char *format_hex(const void *p, size_t len, char *out);
