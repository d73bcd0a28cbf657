/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Other processes: starting them, naming them for good, how they ended
 *
 * A pid may be reused the moment its process is reaped. Three things are not:
 * a pidfd; the pair {pid, start time}; a child of ours not yet waited for.
 *
 * Invariants:
 *  1. proc_open() gives a pidfd of the process that the pair names or none:
 *     the pidfd is taken first and the pair compared afterwards. Had the pid
 *     belonged to somebody else when the pidfd was taken, the one we look for
 *     would have been dead by then, and its pair can not be found later.
 *  2. A zombie is gone: its memory is, and nothing can be done with it.
 *  3. How a process ended is told from the best source there is: waitid for a
 *     child of ours; the pidfd itself (6.15) for anybody's that was reaped;
 *     /proc while it is somebody's zombie. The last matters: a guest adopted
 *     after a restart of the daemon is init's child, and its pidfd becomes
 *     readable before init has come round to it.
 *
 * It is not a supervisor: it starts nothing that outlives the call.
 */
#include "base/proc.h"

#include "base/buf.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/uapi.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

/* /proc/PID/stat is 52 numbers and a name: some 400 bytes, 1100 at worst. */
#define PROC_STAT_MAX 2048
/* Fields of /proc/PID/stat, numbered as in proc(5). */
#define PROC_STAT_STATE 3
#define PROC_STAT_START 22
#define PROC_STAT_EXIT_CODE 52

/* What is quoted of a tool's last words. */
#define PROC_TAIL_MAX 200

/* Wait statuses as the kernel makes them; glibc only takes them apart. */
#define PROC_STATUS_EXIT(code) (((code)&0xff) << 8)
#define PROC_STATUS_CORE 0x80

/* Field @n (3 or later); NULL when there are not so many. */
static const char *proc_stat_field(const char *stat, int n)
{
	/* The name may contain anything, ") " included. */
	const char *s = strrchr(stat, ')');

	for (int i = PROC_STAT_STATE - 1; s && i < n; i++) {
		s = strchr(s, ' ');
		if (s)
			s++;
	}
	return s;
}

static int proc_read_stat(pid_t pid, char stat[PROC_STAT_MAX])
{
	char path[64];
	guard_fd int fd = -1;
	ssize_t n;

	if (pid <= 0)
		return -ESRCH;
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	n = io_read_full(fd, stat, PROC_STAT_MAX - 1);
	if (n < 0)
		return (int)n; /* ESRCH when it went away meanwhile */
	stat[n] = '\0';
	return 0;
}

static bool proc_stat_gone(const char *stat)
{
	const char *state = proc_stat_field(stat, PROC_STAT_STATE);

	return !state || strchr("ZXx", *state);
}

int proc_identify(pid_t pid, struct proc_id *ret)
{
	char stat[PROC_STAT_MAX];
	const char *s;
	int r;

	r = proc_read_stat(pid, stat);
	if (r < 0)
		return r;
	if (proc_stat_gone(stat))
		return -ESRCH;
	s = proc_stat_field(stat, PROC_STAT_START);
	if (!s)
		return -EBADMSG;
	*ret = (struct proc_id){
		.pid = pid,
		.start_ticks = strtoull(s, NULL, 10),
	};
	return 0;
}

int proc_open(const struct proc_id *id, int *ret_pidfd)
{
	guard_fd int fd = -1;
	struct proc_id now = { 0 };
	int r;

	if (id->pid <= 0)
		return -ESRCH;
	fd = pidfd_open(id->pid, 0);
	if (fd < 0)
		/* EINVAL, ENOENT: the number is now that of a thread. */
		return errno == EINVAL || errno == ENOENT ? -ESRCH : -errno;
	r = proc_identify(id->pid, &now);
	if (r < 0)
		return r;
	if (now.start_ticks != id->start_ticks)
		return -ESRCH;
	*ret_pidfd = fd_take(&fd);
	return 0;
}

static int proc_status_of(const siginfo_t *si)
{
	switch (si->si_code) {
	case CLD_EXITED:
		return PROC_STATUS_EXIT(si->si_status);
	case CLD_DUMPED:
		return si->si_status | PROC_STATUS_CORE;
	}
	return si->si_status;
}

