/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes: children, zombies, other people's children, tools
 */
#include "base/proc.h"

#include "base/guard.h"
#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/utsname.h>

static void test_wait_end(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	check(poll(&p, 1, 10000) == 1);
}

/* A child that ends with @code, or by -@code. */
static pid_t test_child(int code)
{
	pid_t pid = fork();

	check(pid >= 0);
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (code < 0) {
		const struct rlimit no_core = { 0 };

		setrlimit(RLIMIT_CORE, &no_core);
		raise(-code);
	}
	_exit(code);
}

static void test_identify(void)
{
	struct proc_id a = { 0 }, b = { 0 };
	guard_fd int fd = -1;
	pid_t pid;
	int none = -1;

	check(proc_identify(getpid(), &a) == 0);
	check(a.pid == getpid() && a.start_ticks > 0);
	/* A name made to mislead. */
	check(prctl(PR_SET_NAME, "x) Z 1 2 (y", 0, 0, 0) == 0);
	check(proc_identify(getpid(), &b) == 0);
	check(a.start_ticks == b.start_ticks);
	check(proc_open(&a, &fd) == 0);
	check(fd >= 0 && fcntl(fd, F_GETFD) & FD_CLOEXEC);
	b.start_ticks++;
	check(proc_open(&b, &none) == -ESRCH);
	check(none == -1);
	check(proc_identify(0, &b) == -ESRCH);
	check(proc_identify(-1, &b) == -ESRCH);
	check(proc_identify(0x7ffffff0, &b) == -ESRCH);
	check(proc_open(&(struct proc_id){ .pid = 0x7ffffff0 }, &none) ==
	      -ESRCH);
	check(proc_open(&(struct proc_id){ 0 }, &none) == -ESRCH);

	/* A zombie is gone. */
	pid = test_child(0);
	fd_close(&fd);
	fd = pidfd_open(pid, 0);
	test_wait_end(fd);
	check(proc_identify(pid, &b) == -ESRCH);
	check(proc_open(&(struct proc_id){ .pid = pid }, &none) == -ESRCH);
	check(waitpid(pid, NULL, 0) == pid);
	check(proc_identify(pid, &b) == -ESRCH);
}

static void test_ended(int code, const char *expect)
{
	pid_t pid = test_child(code);
	guard_fd int fd = pidfd_open(pid, 0);
	char msg[64];
	int status = -2;

	check(fd >= 0);
	test_wait_end(fd);
	check(proc_how_ended(fd, msg, sizeof(msg), &status) == 0);
	check_str(msg, expect);
	if (code >= 0)
		check(WIFEXITED(status) && WEXITSTATUS(status) == code);
	else
		check(WIFSIGNALED(status) && WTERMSIG(status) == -code);
	/* It has been reaped. */
	check(waitpid(pid, NULL, WNOHANG) < 0 && errno == ECHILD);
}

static void test_running(void)
{
	guard_fd int self = pidfd_open(getpid(), 0);
	guard_fd int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	char msg[64];

	check(proc_how_ended(self, msg, sizeof(msg), NULL) == -EAGAIN);
	check(proc_how_ended(null, msg, sizeof(msg), NULL) < 0);
	check(proc_how_ended(-1, msg, sizeof(msg), NULL) < 0);
}

/* The pidfd remembers how it ended, since 6.15. */
static bool test_kernel_tells(void)
{
	struct utsname u = { 0 };
	int major = 0, minor = 0;

	check(uname(&u) == 0);
	check(sscanf(u.release, "%d.%d", &major, &minor) == 2);
	return major > 6 || (major == 6 && minor >= 15);
}

/* A grandchild: somebody else's child. Its parent holds it as a zombie until
 * told to reap it. */
