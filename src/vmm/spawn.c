/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fork, arrange, exec
 *
 * The child reports a failed step over a pipe that exec closes; the parent
 * waits for that one read. vfork semantics (CLONE_VFORK, as in posix_spawn)
 * would save the copy of the daemon's page tables, but not the wait, and would
 * make the steps below share our memory; the daemon is small.
 */
#include "vmm/spawn.h"

#include "base/guard.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* What went wrong in the child. */
struct spawn_report {
	int code;
	char step[32];
};

__attribute__((noreturn)) static void spawn_fail(int report, const char *step)
{
	struct spawn_report r = { .code = errno };

	strncpy(r.step, step, sizeof(r.step) - 1);
	err_drop(io_write_full(report, &r, sizeof(r)));
	_exit(127);
}

__attribute__((noreturn)) static void spawn_child(const struct spawn *s,
						  int report)
{
	const char *step;

	if (child_arrange(&s->child, &report, &step) < 0)
		spawn_fail(report, step);
	execve(s->argv[0], (char *const *)(uintptr_t)s->argv,
	       (char *const *)(uintptr_t)s->envp);
	spawn_fail(report, "execute");
}

/* Did exec happen? */
static int spawn_outcome(int report, const struct spawn *s, struct err *e)
{
	struct spawn_report r = { 0 };
	ssize_t n = io_read_full(report, &r, sizeof(r));

	if (n == 0)
		return 0;
	if (n != sizeof(r))
		return err_set(e, EIO, "start %s: no word from the child",
			       s->argv[0]);
	r.step[sizeof(r.step) - 1] = '\0';
	return err_errno(e, r.code ? r.code : EIO, "start %s: %s", s->argv[0],
			 r.step);
}

int spawn_run(const struct spawn *s, struct proc_id *ret, int *ret_pidfd,
	      struct err *e)
{
	guard_fd int pidfd = -1;
	guard_fd int from = -1;
	guard_fd int to = -1;
	int pipefd[2];
	pid_t pid;
	int r;

	if (pipe2(pipefd, O_CLOEXEC) < 0)
		return err_errno(e, errno, "start %s: pipe", s->argv[0]);
	from = pipefd[0];
	to = pipefd[1];
	pid = fork();
	if (pid < 0)
		return err_errno(e, errno, "start %s: fork", s->argv[0]);
	if (pid == 0)
		spawn_child(s, to);
	fd_close(&to);
	r = spawn_outcome(from, s, e);
	if (r < 0) {
		waitpid(pid, NULL, 0);
		return r;
	}
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0)
		return err_errno(e, errno, "pidfd of %d", pid);
	r = proc_identify(pid, ret);
	if (r < 0 && r != -ESRCH)
		return err_errno(e, -r, "identify process %d", pid);
	if (r < 0) /* it ended already: the pidfd will say how */
		*ret = (struct proc_id){ .pid = pid };
	*ret_pidfd = fd_take(&pidfd);
	return 0;
}
