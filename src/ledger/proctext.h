/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Lines of /proc files of the form "Key:   123 kB"
 */
#include "base/must.h"

#include <stdbool.h>
#include <stdint.h>

/* Is this line "@key:"? */
bool proctext_is(const char *line, const char *key);

/* The number behind the colon, kB made bytes; a bare number is itself. -EINVAL
 * when there is none or something follows it, -ERANGE when it does not fit. */
int proctext_bytes(const char *line, uint64_t *ret) must_check;
/* A bare number. */
int proctext_number(const char *line, uint64_t *ret) must_check;

/* For sentences and names: one line of foreign text as printable ASCII, other
 * bytes made '?', cut to @size. Returns @out. */
char *proctext_quote(const char *line, char *out, size_t size);
/* Enough of a line to know it again. */
#define PROCTEXT_QUOTE 60
