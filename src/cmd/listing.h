/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Verbs that list what the daemon has, in a table or as it says it
 */
#include <jansson.h>

struct cmd;
struct table;

struct listing {
	const char *path; /* GET: an array */
	const char *head; /* table_init() */
	/* The cells of one. */
	void (*row)(struct table *t, const json_t *one);
};

/* The whole of such a verb's run; its only option is --json. */
int listing_main(const struct cmd *c, const struct listing *l, int argc,
		 char **argv);
