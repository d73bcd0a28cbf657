/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Jobs of the daemon that tell how they go: a bake, a push, a pull
 */
#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>

struct job {
	const char *verb; /* "bake", for sentences */
	const char *path; /* POST there */
	bool bytes; /* steps count bytes, not steps */
	bool verbose; /* show what runs in it says */
};

/* Ask for it and show its progress until it ends. *ret is the last line, which
 * holds "template". Hanging up (our end) gives the job up. */
int job_follow(const struct job *job, const json_t *body, json_t **ret,
	       struct err *e) must_check;

/* Follow it, and print the template it made: its name, or with @json all of it.
 * Returns the exit code. */
int job_template(const struct job *job, const json_t *body,
		 bool json) must_check;

/* A member of a request's body; NULL and 0 set nothing. -EINVAL: no UTF-8. */
int job_set(json_t *body, const char *key, json_t *value,
	    struct err *e) must_check;
int job_set_text(json_t *body, const char *key, const char *text,
		 struct err *e) must_check;
