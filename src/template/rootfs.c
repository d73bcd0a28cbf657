/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Root disks: building one without leaving a trace of a failed attempt
 *
 *	supervisor (caller)              worker (child, own process group)
 *	  makes OUT's work directory
 *	  shows progress      <- notes --  rootfs_make(): tools run
 *	  on a signal: ends the group      sync and rename to OUT
 *	  removes the work directory
 *
 * 1. Everything is made in a directory beside OUT, ".OUT.byre-XXXXXX", so that
 *    the last step is a rename. It exists exactly as long as the build: the
 *    supervisor removes it however the worker ended. Only a supervisor that is
 *    killed -9 leaves it; it holds a flock on it, and the next build of the
 *    same OUT removes what nobody holds.
 * 2. Tools run in the worker's process group, and nobody of that group is
 *    left when the work directory is removed.
 * 3. The last note of a worker says how it ended. A pipe that closes without
 *    one means that it was killed.
 *
 * What is built, and from what, is rootfs_make.c.
 */
#include "template/rootfs.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/proc.h"
#include "template/rootfs_make.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* Tools get this long to clean up after themselves (mmdebstrap unmounts). */
#define ROOTFS_TERM_NS (10 * NS_PER_SEC)

static int rootfs_check_word(const char *s, const char *what, struct err *e)
{
	if (!s || !isalnum((unsigned char)*s) ||
	    s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			"0123456789.,+-:=/")])
		return err_set(e, EINVAL, "no %s: '%s'", what, s ?: "");
	return 0;
}

static int rootfs_check(const struct rootfs_options *o, struct err *e)
{
	struct stat st = { 0 };
	int r = 0;

	if (o->size_bytes &&
	    (o->size_bytes < ROOTFS_SIZE_MIN ||
	     o->size_bytes > ROOTFS_SIZE_MAX || o->size_bytes % 4096))
		return err_set(e, EINVAL,
			       "size %llu: 8M to 8T in units of 4096 bytes",
			       (unsigned long long)o->size_bytes);
	if (o->source == ROOTFS_DEBIAN) {
		r = rootfs_check_word(o->suite, "Debian suite", e);
		if (!r && o->variant)
			r = rootfs_check_word(o->variant, "variant", e);
		if (!r && o->include && *o->include)
			r = rootfs_check_word(o->include, "package list", e);
	}
	if (r)
		return r;
	/* A rename would put a file in the place of a device. */
	if (!lstat(o->out, &st) && !S_ISREG(st.st_mode))
		return err_set(e, EEXIST, "%s exists and is no plain file",
			       o->out);
	return 0;
}

/* Remove a work directory; its tree may hold files of other users. */
static void rootfs_remove(const char *dir)
{
	const char *const argv[] = { "unshare",    "--map-root-user",
				     "--map-auto", "--",
				     "rm",         "-rf",
				     "--",         dir,
				     NULL };
	struct err ignore = ERR_NULL;

	if (io_remove_tree(dir, &ignore) && geteuid())
		err_drop(proc_run(argv, 4096, NULL, &ignore));
}

/* Work directories of this OUT that nobody holds: their supervisor was killed
 * -9. */
static void rootfs_sweep(const char *parent, const char *prefix)
{
	guard_dir DIR *d = opendir(parent);
	struct dirent *de;

	while (d && (de = readdir(d))) {
		guard_free char *path = NULL;
		guard_fd int fd = -1;

		if (strncmp(de->d_name, prefix, strlen(prefix)))
			continue;
		path = io_path("%s/%s", parent, de->d_name);
		if (!path)
			return;
		fd = open(path,
			  O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB))
			rootfs_remove(path);
	}
}

