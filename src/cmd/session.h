/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A command in a guest with our stdin, stdout, stderr and signals
 */
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct stream;
struct stream_result;

struct session_options {
	bool stdin; /* pass our stdin on */
	bool tty; /* the command has a pty; sizes are passed on */
	/* From now on; then it ends, whatever the guest does. 0: never */
	uint64_t deadline_ns;
	/* How long a signal may go unanswered by the guest. 0: for ever */
	uint64_t grace_ns;
};

/*
 * Move bytes and signals until the stream that was just opened with EXEC has
 * had its RESULT. The result may also be made here: SIGPIPE when nobody reads
 * our stdout any more, the signal itself when the user insists; and, with
 * ETIMEDOUT and a message besides, timed_out at the deadline, the signal when
 * the guest did not answer it.
 */
int session_run(struct stream *s, const struct session_options *o,
		struct stream_result *ret, struct err *e) must_check;
