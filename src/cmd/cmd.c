/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every verb says the same way
 *
 * stdout is for data, stderr for talk. A verb that fails prints one line:
 * what was attempted, on what object, why. The sentence comes ready from where
 * the error happened; parts of it may come from a guest (a file's name, a
 * VMM's last words), so control characters are made harmless here, once, and
 * the line stays one line.
 *
 * Wrong usage is two lines: what is wrong, and the verb's usage. The whole
 * help is for those who ask (-h); it goes to stdout.
 */
#include "cmd/cmd.h"

#include "base/err.h"
#include "base/guard.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Errors are one line, whatever was typed or came from elsewhere. */
static void cmd_say(const char *msg)
{
	for (; *msg; msg++)
		putc((unsigned char)*msg < ' ' || *msg == 127 ? '?' : *msg,
		     stderr);
}

int cmd_fail(const struct err *e)
{
	fputs("byre: ", stderr);
	cmd_say(e->msg);
	putc('\n', stderr);
	return CMD_FAILED;
}

int cmd_usage(const struct cmd *c, const char *fmt, ...)
{
	char msg[ERR_MSG_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	fprintf(stderr, "byre %s: ", c->name);
	cmd_say(msg);
	fprintf(stderr, " (usage: byre %s%s%s)\n", c->name, *c->args ? " " : "",
		c->args);
	return CMD_USAGE;
}

void cmd_help(const struct cmd *c)
{
	printf("usage: byre %s%s%s\n\n%s\n", c->name, *c->args ? " " : "",
	       c->args, c->summary);
}

int cmd_end(int status)
{
	struct err e = ERR_NULL;

	if (!ferror(stdout) && fflush(stdout) == 0)
		return status;
	err_errno(&e, errno, "write to stdout");
	return cmd_fail(&e);
}

/* The last word of "bench create". */
static const char *cmd_last_word(const struct cmd *c)
{
	const char *space = strrchr(c->name, ' ');

	return space ? space + 1 : c->name;
}

/* A verb with one sub-verb is explained by that. */
static int cmd_dispatch_help(const struct cmd *c, const struct cmd *const *subs)
{
	char option[] = "-h", name[64];
	char *argv[] = { name, option, NULL };
	int r = CMD_OK;

	if (subs[1])
		cmd_help(c);
	for (size_t i = 0; subs[i] && r == CMD_OK; i++) {
		if (subs[1])
			putchar('\n');
		snprintf(name, sizeof(name), "%s", subs[i]->name);
		r = subs[i]->run(2, argv);
	}
	return r;
}

int cmd_dispatch(const struct cmd *c, const struct cmd *const *subs, int argc,
		 char **argv)
{
	if (argc < 2)
		return cmd_usage(c, "an argument is missing");
	if (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help"))
		return cmd_dispatch_help(c, subs);
	for (size_t i = 0; subs[i]; i++)
		if (!strcmp(argv[1], cmd_last_word(subs[i])))
			return subs[i]->run(argc - 1, argv + 1);
	return cmd_usage(c, "there is no %s", argv[1]);
}
