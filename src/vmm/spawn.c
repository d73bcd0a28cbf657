/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fork, arrange, exec
 *
 * The child shares nothing with the daemon but the fds listed: everything else
 * is closed with close_range(). As root it becomes a user of its own (one uid
 * per sandbox: two guests that both break out of their VMM still cannot
 * signal or trace each other), with no capabilities and no_new_privs, so that
 * no set-uid program gives them back.
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
#include <grp.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
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

/* Duplicate first to numbers above all targets, so that no target overwrites a
 * source still needed. */
static void spawn_fds(const struct spawn *s, int *report)
{
	int high[SPAWN_FDS_MAX];
	int moved = fcntl(*report, F_DUPFD_CLOEXEC, SPAWN_FDS_MAX);

	if (moved < 0)
		_exit(127);
	*report = moved;
	for (int i = 0; i < s->n_fds; i++) {
		high[i] = -1;
		if (s->fds[i] < 0)
			continue;
		high[i] = fcntl(s->fds[i], F_DUPFD, SPAWN_FDS_MAX);
		if (high[i] < 0)
			spawn_fail(*report, "duplicate an fd");
	}
	for (int i = 0; i < s->n_fds; i++) {
		if (high[i] >= 0 && dup2(high[i], i) < 0)
			spawn_fail(*report, "duplicate an fd");
		if (high[i] < 0)
			close(i);
	}
	moved = fcntl(*report, F_DUPFD_CLOEXEC, s->n_fds);
	if (moved < 0)
		_exit(127);
	if (dup3(*report, s->n_fds, O_CLOEXEC) < 0)
		_exit(127);
	*report = s->n_fds;
	syscall(SYS_close_range, (unsigned)s->n_fds + 1, ~0u, 0);
}

static void spawn_identity(const struct spawn *s, int report)
{
	struct rlimit none = { 0, 0 };

	if (setrlimit(RLIMIT_CORE, &none) < 0)
		spawn_fail(report, "forbid core dumps");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		spawn_fail(report, "set no_new_privs");
	if (!s->drop)
		return;
	if (setgroups(0, NULL) < 0 ||
	    setresgid((gid_t)s->uid, (gid_t)s->uid, (gid_t)s->uid) < 0 ||
	    setresuid(s->uid, s->uid, s->uid) < 0)
		spawn_fail(report, "become an unprivileged user");
}

__attribute__((noreturn)) static void spawn_child(const struct spawn *s,
						  int report)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	/* Not the daemon's terminal: its Ctrl-C is not for guests. */
	setsid();
	spawn_fds(s, &report);
	spawn_identity(s, report);
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
