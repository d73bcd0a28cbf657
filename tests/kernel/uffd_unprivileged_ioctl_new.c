/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An unprivileged process makes a full userfaultfd with USERFAULTFD_IOC_NEW on
 * an inherited fd of /dev/userfaultfd: one that also catches the faults of
 * system calls (and of KVM), which UFFD_USER_MODE_ONLY would not. (A VMM that
 * does not run as root.)
 */
#include "kernel.h"

#define NOBODY 65534u

struct writer {
	int to;
	volatile uint8_t *from;
	ssize_t done;
	int code;
};

/* The kernel reads the missing page here, not we. */
static void *writer_main(void *p)
{
	struct writer *w = p;

	w->done = write(w->to, page_at(w->from, 0), 1);
	w->code = errno;
	return NULL;
}

static void unprivileged(int dev)
{
	int fd = file_new(false, 0), uffd, ends[2];
	struct writer w = { 0 };
	pthread_t thread;
	char c = 0;

	check(ftruncate(fd, PAGE) == 0);
	check(setresgid(NOBODY, NOBODY, NOBODY) == 0);
	check(setresuid(NOBODY, NOBODY, NOBODY) == 0);
	check(open("/dev/userfaultfd", O_RDWR | O_CLOEXEC) < 0);

	uffd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	check(uffd >= 0);
	uffd_api(uffd);
	check(pipe(ends) == 0);
	w.to = ends[1];
	w.from = map_private(fd, 1);
	uffd_arm(uffd, w.from, 1);
	check(pthread_create(&thread, NULL, writer_main, &w) == 0);
	check(uffd_next(uffd, w.from, FAULT_MS) == 0);
	check(pwrite(fd, "x", 1, 0) == 1);
	uffd_wake(uffd, w.from, 0);
	check(pthread_join(thread, NULL) == 0);
	check(w.done == 1);
	check(read(ends[0], &c, 1) == 1 && c == 'x');
}

int main(void)
{
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

	if (dev < 0 && errno == ENOENT)
		test_skip("no /dev/userfaultfd (6.1)");
	if (dev < 0 || geteuid() != 0)
		test_skip("needs root, to become someone else");
	unprivileged(dev);
	return 0;
}
