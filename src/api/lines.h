/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A long job told as it happens: JSON lines to one client
 */
#include "template/job.h"

#include <jansson.h>

struct lines;
struct request;

struct lines_kind {
	const char *verb; /* for the log: "bake" */
	void (*abandon)(void *job);
	/* The last line of a job that worked; NULL when out of memory. */
	json_t *(*result)(struct request *rq, const char *name, void *job);
};

/* The argument of these is the struct lines. */
extern const struct job_events lines_events;

/* @name is that of the template. NULL when out of memory. */
struct lines *lines_new(struct request *rq, const struct lines_kind *kind,
			const char *name);
/* The job was not begun. */
struct lines *lines_free(struct lines *l);
/* It was: answer with what it tells. Owns @l; hanging up abandons the job. Its
 * end may not have come before. */
void lines_answer(struct lines *l, void *job);
