/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * In the daemon's place: a child with one connection
 */
#include "base/io.h"
#include "base/test.h"

#include <sys/socket.h>

/* Listens on RUN/api.sock. In the child, returns 0 when a client has connected
 * and sent something, with the connection in *ret_fd. */
static inline pid_t peer_fork(const char *run, int *ret_fd)
{
	char path[80], request[65536];
	int fd = -1;
	pid_t pid;

	snprintf(path, sizeof(path), "%s/api.sock", run);
	check(io_listen_unix(path, 0600, &fd, NULL) == 0);
	check(io_set_nonblock(fd, false) == 0);
	pid = fork();
	check(pid >= 0);
	if (pid) {
		close(fd);
		return pid;
	}
	*ret_fd = accept(fd, NULL, NULL);
	check(*ret_fd >= 0 && read(*ret_fd, request, sizeof(request)) > 0);
	return 0;
}
