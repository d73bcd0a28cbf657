/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Options from a table
 *
 * A verb keeps its options in a struct, and describes them in a table; parsing
 * and help come from that table. Verbs that share options share a table.
 *
 *	struct logs {
 *		bool follow;
 *	};
 *	static const struct opt logs_opts[] = {
 *		{ 'f', "follow", NULL, "go on", OPT_FLAG(struct logs, follow) },
 *		OPT_END,
 *	};
 */
#include "base/must.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

struct cmd;

/* Values of one repeated option; more are refused. */
#define OPT_LIST_MAX 256

/* Points into argv. */
struct opt_list {
	const char *v[OPT_LIST_MAX];
	size_t n;
};

enum opt_kind {
	OPT_KIND_NONE,
	OPT_KIND_FLAG, /* bool */
	OPT_KIND_TEXT, /* const char * */
	OPT_KIND_CHOICE, /* const char *; `arg` lists what is allowed */
	OPT_KIND_LIST, /* struct opt_list */
	OPT_KIND_PAIRS, /* struct opt_list of "NAME=value" */
	OPT_KIND_NUMBER, /* uint64_t */
	OPT_KIND_POSITIVE, /* uint64_t, not 0: 0 says "not given" */
	OPT_KIND_BYTES, /* uint64_t, not 0 */
	OPT_KIND_DURATION, /* uint64_t ns, not 0 */
	OPT_KIND_COUNT,
};

struct opt {
	char key; /* 'f' for -f; 0: none */
	const char *name; /* "follow" for --follow; NULL: none */
	const char *arg; /* what the value is called; NULL for flags */
	const char *help;
	enum opt_kind kind;
	size_t at; /* offset in the verb's struct */
};

#define OPT_END                       \
	{                             \
		.kind = OPT_KIND_NONE \
	}

/* Offset of a member, which must be of the type the kind writes. */
#define OPT_AT(type, member, want)                                             \
	(offsetof(type, member) +                                              \
	 0 * sizeof(struct {                                                   \
		 static_assert(__builtin_types_compatible_p(                   \
				       __typeof__(((type *)0)->member), want), \
			       "the option's kind does not fit its member");   \
		 char c;                                                       \
	 }))

#define OPT_FLAG(type, member) OPT_KIND_FLAG, OPT_AT(type, member, bool)
#define OPT_TEXT(type, member) OPT_KIND_TEXT, OPT_AT(type, member, const char *)
#define OPT_CHOICE(type, member) \
	OPT_KIND_CHOICE, OPT_AT(type, member, const char *)
#define OPT_LIST(type, member) \
	OPT_KIND_LIST, OPT_AT(type, member, struct opt_list)
#define OPT_PAIRS(type, member) \
	OPT_KIND_PAIRS, OPT_AT(type, member, struct opt_list)
#define OPT_NUMBER(type, member) OPT_KIND_NUMBER, OPT_AT(type, member, uint64_t)
#define OPT_POSITIVE(type, member) \
	OPT_KIND_POSITIVE, OPT_AT(type, member, uint64_t)
#define OPT_BYTES(type, member) OPT_KIND_BYTES, OPT_AT(type, member, uint64_t)
#define OPT_DURATION(type, member) \
	OPT_KIND_DURATION, OPT_AT(type, member, uint64_t)

/* One table and the struct its offsets are of. */
struct opt_group {
	const struct opt *opts;
	void *to;
};

#define OPT_GROUPS_MAX 4
/* Options of one verb, all groups together. */
#define OPT_MAX 32

struct opt_use {
	const struct cmd *cmd;
	struct opt_group groups[OPT_GROUPS_MAX];
	/* How many arguments that are no options it takes; max < 0: any. */
	int min_args, max_args;
	/* From this argument on (counted from 0) everything is an argument,
	 * options of another program among them; 0: nothing is. */
	int verbatim;
};

enum {
	OPT_HELP = 1, /* the help was asked for and is printed */
};

/*
 * Parse. Options and arguments may come in any order, "--" ends the options.
 * Afterwards argv[1] .. argv[*ret_n] are the arguments, argv[*ret_n + 1] is
 * NULL, and what points into argv stays good; none is empty before the verbatim
 * ones. -EINVAL: said on stderr.
 */
int opt_parse(const struct opt_use *u, int argc, char **argv,
	      int *ret_n) must_check;

/* The exit code for a result of opt_parse() that is not 0. */
int opt_status(int result);

/* The options as they are in the help, on stdout. */
void opt_help(const struct opt_use *u);
