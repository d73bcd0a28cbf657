/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What a long job tells whoever asked for it: a bake, a push, a pull
 */
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct job_events {
	/* A step begins, or has come so far: "boot", "upload", ... with a human
	 * detail. What @done and @total count, the job's header says. */
	void (*step)(void *arg, const char *step, const char *detail,
		     uint64_t done, uint64_t total);
	/* What runs in it has said this. May be NULL. */
	void (*output)(void *arg, const void *p, size_t len);
	/* Once; the job is freed afterwards. @e->code 0: it is done. */
	void (*done)(void *arg, const struct err *e);
};
