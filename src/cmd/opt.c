/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options from a table
 *
 * getopt_long() reads one option at a time; the order of options and arguments
 * is ours, because exec and run stop in the middle: behind "exec ID" the first
 * word that is no option starts a command whose own options are not ours.
 *
 *	byre exec -i web ls -l
 *	          |   |  `--+-- verbatim: from argument 1 on
 *	          |   argument 0
 *	          option
 *
 * 1. getopt runs in its "+" mode: it never permutes. We take one word that is
 *    no option, and call it again. Arguments are packed to the front of argv,
 *    behind the verb; they only ever move to where getopt has been already.
 * 2. Values are stored through the offset of the table, whose type the macros
 *    of the header have checked. Numbers are checked here; what is in range
 *    for the daemon is the daemon's to say.
 * 3. An option given twice: the last one counts, but lists collect.
 * 4. An argument is not empty, but for those of another program.
 * 5. Long names must be written out. getopt takes abbreviations, which would
 *    make every new option able to break scripts.
 */
#include "cmd/opt.h"

#include "cmd/cmd.h"
#include "base/guard.h"
#include "base/parse.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

/* Widest "-x, --name ARG" that still has its help beside it. */
#define OPT_HELP_COLUMN 26

/* getopt's value for the long options without a letter: above any char. */
#define OPT_LONG_BASE 1000
#define OPT_HELP_VALUE 'h'

/* The tables of a verb in getopt's form. */
struct opt_flat {
	const struct opt *opt[OPT_MAX];
	void *to[OPT_MAX];
	size_t n;
	struct option longs[OPT_MAX + 2];
	char shorts[2 * OPT_MAX + 8];
};

static void opt_flat_add(struct opt_flat *f, const struct opt *o, void *to)
{
	size_t at = strlen(f->shorts), n = f->n;

	must(n < OPT_MAX);
	must(o->key || o->name);
	f->opt[n] = o;
	f->to[n] = to;
	f->n++;
	if (o->key) {
		f->shorts[at++] = o->key;
		if (o->kind != OPT_KIND_FLAG)
			f->shorts[at] = ':';
	}
	/* getopt wants no holes: an option without a long name gets one that
	 * cannot be typed. */
	f->longs[n] = (struct option){
		.name = o->name ? o->name : "\n",
		.has_arg = o->kind != OPT_KIND_FLAG,
		.val = OPT_LONG_BASE + (int)n,
	};
}

static void opt_flatten(const struct opt_use *u, struct opt_flat *f)
{
	*f = (struct opt_flat){ .shorts = "+:h" };
	for (size_t i = 0; i < OPT_GROUPS_MAX && u->groups[i].opts; i++)
		for (const struct opt *o = u->groups[i].opts;
		     o->kind != OPT_KIND_NONE; o++)
			opt_flat_add(f, o, u->groups[i].to);
	f->longs[f->n] =
		(struct option){ .name = "help", .val = OPT_HELP_VALUE };
}

/* The table's row for what getopt returned; OPT_MAX when there is none. */
static size_t opt_index(const struct opt_flat *f, int value)
{
	if (value >= OPT_LONG_BASE)
		return (size_t)(value - OPT_LONG_BASE);
	for (size_t i = 0; i < f->n; i++)
		if (f->opt[i]->key == value)
			return i;
	return OPT_MAX;
}

/* Is @value one of "a|b|c"? */
static bool opt_choice_ok(const char *choices, const char *value)
{
	size_t len = strlen(value), part;

	for (;; choices += part + 1) {
		part = strcspn(choices, "|");
		if (part == len && !memcmp(choices, value, len))
			return true;
		if (!choices[part])
			return false;
	}
}

static int opt_store_number(const struct opt *o, uint64_t *to,
			    const char *value)
{
	uint64_t n = 0;
	int r;

	if (o->kind == OPT_KIND_BYTES)
		r = parse_bytes(value, &n);
	else if (o->kind == OPT_KIND_DURATION)
		r = parse_duration_ns(value, &n);
	else
		r = parse_u64(value, &n);
	if (r < 0)
		return r;
	if (!n && o->kind != OPT_KIND_NUMBER)
		return -EINVAL;
	*to = n;
	return 0;
}

static int opt_store_list(struct opt_list *l, const char *value)
{
	if (l->n == OPT_LIST_MAX)
		return -E2BIG;
	l->v[l->n++] = value;
	return 0;
}

static int opt_store(const struct opt *o, void *to, const char *value)
{
	void *at = (char *)to + o->at;

	switch (o->kind) {
	case OPT_KIND_FLAG:
		*(bool *)at = true;
		return 0;
	case OPT_KIND_CHOICE:
		if (!opt_choice_ok(o->arg, value))
			return -EINVAL;
		*(const char **)at = value;
		return 0;
	case OPT_KIND_TEXT:
		*(const char **)at = value;
		return 0;
	case OPT_KIND_PAIRS:
		if (*value == '=' || !strchr(value, '='))
			return -EINVAL;
		return opt_store_list(at, value);
	case OPT_KIND_LIST:
		return opt_store_list(at, value);
	case OPT_KIND_NUMBER:
	case OPT_KIND_POSITIVE:
	case OPT_KIND_BYTES:
	case OPT_KIND_DURATION:
		return opt_store_number(o, at, value);
	case OPT_KIND_NONE:
	case OPT_KIND_COUNT:
		break;
	}
	must(!"an option's kind");
	return -EINVAL;
}

static const char *opt_kind_what(const struct opt *o)
{
	static const char *const what[] = {
		[OPT_KIND_NONE] = "",
		[OPT_KIND_FLAG] = "",
		[OPT_KIND_TEXT] = "a text",
		[OPT_KIND_CHOICE] = "one of",
		[OPT_KIND_LIST] = "a text",
		[OPT_KIND_PAIRS] = "NAME=value",
		[OPT_KIND_NUMBER] = "a number",
		[OPT_KIND_POSITIVE] = "a number above 0",
		[OPT_KIND_BYTES] = "a size (512M, 2G)",
		[OPT_KIND_DURATION] = "a duration (500ms, 5s, 10m)",
	};
	static_assert(nitems(what) == OPT_KIND_COUNT, "a word for each kind");

	return what[o->kind];
}

/* "-f", "--follow": as it was most likely typed. */
static const char *opt_shown(const struct opt *o, char out[64])
{
	if (o->name)
		snprintf(out, 64, "--%s", o->name);
	else
		snprintf(out, 64, "-%c", o->key);
	return out;
}

static int opt_bad_value(const struct opt_use *u, const struct opt *o,
			 const char *value, int r)
{
	char shown[64];

	opt_shown(o, shown);
	if (r == -E2BIG)
		cmd_usage(u->cmd, "%s: given more than %d times", shown,
			  OPT_LIST_MAX);
	else
		cmd_usage(u->cmd, "%s %s: not %s%s%s", shown, value,
			  opt_kind_what(o),
			  o->kind == OPT_KIND_CHOICE ? " " : "",
			  o->kind == OPT_KIND_CHOICE ? o->arg : "");
	return -EINVAL;
}

/* Was the long option at @word written out? */
static bool opt_written_out(const char *word, const struct opt *o)
{
	size_t len;

	if (strncmp(word, "--", 2) || !o->name)
		return true; /* a letter */
	len = strcspn(word + 2, "=");
	return len == strlen(o->name) && !memcmp(word + 2, o->name, len);
}

/* One option that getopt understood. @word: the word it was in. */
static int opt_take(const struct opt_use *u, const struct opt_flat *f,
		    int value, const char *word)
{
	size_t i = opt_index(f, value);
	int r;

	must(i < f->n);
	if (value >= OPT_LONG_BASE && !opt_written_out(word, f->opt[i])) {
		cmd_usage(u->cmd, "unknown option %s", word);
		return -EINVAL;
	}
	r = opt_store(f->opt[i], f->to[i], optarg);
	return r < 0 ? opt_bad_value(u, f->opt[i], optarg, r) : 0;
}

/* getopt said '?' or ':' about @word. */
static int opt_bad(const struct opt_use *u, int c, const char *word)
{
	char letter[3] = { '-', (char)optopt, '\0' };
	/* A letter it does not know, maybe amid others; long options leave 0
	 * or the value of one that was misused. */
	bool is_letter = strncmp(word, "--", 2) != 0;

	if (is_letter)
		word = letter;
	if (c == ':')
		cmd_usage(u->cmd, "option %s needs a value", word);
	else if (!is_letter && strchr(word, '=') && optopt)
		cmd_usage(u->cmd, "option %s takes no value", word);
	else
		cmd_usage(u->cmd, "unknown option %s", word);
	return -EINVAL;
}

static void opt_help_row(const struct opt *o)
{
	char left[80];
	int n;

	if (!o->name)
		n = snprintf(left, sizeof(left), "  -%c", o->key);
	else if (!o->key)
		n = snprintf(left, sizeof(left), "      --%s", o->name);
	else
		n = snprintf(left, sizeof(left), "  -%c, --%s", o->key,
			     o->name);
	if (o->arg)
		n += snprintf(left + n, sizeof(left) - (size_t)n, " %s",
			      o->arg);
	if (n < OPT_HELP_COLUMN)
		printf("%-*s %s\n", OPT_HELP_COLUMN, left, o->help);
	else
		printf("%s\n%-*s %s\n", left, OPT_HELP_COLUMN, "", o->help);
}

void opt_help(const struct opt_use *u)
{
	static const struct opt help = { .key = 'h',
					 .name = "help",
					 .help = "print this" };
	struct opt_flat f;

	opt_flatten(u, &f);
	cmd_help(u->cmd);
	printf("\noptions:\n");
	for (size_t i = 0; i < f.n; i++)
		opt_help_row(f.opt[i]);
	opt_help_row(&help);
}

enum {
	OPT_REST = 2, /* "--" was there: all that follows is arguments */
};

/* The options up to the next word that is none, or the end. */
static int opt_run(const struct opt_use *u, const struct opt_flat *f, int argc,
		   char **argv)
{
	const char *word;
	int before, c, r;

	for (;;) {
		before = max(optind, 1);
		word = before < argc ? argv[before] : "";
		c = getopt_long(argc, argv, f->shorts, f->longs, NULL);
		if (c == -1)
			return optind > before ? OPT_REST : 0;
		if (c == '?' || c == ':')
			return opt_bad(u, c, word);
		if (c == OPT_HELP_VALUE) {
			opt_help(u);
			return OPT_HELP;
		}
		r = opt_take(u, f, c, word);
		if (r < 0)
			return r;
	}
}

/* Options and arguments in any order; *ret_n arguments from argv[1] on. */
static int opt_walk(const struct opt_use *u, int argc, char **argv, int *ret_n)
{
	struct opt_flat f;
	bool rest = false;
	int n = 0, r;

	opt_flatten(u, &f);
	opterr = 0;
	optind = 0; /* makes glibc forget an earlier parse */
	while (!rest) {
		r = opt_run(u, &f, argc, argv);
		if (r < 0 || r == OPT_HELP)
			return r;
		if (optind >= argc)
			break;
		rest = r == OPT_REST || (u->verbatim && n == u->verbatim);
		if (!rest)
			argv[++n] = argv[optind++];
	}
	while (optind < argc)
		argv[++n] = argv[optind++];
	argv[n + 1] = NULL;
	*ret_n = n;
	return 0;
}

/* An empty argument names nothing: a variable of a script that was not set. */
static int opt_empty(const struct opt_use *u, int n, char **argv)
{
	for (int i = 1; i <= n && !(u->verbatim && i > u->verbatim); i++) {
		if (*argv[i])
			continue;
		cmd_usage(u->cmd, "argument %d is empty", i);
		return -EINVAL;
	}
	return 0;
}

/* Too few or too many arguments? */
static int opt_count(const struct opt_use *u, int n, char **argv)
{
	if (n < u->min_args && n)
		cmd_usage(u->cmd, "an argument is missing behind %s", argv[n]);
	else if (n < u->min_args)
		cmd_usage(u->cmd, "an argument is missing");
	else if (u->max_args >= 0 && n > u->max_args)
		cmd_usage(u->cmd, "one argument too many: %s",
			  argv[u->max_args + 1]);
	else
		return 0;
	return -EINVAL;
}

int opt_parse(const struct opt_use *u, int argc, char **argv, int *ret_n)
{
	int n = 0, r;

	r = opt_walk(u, argc, argv, &n);
	if (r)
		return r;
	r = opt_count(u, n, argv);
	if (r == 0)
		r = opt_empty(u, n, argv);
	if (r < 0)
		return r;
	*ret_n = n;
	return 0;
}

int opt_status(int result)
{
	if (result == OPT_HELP)
		return cmd_end(CMD_OK);
	return CMD_USAGE;
}
