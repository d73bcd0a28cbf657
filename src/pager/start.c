/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting a pager process, and ending one that an earlier daemon started
 *
 * The pager is the daemon's own program, started anew: /proc/self/exe is the
 * running binary even when the file has been replaced, so both speak the same
 * protocol. It is not in the daemon's session, because it outlives it: what
 * ends a daemon's terminal must not freeze its guests.
 *
 * RUN/pager.pid is the pager's own, written when it is up. RUN/pager.started
 * says the same, "PID START" (base/proc.h), from the moment it was started: a
 * daemon that dies right then has a successor that must find it, for messages
 * may be on their way to it. A pid that was reused is not taken for a pager.
 */
#include "pager/start.h"

#include "base/guard.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>

/* Its fds, behind the standard ones. */
#define START_CONTROL_FD 3
#define START_STATS_FD 4
/* Duplicates from here on cannot be in the way of those. */
#define START_FD_ABOVE 16
/* A pager says little; a log that grew beyond this is put aside. */
#define START_LOG_MAX (1 << 20)
/* It holds nothing that would have to be saved. */
#define START_GRACE_MS 200
/* Freeing what it has mapped; longer is a kernel that does not answer. */
#define START_KILLED_MS 5000
/* Two numbers. */
#define START_PID_MAX 64

static int start_log(const char *root, struct err *e)
{
	guard_free char *path = io_path("%s/pager.log", root);
	guard_free char *old = io_path("%s/pager.log.old", root);
	struct stat st;
	int fd;

	if (!path || !old)
		return err_errno(e, ENOMEM, "start the pager");
	if (stat(path, &st) == 0 && st.st_size > START_LOG_MAX)
		err_drop(rename(path, old));
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	return fd < 0 ? err_errno(e, errno, "open %s", path) : fd;
}

static int start_note(const char *run, const struct proc_id *id, struct err *e)
{
	guard_free char *path = io_path("%s/pager.started", run);
	guard_free char *new = io_path("%s/pager.started.new", run);
	guard_fd int fd = -1;
	char line[START_PID_MAX];
	int r;

	if (!path || !new)
		return err_errno(e, ENOMEM, "start the pager");
	fd = open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_errno(e, errno, "open %s", new);
	snprintf(line, sizeof(line), "%d %" PRIu64 "\n", id->pid,
		 id->start_ticks);
	r = io_write_full(fd, line, strlen(line));
	if (r < 0)
		return err_errno(e, -r, "write %s", new);
	if (rename(new, path) < 0)
		return err_errno(e, errno, "rename %s", new);
	return 0;
}

struct start_fds {
	int log, control, stats;
};

static int start_actions(posix_spawn_file_actions_t *a,
			 const struct start_fds *f)
{
	int r = posix_spawn_file_actions_addopen(a, STDIN_FILENO, "/dev/null",
						 O_RDONLY, 0);

	if (!r)
		r = posix_spawn_file_actions_adddup2(a, f->log, STDOUT_FILENO);
	if (!r)
		r = posix_spawn_file_actions_adddup2(a, f->log, STDERR_FILENO);
	if (!r)
		r = posix_spawn_file_actions_adddup2(a, f->control,
						     START_CONTROL_FD);
	if (!r)
		r = posix_spawn_file_actions_adddup2(a, f->stats,
						     START_STATS_FD);
	if (!r)
		r = posix_spawn_file_actions_addclosefrom_np(a, START_STATS_FD +
									1);
	return r;
}

/* No signal of ours blocked or ignored, a session of its own. */
static int start_attributes(posix_spawnattr_t *attr)
{
	sigset_t set;
	int r;

	sigemptyset(&set);
	r = posix_spawnattr_setsigmask(attr, &set);
	sigfillset(&set);
	if (!r)
		r = posix_spawnattr_setsigdefault(attr, &set);
	if (!r)
		r = posix_spawnattr_setflags(
			attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
				      POSIX_SPAWN_SETSID);
	return r;
}

static int start_spawn(const char *program, char *const *argv,
		       const struct start_fds *f, pid_t *ret)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	int r = posix_spawn_file_actions_init(&actions);

	if (r)
		return -r;
	r = posix_spawnattr_init(&attr);
	if (r) {
		posix_spawn_file_actions_destroy(&actions);
		return -r;
	}
	r = start_actions(&actions, f);
	if (!r)
		r = start_attributes(&attr);
	if (!r)
		r = posix_spawn(ret, program, &actions, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return -r;
}

