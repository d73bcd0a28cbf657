/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Guards: locals that own something release it when they go out of scope
 *
 *	guard_fd int fd = open(...);
 *	guard_free char *s = strdup(...);
 *	guard(foo_freep) struct foo *f = foo_new();
 *
 * Hand over with fd_take(&fd) and take(p), which leave -1 and NULL behind.
 */
#include "base/must.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <dirent.h>

#define guard(fn) __attribute__((cleanup(fn), __unused__))

static inline int fd_take(int *fd)
{
	int r = *fd;

	*fd = -1;
	return r;
}

/* Close and forget; errno survives. */
void fd_close(int *fd);

static inline void guard_freep(void *p)
{
	free(*(void **)p);
}

static inline void guard_fclosep(FILE **f)
{
	if (*f)
		fclose(*f);
}

static inline void guard_closedirp(DIR **d)
{
	if (*d)
		closedir(*d);
}

#define guard_fd guard(fd_close)
#define guard_free guard(guard_freep)
#define guard_file guard(guard_fclosep)
#define guard_dir guard(guard_closedirp)

#define take(p)                            \
	({                                 \
		__typeof__(p) take_ = (p); \
		(p) = NULL;                \
		take_;                     \
	})
