/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * SHA-256 digests, as lower-case hex text
 *
 * libcrypto does the work; it uses the CPU's SHA instructions where present.
 */
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* 64 hex digits and a terminator. */
#define DIGEST_HEX 65

struct digest;

int digest_new(struct digest **ret) must_check;
struct digest *digest_free(struct digest *d);
void digest_add(struct digest *d, const void *p, size_t len);
/* Ends it; @d can then only be freed. */
void digest_end(struct digest *d, char hex[DIGEST_HEX]);

void digest_of(const void *p, size_t len, char hex[DIGEST_HEX]);
/* A whole file, from its start wherever its position is. */
int digest_of_fd(int fd, char hex[DIGEST_HEX], struct err *e) must_check;
/* 64 lower-case hex digits and nothing else. */
bool digest_hex_ok(const char *s);