static int start_run(const struct start *s, const struct start_fds *f,
		     pid_t *ret)
{
	char control[16], stats[16], cache[32];
	const char *const argv[] = {
		"byre",       "pager", "--control-fd",  control,
		"--root",     s->root, "--run",         s->run,
		"--stats-fd", stats,   "--cache-bytes", cache,
		NULL,
	};
	char *const *args;

	snprintf(control, sizeof(control), "%d", START_CONTROL_FD);
	snprintf(stats, sizeof(stats), "%d", START_STATS_FD);
	snprintf(cache, sizeof(cache), "%" PRIu64, s->cache_bytes);
	/* The array is not written to; C's prototype cannot say so. */
	memcpy(&args, &(const char *const *){ argv }, sizeof(args));
	return start_spawn(s->program ? s->program : "/proc/self/exe", args, f,
			   ret);
}

/* Fds that posix_spawn may put where it wants. */
static int start_fds(const struct start *s, struct start_fds *f, struct err *e)
{
	guard_fd int log = start_log(s->root, e);

	if (log < 0)
		return log;
	f->log = fcntl(log, F_DUPFD_CLOEXEC, START_FD_ABOVE);
	f->control = fcntl(s->control_fd, F_DUPFD_CLOEXEC, START_FD_ABOVE);
	f->stats = fcntl(s->stats_fd, F_DUPFD_CLOEXEC, START_FD_ABOVE);
	if (f->log < 0 || f->control < 0 || f->stats < 0)
		return err_errno(e, errno, "start the pager");
	return 0;
}

int start_pager(const struct start *s, struct proc_id *ret, int *ret_pidfd,
		struct err *e)
{
	struct start_fds f = { -1, -1, -1 };
	guard_fd int pidfd = -1;
	pid_t pid = 0;
	int r = start_fds(s, &f, e);

	if (r == 0) {
		r = start_run(s, &f, &pid);
		if (r < 0)
			err_errno(e, -r, "start the pager");
	}
	fd_close(&f.log);
	fd_close(&f.control);
	fd_close(&f.stats);
	if (r < 0)
		return r;
	/* Our child, not yet waited for: the pid is its. */
	pidfd = pidfd_open(pid, 0);
	if (pidfd < 0)
		return err_errno(e, errno, "start the pager: pidfd");
	*ret = (struct proc_id){ .pid = pid };
	r = proc_identify(pid, ret);
	if (r == 0)
		r = start_note(s->run, ret, e);
	else if (r == -ESRCH) /* it ended already: the pidfd will say how */
		r = 0;
	else
		err_errno(e, -r, "start the pager: identify it");
	if (r < 0) {
		start_end(pidfd);
		return r;
	}
	*ret_pidfd = fd_take(&pidfd);
	return 0;
}

static int start_named(const char *run, const char *file)
{
	guard_free char *path = io_path("%s/%s", run, file);
	guard_free char *text = NULL;
	struct proc_id id = { 0 };
	unsigned long long ticks = 0;
	int fd = -1;

	if (!path || io_read_file(path, START_PID_MAX, &text, NULL, NULL) < 0 ||
	    sscanf(text, "%d %llu", &id.pid, &ticks) != 2)
		return -1;
	id.start_ticks = ticks;
	return proc_open(&id, &fd) == 0 ? fd : -1;
}

int start_older(const char *run)
{
	int fd = start_named(run, "pager.started");

	return fd < 0 ? start_named(run, "pager.pid") : fd;
}

static bool start_gone(int pidfd, int timeout_ms)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return poll(&p, 1, timeout_ms) > 0;
}

void start_end(int pidfd)
{
	char how[64];

	err_drop(pidfd_send_signal(pidfd, SIGTERM, NULL, 0));
	if (!start_gone(pidfd, START_GRACE_MS)) {
		err_drop(pidfd_send_signal(pidfd, SIGKILL, NULL, 0));
		err_drop(start_gone(pidfd, START_KILLED_MS));
	}
	err_drop(proc_how_ended(pidfd, how, sizeof(how), NULL));
}
