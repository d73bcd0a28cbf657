/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Starting a VMM process with exactly the fds, user and limits it may have
 */
#include "base/err.h"
#include "base/proc.h"
#include "vmm/child.h"

/* User ids of guests: SPAWN_UID_BASE + slot. systemd's table of ids
 * (doc/UIDS-GIDS) leaves 1879048192..2147352575 to nobody. */
#define SPAWN_UID_BASE 1900000000u
#define SPAWN_SLOTS 1000000u

struct spawn {
	const char *const *argv; /* NULL-terminated; argv[0] is a path */
	const char *const *envp;
	struct child child;
};

/* -errno of what failed in the child before exec, as a sentence. */
int spawn_run(const struct spawn *s, struct proc_id *ret, int *ret_pidfd,
	      struct err *e) must_check;
