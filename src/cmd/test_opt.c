/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options: order, verbatim arguments, values, refusals
 */
#include "base/test.h"
#include "cmd/cmd.h"
#include "cmd/opt.h"

#include <errno.h>
#include <fcntl.h>

struct demo {
	bool flag;
	bool other;
	const char *text;
	const char *choice;
	struct opt_list list;
	struct opt_list pairs;
	uint64_t number, positive, bytes, duration_ns;
};

static const struct opt demo_opts[] = {
	{ 'f', "flag", NULL, "a flag", OPT_FLAG(struct demo, flag) },
	{ 'o', NULL, NULL, "a letter only", OPT_FLAG(struct demo, other) },
	{ 't', "text", "T", "a text", OPT_TEXT(struct demo, text) },
	{ 0, "choice", "red|green", "one", OPT_CHOICE(struct demo, choice) },
	{ 'e', "env", "K=V", "many", OPT_LIST(struct demo, list) },
	{ 'n', NULL, "N", "a number", OPT_NUMBER(struct demo, number) },
	{ 'p', NULL, "N", "above 0", OPT_POSITIVE(struct demo, positive) },
	OPT_END,
};
static const struct opt more_opts[] = {
	{ 0, "set", "K=V", "pairs", OPT_PAIRS(struct demo, pairs) },
	{ 0, "bytes", "SIZE", "a size", OPT_BYTES(struct demo, bytes) },
	{ 0, "after", "D", "a duration",
	  OPT_DURATION(struct demo, duration_ns) },
	OPT_END,
};
static const struct cmd demo_cmd = {
	.name = "demo",
	.args = "ARG...",
	.summary = "A demonstration.",
};

static struct demo got;
static char *args[40];
static int n_args;

/* Parse "a b c"; what comes out is in `got` and args. */
static int parse(int verbatim, int most, const char *line)
{
	const struct opt_use use = { .cmd = &demo_cmd,
				     .groups = { { demo_opts, &got },
						 { more_opts, &got } },
				     .max_args = most,
				     .verbatim = verbatim };
	static char words[400];
	int argc = 0, n = 0, r;
	char *save = NULL;

	snprintf(words, sizeof(words), "demo %s", line);
	got = (struct demo){ 0 };
	for (char *w = strtok_r(words, " ", &save); w;
	     w = strtok_r(NULL, " ", &save))
		args[argc++] = w;
	args[argc] = NULL;
	r = opt_parse(&use, argc, args, &n);
	n_args = n;
	return r;
}

static void test_order(void)
{
	check(parse(0, -1, "-f a -t x b --choice green c") == 0);
	check(got.flag && !got.other);
	check_str(got.text, "x");
	check_str(got.choice, "green");
	check(n_args == 3);
	check_str(args[1], "a");
	check_str(args[2], "b");
	check_str(args[3], "c");
	check(!args[4]);

	check(parse(0, -1, "") == 0 && n_args == 0);
	check(parse(0, -1, "-fo") == 0 && got.flag && got.other);
	check(parse(0, -1, "--text=y -ey -e z") == 0);
	check_str(got.text, "y");
	check(got.list.n == 2);
	check_str(got.list.v[1], "z");
	check(parse(0, -1, "a -- -f b") == 0 && !got.flag && n_args == 3);
	check_str(args[2], "-f");
	check(parse(0, -1, "- a") == 0 && n_args == 2);
	/* A "--" that is an option's value ends nothing. */
	check(parse(0, -1, "-t -- a -f") == 0 && got.flag && n_args == 1);
	check_str(got.text, "--");
}

/* As exec has it: ID, then a command with options of its own. */
static void test_verbatim(void)
{
	check(parse(1, -1, "-f id ls -f -l") == 0);
	check(got.flag && n_args == 4);
	check_str(args[1], "id");
	check_str(args[3], "-f");

	check(parse(1, -1, "id -f ls -o") == 0);
	check(got.flag && !got.other && n_args == 3);
	check_str(args[3], "-o");

	check(parse(1, -1, "id -f -- -x -- y") == 0);
	check(got.flag && n_args == 4);
	check_str(args[2], "-x");
	check_str(args[3], "--");
	check_str(args[4], "y");

	check(parse(1, -1, "-- id ls -f") == 0 && !got.flag && n_args == 3);
}

static void test_values(void)
{
	check(parse(0, 0, "-n 12 --bytes 1.5G --after 500ms") == 0);
	check(got.number == 12);
	check(got.bytes == 3ull << 29);
	check(got.duration_ns == 500000000);
	check(parse(0, 0, "-n 0 -p 1") == 0 && got.positive == 1);
	check(parse(0, 0, "--set A=b=c --set B=") == 0 && got.pairs.n == 2);
	check_str(got.pairs.v[0], "A=b=c");
}

static void test_refusals(void)
{
	static const char *const bad[] = {
		"-x",
		"--unknown",
		"--fla", /* no abbreviations */
		"--fl",
		"-t",
		"--text",
		"--flag=1",
		"--choice blue",
		"--choice re",
		"--choice red|green",
		"-n x",
		"-n -1",
		"-p 0",
		"-p 00",
		"-p -1",
		"--bytes 0",
		"--bytes 12Q",
		"--after 0",
		"--after 5parsecs",
		"--set A",
		"--set =A",
		"a",
	};

	for (size_t i = 0; i < nitems(bad); i++)
		check(parse(0, 0, bad[i]) == -EINVAL);
	check(parse(0, 1, "a b") == -EINVAL);
}

/* One argument after the verb, which strtok() cannot make: "". */
static void test_empty(void)
{
	const struct opt_use use = { .cmd = &demo_cmd,
				     .groups = { { demo_opts, &got } },
				     .max_args = -1,
				     .verbatim = 1 };
	char name[] = "demo", id[] = "id", empty[] = "";
	char *first[] = { name, empty, id, NULL };
	char *behind[] = { name, id, empty, NULL };
	int n = 0;

	check(opt_parse(&use, 3, first, &n) == -EINVAL);
	check(opt_parse(&use, 3, behind, &n) == 0 && n == 2);
}

static void test_list_is_bounded(void)
{
	const struct opt_use use = { .cmd = &demo_cmd,
				     .groups = { { demo_opts, &got } } };
	static char e[] = "-ex", name[] = "demo";
	static char *many[OPT_LIST_MAX + 3];
	int n = 0;

	got = (struct demo){ 0 };
	many[0] = name;
	for (int i = 1; i <= OPT_LIST_MAX + 1; i++)
		many[i] = e;
	check(opt_parse(&use, OPT_LIST_MAX + 2, many, &n) == -EINVAL);
	check(got.list.n == OPT_LIST_MAX);
}

int main(void)
{
	/* Refusals talk. */
	int null = open("/dev/null", O_WRONLY);

	check(null >= 0 && dup2(null, STDOUT_FILENO) >= 0);
	test_order();
	test_verbatim();
	test_values();
	check(parse(0, 0, "--help") == OPT_HELP);
	check(parse(0, 0, "-f -h --unknown") == OPT_HELP);
	check(dup2(null, STDERR_FILENO) >= 0);
	test_refusals();
	test_empty();
	test_list_is_bounded();
	return 0;
}
