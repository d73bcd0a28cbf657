/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Bytes and file descriptors through unix sockets
 */
#include "base/must.h"

#include <sys/types.h>

/* Fds of one message: as many as a new VMM gets (vmm/child.h). The kernel
 * would take 253. */
#define FDPASS_MAX 24u

/* Send @len bytes, and with the first of them @n_fds fds (FDPASS_MAX at most),
 * which stay the caller's. @flags: 0, or MSG_DONTWAIT not to wait for room.
 * Returns how many bytes were sent, all of them but on a stream, where the fds
 * have gone when one byte has; or -errno, and nothing was sent. No SIGPIPE. */
ssize_t fdpass_send(int sock, const void *p, size_t len, const int *fds,
		    size_t n_fds, int flags) must_check;

/* Receive at most @len bytes, and at most @max_fds fds (up to FDPASS_MAX) into
 * @ret_fds, *ret_n of them: the caller's, close-on-exec. The rest of @ret_fds
 * is not touched. @flags: 0, or MSG_DONTWAIT not to wait. Returns how many bytes
 * came, 0 at the end or for an empty message; or -errno, and whatever fd came
 * is closed:
 *	-EMSGSIZE	the message is longer than @len (not on a stream)
 *	-E2BIG		more fds than @max_fds, or than this process may open */
ssize_t fdpass_receive(int sock, void *p, size_t len, int *ret_fds,
		       size_t max_fds, size_t *ret_n, int flags) must_check;
