/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre: one binary, one verb per file
 *
 *	byre VERB [OPTION]... [ARG]...
 *
 * The table below is the list of verbs; help is made from it. What every verb
 * can rely on: the three standard fds are open (a socket must not become
 * stdout), and argv[0] is the verb.
 */
#include "cmd/cmd.h"
#include "cmd/version.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* In the order in which a user meets them. */
static const struct cmd *const main_cmds[] = {
	&cmd_doctor,    &cmd_serve, &cmd_rootfs, &cmd_bake,    &cmd_template,
	&cmd_templates, &cmd_store, &cmd_push,   &cmd_pull,    &cmd_image,
	&cmd_create,    &cmd_exec,  &cmd_run,    &cmd_cp,      &cmd_ls,
	&cmd_inspect,   &cmd_logs,  &cmd_pause,  &cmd_resume,  &cmd_rm,
	&cmd_mem,       &cmd_bench, &cmd_pager,  &cmd_version,
};

static const struct cmd *main_find(const char *name)
{
	for (size_t i = 0; i < nitems(main_cmds); i++)
		if (!strcmp(main_cmds[i]->name, name))
			return main_cmds[i];
	return NULL;
}

static void main_usage(FILE *to)
{
	fputs("usage: byre VERB [OPTION]... [ARG]...\n"
	      "       byre help [VERB], byre VERB -h\n",
	      to);
}

static int main_list(void)
{
	main_usage(stdout);
	puts("\nDense herds of copy-on-write microVMs.\n\nverbs:");
	for (size_t i = 0; i < nitems(main_cmds); i++)
		printf("  %-10s  %s\n", main_cmds[i]->name,
		       main_cmds[i]->summary);
	return cmd_end(CMD_OK);
}

static int main_unknown(const char *name)
{
	fprintf(stderr, "byre: there is no verb %.64s (byre help lists them)\n",
		name);
	return CMD_USAGE;
}

/* byre help VERB is byre VERB -h. */
static int main_help(int argc, char **argv)
{
	const struct cmd *c;
	char option[] = "-h";
	char *help[] = { argv[1], option, NULL };

	if (argc < 2)
		return main_list();
	if (argc > 2) {
		main_usage(stderr);
		return CMD_USAGE;
	}
	c = main_find(argv[1]);
	return c ? c->run(2, help) : main_unknown(argv[1]);
}

/* A file opened later must not get the number of a standard one. */
static bool main_standard_fds(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

int main(int argc, char **argv)
{
	const struct cmd *c;

	if (!main_standard_fds())
		return CMD_FAILED;
	if (argc < 2) {
		main_usage(stderr);
		return CMD_USAGE;
	}
	if (!strcmp(argv[1], "help"))
		return main_help(argc - 1, argv + 1);
	if (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help"))
		return main_list();
	if (!strcmp(argv[1], "--version")) {
		version_print();
		return cmd_end(CMD_OK);
	}
	c = main_find(argv[1]);
	return c ? c->run(argc - 1, argv + 1) : main_unknown(argv[1]);
}
