/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Files whose size cannot be believed, read before it is announced
 */
#include "base/must.h"

#include <stddef.h>
#include <stdint.h>

/* Where no size is told this much is read, and a longer file refused: more than
 * any table in /proc of a guest that works, little beside its memory. */
#define AHEAD_MAX (1u << 20)

/* NULL-initialised: nothing was read ahead. */
struct ahead {
	uint8_t *bytes;
	size_t len, at;
};

/*
 * What @fd has, if fstat()'s *size may be wrong: then all of it is in @a, and
 * *size is its length. Otherwise @a stays empty and both as they were.
 * -EFBIG: longer than AHEAD_MAX; -errno.
 */
int ahead_read(struct ahead *a, int fd, uint64_t *size) must_check;
/* Copy out the next bytes, at most @len; how many. */
size_t ahead_take(struct ahead *a, void *to, size_t len);
/* Idempotent. */
void ahead_drop(struct ahead *a);
