/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's side of the zygote, with a shell in QEMU's place
 */
#include "vmm/zygote.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/pidfd.h>

/* Of the shell. Not one digit: dash takes no other in a redirection. */
#define SAY_FD 9
#define LAST_FD (CHILD_FDS_MAX - 1)

static const struct zygote_numbers no_numbers = { -1, -1, -1, -1, -1, -1 };
static char preload[3 * 4096];

/* The libraries built with this test are one directory up. */
static void find_libraries(void)
{
	char dir[4096];
	ssize_t n = readlink("/proc/self/exe", dir, sizeof(dir) - 1);
	guard_free char *path = NULL;

	check(n > 0);
	dir[n] = '\0';
	for (int i = 0; i < 2; i++)
		*strrchr(dir, '/') = '\0';
	snprintf(preload, sizeof(preload),
		 "LD_PRELOAD=%s/libbyre-gmem.so:%s/libbyre-zygote.so", dir,
		 dir);
	path = io_path("%s/libbyre-zygote.so", dir);
	check(path);
	if (access(path, R_OK) < 0)
		test_skip("no libbyre-zygote.so: build it");
}

static struct child nothing(void)
{
	struct child c = { 0 };

	for (int i = 0; i < CHILD_FDS_MAX; i++)
		c.fds[i] = -1;
	return c;
}

static int shell(struct zygote *z, const char *script, const struct child *c,
		 int *ret_pidfd, struct err *e)
{
	const char *argv[] = { "sh", "-c", script, NULL };
	struct proc_id id = { 0 };

	return zygote_fork(z, argv, c, &no_numbers, &id, ret_pidfd, e);
}

static void until_ended(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	check(poll(&p, 1, 20000) == 1);
}

/* Every fd is where it should be, to the last. */
static void test_fork(struct zygote *z)
{
	struct child c = nothing();
	int out[2], pidfd = -1;
	struct err e = ERR_NULL;
	char text[64] = { 0 };

	check(pipe2(out, O_CLOEXEC) == 0);
	c.n_fds = CHILD_FDS_MAX;
	c.fds[2] = STDERR_FILENO;
	c.fds[SAY_FD] = c.fds[LAST_FD] = out[1];
	check(shell(z, "cd /proc/self/fd && echo * >&9", &c, &pidfd, &e) == 0);
	check(fcntl(pidfd, F_GETFD) == FD_CLOEXEC);
	close(out[1]);
	check(io_read_full(out[0], text, sizeof(text) - 1) > 0);
	/* 0: the directory that is listed. */
	check_str(text, "0 2 23 9\n");
	until_ended(pidfd);
	fd_close(&pidfd);
	close(out[0]);
}

static void test_refused(struct zygote *z)
{
	static char long_script[ZYGOTE_TEXT_MAX];
	struct child c = nothing();
	struct err e = ERR_NULL;
	int pidfd = -1;

	memset(long_script, 'x', sizeof(long_script) - 1);
	c.fds[2] = STDERR_FILENO;
	c.n_fds = 3;
	check(shell(z, long_script, &c, &pidfd, &e) == -E2BIG);
	c.fds[2] = -1; /* without one fd it is no request */
	check(shell(z, "true", &c, &pidfd, &e) == -EPROTO && pidfd == -1);
	c.fds[2] = 12345;
	check(shell(z, "true", &c, &pidfd, &e) == -EBADF && pidfd == -1);
	/* And goes on. */
	c.fds[2] = STDERR_FILENO;
	check(shell(z, "true", &c, &pidfd, &e) == 0);
	until_ended(pidfd);
	fd_close(&pidfd);
}

/* One that never was a zygote. */
static void test_gone(void)
{
	struct child c = nothing();
	struct zygote *z = NULL;
	struct err e = ERR_NULL;
	int pidfd = -1;

	c.fds[2] = STDERR_FILENO;
	c.n_fds = 3;
	check(zygote_new("/bin/true", "NO=PRELOAD", 0, &z, &e) == 0);
	check(shell(z, "true", &c, &pidfd, &e) == -EPIPE && pidfd == -1);
	zygote_free(z);
}

int main(void)
{
	struct zygote *z = NULL;
	struct err e = ERR_NULL;

	find_libraries();
	if (pidfd_open(getpid(), 1) < 0 && errno == ENOSYS)
		test_skip("no pidfds here (valgrind 3.19 does not know them)");
	check(zygote_new("/bin/sh", preload, 0, &z, &e) == 0);
	test_fork(z);
	test_refused(z);
	check(!zygote_free(z));
	test_gone();
	return 0;
}
