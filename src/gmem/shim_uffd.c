/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory that arrives while the guest runs
 *
 * With a streamed plan the layer is a memfd that the pager fills. Its extents
 * are mapped privately as ever, and armed: a touch of a page that the memfd does
 * not have stops the toucher (a vCPU, a thread of the VMM, the kernel on behalf
 * of one) and becomes an event on the userfaultfd. The pager writes the page into
 * the memfd and wakes; the touch is repeated and finds the page in the page
 * cache, as does that of every other guest of the layer, without an event.
 *
 *	constructor   make the userfaultfd, put it at its number
 *	mmap of RAM   arm each layer extent, send a duplicate, populate
 *
 * With an exact plan the layer is a whole file and nobody waits for anything: a
 * registration turns off the kernel's mapping of neighbours, no more.
 *
 * Invariants
 *  1. Armed are exactly the layer extents, each wholly, before anybody else can
 *     touch them. Zero extents are anonymous: they raise no event and the
 *     pager need not know them.
 *  2. The userfaultfd stays open as long as the process, at a number that the
 *     daemon knows. When the last fd of it is closed the kernel disarms the
 *     memory, and missing pages would read as zeros: a dead pager must freeze
 *     guests, never feed them that.
 *  3. The fd of /dev/userfaultfd and the socket are closed before the guest
 *     runs.
 *  4. It sees the faults of the kernel too (no UFFD_USER_MODE_ONLY): KVM and
 *     read(2) into guest memory stop there, instead of failing.
 *
 * Not here: reading events, filling pages. No feature is asked for: fork and
 * remap events would make the process wait for their reader.
 */
#include "gmem/shim_uffd.h"
#include "gmem/plan.h"
#include "base/uapi.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct {
	int fd;
	int sock;
} uffd = { .fd = -1, .sock = -1 };

/* ---- making it ---- */

/* Debian lets a user make one for its own faults only; the device's permissions
 * are another way, and inherited fds carry them. */
static int shim_uffd_new(int dev)
{
	int flags = O_CLOEXEC | O_NONBLOCK;
	int fd = -1;

	if (dev >= 0)
		fd = ioctl(dev, USERFAULTFD_IOC_NEW, flags);
	if (fd < 0)
		fd = (int)syscall(SYS_userfaultfd, flags);
	if (fd < 0)
		shim_refuse(0, errno, "make a userfaultfd: %m (%s)",
			    dev < 0 ? "no fd of /dev/userfaultfd was passed"
				    : "nor with the fd of /dev/userfaultfd");
	return fd;
}

static void shim_uffd_place(int fd, int number, const int *taken, int n)
{
	struct uffdio_api api = { .api = UFFD_API };

	for (int i = 0; i < n; i++)
		if (number == taken[i])
			shim_refuse(0, EINVAL, "userfaultfd: fd %d is in use",
				    number);
	if (ioctl(fd, UFFDIO_API, &api) < 0)
		shim_refuse(0, errno, "userfaultfd: API: %m");
	if (fd != number) {
		if (dup3(fd, number, O_CLOEXEC) < 0)
			shim_refuse(0, errno, "userfaultfd: dup to %d: %m",
				    number);
		close(fd);
	}
	uffd.fd = number;
}

/* Write protection that asks nobody: no page is ever protected, but what is
 * registered for it the kernel maps page by page
 * (tests/kernel/wp_async_no_fault_around.c). Nobody needs a privilege for that. */
static int shim_uffd_new_exact(void)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_WP_ASYNC };
	int fd = (int)syscall(SYS_userfaultfd,
			      O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	if (fd >= 0 && ioctl(fd, UFFDIO_API, &api) < 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

void shim_uffd_start(uint32_t flags, const int *taken, int n)
{
	int dev = shim_env_fd(PLAN_ENV_UFFD_DEV);
	int sock = shim_env_fd(PLAN_ENV_UFFD_SOCK);
	int number = shim_env_fd(PLAN_ENV_UFFD);

	if (flags & PLAN_STREAMED) {
		if (sock < 0 || number < 0)
			shim_refuse(0, EINVAL, "streamed, but %s is not set",
				    sock < 0 ? PLAN_ENV_UFFD_SOCK
					     : PLAN_ENV_UFFD);
		if (number <= STDERR_FILENO || number == sock || number == dev)
			shim_refuse(0, EINVAL, "userfaultfd: fd %d is in use",
				    number);
		shim_uffd_place(shim_uffd_new(dev), number, taken, n);
		uffd.sock = sock;
	} else if (sock >= 0) {
		close(sock);
	}
	if (flags & PLAN_EXACT)
		uffd.fd = shim_uffd_new_exact();
	if (dev >= 0)
		close(dev);
}

/* ---- arming ---- */

void shim_uffd_arm(char *ram, const struct gmem_extent *x, uint32_t i)
{
	struct uffdio_register r = {
		.range = { .start = (uintptr_t)ram + x->start, .len = x->len },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	if (ioctl(uffd.fd, UFFDIO_REGISTER, &r) < 0)
		shim_refuse(i, errno, "extent %u: userfaultfd: register: %m",
			    i);
}

void shim_uffd_exact(char *ram, const struct gmem_extent *x)
{
	struct uffdio_register r = {
		.range = { .start = (uintptr_t)ram + x->start, .len = x->len },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	if (uffd.fd >= 0 && ioctl(uffd.fd, UFFDIO_REGISTER, &r) < 0) {
		close(uffd.fd);
		uffd.fd = -1;
	}
}

void shim_uffd_hand_over(const char *ram, uint64_t ram_bytes)
{
	struct gmem_handover h = { .magic = GMEM_HANDOVER_MAGIC,
				   .ram_addr = (uintptr_t)ram,
				   .ram_bytes = ram_bytes };
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { .iov_base = &h, .iov_len = sizeof(h) };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	struct cmsghdr *c = &control.align;

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &uffd.fd, sizeof(int));
	if (sendmsg(uffd.sock, &m, MSG_NOSIGNAL) != sizeof(h))
		shim_refuse(0, errno, "hand over the userfaultfd: %m");
	close(uffd.sock);
	uffd.sock = -1;
}
