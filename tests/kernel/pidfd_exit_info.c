/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PIDFD_GET_INFO tells how a process ended that was never our child and that
 * its parent has reaped. (A daemon that was restarted watches VMMs that are not
 * its children.)
 */
#include "kernel.h"
#include "base/uapi.h"

/* A parent that starts a child, names it on @out, lets it wait for the end of
 * @go, and reaps it. Never returns. */
static void middle(int out, int go, int how)
{
	pid_t pid = fork();
	char c;

	check(pid >= 0);
	if (pid == 0) {
		check(read(go, &c, 1) == 1);
		if (how < 0)
			raise(-how);
		_exit(how);
	}
	check(write(out, &pid, sizeof(pid)) == sizeof(pid));
	check(waitpid(pid, NULL, 0) == pid);
	_exit(0);
}

static int exit_status(int how)
{
	struct uapi_pidfd_info info = { 0 };
	int up[2], down[2], pidfd, status = 0;
	pid_t mid, pid = 0;

	check(pipe(up) == 0 && pipe(down) == 0);
	mid = fork();
	check(mid >= 0);
	if (mid == 0)
		middle(up[1], down[0], how);
	check(read(up[0], &pid, sizeof(pid)) == sizeof(pid));
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	check(pidfd >= 0);
	check(write(down[1], "x", 1) == 1);
	check(waitpid(mid, &status, 0) == mid && status == 0);
	/* gone and reaped */
	check(kill(pid, 0) < 0 && errno == ESRCH);

	info.mask = UAPI_PIDFD_INFO_EXIT;
	if (ioctl(pidfd, UAPI_PIDFD_GET_INFO, &info) < 0) {
		/* no such ioctl, or one that forgets the dead (before 6.15) */
		check(errno == ENOTTY || errno == EINVAL || errno == ESRCH);
		test_skip("this kernel's pidfds do not keep exit codes (6.15)");
	}
	if (!(info.mask & UAPI_PIDFD_INFO_EXIT))
		test_skip("this kernel's pidfds do not keep exit codes (6.15)");
	close(pidfd);
	return info.exit_code;
}

int main(void)
{
	int status = exit_status(7);

	check(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	status = exit_status(0);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	status = exit_status(-SIGKILL);
	check(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	return 0;
}
