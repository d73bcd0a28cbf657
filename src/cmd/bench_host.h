/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A host that has never seen anything: a daemon with directories of its own
 */
#include "base/err.h"

#include <sys/types.h>

struct bench_host {
	pid_t pid; /* 0: none */
	char dir[128]; /* root and run are below it */
	char run[160];
};

#define BENCH_HOST_NULL  \
	{                \
		.pid = 0 \
	}

/* Starts `byre serve` below @dir (made), and waits until it answers. The
 * client's calls go to it from now on (BYRE_RUN). */
int bench_host_start(struct bench_host *h, const char *dir,
		     struct err *e) must_check;
/* Removes all its sandboxes, ends it and deletes its files. Idempotent; calls
 * go to @run again. */
void bench_host_stop(struct bench_host *h, const char *run);
