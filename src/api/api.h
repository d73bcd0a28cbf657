/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The API server: doc/api.md over a unix socket, in the daemon's loop
 *
 * libmicrohttpd parses HTTP and lives in our loop through its own epoll fd.
 * Nothing here blocks; the ledger is read in the worker.
 */
#include "base/err.h"

struct api;
struct bake_config;
struct loop;
struct pager;
struct registry;
struct stores;
struct templates;
struct vmm_host;
struct worker;

struct api_config {
	const char *root;
	const char *run; /* the socket is RUN/api.sock */
	const char *proc_root; /* "/proc" */
	struct loop *loop;
	struct worker *worker;
	struct vmm_host *host;
	struct registry *registry;
	struct templates *templates;
	struct stores *stores; /* may be NULL: then there are none */
	struct pager *pager; /* may be NULL: nothing is streamed */
	const struct bake_config *bake;
};

int api_new(const struct api_config *config, struct api **ret,
	    struct err *e) must_check;
/* Ends every connection; bakes under way are given up. */
struct api *api_free(struct api *a);
