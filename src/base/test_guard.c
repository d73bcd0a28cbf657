/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guards: what they release, what they leave alone
 */
#include "base/guard.h"

#include "base/test.h"

#include <errno.h>
#include <fcntl.h>

static bool test_is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static int test_open(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	check(fd >= 0);
	return fd;
}

static void test_fd(void)
{
	int seen, kept;

	{
		guard_fd int fd = test_open();
		guard_fd int none = -1;

		seen = fd;
		errno = ENOTTY;
	}
	check(errno == ENOTTY);
	check(!test_is_open(seen));
	{
		guard_fd int fd = test_open();

		kept = fd_take(&fd);
		check(fd == -1);
	}
	check(test_is_open(kept));
	fd_close(&kept);
	check(kept == -1);
	fd_close(&kept); /* again: nothing */
}

static void test_close_twice(void)
{
	int fd = test_open(), other = fd;

	fd_close(&fd);
	fd_close(&other);
}

/* What leaks here is found by the sanitizer. */
static void test_rest(void)
{
	guard_free char *s = strdup("x");
	guard_free char *none = NULL;
	guard_file FILE *f = fopen("/dev/null", "r");
	guard_file FILE *no_file = NULL;
	guard_dir DIR *d = opendir("/");
	guard_dir DIR *no_dir = NULL;
	char *t;

	check(s && f && d);
	t = take(s);
	check(!s && !strcmp(t, "x"));
	free(t);
	s = strdup("y");
}

int main(void)
{
	test_fd();
	check(test_dies(test_close_twice));
	test_rest();
	return 0;
}
