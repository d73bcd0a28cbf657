/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Other processes: starting them, naming them for good, how they ended
 *
 * A pid is reused; {pid, start time} is not. That pair is what the database
 * keeps, and what a pidfd is checked against after a restart of the daemon.
 */
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct proc_id {
	pid_t pid;
	uint64_t start_ticks; /* field 22 of /proc/PID/stat */
};

/* -ESRCH when there is no such process. */
int proc_identify(pid_t pid, struct proc_id *ret) must_check;

/* A pidfd of exactly this process; -ESRCH when it is gone or another. */
int proc_open(const struct proc_id *id, int *ret_pidfd) must_check;

/* How a process ended, as a sentence: "exit code 1", "killed by signal 9",
 * or "ended" when the kernel no longer tells (not our child, before 6.15).
 * Reaps it when it is our child. -EAGAIN while it still runs. @ret_status (may
 * be NULL) gets the wait(2) status, -1 when unknown. */
int proc_how_ended(int pidfd, char *msg, size_t size,
		   int *ret_status) must_check;

/* Run a program to its end and collect what it says. Only for short-lived
 * tools, never inside the loop. The tool gets /dev/null as stdin, no other fd
 * of ours, and default signals. @argv is NULL-terminated. Output beyond
 * @max_output bytes is dropped; stdout and stderr come together. A non-zero
 * exit is an error (EIO) that quotes the output's last line. @ret_output (may
 * be NULL) gets a fresh, zero-terminated string. */
int proc_run(const char *const *argv, size_t max_output, char **ret_output,
	     struct err *e) must_check;
