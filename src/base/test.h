/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What a unit test needs
 *
 * A test is a plain main(): silent and 0 when all is well, 1 with file and
 * line at the first check that fails, TEST_SKIPPED with a reason on stdout
 * when this machine cannot run it.
 */
#include "base/must.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEST_SKIPPED 77

#define check(x) ((x) ? (void)0 : test_failed(#x, __FILE__, __LINE__))
#define check_str(a, b) test_same((a), (b), __FILE__, __LINE__)

__attribute__((noreturn)) static inline void
test_failed(const char *expr, const char *file, int line)
{
	fprintf(stderr, "%s:%d: check(%s) failed\n", file, line, expr);
	exit(1);
}

static inline void test_same(const char *a, const char *b, const char *file,
			     int line)
{
	if (a && b && !strcmp(a, b))
		return;
	fprintf(stderr, "%s:%d: \"%s\" is not \"%s\"\n", file, line,
		a ? a : "(null)", b ? b : "(null)");
	exit(1);
}

__attribute__((noreturn)) static inline void test_skip(const char *why)
{
	printf("skipped: %s\n", why);
	exit(TEST_SKIPPED);
}

/* A fresh directory; the test removes it. */
static inline void test_dir(char *path, size_t size)
{
	const char *parent = getenv("TMPDIR");

	snprintf(path, size, "%s/byre-test-XXXXXX", parent ? parent : "/tmp");
	check(mkdtemp(path));
}

/* Whether fn() ends in a must(). */
static inline bool test_dies(void (*fn)(void))
{
	const struct rlimit no_core = { 0 };
	int status = 0;
	pid_t pid = fork();

	check(pid >= 0);
	if (pid == 0) {
		setrlimit(RLIMIT_CORE, &no_core);
		if (!freopen("/dev/null", "w", stderr))
			_exit(1);
		fn();
		_exit(0);
	}
	check(waitpid(pid, &status, 0) == pid);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}
