/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Progress of something long, on stderr
 *
 * On a terminal one line that is written over; elsewhere a line per step.
 */
#include "base/buf.h"

#include <stdbool.h>
#include <stdint.h>

/* Of the last output, kept to show when it fails. */
#define PROGRESS_KEEP_MAX 16384u

struct progress {
	bool terminal;
	bool verbose; /* output is shown as it comes */
	bool shown; /* the terminal's line is not empty */
	uint64_t start_ns, step_ns;
	char step[200];
	unsigned done, total;
	bool bytes; /* of those, not steps: */
	uint64_t done_bytes, total_bytes;
	uint64_t first_bytes; /* done when the step began: a resumed transfer */
	struct buf kept; /* the end of the output, unless verbose */
};

void progress_init(struct progress *p, bool verbose, uint64_t now_ns);
/* Leaves the terminal's line empty. Idempotent. */
void progress_deinit(struct progress *p);

/* A step begins: number @done of @total. */
void progress_step(struct progress *p, const char *step, const char *detail,
		   unsigned done, unsigned total, uint64_t now_ns);
/* The same for steps that count bytes; called again as they come, with the same
 * step and detail. 0 of 0: nothing to count. */
void progress_bytes(struct progress *p, const char *step, const char *detail,
		    uint64_t done, uint64_t total, uint64_t now_ns);
/* Time goes by. */
void progress_tick(struct progress *p, uint64_t now_ns);
/* Something that runs has said this. */
void progress_output(struct progress *p, const char *text, size_t len);
/* Show what was kept. */
void progress_failed(struct progress *p);
