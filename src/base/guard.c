/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one guard that is more than a call to libc
 *
 * fd_close() runs when a scope is left, often with a result about to be made
 * from errno, so errno survives it. What close() reports about data is not
 * looked at: whoever must know that data arrived calls fsync first. A bad fd,
 * however, means that somebody closed what was not his; in a program that
 * passes hundreds of fds around, the next victim would be a guest's memory.
 */
#include "base/guard.h"

#include <errno.h>

void fd_close(int *fd)
{
	int saved = errno;

	if (*fd < 0)
		return;
	/* Linux frees the number even when it answers EINTR or EIO. */
	must(close(*fd) == 0 || errno != EBADF);
	*fd = -1;
	errno = saved;
}
