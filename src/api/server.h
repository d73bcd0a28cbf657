/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The server's inside, for the handlers
 */
#include "api/api.h"
#include "base/list.h"
#include "base/loop.h"

#include <stdbool.h>

struct MHD_Daemon;
struct follow;
struct mem;

struct api {
	struct api_config config;
	char *socket_path;
	struct MHD_Daemon *mhd;
	struct loop_fd fd; /* the library's epoll */
	struct loop_timer timer; /* its idle timeouts, and api_wake() */
	bool running; /* inside server_run() */
	bool woken; /* run again */
	struct list requests; /* struct request */
	struct mem *mem;
	struct follow *follow;
};

/* A connection was resumed or closed from outside the library: run it. */
void api_wake(struct api *a);
