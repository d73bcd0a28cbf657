/* SPDX-License-Identifier: Apache-2.0 */
#include "api/target.h"

#include "base/test.h"

#include <errno.h>

static struct target parsed(const char *uri)
{
	struct target t = TARGET_NULL;
	struct err e = ERR_NULL;

	check(target_parse(uri, &t, &e) == 0);
	return t;
}

static void check_refused(const char *uri, int code)
{
	struct target t = TARGET_NULL;
	struct err e = ERR_NULL;

	if (target_parse(uri, &t, &e) != -code || e.code != code || !*e.msg) {
		fprintf(stderr, "%s: %d %s\n", uri, e.code, e.msg);
		exit(1);
	}
	check(!t.mem);
}

static void test_path(void)
{
	struct target t = parsed("/v1/sandboxes/a%2Fb%20c/logs");

	check(t.n_segments == 4);
	check_str(t.segment[0], "v1");
	check_str(t.segment[2], "a/b c");
	check_str(t.segment[3], "logs");
	check(t.n_query == 0);
	target_deinit(&t);

	t = parsed("/");
	check(t.n_segments == 1);
	check_str(t.segment[0], "");
	target_deinit(&t);

	t = parsed("//v1/"); /* nothing is repaired */
	check(t.n_segments == 3);
	target_deinit(&t);

	t = parsed("/a+b/%C3%A4"); /* a plus is a plus in a path */
	check_str(t.segment[0], "a+b");
	check_str(t.segment[1], "\xc3\xa4");
	target_deinit(&t);

	check_refused("", EINVAL);
	check_refused("*", EINVAL);
	check_refused("http://localhost/v1/host", EINVAL);
	check_refused("/v1/%", EINVAL);
	check_refused("/v1/%2", EINVAL);
	check_refused("/v1/%2g", EINVAL);
	check_refused("/v1/%00", EINVAL);
	check_refused("/v1/%0a", EINVAL);
	check_refused("/v1/\x01", EINVAL);
	check_refused("/v1/%7f", EINVAL);
	check_refused("/1/2/3/4/5/6/7/8/9", ENOENT);
}

static void test_query(void)
{
	struct target t = parsed("/x?follow=1&name=a%26b%3D+c&empty");
	struct err e = ERR_NULL;
	bool flag = false;

	check(t.n_segments == 1 && t.n_query == 3);
	check_str(target_query(&t, "name"), "a&b= c");
	check_str(target_query(&t, "empty"), "");
	check(!target_query(&t, "nam"));
	check(target_query_flag(&t, "follow", &flag, &e) == 0 && flag);
	check(target_query_flag(&t, "absent", &flag, &e) == 0 && !flag);
	check(target_query_flag(&t, "empty", &flag, &e) == -EINVAL);
	check(strstr(e.msg, "empty"));
	target_deinit(&t);

	t = parsed("/x?");
	check(t.n_query == 0);
	target_deinit(&t);

	check_refused("/x?a=1&a=2", EINVAL);
	check_refused("/x?a=1&%61=2", EINVAL);
	check_refused("/x?a=%0", EINVAL);
	check_refused("/x?%00=a", EINVAL);
	check_refused("/x?1&2&3&4&5&6&7&8&9", EINVAL);
}

int main(void)
{
	test_path();
	test_query();
	return 0;
}