static int rootfs_work_init(struct rootfs_work *w, struct err *e)
{
	const char *slash = strrchr(w->o->out, '/');
	const char *name = slash ? slash + 1 : w->o->out;
	guard_free char *parent = NULL;
	guard_free char *real = NULL;
	guard_free char *prefix = io_path(".%s.byre-", name);

	if (!*name)
		return err_set(e, EINVAL, "no file name: '%s'", w->o->out);
	parent =
		slash ? io_path("%.*s", (int)(slash - w->o->out + 1), w->o->out)
		      : io_path(".");
	if (!parent || !prefix)
		return err_errno(e, ENOMEM, "build %s", w->o->out);
	real = realpath(parent, NULL);
	if (!real)
		return err_errno(e, errno, "open %s", parent);
	rootfs_sweep(real, prefix);
	w->out = io_path("%s/%s", real, name);
	w->dir = io_path("%s/%sXXXXXX", real, prefix);
	if (!w->out || !w->dir)
		return err_errno(e, ENOMEM, "build %s", w->o->out);
	if (!mkdtemp(w->dir)) {
		int code = errno;

		w->dir[0] = 0;
		return err_errno(e, code, "create a directory in %s", real);
	}
	w->lock_fd = open(w->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (w->lock_fd < 0 || flock(w->lock_fd, LOCK_EX | LOCK_NB))
		return err_errno(e, errno, "lock %s", w->dir);
	/* mmdebstrap's helpers run as other users and must pass through. */
	if (chmod(w->dir, 0711))
		return err_errno(e, errno, "chmod %s", w->dir);
	return 0;
}

static void rootfs_work_deinit(struct rootfs_work *w)
{
	if (w->dir && w->dir[0])
		rootfs_remove(w->dir);
	free(w->dir);
	free(w->out);
	fd_close(&w->lock_fd);
}

/* Wait for the worker's last note, showing the others. -EINTR on a signal,
 * -EPIPE when it ended without one. */
static int rootfs_watch(struct rootfs_work *w, int note_fd, int signal_fd,
			struct err *e)
{
	uint64_t start_ns = clock_mono_ns();
	struct rootfs_note note = { 0 };
	struct pollfd p[] = { { .fd = note_fd, .events = POLLIN },
			      { .fd = signal_fd, .events = POLLIN } };

	for (;;) {
		int r = poll(p, nitems(p), 1000);

		if (r < 0 && errno != EINTR)
			return err_errno(e, errno, "build %s", w->out);
		if (p[1].revents)
			return err_set(e, EINTR, "build %s: interrupted",
				       w->out);
		if (p[0].revents) {
			if (io_read_full(note_fd, &note, sizeof(note)) !=
			    (ssize_t)sizeof(note))
				return err_set(
					e, EPIPE,
					"build %s: the worker was killed",
					w->out);
			if (!note.step[0])
				break;
		}
		if (w->o->progress)
			w->o->progress(w->o->arg, note.step,
				       clock_mono_ns() - start_ns);
	}
	if (!note.err.code)
		return 0;
	*e = note.err;
	return err_prefix(e, "build %s", w->out);
}

/*
 * The worker and its tools are gone when this returns. Orphans among them are
 * ours to reap while we are a subreaper: not every machine's init does it.
 */
static void rootfs_reap(pid_t pid)
{
	uint64_t start_ns = clock_mono_ns();
	uint64_t waited_ns = 0;
	int sig = SIGTERM;

	while (!kill(-pid, sig) && waited_ns < 2 * ROOTFS_TERM_NS) {
		while (waitpid(-pid, NULL, WNOHANG) > 0)
			;
		poll(NULL, 0, 5);
		waited_ns = clock_mono_ns() - start_ns;
		sig = waited_ns < ROOTFS_TERM_NS ? 0 : SIGKILL;
	}
}

/* The supervisor stops us, or was killed: the tools go too. */
static void rootfs_stopped(int sig)
{
	signal(sig, SIG_DFL);
	kill(0, sig);
}

__attribute__((noreturn)) static void rootfs_worker(struct rootfs_work *w,
						    const sigset_t *mask)
{
	guard_free char *path = NULL;
	struct rootfs_note note = { 0 };

	err_drop(setpgid(0, 0));
	err_drop(prctl(PR_SET_PDEATHSIG, SIGTERM));
	signal(SIGTERM, rootfs_stopped);
	sigprocmask(SIG_SETMASK, mask, NULL);
	/* mke2fs and debugfs live where users' shells do not look. */
	path = io_path("%s:/usr/sbin:/sbin", getenv("PATH") ?: "/usr/bin:/bin");
	if (!path || setenv("PATH", path, 1) || setenv("LC_ALL", "C", 1) ||
	    (w->root && setenv("TMPDIR", w->dir, 1)))
		err_errno(&note.err, ENOMEM, "build %s", w->out);
	else
		err_drop(rootfs_make(w, &note.err));
	err_drop(io_write_full(w->note_fd, &note, sizeof(note)));
	_exit(0);
}

static int rootfs_supervise(struct rootfs_work *w, struct err *e)
{
	guard_fd int signal_fd = -1;
	guard_fd int note_fd = -1;
	sigset_t stop, before;
	int pipe_fd[2];
	pid_t pid;
	int r;

	if (pipe2(pipe_fd, O_CLOEXEC))
		return err_errno(e, errno, "pipe");
	note_fd = pipe_fd[0];
	w->note_fd = pipe_fd[1];
	sigemptyset(&stop);
	sigaddset(&stop, SIGINT);
	sigaddset(&stop, SIGTERM);
	sigaddset(&stop, SIGHUP);
	sigprocmask(SIG_BLOCK, &stop, &before);
	signal_fd = signalfd(-1, &stop, SFD_CLOEXEC | SFD_NONBLOCK);
	err_drop(prctl(PR_SET_CHILD_SUBREAPER, 1));
	pid = signal_fd < 0 ? -1 : fork();
	if (!pid)
		rootfs_worker(w, &before);
	if (pid < 0) {
		r = err_errno(e, errno, "fork");
		fd_close(&w->note_fd);
	} else {
		/* Both do it: neither may go on before it is done. */
		err_drop(setpgid(pid, pid));
		fd_close(&w->note_fd);
		r = rootfs_watch(w, note_fd, signal_fd, e);
		rootfs_reap(pid);
	}
	err_drop(prctl(PR_SET_CHILD_SUBREAPER, 0));
	rootfs_work_deinit(w);
	/* A signal that came meanwhile has been obeyed. */
	if (r == -EINTR) {
		struct signalfd_siginfo si;

		while (read(signal_fd, &si, sizeof(si)) == sizeof(si))
			;
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	return r;
}

int rootfs_build(const struct rootfs_options *o, struct err *e)
{
	struct rootfs_work w = {
		.o = o,
		.size_bytes = o->size_bytes ?: ROOTFS_SIZE_BYTES,
		.lock_fd = -1,
		.note_fd = -1,
		.root = !geteuid(),
	};
	int r;

	r = rootfs_check(o, e);
	if (r)
		return r;
	r = rootfs_work_init(&w, e);
	if (r) {
		rootfs_work_deinit(&w);
		return r;
	}
	return rootfs_supervise(&w, e);
}

const char *rootfs_caveat(const struct rootfs_options *o)
{
	struct stat st = { 0 };

	if (!geteuid() || o->source != ROOTFS_FROM)
		return NULL;
	if (!stat(o->from, &st) && S_ISDIR(st.st_mode))
		return "not root: your files become root's, other users' files nobody's";
	return NULL;
}
