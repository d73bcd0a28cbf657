/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Starting a VMM process with exactly the fds, user and limits it may have
 */
#include "base/err.h"
#include "base/proc.h"

#include <stdbool.h>
#include <sys/types.h>

/* fds 0, 1, 2 and the ones of the spec. */
#define SPAWN_FDS_MAX 24
/* User ids of guests: SPAWN_UID_BASE + slot. systemd's table of ids
 * (doc/UIDS-GIDS) leaves 1879048192..2147352575 to nobody. */
#define SPAWN_UID_BASE 1900000000u
#define SPAWN_SLOTS 1000000u

struct spawn {
	const char *const *argv; /* NULL-terminated; argv[0] is a path */
	const char *const *envp;
	/* fd i of the new process is a duplicate of fds[i]; -1: closed. */
	int fds[SPAWN_FDS_MAX];
	int n_fds;
	bool drop; /* become uid and gid, without capabilities */
	uid_t uid;
};

/* -errno of what failed in the child before exec, as a sentence. */
int spawn_run(const struct spawn *s, struct proc_id *ret, int *ret_pidfd,
	      struct err *e) must_check;
