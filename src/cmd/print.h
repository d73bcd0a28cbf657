/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What verbs print: JSON, and numbers for people
 */
#include <jansson.h>
#include <stdint.h>

/* As indented text with a newline, on stdout. */
void print_json(const json_t *v);

/* For people: "key  value" lines in the object's order, bytes with their human
 * size, members of its members as "key.member". On stdout. */
void print_object(const json_t *o);

/* Members of an object, "" or 0 when they are not there. */
const char *print_text(const json_t *o, const char *key);
uint64_t print_number(const json_t *o, const char *key);
double print_real(const json_t *o, const char *key);

/* "1.5 GiB" of a number of bytes, "-" when the member is null; @out holds 16
 * bytes. */
const char *print_bytes(const json_t *o, const char *key, char *out);

/* "3 m" since a time like "2026-01-02T03:04:05Z" (@now_ns: since 1970), or
 * until it; "-" when it is none. @out holds 16 bytes. */
const char *print_age(const char *rfc3339, uint64_t now_ns, char *out);
