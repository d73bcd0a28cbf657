/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Pulling: a template from a store, at once or page by page
 *
 * Without `eager` it costs two small objects: memory and disk come when guests
 * want them. With it everything is fetched before the template is published;
 * one that is here already, of the same image, is completed where it is.
 */
#include "template/transfer.h"

struct pull;

struct pull_options {
	const char *store;
	const char *template; /* its name in the store */
	const char *name; /* here; NULL: the same */
	bool eager, replace;
};

/* -EEXIST, -EBUSY (templates_replaceable), -ENOENT: no such store. */
int pull_start(const struct transfer_config *config,
	       const struct pull_options *options,
	       const struct job_events *events, void *arg, struct pull **ret,
	       struct err *e) must_check;
/* No more events, and unless it is published already, no template. */
void pull_abandon(struct pull *p);
