/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Bytes of unknown origin as JSON strings
 */
#include <jansson.h>
#include <stddef.h>

/* A fresh string of @len bytes at @p; what is not UTF-8, and NUL, becomes
 * U+FFFD. NULL when out of memory. */
json_t *utf8_json(const void *p, size_t len);

/* The same for a terminated string; JSON null for NULL. */
json_t *utf8_json_text(const char *s);

/* Length of the longest prefix that does not end inside a character: at most 3
 * bytes less than @len. */
size_t utf8_whole(const void *p, size_t len);