static void test_foreign(int code, const char *expect)
{
	int pids[2], go[2], gone[2], status = -2;
	guard_fd int fd = -1;
	pid_t parent, pid = 0;
	char msg[64], c;

	check(pipe2(pids, O_CLOEXEC) == 0 && pipe2(go, O_CLOEXEC) == 0 &&
	      pipe2(gone, O_CLOEXEC) == 0);
	parent = fork();
	check(parent >= 0);
	if (parent == 0) {
		close(go[1]);
		pid = test_child(code);
		if (write(pids[1], &pid, sizeof(pid)) != sizeof(pid) ||
		    read(go[0], &c, 1) != 1)
			_exit(1);
		waitpid(pid, NULL, 0);
		close(gone[1]);
		_exit(read(go[0], &c, 1) != 0);
	}
	close(gone[1]);
	check(read(pids[0], &pid, sizeof(pid)) == sizeof(pid));
	fd = pidfd_open(pid, 0);
	check(fd >= 0);
	test_wait_end(fd);
	check(proc_how_ended(fd, msg, sizeof(msg), &status) == 0);
	if (geteuid() == 0 || code != 0)
		check_str(msg, expect);
	check(write(go[1], "x", 1) == 1);
	check(read(gone[0], &c, 1) == 0);
	check(proc_how_ended(fd, msg, sizeof(msg), &status) == 0);
	if (test_kernel_tells()) {
		check_str(msg, expect);
		check(code >= 0 ? WEXITSTATUS(status) == code
				: WTERMSIG(status) == -code);
	} else {
		check_str(msg, "ended");
		check(status == -1);
	}
	close(go[1]);
	check(waitpid(parent, &status, 0) == parent && status == 0);
	close(go[0]);
	close(gone[0]);
	close(pids[0]);
	close(pids[1]);
}

#define SH(script) ((const char *const[]){ "sh", "-c", script, NULL })

static void test_run(void)
{
	struct err e = ERR_NULL;
	char *out = NULL;

	check(proc_run(SH("echo one; echo two >&2; cat"), 100, &out, &e) == 0);
	check_str(out, "one\ntwo\n");
	free(out);
	check(proc_run(SH("echo quiet"), 100, NULL, &e) == 0);
	check(proc_run(SH(":"), 100, &out, &e) == 0);
	check_str(out, "");
	free(out);
	/* More than wanted: the tool is not disturbed. */
	check(proc_run(SH("seq 1 100000"), 10, &out, &e) == 0);
	check_str(out, "1\n2\n3\n4\n5\n");
	free(out);
	out = NULL;

	check(proc_run(SH("echo no such thing; echo; exit 3"), 100, &out, &e) ==
	      -EIO);
	check_str(e.msg, "sh: exit code 3: no such thing");
	check(!out);
	check(proc_run(SH("seq 1 100000; echo last; exit 1"), 10, &out, &e) ==
	      -EIO);
	check_str(e.msg, "sh: exit code 1: last");
	check(proc_run(SH("kill -9 $$"), 100, &out, &e) == -EIO);
	check_str(e.msg, "sh: killed by signal 9");
	check(proc_run(SH("printf %0500d 7; exit 1"), 1000, &out, &e) == -EIO);
	check(strlen(e.msg) < 250);
	check(proc_run((const char *const[]){ "/no/such/tool", NULL }, 100,
		       &out, &e) == -ENOENT);
	check_str(e.msg, "run /no/such/tool: No such file or directory");
	check(!out);
}

/* What a tool inherits: its three fds, no mask, no ignored signals. */
static void test_inherited(void)
{
	sigset_t set, old;
	struct err e = ERR_NULL;
	guard_fd int fd = open("/dev/null", O_RDONLY);
	unsigned long blocked = 1, ignored = 1;
	char *out = NULL;
	int n = 0;

	/* One that somebody forgot to make close-on-exec. */
	check(fd >= 0);
	sigfillset(&set);
	check(sigprocmask(SIG_BLOCK, &set, &old) == 0);
	signal(SIGPIPE, SIG_IGN);
	check(proc_run(SH("grep -E 'SigBlk|SigIgn' /proc/self/status;"
			  "readlink /proc/self/fd/0;"
			  "ls /proc/self/fd | tr '\n' ' '"),
		       1000, &out, &e) == 0);
	signal(SIGPIPE, SIG_DFL);
	check(sigprocmask(SIG_SETMASK, &old, NULL) == 0);
	check(sscanf(out, "SigBlk: %lx SigIgn: %lx %n", &blocked, &ignored,
		     &n) == 2);
	check(blocked == 0);
	/* glibc's own two, 32 and 33, are its business. */
	check((ignored & ~0x180000000ul) == 0);
	/* The 3 is that of ls, looking. */
	check_str(out + n, "/dev/null\n0 1 2 3 ");
	free(out);
}

int main(void)
{
	guard_fd int fd = pidfd_open(getpid(), 0);

	if (fd < 0 && errno == ENOSYS)
		test_skip("no pidfds here (valgrind 3.19 does not know them)");
	test_identify();
	test_ended(0, "exit code 0");
	test_ended(3, "exit code 3");
	test_ended(-SIGKILL, "killed by signal 9");
	test_ended(-SIGUSR1, "killed by signal 10");
	test_running();
	test_foreign(0, "exit code 0");
	test_foreign(7, "exit code 7");
	test_foreign(-SIGKILL, "killed by signal 9");
	test_run();
	test_inherited();
	return 0;
}
