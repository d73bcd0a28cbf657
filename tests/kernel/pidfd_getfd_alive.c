/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pidfd_getfd takes a copy of an fd out of a living process that is not our
 * child, even one of another user, and the copy outlives it. (VMMs keep their
 * plan and layer fds open, so that a new daemon can take them back.)
 */
#include "kernel.h"

/* Any number the other side does not have by accident. */
#define THEIRS 77

static int get_fd(int pidfd)
{
	return (int)syscall(SYS_pidfd_getfd, pidfd, THEIRS, 0);
}

int main(void)
{
	int up[2], down[2], pidfd, fd;
	pid_t mid, pid = 0;
	char c;

	check(pipe(up) == 0 && pipe(down) == 0);
	mid = fork();
	check(mid >= 0);
	if (mid == 0) {
		pid = fork();
		check(pid >= 0);
		if (pid > 0)
			_exit(0);
		check(dup2(file_new(false, 3), THEIRS) == THEIRS);
		if (geteuid() == 0)
			check(setresgid(65534, 65534, 65534) == 0 &&
			      setresuid(65534, 65534, 65534) == 0);
		close(down[1]);
		pid = getpid();
		check(write(up[1], &pid, sizeof(pid)) == sizeof(pid));
		check(read(down[0], &c, 1) == 0);
		_exit(0);
	}
	check(waitpid(mid, NULL, 0) == mid); /* it is an orphan now */
	check(read(up[0], &pid, sizeof(pid)) == sizeof(pid));
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	check(pidfd >= 0);
	fd = get_fd(pidfd);
	if (fd < 0 && errno == ENOSYS)
		test_skip("this kernel has no pidfd_getfd (5.6)");
	if (fd < 0 && errno == EPERM && geteuid() != 0)
		test_skip("may not trace other processes here");
	check(fd >= 0 && (fcntl(fd, F_GETFD) & FD_CLOEXEC));
	check(file_byte(fd, 2) == 3);

	close(down[1]);
	/* readable: the process is gone */
	check(poll(&(struct pollfd){ .fd = pidfd, .events = POLLIN }, 1,
		   FAULT_MS) == 1);
	check(get_fd(pidfd) < 0 && errno == ESRCH);
	check(file_byte(fd, 2) == 3);
	return 0;
}
