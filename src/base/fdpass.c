/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes and file descriptors through unix sockets (SCM_RIGHTS)
 *
 * Invariants:
 *  1. There is always room for FDPASS_MAX fds, whatever the caller wants: the
 *     kernel gives as many as fit and aligns the room, so that room for one is
 *     room for two. Who sends too many is told from who does not by the number
 *     that came.
 *  2. Received are all fds of a message or none. A message of which a part is
 *     missing is no message: what did come of it is closed.
 *
 * This knows nothing of what the messages mean, nor of other things that can
 * ride on them (credentials): nobody here asks the kernel for those.
 */
#include "base/fdpass.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* An even number: no room is left by alignment. */
_Static_assert(FDPASS_MAX % 2 == 0, "CMSG_SPACE aligns to two fds");

union fdpass_space {
	char bytes[CMSG_SPACE(FDPASS_MAX * sizeof(int))];
	struct cmsghdr align;
};

ssize_t fdpass_send(int sock, const void *p, size_t len, const int *fds,
		    size_t n_fds, int flags)
{
	union fdpass_space space = { 0 };
	struct iovec iov = { .iov_base = (void *)(uintptr_t)p, .iov_len = len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	must(n_fds <= FDPASS_MAX);
	if (n_fds) {
		struct cmsghdr *c = &space.align;

		m.msg_control = &space;
		m.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
	}
	do {
		n = sendmsg(sock, &m, flags | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* The fds of @m, at most FDPASS_MAX; returns how many. */
static size_t fdpass_collect(struct msghdr *m, int *ret_fds)
{
	size_t n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		size_t got = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		must(got <= FDPASS_MAX - n);
		memcpy(ret_fds + n, CMSG_DATA(c), got * sizeof(int));
		n += got;
	}
	return n;
}

ssize_t fdpass_receive(int sock, void *p, size_t len, int *ret_fds,
		       size_t max_fds, size_t *ret_n, int flags)
{
	union fdpass_space space = { 0 };
	struct iovec iov = { .iov_base = p, .iov_len = len };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &space,
			    .msg_controllen = sizeof(space.bytes) };
	int fds[FDPASS_MAX];
	size_t n_fds;
	ssize_t n;

	must(max_fds <= FDPASS_MAX);
	do {
		n = recvmsg(sock, &m, flags | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	n_fds = fdpass_collect(&m, fds);
	if (m.msg_flags & MSG_TRUNC)
		n = -EMSGSIZE;
	else if (m.msg_flags & MSG_CTRUNC || n_fds > max_fds)
		n = -E2BIG;
	if (n < 0) {
		for (size_t i = 0; i < n_fds; i++)
			close(fds[i]);
		return n;
	}
	memcpy(ret_fds, fds, n_fds * sizeof(int));
	*ret_n = n_fds;
	return n;
}
