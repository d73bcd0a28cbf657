/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fds through sockets: all of a message or none, and none left behind
 */
#include "base/fdpass.h"

#include "base/err.h"
#include "base/guard.h"
#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

/* More than there is ever room for. */
#define CROWD (FDPASS_MAX + 8)

static int files[CROWD];
static int pair[2];

static void test_pair(int type)
{
	check(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair) == 0);
}

static void test_unpair(void)
{
	close(pair[0]);
	close(pair[1]);
}

/* The lowest free fd: equal before and after, nothing was left open. */
static int test_next_fd(void)
{
	int fd = dup(STDIN_FILENO);

	check(fd >= 0 && close(fd) == 0);
	return fd;
}

static bool test_same_file(int a, int b)
{
	struct stat x = { 0 }, y = { 0 };

	check(fstat(a, &x) == 0 && fstat(b, &y) == 0);
	return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* Without the bounds of fdpass_send(). */
static void test_send_raw(size_t n)
{
	union {
		char bytes[CMSG_SPACE(CROWD * sizeof(int))];
		struct cmsghdr align;
	} space = { 0 };
	struct iovec iov = { .iov_base = "text", .iov_len = 4 };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &space,
			    .msg_controllen = CMSG_SPACE(n * sizeof(int)) };

	space.align.cmsg_level = SOL_SOCKET;
	space.align.cmsg_type = SCM_RIGHTS;
	space.align.cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(&space.align), files, n * sizeof(int));
	check(sendmsg(pair[1], &m, 0) == 4);
}

static void test_whole(void)
{
	int fds[FDPASS_MAX];
	char text[8];
	size_t n;

	test_pair(SOCK_SEQPACKET);
	for (size_t want = 0; want <= FDPASS_MAX; want++) {
		n = 99;
		memset(fds, 0xff, sizeof(fds));
		check(fdpass_send(pair[1], "text", 4, files, want, 0) == 4);
		check(fdpass_receive(pair[0], text, sizeof(text), fds, want, &n,
				     MSG_DONTWAIT) == 4);
		check(n == want && !memcmp(text, "text", 4));
		for (size_t i = 0; i < FDPASS_MAX; i++) {
			if (i >= n) {
				check(fds[i] == -1);
				continue;
			}
			check(test_same_file(fds[i], files[i]));
			check(fcntl(fds[i], F_GETFD) == FD_CLOEXEC);
			check(close(fds[i]) == 0);
		}
	}
	test_unpair();
}

static void test_refused(size_t len, size_t max_fds, ssize_t want)
{
	int before = test_next_fd(), fds[FDPASS_MAX];
	size_t n = 99;
	char text[8];

	memset(fds, 0xff, sizeof(fds));
	check(fdpass_receive(pair[0], text, len, fds, max_fds, &n,
			     MSG_DONTWAIT) == want);
	check(n == 99 && fds[0] == -1 && test_next_fd() == before);
}

static void test_too_many(void)
{
	test_pair(SOCK_SEQPACKET);
	/* Two fit where there is room for one, as the kernel sees it. */
	for (size_t n = 1; n <= CROWD; n++) {
		test_send_raw(n);
		test_refused(8, min(n - 1, (size_t)FDPASS_MAX), -E2BIG);
	}
	test_send_raw(1);
	test_refused(3, 1, -EMSGSIZE);
	test_send_raw(2);
	test_refused(3, 1, -EMSGSIZE);
	/* The next message is not touched by what became of those. */
	test_refused(8, 1, -EAGAIN);
	test_unpair();
}

/* What of a message finds no place in the process takes the rest with it. */
static void test_table_full(void)
{
	const char *preload = getenv("LD_PRELOAD");
	struct rlimit was = { 0 }, few = { 0 };

	if (preload && strstr(preload, "vgpreload"))
		return; /* valgrind does not tell the kernel of limits */
	test_pair(SOCK_SEQPACKET);
	check(getrlimit(RLIMIT_NOFILE, &was) == 0);
	test_send_raw(3);
	few = (struct rlimit){ (rlim_t)test_next_fd() + 2, was.rlim_max };
	check(setrlimit(RLIMIT_NOFILE, &few) == 0);
	test_refused(8, 3, -E2BIG);
	check(setrlimit(RLIMIT_NOFILE, &was) == 0);
	test_unpair();
}

/* The fd comes with the first byte, and with no other. */
static void test_stream(void)
{
	char text[8] = { 0 };
	int fd = -1;
	size_t n = 99;

	test_pair(SOCK_STREAM);
	check(fdpass_send(pair[1], "ab", 2, NULL, 0, 0) == 2);
	check(fdpass_send(pair[1], "cdef", 4, files, 1, 0) == 4);
	check(fdpass_receive(pair[0], text, 2, &fd, 1, &n, 0) == 2 && n == 0);
	check(fd == -1 && !memcmp(text, "ab", 2));
	check(fdpass_receive(pair[0], text, 1, &fd, 1, &n, 0) == 1 && n == 1);
	check(text[0] == 'c' && test_same_file(fd, files[0]));
	fd_close(&fd);
	check(fdpass_receive(pair[0], text, 8, &fd, 1, &n, 0) == 3 && n == 0);
	check(fd == -1 && !memcmp(text, "def", 3));
	test_unpair();
}

static void test_errors(void)
{
	char text[8];
	size_t n = 99;
	int fd = -1;

	test_pair(SOCK_SEQPACKET);
	check(fdpass_receive(pair[0], text, 8, &fd, 1, &n, MSG_DONTWAIT) ==
	      -EAGAIN);
	check(fdpass_send(pair[1], "x", 1, &fd, 1, 0) == -EBADF);
	while (fdpass_send(pair[1], "x", 1, NULL, 0, MSG_DONTWAIT) == 1)
		continue;
	check(fdpass_send(pair[1], "x", 1, files, 1, MSG_DONTWAIT) == -EAGAIN);
	while (fdpass_receive(pair[0], text, 8, &fd, 1, &n, MSG_DONTWAIT) == 1)
		check(n == 0 && fd == -1);
	check(close(pair[1]) == 0);
	n = 99;
	check(fdpass_receive(pair[0], text, 8, &fd, 1, &n, 0) == 0 && n == 0);
	/* No SIGPIPE. */
	check(fdpass_send(pair[0], "x", 1, files, 1, 0) == -EPIPE);
	check(close(pair[0]) == 0);
	check(fdpass_send(pair[0], "x", 1, NULL, 0, 0) == -EBADF);
	check(fdpass_receive(pair[0], text, 8, &fd, 1, &n, 0) == -EBADF);
}

static void send_too_many(void)
{
	err_drop((int)fdpass_send(pair[1], "x", 1, files, FDPASS_MAX + 1, 0));
}

static void receive_too_many(void)
{
	int fds[FDPASS_MAX + 1];
	size_t n = 0;
	char c;

	err_drop((int)fdpass_receive(pair[0], &c, 1, fds, nitems(fds), &n, 0));
}

int main(void)
{
	for (size_t i = 0; i < CROWD; i++) {
		files[i] = memfd_create("x", MFD_CLOEXEC);
		check(files[i] >= 0);
	}
	test_whole();
	test_too_many();
	test_table_full();
	test_stream();
	test_errors();
	check(test_dies(send_too_many) && test_dies(receive_too_many));
	return 0;
}
