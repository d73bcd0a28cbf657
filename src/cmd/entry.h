/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * One entry of a tree under way between host and guest (ENTRY of agent/wire.h)
 */
#include "agent/wire.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct stat;

/* What the kernel takes, terminator included. */
#define ENTRY_PATH_MAX 4096
#define ENTRY_NAME_MAX 256

struct entry {
	char path[ENTRY_PATH_MAX]; /* "" for what was named itself */
	enum wire_kind kind;
	uint32_t mode; /* permission bits */
	uint64_t mtime_ns; /* since 1970 */
	uint64_t size; /* of a file */
	char link[ENTRY_PATH_MAX]; /* target of a link */
};

/* From a frame. -EBADMSG: something is missing or out of range. The path has
 * been checked with entry_path_ok(). */
int entry_read(const struct wire_frame *f, struct entry *ret,
	       struct err *e) must_check;
/* Into a frame. */
void entry_write(const struct entry *x, struct wire_out *o);

/* Kind, mode, time, size; false: neither file, directory nor link. */
bool entry_stat(struct entry *x, const struct stat *st);

/* Relative, and no "", "." or ".." between its slashes; "" is fine. */
bool entry_path_ok(const char *path);
