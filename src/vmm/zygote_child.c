/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the zygote (libbyre-zygote.so, preloaded)
 *
 * Takes the place of __libc_start_main, which every program's start-up code
 * calls with its main(): by then all libraries are loaded and relocated, and
 * their constructors have run. With ZYGOTE_ENV set, main() is replaced by a
 * loop that reads requests and forks; in a child it goes on into the real
 * main(). Without it nothing happens.
 *
 * Invariants:
 *  1. One thread until main() but QEMU's RCU thread, which a constructor of
 *     QEMU's starts and its pthread_atfork() handler starts again in a child.
 *  2. A child holds nothing of the zygote's: child_arrange() closes every fd
 *     that is not the guest's.
 *  3. Children are reaped a second after they ended, not at once: until then
 *     the daemon can read from /proc how they did, on kernels whose pidfd does
 *     not tell.
 */
#include "vmm/trim_child.h"
#include "vmm/zygote.h"

#include "gmem/plan.h"

#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ZYGOTE_REAP_MS 1000
/* QEMU's command line has some fifty words. */
#define ZYGOTE_ARGV_MAX 128

typedef int (*zygote_main_fn)(int argc, char **argv, char **envp);
typedef int (*zygote_start_fn)(zygote_main_fn main, int argc, char **argv,
			       void (*init)(void), void (*fini)(void),
			       void (*rtld_fini)(void), void *stack_end);

/* Written before main, read after: there is no other way to pass them. */
static struct {
	zygote_main_fn main;
	char *area; /* of the arguments, as /proc/PID/cmdline shows it */
	size_t area_len;
	struct zygote_request request;
	char text[ZYGOTE_TEXT_MAX]; /* the child's argv */
	char *argv[ZYGOTE_ARGV_MAX + 1];
} zygote;

__attribute__((noreturn)) static void zygote_die(const char *what)
{
	dprintf(STDERR_FILENO, "byre zygote: %s: %s\n", what, strerror(errno));
	_exit(70); /* EX_SOFTWARE */
}

/* ---- in the child ---- */

static int zygote_words(void)
{
	const struct zygote_request *q = &zygote.request;
	size_t at = 0;

	if (q->argc == 0 || q->argc > ZYGOTE_ARGV_MAX)
		return -EINVAL;
	memcpy(zygote.text, q->text, sizeof(zygote.text));
	zygote.text[sizeof(zygote.text) - 1] = '\0';
	for (uint32_t i = 0; i < q->argc; i++) {
		if (at >= sizeof(zygote.text))
			return -EINVAL;
		zygote.argv[i] = zygote.text + at;
		at += strlen(zygote.argv[i]) + 1;
	}
	zygote.argv[q->argc] = NULL;
	/* What ps shows. */
	if (zygote.area_len > 1) {
		memset(zygote.area, 0, zygote.area_len);
		memcpy(zygote.area, zygote.text,
		       at < zygote.area_len ? at : zygote.area_len - 1);
	}
	return 0;
}

static void zygote_env(const char *name, int32_t fd)
{
	char text[16];

	if (fd < 0)
		return;
	snprintf(text, sizeof(text), "%d", fd);
	setenv(name, text, 1);
}

/* The preloaded shim looked for a plan when it was loaded and found none. */
static void zygote_start_shim(void)
{
	const struct zygote_numbers *n = &zygote.request.numbers;
	void (*start)(void);

	zygote_env(PLAN_ENV, n->plan);
	zygote_env(PLAN_ENV_LAYER, n->layer);
	zygote_env(PLAN_ENV_UFFD_DEV, n->uffd_dev);
	zygote_env(PLAN_ENV_UFFD_SOCK, n->uffd_sock);
	zygote_env(PLAN_ENV_UFFD, n->uffd);
	*(void **)&start = dlsym(RTLD_DEFAULT, "byre_gmem_start");
	if (!start) {
		errno = ENOENT;
		zygote_die("the shim is not preloaded");
	}
	start();
}

static int zygote_child(const int *passed)
{
	const struct zygote_request *q = &zygote.request;
	struct child c = { .n_fds = (int)q->n_fds,
			   .drop = q->drop != 0,
			   .uid = q->uid };
	const char *step;
	int n = 0;

	for (int i = 0; i < c.n_fds; i++)
		c.fds[i] = q->fd_mask & (1u << i) ? passed[n++] : -1;
	errno = -child_arrange(&c, NULL, &step);
	if (errno)
		zygote_die(step);
	/* Changing users made /proc/self root's: QEMU opens /proc/self/fd. */
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	errno = -zygote_words();
	if (errno)
		zygote_die("arguments");
	unsetenv(ZYGOTE_ENV);
	zygote_start_shim();
	trim_start(q->numbers.trim);
	return zygote.main((int)q->argc, zygote.argv, environ);
}

/* ---- in the zygote ---- */

