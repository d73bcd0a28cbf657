/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A process's directory under /proc, held open
 */
#include "base/err.h"

#include <stdio.h>
#include <sys/types.h>

/* -ESRCH when there is no such process. */
int procdir_open(const char *proc_root, pid_t pid, int *ret_fd,
		 struct err *e) must_check;

/* Open one of its files for reading. -ESRCH when the process is gone (or, in
 * a fixture tree, when the file is missing). */
int procdir_file(int dir_fd, pid_t pid, const char *name, int *ret_fd,
		 struct err *e) must_check;
int procdir_stream(int dir_fd, pid_t pid, const char *name, FILE **ret,
		   struct err *e) must_check;

/* The one sentence for a process that is no longer there; -ESRCH. */
int procdir_gone(pid_t pid, struct err *e);
