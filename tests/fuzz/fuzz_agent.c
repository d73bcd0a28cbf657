/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent in this process, fed with bytes as from a host
 *
 *	clang -g -O1 -fsanitize=fuzzer,address,undefined -std=gnu17 \
 *		-D_GNU_SOURCE -Isrc tests/fuzz/fuzz_agent.c AGENT
 *
 * where AGENT is every .c file of src/agent but main.c and the tests.
 *
 * No process is started and none is killed: the operations are ours, and every
 * command "ends" a turn after it began. Files are real, in a fresh directory
 * that PUT and GET cannot leave. Time jumps a second with every turn, so that
 * timeouts and graces run out.
 *
 * The first byte of an input says how to read the rest. Even: as raw bytes.
 * Odd: as a list of {type, channel, stream, length, payload} that get proper
 * headers, since a mutator seldom finds a length on its own.
 */
#include "agent/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* Above any pid there can be, should a signal slip through. */
#define FUZZ_PID 0x3fffffff

static struct agent fuzz_agent;
static char fuzz_dir[64];

/* argv[0] decides how it goes. */
static int fuzz_spawn(struct spawn *s, pid_t *ret_pid)
{
	char c = s->argv[0][0];

	s->stage = SPAWN_STARTED;
	if (c == 'f')
		return -EAGAIN;
	if (c == 'x') {
		s->stage = SPAWN_FAILED_EXEC;
		s->error = ENOENT;
	} else if (write(s->fd[1], s->argv[0], strlen(s->argv[0])) < 0) {
		return -errno;
	}
	*ret_pid = FUZZ_PID;
	return 0;
}

static void fuzz_kill(pid_t group, int sig)
{
	if (group != FUZZ_PID || sig <= 0)
		abort();
}

static struct agent_ops fuzz_ops = {
	.spawn = fuzz_spawn,
	.kill = fuzz_kill,
	.machine = false,
	.root_fd = -1,
	.etc = "/etc",
	.proc = "/proc",
};

static void fuzz_exit(void)
{
	rmdir(fuzz_dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	strcpy(fuzz_dir, "/tmp/fuzz-agent-XXXXXX");
	if (!mkdtemp(fuzz_dir))
		abort();
	atexit(fuzz_exit);
	fuzz_ops.root_fd = open(fuzz_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return 0;
}

static int fuzz_remove(const char *path, const struct stat *st, int type,
		       struct FTW *where)
{
	(void)st;
	(void)type;
	if (where->level)
		remove(path);
	return 0;
}

/* Turns until nothing moves; what the agent sends is read and checked. */
static void fuzz_turns(int fd)
{
	static uint8_t rx[2 * WIRE_FRAME_MAX];
	static size_t len;
	struct agent *a = &fuzz_agent;
	struct wire_frame f = { 0 };
	size_t used = 0, skipped = 0;
	ssize_t n;
	unsigned i, k;

	len = 0;
	for (i = 0; i < 200; i++) {
		a->now_ns += 1000000000;
		a->port.readable = true;
		a->port.blocked = false;
		for (k = 0; k < WIRE_STREAMS_MAX; k++) {
			if (!a->streams[k].id || a->streams[k].op != WIRE_EXEC)
				continue;
			exec_event(&a->streams[k], WIRE_STDOUT, EPOLLIN);
			if (i % 3 == 2 && !a->streams[k].exec.exited)
				exec_exited(a, &a->streams[k], (int)i);
		}
		agent_turn(a);
		n = recv(fd, rx + len, sizeof(rx) - len, MSG_DONTWAIT);
		if (n <= 0 && i > 6)
			return;
		len += n > 0 ? (size_t)n : 0;
		/* What the agent sends is always well formed. */
		while (wire_next(rx, len, &f, &used, &skipped) == 0) {
			if (skipped)
				abort();
			len -= used;
			memmove(rx, rx + used, len);
		}
		if (used)
			abort();
	}
}

static void fuzz_send(int fd, const void *p, size_t len)
{
	/* Whatever does not fit is lost, as from a host that dies. */
	if (send(fd, p, len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return;
}

static void fuzz_send_list(int fd, const uint8_t *p, size_t size)
{
	uint8_t head[WIRE_HEADER];
	size_t len;

	while (size >= 4) {
		len = p[3];
		if (len > size - 4)
			len = size - 4;
		wire_header(head, p[0] % WIRE_TYPE_COUNT,
			    p[1] % WIRE_CHANNEL_COUNT, p[2] % 8, (uint32_t)len);
		fuzz_send(fd, head, sizeof(head));
		fuzz_send(fd, p + 4, len);
		p += 4 + len;
		size -= 4 + len;
		if (p[-1] & 1)
			fuzz_turns(fd);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err e = ERR_NULL;
	int fds[2];

	if (size == 0)
		return 0;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
		       fds) < 0 ||
	    agent_init(&fuzz_agent, &fuzz_ops, fds[1], false, &e) < 0)
		abort();
	if (data[0] & 1)
		fuzz_send_list(fds[0], data + 1, size - 1);
	else
		fuzz_send(fds[0], data + 1, size - 1);
	fuzz_turns(fds[0]);
	agent_deinit(&fuzz_agent);
	close(fds[0]);
	close(fds[1]);
	nftw(fuzz_dir, fuzz_remove, 16, FTW_DEPTH | FTW_PHYS);
	return 0;
}
