/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * One process started, or the reason why not
 */
#include "agent/user.h"

enum spawn_stage {
	SPAWN_STARTED,
	SPAWN_FAILED_SETUP, /* session, terminal, descriptors */
	SPAWN_FAILED_USER,
	SPAWN_FAILED_CWD,
	SPAWN_FAILED_EXEC,
	SPAWN_STAGE_COUNT,
};

struct spawn {
	char *const *argv; /* NULL-terminated */
	char *const *envp;
	const char *path; /* list of directories to search */
	const char *cwd;
	const struct user *user; /* NULL: stay who we are */
	int fd[3]; /* borrowed, all above 2 */
	bool tty; /* fd[0] becomes the controlling terminal */
	/* written by the child, which shares our memory */
	enum spawn_stage stage;
	int error; /* positive errno of the stage */
};

/* 0: it runs, or (stage says) it ended before exec and was reaped. The child
 * leads a session and a process group. -errno: no process could be made. */
int spawn_run(struct spawn *s, pid_t *ret_pid) must_check;
