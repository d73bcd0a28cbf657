/* SPDX-License-Identifier: Apache-2.0 */
/*
 * must(): silent when true, one line and SIGABRT when not; the macros beside it
 */
#include "base/must.h"

#include "base/test.h"

#include <stdint.h>

static void test_false(void)
{
	int two = 2;

	must(two + two == 5);
}

static void test_true(void)
{
	must(1 + 1 == 2);
}

static void test_line(void)
{
	char text[256] = { 0 };
	int fds[2], status = 0;
	pid_t pid;

	check(pipe(fds) == 0);
	pid = fork();
	check(pid >= 0);
	if (pid == 0) {
		const struct rlimit no_core = { 0 };

		setrlimit(RLIMIT_CORE, &no_core);
		dup2(fds[1], STDERR_FILENO);
		test_false();
		_exit(0);
	}
	close(fds[1]);
	check(read(fds[0], text, sizeof(text) - 1) > 0);
	close(fds[0]);
	check(waitpid(pid, &status, 0) == pid);
	check(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	check(strstr(text, "test_must.c:"));
	check(strstr(text, "must(two + two == 5) failed\n"));
}

struct outer {
	int a;
	char inner;
};

int main(void)
{
	struct outer o = { 1, 'x' };
	uint64_t array[7];

	check(test_dies(test_false));
	check(!test_dies(test_true));
	test_line();
	check(container_of(&o.inner, struct outer, inner) == &o);
	check(nitems(array) == 7);
	check(min(3, 4) == 3 && max(3, 4) == 4);
	return 0;
}
