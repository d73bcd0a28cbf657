/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Starting a pager process, and ending one that an earlier daemon started
 */
#include "base/err.h"
#include "base/proc.h"

#include <stdint.h>

struct start {
	const char *program; /* NULL: /proc/self/exe */
	const char *root; /* ROOT/pager.log is its stdout and stderr */
	const char *run; /* RUN/pager.started, RUN/pager.pid */
	uint64_t cache_bytes;
	int control_fd; /* its end; borrowed */
	int stats_fd;
};

/* RUN/pager.started names it before it is told anything. */
int start_pager(const struct start *s, struct proc_id *ret, int *ret_pidfd,
		struct err *e) must_check;
/* A pidfd of the pager that one of these files names; -1 when none lives. */
int start_older(const char *run);
/* Ask it to end, wait a little, kill it, wait for that. */
void start_end(int pidfd);
