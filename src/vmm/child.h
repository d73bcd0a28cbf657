/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What a new VMM process does to itself before it is a VMM
 *
 * Used by spawn.c between fork and exec, and by the zygote (zygote_child.c)
 * between fork and main: only libc, nothing that allocates.
 */
#include <stdbool.h>
#include <sys/types.h>

/* fds 0, 1, 2 and the ones of the spec. */
#define CHILD_FDS_MAX 24

struct child {
	/* fd i of the process becomes a duplicate of fds[i]; -1: closed. */
	int fds[CHILD_FDS_MAX];
	int n_fds;
	bool drop; /* become user and group uid, without capabilities */
	uid_t uid;
};

/* Everything not listed is closed but *keep_fd (may be NULL), which moves.
 * 0, or -errno with what failed in *ret_step. */
int child_arrange(const struct child *c, int *keep_fd, const char **ret_step);
