/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * /proc/PID/smaps: shares of memory per mapping, as the kernel adds them up
 */
#include "base/err.h"
#include "ledger/vmas.h"

#include <stdbool.h>
#include <stdint.h>

/* One mapping; bytes. */
struct smaps_entry {
	struct vma vma;
	uint64_t pss;
	uint64_t anonymous; /* not by share */
	uint64_t swap_pss;
};

typedef void (*smaps_fn)(void *ctx, const struct smaps_entry *entry);

/* A reader that is fed lines and calls @fn for each finished mapping. */
struct smaps {
	smaps_fn fn;
	void *ctx;
	bool open; /* `entry` is being filled */
	struct smaps_entry entry;
};

#define SMAPS_NULL         \
	{                  \
		.fn = NULL \
	}

/* Unknown keys are fine; -EINVAL: neither heading nor "Key: ...", or a key
 * before the first heading; -ERANGE. */
int smaps_line(struct smaps *s, const char *line) must_check;
/* No more lines. */
void smaps_end(struct smaps *s);

/* All of a process, from its open directory (procdir.h). */
int smaps_read(int dir_fd, pid_t pid, smaps_fn fn, void *ctx,
	       struct err *e) must_check;
