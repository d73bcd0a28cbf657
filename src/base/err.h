/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Errors with a sentence
 *
 * Functions that touch the outside world take a struct err, owned by the
 * caller, as their last argument, and return a negative errno. The sentence is
 * made where the error happens, names the verb and the object ("open
 * /var/lib/byre/byre.db: Permission denied"), and gets at most one prefix per
 * layer on its way up. Only main and the API print it. Nothing is allocated.
 */
#include "base/must.h"

/* One line on a terminal with room for a path; longer text is cut. */
#define ERR_MSG_MAX 400

struct err {
	int code; /* positive errno, 0 while nothing went wrong */
	char msg[ERR_MSG_MAX];
};

#define ERR_NULL          \
	{                 \
		.code = 0 \
	}

/* Set code and sentence; returns -code, so "return err_set(...)". @e may be
 * NULL. A @code of 0 or less is a bug of the caller and becomes EIO. The
 * arguments may point into e->msg. */
int err_set(struct err *e, int code, const char *fmt, ...) printf_like(3, 4);

/* The same, with ": strerror(code)" behind the sentence. */
int err_errno(struct err *e, int code, const char *fmt, ...) printf_like(3, 4);

/* Put "prefix: " before the sentence; returns -e->code, or -EIO when @e is NULL
 * or holds no error: forward the callee's result where its number matters. */
int err_prefix(struct err *e, const char *fmt, ...) printf_like(2, 3);

/* Drop a result on purpose. */
static inline void err_drop(int r)
{
	(void)r;
}
