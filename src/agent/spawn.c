/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting a process, vfork style
 *
 * fork() copies page tables, which is slow where a hypervisor or an emulator
 * has to follow every one of them, and it doubles the pages that a freshly
 * restored guest dirties. clone(CLONE_VM | CLONE_VFORK) shares the memory and
 * suspends us until the child has called execve or ended. The child runs on a
 * stack of its own and tells how it failed through the shared struct.
 *
 * Sharing memory has rules:
 * 1. The child makes plain system calls only. glibc's setuid and friends keep
 *    books about threads, so these are called by number.
 * 2. No handler of ours may run in the child. The agent has none, except for
 *    crashes: it blocks what it wants to know about (SIGCHLD, read from a
 *    signalfd) or wants to be spared (SIGPIPE). So an empty mask, set last, is
 *    all that has to be undone.
 * 3. The child never returns into our frames; it ends with _exit.
 *
 * We are suspended while the child looks for its program. That is a few
 * milliseconds of disk at worst, and simpler than any way around it.
 */
#include "agent/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* The child needs a few frames and one path. */
#define SPAWN_STACK_BYTES 16384
#define SPAWN_PATH_MAX 4096

/* One spawn at a time: we are suspended while it is in use. */
static _Alignas(16) uint8_t spawn_stack[SPAWN_STACK_BYTES];

static __attribute__((noreturn)) void
spawn_fail(struct spawn *s, enum spawn_stage stage, int error)
{
	s->error = error;
	s->stage = stage;
	_exit(127);
}

static int spawn_become(const struct user *u)
{
	if (syscall(SYS_setgroups, u->n_groups, u->groups) < 0 ||
	    syscall(SYS_setresgid, u->gid, u->gid, u->gid) < 0 ||
	    syscall(SYS_setresuid, u->uid, u->uid, u->uid) < 0)
		return -errno;
	return 0;
}

/* Returns only when it fails, with the errno that says most. */
static int spawn_exec(const struct spawn *s)
{
	const char *file = s->argv[0], *dir = s->path, *end;
	char path[SPAWN_PATH_MAX];
	size_t dir_len, file_len = strlen(file);
	bool denied = false;

	if (!file[0])
		return ENOENT;
	if (strchr(file, '/')) {
		execve(file, s->argv, s->envp);
		return errno;
	}
	for (;; dir = end + 1) {
		end = strchrnul(dir, ':');
		dir_len = (size_t)(end - dir);
		if (dir_len + file_len + 2 <= sizeof(path)) {
			/* An empty element is the current directory. */
			memcpy(path, dir, dir_len);
			if (dir_len)
				path[dir_len++] = '/';
			memcpy(path + dir_len, file, file_len + 1);
			execve(path, s->argv, s->envp);
			if (errno == EACCES)
				denied = true;
			else if (errno != ENOENT && errno != ENOTDIR)
				return errno;
		}
		if (!*end)
			return denied ? EACCES : ENOENT;
	}
}

static int spawn_child(void *arg)
{
	struct spawn *s = arg;
	sigset_t none;
	int i, r;

	if (setsid() < 0)
		spawn_fail(s, SPAWN_FAILED_SETUP, errno);
	for (i = 0; i < 3; i++)
		if (dup2(s->fd[i], i) < 0)
			spawn_fail(s, SPAWN_FAILED_SETUP, errno);
	if (s->tty && ioctl(STDIN_FILENO, TIOCSCTTY, 0) < 0)
		spawn_fail(s, SPAWN_FAILED_SETUP, errno);
	r = s->user ? spawn_become(s->user) : 0;
	if (r < 0)
		spawn_fail(s, SPAWN_FAILED_USER, -r);
	if (chdir(s->cwd) < 0)
		spawn_fail(s, SPAWN_FAILED_CWD, errno);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	spawn_fail(s, SPAWN_FAILED_EXEC, spawn_exec(s));
}

int spawn_run(struct spawn *s, pid_t *ret_pid)
{
	pid_t pid;

	must(s->fd[0] > 2 && s->fd[1] > 2 && s->fd[2] > 2);
	s->stage = SPAWN_STARTED;
	s->error = 0;
	pid = clone(spawn_child, spawn_stack + sizeof(spawn_stack),
		    CLONE_VM | CLONE_VFORK | SIGCHLD, s);
	if (pid < 0)
		return -errno;
	if (s->stage != SPAWN_STARTED)
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			continue;
	*ret_pid = pid;
	return 0;
}