/* -ENODATA when the kernel does not tell: too old, or not yet reaped. */
static int proc_ask_pidfd(int pidfd, int *ret_status)
{
	struct uapi_pidfd_info info = { .mask = UAPI_PIDFD_INFO_EXIT };

	if (ioctl(pidfd, UAPI_PIDFD_GET_INFO, &info) < 0 ||
	    !(info.mask & UAPI_PIDFD_INFO_EXIT))
		return -ENODATA;
	*ret_status = info.exit_code;
	return 0;
}

/* The pid behind a pidfd; -ESRCH once it has been reaped. */
static int proc_pid_of(int pidfd, pid_t *ret)
{
	char path[64], *s;
	guard_free char *text = NULL;
	int r;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	r = io_read_file(path, 4096, &text, NULL, NULL);
	if (r < 0)
		return r;
	s = strstr(text, "\nPid:");
	if (!s)
		return -EINVAL; /* not a pidfd */
	*ret = atoi(s + strlen("\nPid:"));
	return *ret > 0 ? 0 : -ESRCH;
}

/* -ENODATA when it is no zombie, or not ours to look at. */
static int proc_ask_zombie(int pidfd, int *ret_status)
{
	char stat[PROC_STAT_MAX];
	pid_t pid = 0, again = 0;
	const char *s;
	int status;

	if (proc_pid_of(pidfd, &pid) < 0 || proc_read_stat(pid, stat) < 0 ||
	    !proc_stat_gone(stat))
		return -ENODATA;
	s = proc_stat_field(stat, PROC_STAT_EXIT_CODE);
	if (!s)
		return -ENODATA;
	status = atoi(s);
	/* Who may not trace it reads 0: only root can be sure of that. */
	if (status == 0 && geteuid() != 0)
		return -ENODATA;
	/* Still there, so the pid was its own when we read the line. */
	if (proc_pid_of(pidfd, &again) < 0 || again != pid)
		return -ENODATA;
	*ret_status = status;
	return 0;
}

/* Of a process that is not our child. */
static int proc_ask(int pidfd)
{
	int status = -1;

	/* Twice the pidfd: it may be reaped while we look at the zombie. */
	if (proc_ask_pidfd(pidfd, &status) < 0 &&
	    proc_ask_zombie(pidfd, &status) < 0 &&
	    proc_ask_pidfd(pidfd, &status) < 0)
		return -1;
	return status;
}

static void proc_describe(int status, char *msg, size_t size)
{
	if (status < 0)
		snprintf(msg, size, "ended");
	else if (WIFSIGNALED(status))
		snprintf(msg, size, "killed by signal %d", WTERMSIG(status));
	else
		snprintf(msg, size, "exit code %d", WEXITSTATUS(status));
}

int proc_how_ended(int pidfd, char *msg, size_t size, int *ret_status)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	siginfo_t si = { 0 };
	int status;

	if (poll(&p, 1, 0) < 0)
		return -errno;
	if (p.revents & POLLNVAL)
		return -EBADF;
	if (!p.revents)
		return -EAGAIN;
	if (waitid(P_PIDFD, (id_t)pidfd, &si, WEXITED | WNOHANG) == 0) {
		if (!si.si_pid)
			return -EAGAIN; /* traced: not ours to take yet */
		status = proc_status_of(&si);
	} else if (errno == ECHILD) {
		status = proc_ask(pidfd);
	} else {
		return -errno;
	}
	proc_describe(status, msg, size);
	if (ret_status)
		*ret_status = status;
	return 0;
}

/* What a tool says: the beginning, up to a maximum, and the last line. */
struct proc_output {
	struct buf head;
	char tail[PROC_TAIL_MAX];
	size_t tail_len;
	bool tail_ended; /* by a newline: the next byte begins a new line */
};

static void proc_output_tail(struct proc_output *o, const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (p[i] == '\n') {
			o->tail_ended = true;
			continue;
		}
		/* Empty lines at the end say nothing. */
		if (o->tail_ended)
			o->tail_len = 0;
		o->tail_ended = false;
		if (o->tail_len < sizeof(o->tail) - 1)
			o->tail[o->tail_len++] = p[i];
	}
	o->tail[o->tail_len] = '\0';
}

