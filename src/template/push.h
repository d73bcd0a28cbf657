/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Pushing: a template into a store, what the store has not got already
 *
 * Interrupted, whether by the caller, the network or the daemon's end, it goes
 * on where it was when the same template is pushed again: what was packed is
 * kept below ROOT/push until it is in the store.
 */
#include "template/transfer.h"

struct push;

struct push_options {
	const char *template;
	const char *store;
	/* Template in the store whose frames are used; NULL: the one of the
	 * same name, if there is one. */
	const char *parent;
	/* Whatever the store holds: send all of it, and replace what is there. */
	bool force;
};

struct push_result {
	char image[INDEX_ID_MAX];
	char parent[INDEX_ID_MAX]; /* image it builds upon; "": none */
	uint64_t index_bytes, pack_bytes;
	uint64_t shared_bytes; /* of other packs, not stored again */
	bool sent; /* false: the store had it */
};

int push_start(const struct transfer_config *config,
	       const struct push_options *options,
	       const struct job_events *events, void *arg, struct push **ret,
	       struct err *e) must_check;
/* In the done event of a push that worked. */
const struct push_result *push_result(const struct push *p);
/* No more events; what was packed stays. */
void push_abandon(struct push *p);
/* When the daemon starts: delete what was packed of images that are no more. */
void push_sweep(const char *root, bool (*known)(void *arg, const char *dir),
		void *arg);
