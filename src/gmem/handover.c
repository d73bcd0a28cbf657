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
#include "base/fdpass.h"
#include "base/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

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

int plan_handover_receive(int sock, struct gmem_handover *ret, int *ret_uffd,
			  struct err *e)
{
	struct gmem_handover h = { 0 };
	guard_fd int uffd = -1;
	size_t n_fds = 0;
	ssize_t n;

	n = fdpass_receive(sock, &h, sizeof(h), &uffd, 1, &n_fds, MSG_DONTWAIT);
	if (n < 0 && n != -EMSGSIZE && n != -E2BIG)
		return err_errno(e, (int)-n, "receive the userfaultfd");
	if (n == 0)
		return err_set(e, EPIPE,
			       "the VMM ended without its userfaultfd");
	if ((n != sizeof(h) && n != -E2BIG) || !handover_sane(&h))
		return err_set(e, EPROTO,
			       "userfaultfd: the message makes no sense");
	if (uffd < 0 || !handover_is_uffd(uffd))
		return err_set(e, EPROTO,
			       "userfaultfd: the VMM sent something else");
	*ret = h;
	*ret_uffd = fd_take(&uffd);
	return 0;
}