static int proc_output_read(struct proc_output *o, int fd)
{
	char chunk[4096];

	for (;;) {
		ssize_t n = read(fd, chunk, sizeof(chunk));
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return 0;
		proc_output_tail(o, chunk, (size_t)n);
		r = buf_add(&o->head, chunk,
			    min((size_t)n, buf_room(&o->head)));
		if (r < 0)
			return r;
	}
}

/* posix_spawn's own errors are numbers; the first one counts. */
static int proc_spawn(const char *const *argv, int out_fd, pid_t *ret_pid)
{
	posix_spawn_file_actions_t acts;
	posix_spawnattr_t attr;
	char *const *args;
	sigset_t set;
	int r;

	/* The array is not written to; C's prototype cannot say so. */
	memcpy(&args, &argv, sizeof(args));
	r = posix_spawn_file_actions_init(&acts);
	if (r)
		return -r;
	r = posix_spawnattr_init(&attr);
	if (r) {
		posix_spawn_file_actions_destroy(&acts);
		return -r;
	}
	/* Stdin last: out_fd may be any number, 0 included. */
	r = posix_spawn_file_actions_adddup2(&acts, out_fd, STDOUT_FILENO);
	if (!r)
		r = posix_spawn_file_actions_adddup2(&acts, out_fd,
						     STDERR_FILENO);
	if (!r)
		r = posix_spawn_file_actions_addopen(&acts, STDIN_FILENO,
						     "/dev/null", O_RDONLY, 0);
	/* Ours are close-on-exec, but not those we were started with. */
	if (!r)
		r = posix_spawn_file_actions_addclosefrom_np(&acts,
							     STDERR_FILENO + 1);
	/* Our mask is for our signalfd, and SIGPIPE is ignored for our
	 * sockets; a tool expects neither. */
	sigemptyset(&set);
	if (!r)
		r = posix_spawnattr_setsigmask(&attr, &set);
	sigfillset(&set);
	if (!r)
		r = posix_spawnattr_setsigdefault(&attr, &set);
	if (!r)
		r = posix_spawnattr_setflags(
			&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	if (!r)
		r = posix_spawnp(ret_pid, args[0], &acts, &attr, args, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&acts);
	return -r;
}

static int proc_wait(pid_t pid, int *ret_status)
{
	pid_t r;

	do {
		r = waitpid(pid, ret_status, 0);
	} while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

static int proc_run_output(const char *const *argv, struct proc_output *o,
			   char **ret_output, struct err *e)
{
	guard_fd int in_fd = -1, out_fd = -1;
	int fds[2], r, read_r, status = 0;
	guard_free char *output = NULL;
	char how[64], *text;
	pid_t pid = 0;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_errno(e, errno, "run %s", argv[0]);
	in_fd = fds[0];
	out_fd = fds[1];
	r = proc_spawn(argv, out_fd, &pid);
	if (r < 0)
		return err_errno(e, -r, "run %s", argv[0]);
	fd_close(&out_fd);
	read_r = proc_output_read(o, in_fd);
	/* Before the wait: should reading have failed, a tool that still
	 * writes must get SIGPIPE rather than wait for us. */
	fd_close(&in_fd);
	r = proc_wait(pid, &status);
	if (r == 0)
		r = read_r;
	if (r < 0)
		return err_errno(e, -r, "run %s", argv[0]);
	if (status != 0) {
		proc_describe(status, how, sizeof(how));
		return err_set(e, EIO, "%s: %s%s%s", argv[0], how,
			       o->tail_len ? ": " : "", o->tail);
	}
	if (!ret_output)
		return 0;
	text = buf_text(&o->head);
	output = text ? strdup(text) : NULL;
	if (!output)
		return err_errno(e, ENOMEM, "run %s", argv[0]);
	*ret_output = take(output);
	return 0;
}

int proc_run(const char *const *argv, size_t max_output, char **ret_output,
	     struct err *e)
{
	struct proc_output o = { .head = BUF_NULL(max_output) };
	int r;

	r = proc_run_output(argv, &o, ret_output, e);
	buf_deinit(&o.head);
	return r;
}
