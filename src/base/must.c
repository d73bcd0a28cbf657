/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a failed assertion ends
 *
 * The program has contradicted itself, so as little of it as possible is
 * trusted on the way out: no allocation, no lock, no stdio. One line goes to
 * stderr, then abort() leaves a core.
 *
 * It is not an error path. Whatever a guest, a peer, a disk or a lack of
 * memory can bring about is a result code, never a must().
 */
#include "base/must.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* A file name and an expression; longer ones are cut. */
#define MUST_LINE_MAX 512

void must_failed(const char *expr, const char *file, int line)
{
	char msg[MUST_LINE_MAX];
	int len;

	len = snprintf(msg, sizeof(msg), "%s:%d: must(%s) failed\n", file, line,
		       expr);
	if (len >= (int)sizeof(msg)) {
		len = sizeof(msg);
		msg[len - 1] = '\n';
	}
	if (len > 0 && write(STDERR_FILENO, msg, (size_t)len) < 0)
		abort(); /* nobody to tell */
	abort();
}
