/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fds, limits, user: the order matters
 *
 * The fds come first, while everything may still be opened and closed; then
 * no_new_privs, so that no set-uid program gives back what comes last, the
 * privileges. A user id of its own for each guest: two guests that both break
 * out of their VMM still cannot signal or trace each other.
 */
#include "vmm/child.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Duplicate first to numbers above all targets, so that no target overwrites a
 * source still needed. */
static int child_fds(const struct child *c, int *keep_fd)
{
	int high[CHILD_FDS_MAX];
	int keep = -1;

	if (keep_fd) {
		keep = fcntl(*keep_fd, F_DUPFD_CLOEXEC, CHILD_FDS_MAX);
		if (keep < 0)
			return -errno;
	}
	for (int i = 0; i < c->n_fds; i++) {
		high[i] = -1;
		if (c->fds[i] < 0)
			continue;
		high[i] = fcntl(c->fds[i], F_DUPFD, CHILD_FDS_MAX);
		if (high[i] < 0)
			return -errno;
	}
	for (int i = 0; i < c->n_fds; i++) {
		if (high[i] < 0)
			close(i);
		else if (dup2(high[i], i) < 0)
			return -errno;
	}
	if (keep_fd) {
		if (dup3(keep, c->n_fds, O_CLOEXEC) < 0)
			return -errno;
		*keep_fd = c->n_fds;
	}
	syscall(SYS_close_range, (unsigned)c->n_fds + (keep_fd ? 1 : 0), ~0u,
		0);
	return 0;
}

static int child_drop(const struct child *c)
{
	gid_t gid = (gid_t)c->uid;

	if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 ||
	    setresuid(c->uid, c->uid, c->uid) < 0)
		return -errno;
	return 0;
}

int child_arrange(const struct child *c, int *keep_fd, const char **ret_step)
{
	struct rlimit none = { 0, 0 };
	sigset_t empty;
	int r;

	sigemptyset(&empty);
	sigprocmask(SIG_SETMASK, &empty, NULL);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGCHLD, SIG_DFL);
	/* Not the daemon's terminal: its Ctrl-C is not for guests. */
	setsid();
	*ret_step = "leave the daemon's directory";
	if (chdir("/") < 0)
		return -errno;
	*ret_step = "duplicate fds";
	r = child_fds(c, keep_fd);
	if (r < 0)
		return r;
	*ret_step = "forbid core dumps";
	if (setrlimit(RLIMIT_CORE, &none) < 0)
		return -errno;
	*ret_step = "set no_new_privs";
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	*ret_step = "become an unprivileged user";
	return c->drop ? child_drop(c) : 0;
}
