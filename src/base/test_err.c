/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors: codes, sentences, prefixes, cutting
 */
#include "base/err.h"

#include "base/test.h"

#include <errno.h>

static void test_set(void)
{
	struct err e = ERR_NULL;

	check(e.code == 0 && e.msg[0] == '\0');
	check(err_set(&e, ENOENT, "open %s", "x") == -ENOENT);
	check(e.code == ENOENT);
	check_str(e.msg, "open x");
	check(err_set(&e, 0, "nothing") == -EIO);
	check(e.code == EIO);
	check(err_set(&e, -ENOENT, "wrong sign") == -EIO);
	check(err_set(NULL, EPERM, "nobody listens") == -EPERM);
	check(err_set(NULL, 0, "nobody listens") == -EIO);
}

static void test_errno(void)
{
	struct err e = ERR_NULL;

	errno = EBUSY;
	check(err_errno(&e, EACCES, "open %s", "/x") == -EACCES);
	check_str(e.msg, "open /x: Permission denied");
	check(errno == EBUSY);
	check(err_errno(NULL, EACCES, "open") == -EACCES);
	check(err_errno(&e, 0, "open") == -EIO);
	check_str(e.msg, "open: Input/output error");
	check(err_errno(&e, 99999, "odd") == -99999);
	check_str(e.msg, "odd: Unknown error 99999");
}

static void test_prefix(void)
{
	struct err e = ERR_NULL;

	check(err_prefix(&e, "empty") == -EIO);
	err_set(&e, ENOSPC, "write x");
	check(err_prefix(&e, "bake %s", "debian") == -ENOSPC);
	check_str(e.msg, "bake debian: write x");
	check(err_prefix(NULL, "bake") == -EIO);
	/* Its own sentence as an argument. */
	check(err_set(&e, EIO, "again: %s", e.msg) == -EIO);
	check_str(e.msg, "again: bake debian: write x");
}

static void test_cut(void)
{
	struct err e = ERR_NULL;
	char longer[2 * ERR_MSG_MAX];

	memset(longer, 'a', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	err_errno(&e, EIO, "%s", longer);
	check(strlen(e.msg) == ERR_MSG_MAX - 1);
	err_prefix(&e, "front");
	check(strlen(e.msg) == ERR_MSG_MAX - 1);
	check(!strncmp(e.msg, "front: aaa", 10));

	/* Characters of every length, at every offset from the cut. */
	for (size_t pad = ERR_MSG_MAX - 9; pad < ERR_MSG_MAX + 2; pad++) {
		static const char *const chars[] = { "\xc3\xa4", "\xe2\x82\xac",
						     "\xf0\x9f\x90\x84" };

		for (size_t i = 0; i < nitems(chars); i++) {
			size_t len = strlen(chars[i]);

			err_set(&e, EIO, "%.*s%s", (int)pad, longer, chars[i]);
			if (pad + len < ERR_MSG_MAX)
				check(strlen(e.msg) == pad + len);
			else
				check(strlen(e.msg) ==
				      min(pad, (size_t)ERR_MSG_MAX - 1));
		}
	}
}

int main(void)
{
	test_set();
	test_errno();
	test_prefix();
	test_cut();
	err_drop(-EIO);
	return 0;
}
