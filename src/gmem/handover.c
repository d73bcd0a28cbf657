/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking a userfaultfd over from a VMM
 *
 * One message on a socket that the VMM inherited, sent by the shim before the
 * guest has run: numbers and one fd. A userfaultfd can only be made by the
 * process whose memory it watches, so this is how the pager gets it.
 *
 * Invariants
 *  1. Nothing here waits, and nothing that came stays open but what is handed
 *     to the caller.
 *  2. What is handed over is a userfaultfd, by the kernel's word: whoever reads
 *     it cannot be made to read a pipe or a file.
 *  3. The numbers are whole pages that do not wrap. Whether they are the RAM
 *     that the caller thinks of, only the caller can tell.
 *
 * It does not stay as it is: its flags belong to the open file, which the VMM
 * shares, so a broken one could clear O_NONBLOCK or read events away. Whoever
 * reads does so with RWF_NOWAIT, or from where waiting harms nobody.
 */
#include "gmem/plan.h"
#include "base/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* One is right; room for more, so that more are seen rather than cut off. */
#define HANDOVER_FDS 4

static bool handover_is_uffd(int fd)
{
	static const char want[] = "anon_inode:[userfaultfd]";
	char path[32], is[sizeof(want) + 1] = "";
	int flags = fcntl(fd, F_GETFL);

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return flags >= 0 && flags & O_NONBLOCK &&
	       readlink(path, is, sizeof(is) - 1) == sizeof(want) - 1 &&
	       !strcmp(is, want);
}

static bool handover_sane(const struct gmem_handover *h)
{
	return h->magic == GMEM_HANDOVER_MAGIC && h->ram_addr > 0 &&
	       h->ram_addr % PLAN_PAGE == 0 && h->ram_bytes > 0 &&
	       h->ram_bytes % PLAN_PAGE == 0 && h->ram_bytes <= PLAN_RAM_MAX &&
	       h->ram_addr <= INT64_MAX - h->ram_bytes;
}

/* The fd that came with @m; -1 unless it was exactly one, then all are closed. */
static int handover_fd(struct msghdr *m)
{
	int fds[HANDOVER_FDS], n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		int got;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		got = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		got = min(got, HANDOVER_FDS - n);
		memcpy(fds + n, CMSG_DATA(c), (size_t)got * sizeof(int));
		n += got;
	}
	if (n == 1 && !(m->msg_flags & MSG_CTRUNC))
		return fds[0];
	for (int i = 0; i < n; i++)
		close(fds[i]);
	return -1;
}

int plan_handover_receive(int sock, struct gmem_handover *ret, int *ret_uffd,
			  struct err *e)
{
	struct gmem_handover h = { 0 };
	union {
		char space[CMSG_SPACE(HANDOVER_FDS * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { .iov_base = &h, .iov_len = sizeof(h) };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	guard_fd int uffd = -1;
	ssize_t n = recvmsg(sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0)
		return err_errno(e, errno, "receive the userfaultfd");
	uffd = handover_fd(&m);
	if (n == 0)
		return err_set(e, EPIPE,
			       "the VMM ended without its userfaultfd");
	if (n != sizeof(h) || m.msg_flags & MSG_TRUNC || !handover_sane(&h))
		return err_set(e, EPROTO,
			       "userfaultfd: the message makes no sense");
	if (uffd < 0 || !handover_is_uffd(uffd))
		return err_set(e, EPROTO,
			       "userfaultfd: the VMM sent something else");
	*ret = h;
	*ret_uffd = fd_take(&uffd);
	return 0;
}
