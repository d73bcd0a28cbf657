/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel log as the agent's log
 *
 * PID 1 of a microVM has no stderr worth the name and nobody to report to but
 * the host, which can be out of reach exactly when something is wrong. The
 * kernel's log reaches the serial console, so a line there is what a failed
 * bake can show. The agent writes only when something went wrong: a healthy
 * boot costs the console nothing.
 *
 * must_failed() and the err_ functions are declared in base; the agent links no
 * file of base, so it brings the few lines it needs of them.
 */
#include "agent/kmsg.h"
#include "base/err.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <unistd.h>

/* The kernel cuts records at 1 KiB less its prefix. */
#define KMSG_LINE_MAX 900

static int kmsg_fd = STDERR_FILENO;

void kmsg_open(void)
{
	int fd;

	fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC | O_NOCTTY);
	if (fd >= 0)
		kmsg_fd = fd;
}

static void printf_like(1, 0) kmsg_write(const char *fmt, va_list ap)
{
	char line[KMSG_LINE_MAX];
	size_t len;
	int n;

	/* <3> is KERN_ERR; kmsg takes it, a terminal is better off without. */
	n = snprintf(line, sizeof(line),
		     "%sbyre-agent: ", kmsg_fd == STDERR_FILENO ? "" : "<3>");
	len = (size_t)n;
	n = vsnprintf(line + len, sizeof(line) - len - 1, fmt, ap);
	len = min(len + (size_t)max(n, 0), sizeof(line) - 2);
	line[len++] = '\n';
	if (write(kmsg_fd, line, len) < 0)
		return; /* nobody left to tell */
}

void kmsg_error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	kmsg_write(fmt, ap);
	va_end(ap);
}

static __attribute__((noreturn)) void kmsg_end(void)
{
	if (getpid() == 1)
		reboot(RB_AUTOBOOT);
	_exit(1);
}

void kmsg_fatal(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	kmsg_write(fmt, ap);
	va_end(ap);
	kmsg_end();
}

void must_failed(const char *expr, const char *file, int line)
{
	kmsg_fatal("bug: %s is false at %s:%d", expr, file, line);
}

static void kmsg_crashed(int sig)
{
	/* snprintf is not async-signal-safe; a crashed PID 1 has nothing to
	 * lose by it. */
	kmsg_fatal("crashed: %s", strsignal(sig));
}

void kmsg_catch_crashes(void)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE,
				       SIGABRT };
	struct sigaction sa = { .sa_handler = kmsg_crashed,
				.sa_flags = (int)SA_RESETHAND };
	size_t i;

	for (i = 0; i < nitems(signals); i++)
		sigaction(signals[i], &sa, NULL);
}

static int printf_like(3, 0)
	err_vset(struct err *e, int code, const char *fmt, va_list ap)
{
	if (code <= 0)
		code = EIO;
	if (e) {
		e->code = code;
		vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
	}
	return -code;
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = err_vset(e, code, fmt, ap);
	va_end(ap);
	return r;
}

int err_errno(struct err *e, int code, const char *fmt, ...)
{
	va_list ap;
	size_t len;
	int r;

	va_start(ap, fmt);
	r = err_vset(e, code, fmt, ap);
	va_end(ap);
	if (e) {
		len = strlen(e->msg);
		snprintf(e->msg + len, sizeof(e->msg) - len, ": %s",
			 strerror(-r));
	}
	return r;
}