static void zygote_reply(int sock, int pid)
{
	struct zygote_reply reply = { .pid = pid };
	int pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { .iov_base = &reply, .iov_len = sizeof(reply) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (pidfd >= 0) {
		struct cmsghdr *h = &control.align;

		m.msg_control = &control;
		m.msg_controllen = sizeof(control.space);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(h), &pidfd, sizeof(int));
	}
	if (sendmsg(sock, &m, MSG_NOSIGNAL) < 0)
		_exit(0); /* the daemon is gone */
	if (pidfd >= 0)
		close(pidfd);
}

/* The number of fds received, or -errno. */
static int zygote_receive(int sock, int fds[CHILD_FDS_MAX])
{
	struct zygote_request *q = &zygote.request;
	union {
		char space[CMSG_SPACE(CHILD_FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { .iov_base = q, .iov_len = sizeof(*q) };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	struct cmsghdr *h;
	ssize_t len;
	size_t n;

	memset(q, 0, sizeof(*q));
	len = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);
	if (len <= 0)
		_exit(0);
	h = CMSG_FIRSTHDR(&m);
	if (!h || h->cmsg_type != SCM_RIGHTS)
		return -EPROTO;
	n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(fds, CMSG_DATA(h), n * sizeof(int));
	if (q->magic != ZYGOTE_MAGIC || q->n_fds > CHILD_FDS_MAX ||
	    (size_t)__builtin_popcount(q->fd_mask) != n)
		return -EPROTO;
	return (int)n;
}

/* True in the child. */
static bool zygote_serve(int sock, int fds[CHILD_FDS_MAX])
{
	int n = zygote_receive(sock, fds);
	pid_t pid;

	if (n < 0) {
		zygote_reply(sock, n);
		return false;
	}
	pid = fork();
	if (pid == 0)
		return true;
	zygote_reply(sock, pid < 0 ? -errno : pid);
	for (int i = 0; i < n; i++)
		close(fds[i]);
	return false;
}

static int zygote_signals(void)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		zygote_die("signalfd");
	return fd;
}

/*
 * What QEMU's main() does first whatever its arguments, once for all children:
 * register and initialise its 1,500 object classes (selecting a machine type
 * walks them all). That is 3 MiB of heap and 3 ms. The number of the module kind
 * is of QEMU's source, include/qemu/module.h, and the daemon only gives it for
 * versions it is known for; a program that does not export these functions (the
 * small one for KVM does not) goes without.
 */
static void zygote_warm(void)
{
	const char *kind = getenv(ZYGOTE_ENV_CLASSES);
	void (*module_init)(int kind);
	void *(*class_list)(const char *implements, bool abstract);

	*(void **)&module_init = dlsym(RTLD_DEFAULT, "module_call_init");
	*(void **)&class_list = dlsym(RTLD_DEFAULT, "object_class_get_list");
	if (!kind || !module_init || !class_list)
		return;
	unsetenv(ZYGOTE_ENV_CLASSES);
	module_init(atoi(kind));
	(void)class_list("machine", false); /* the list itself: 2 KB */
}

static int zygote_main(int argc, char **argv, unused char **envp)
{
	int sock = atoi(getenv(ZYGOTE_ENV));
	int fds[CHILD_FDS_MAX];
	struct pollfd p[2] = { { .fd = sock, .events = POLLIN },
			       { .events = POLLIN } };
	int timeout = -1;

	zygote.area = argv[0];
	zygote.area_len =
		(size_t)(argv[argc - 1] + strlen(argv[argc - 1]) - argv[0]);
	p[1].fd = zygote_signals();
	zygote_warm();
	for (;;) {
		struct signalfd_siginfo info;
		int n = poll(p, 2, timeout);

		if (n < 0 && errno != EINTR)
			zygote_die("poll");
		if (n == 0) {
			while (waitpid(-1, NULL, WNOHANG) > 0)
				;
			timeout = -1;
		}
		if (n > 0 && p[1].revents) {
			if (read(p[1].fd, &info, sizeof(info)) < 0 &&
			    errno != EAGAIN)
				zygote_die("read signals");
			timeout = ZYGOTE_REAP_MS;
		}
		if (n > 0 && p[0].revents && zygote_serve(sock, fds))
			return zygote_child(fds);
	}
}

__attribute__((visibility("default"))) int
__libc_start_main(zygote_main_fn main, int argc, char **argv,
		  void (*init)(void), void (*fini)(void),
		  void (*rtld_fini)(void), void *stack_end);

int __libc_start_main(zygote_main_fn main, int argc, char **argv,
		      void (*init)(void), void (*fini)(void),
		      void (*rtld_fini)(void), void *stack_end)
{
	zygote_start_fn start;

	*(void **)&start = dlsym(RTLD_NEXT, "__libc_start_main");
	if (!start)
		zygote_die("__libc_start_main");
	if (getenv(ZYGOTE_ENV)) {
		zygote.main = main;
		main = zygote_main;
	}
	return start(main, argc, argv, init, fini, rtld_fini, stack_end);
}
