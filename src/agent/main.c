/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre-agent: PID 1 of a guest, or, for tests, a server on an inherited fd
 *
 *	byre-agent				as /init: boot, then serve
 *	byre-agent --fd N [--no-identity]	serve on descriptor N
 *
 * On an inherited fd nothing outside the streams is touched: no mounts, and no
 * clock, name, cache or power of the machine it runs on. That is so with or
 * without --no-identity, which is accepted to say it aloud.
 */
#include "agent/agent.h"
#include "agent/init.h"
#include "agent/kmsg.h"
#include "agent/machine.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Static, since PID 1 has one and zero pages of it cost nothing. */
static struct agent main_agent;

static __attribute__((noreturn)) void main_as_init(void)
{
	struct err e = ERR_NULL, broken = ERR_NULL;
	struct agent *a = &main_agent;
	int fd = -1;

	if (init_start(&fd, &broken, &e) < 0)
		kmsg_fatal("%s", e.msg);
	if (agent_init(a, &agent_ops_vm, fd, true, &e) < 0)
		kmsg_fatal("%s", e.msg);
	if (broken.code)
		a->broken = broken.msg;
	if (agent_run(a, &e) < 0)
		kmsg_fatal("%s", e.msg);
	if (!a->power_off)
		kmsg_fatal("the port is gone");
	machine_power_off();
}

static int main_on_fd(int fd)
{
	struct agent *a = &main_agent;
	struct err e = ERR_NULL;
	int flags, r;

	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
	    fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
		perror("byre-agent: --fd");
		return EXIT_FAILURE;
	}
	r = agent_init(a, &agent_ops_guest_of_host, fd, false, &e);
	if (r == 0)
		r = agent_run(a, &e);
	if (r < 0) {
		kmsg_error("%s", e.msg);
		return EXIT_FAILURE;
	}
	agent_deinit(a);
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	char *end;
	long fd;

	/* The kernel hands words of its command line on as arguments. */
	if (getpid() == 1 && (argc < 2 || strcmp(argv[1], "--fd")))
		main_as_init();
	if (argc >= 3 && !strcmp(argv[1], "--fd") &&
	    (argc == 3 || (argc == 4 && !strcmp(argv[3], "--no-identity")))) {
		fd = strtol(argv[2], &end, 10);
		if (end != argv[2] && !*end && fd > STDERR_FILENO && fd < 65536)
			return main_on_fd((int)fd);
	}
	fprintf(stderr,
		"usage: byre-agent --fd N [--no-identity]   (N above 2)\n"
		"without arguments only as /init of a guest\n");
	return EXIT_FAILURE;
}
