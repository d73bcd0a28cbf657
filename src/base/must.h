/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Assertions and compiler vocabulary
 *
 * must(x) is always compiled in. It is for bugs of this program only: never
 * for what a guest, a network, a disk or memory pressure can cause.
 */
#include <stddef.h>
#include <stdint.h>

__attribute__((noreturn)) void must_failed(const char *expr, const char *file,
					   int line);

#define must(x) ((x) ? (void)0 : must_failed(#x, __FILE__, __LINE__))

#define must_check __attribute__((warn_unused_result))
#define printf_like(fmt, args) __attribute__((format(printf, fmt, args)))
/* A foreign header that spells __attribute__((unused)) in its own macros
 * (openssl) must be included before this one. */
#define unused __attribute__((__unused__))

#define container_of(ptr, type, member) \
	((type *)((uintptr_t)(ptr)-offsetof(type, member)))

#define nitems(array) (sizeof(array) / sizeof((array)[0]))

#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))
