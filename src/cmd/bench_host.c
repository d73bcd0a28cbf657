/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A daemon for a bench
 *
 * What is measured on a "cold host" is measured on a daemon with an empty root
 * of its own, on this machine. It is ended by its pid; its pager ends with its
 * last guest.
 */
#include "cmd/bench_host.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "cmd/client.h"
#include "cmd/create.h"
#include "cmd/print.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define BENCH_HOST_START_NS (20 * NS_PER_SEC)
#define BENCH_HOST_POLL_US 5000

static int bench_host_spawn(struct bench_host *h, struct err *e)
{
	guard_free char *root = io_path("%s/root", h->dir);
	guard_free char *log = io_path("%s/log", h->dir);
	char program[] = "/proc/self/exe";
	char *argv[] = { program, strdup("serve"), strdup("--root"),
			 root,    strdup("--run"), h->run,
			 NULL };
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none;
	int r = 0;

	if (!root || !log || !argv[1] || !argv[2] || !argv[4])
		r = ENOMEM;
	sigemptyset(&none);
	posix_spawn_file_actions_init(&files);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	if (r == 0)
		r = posix_spawn_file_actions_addopen(
			&files, STDERR_FILENO, log,
			O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (r == 0)
		r = posix_spawn(&h->pid, program, &files, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&files);
	free(argv[1]);
	free(argv[2]);
	free(argv[4]);
	return r ? err_errno(e, r, "start a daemon in %s", h->dir) : 0;
}

static int bench_host_wait(const struct bench_host *h, struct err *e)
{
	uint64_t end = clock_mono_ns() + BENCH_HOST_START_NS;
	struct err why = ERR_NULL;

	while (clock_mono_ns() < end) {
		json_auto_t *host = NULL;

		if (client_call("GET", "/v1/host", NULL, &host, &why) == 0)
			return 0;
		if (waitpid(h->pid, NULL, WNOHANG | WNOWAIT) > 0)
			break;
		usleep(BENCH_HOST_POLL_US);
	}
	return err_set(e, ETIMEDOUT, "the daemon in %s does not answer: %s",
		       h->dir, why.msg);
}

int bench_host_start(struct bench_host *h, const char *dir, struct err *e)
{
	int r;

	snprintf(h->dir, sizeof(h->dir), "%s", dir);
	snprintf(h->run, sizeof(h->run), "%s/run", dir);
	r = io_mkdirs(h->run, 0700, e);
	if (r == 0)
		r = bench_host_spawn(h, e);
	if (r < 0)
		return r;
	setenv("BYRE_RUN", h->run, 1);
	return bench_host_wait(h, e);
}

static void bench_host_clear(void)
{
	json_auto_t *all = NULL;
	struct err e = ERR_NULL;
	json_t *one;
	size_t i;

	if (client_call("GET", "/v1/sandboxes", NULL, &all, &e) < 0)
		return;
	json_array_foreach (all, i, one)
		err_drop(create_undo(print_text(one, "id"), &e));
}

void bench_host_stop(struct bench_host *h, const char *run)
{
	if (h->pid) {
		setenv("BYRE_RUN", h->run, 1);
		bench_host_clear();
		kill(h->pid, SIGTERM);
		waitpid(h->pid, NULL, 0);
		h->pid = 0;
	}
	if (h->dir[0])
		err_drop(io_remove_tree(h->dir, NULL));
	h->dir[0] = '\0';
	setenv("BYRE_RUN", run, 1);
}
