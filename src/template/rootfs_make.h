/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The worker's half of rootfs.c: the steps that make a root disk
 */
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct rootfs_options;

struct rootfs_work {
	const struct rootfs_options *o;
	uint64_t size_bytes;
	char *dir; /* work directory, absolute */
	char *out; /* the image to be, absolute */
	int lock_fd; /* flock on the work directory */
	int note_fd; /* worker to supervisor */
	bool root;
};

/* One write on a pipe, at most PIPE_BUF, so it arrives whole. */
struct rootfs_note {
	char step[96]; /* empty: the worker has ended */
	struct err err;
};

/* Make w->out, with everything temporary in w->dir; each step is announced by
 * a note. Blocks. */
int rootfs_make(struct rootfs_work *w, struct err *e) must_check;
