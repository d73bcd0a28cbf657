/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What /proc/PID/status says that the ledger needs
 */
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct procstatus {
	char comm[32]; /* printable ASCII, the rest made '?' */
	pid_t ppid;
	uint64_t threads;
	uint64_t tables; /* bytes of page tables */
	bool has_memory; /* not a zombie, not a kernel thread */
};

/* From an open process directory (procdir.h). */
int procstatus_read(int dir_fd, pid_t pid, struct procstatus *ret,
		    struct err *e) must_check;

/* One line of it; unknown lines are fine. */
int procstatus_line(struct procstatus *s, const char *line) must_check;

/* Kernel stacks of its threads, in bytes. */
uint64_t procstatus_stacks(const struct procstatus *s);
