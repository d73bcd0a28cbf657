/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The built byre-agent on a socket, spoken to as the host does
 *
 * Each test starts its own agent. What comes back is collected per stream, in
 * a bounded table; credit is given back only where the test says so.
 */
#include "agent/wire.h"
#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

/* Longer than any answer takes, even under valgrind on a busy machine. */
#define TEST_PATIENCE_MS 30000
#define TEST_STREAMS (WIRE_STREAMS_MAX + 8)

struct test_stream {
	char out[WIRE_CHANNEL_COUNT][8192]; /* the beginning, terminated */
	size_t len[WIRE_CHANNEL_COUNT];
	uint64_t credit; /* handed to us */
	bool started, done;
	uint64_t pid, code, signal, timed_out, error, kind;
	bool has_kind;
	char message[512];
	unsigned entries;
	char entry[16][160]; /* paths */
	uint64_t entry_kind[16], entry_mode[16], entry_size[16];
	uint64_t entry_mtime[16];
	char entry_link[16][64];
};

struct test_agent {
	pid_t pid;
	int fd;
	bool give_credit;
	uint8_t rx[WIRE_FRAME_MAX * 2];
	size_t rx_len;
	bool synced;
	uint8_t nonce[WIRE_NONCE];
	struct test_stream s[TEST_STREAMS];
};

static struct test_agent test_a;
static uint8_t test_mem[WIRE_FRAME_MAX];
static struct wire_out test_o;

/* $BYRE_AGENT, or the one built with this test, one directory up. */
static inline const char *test_binary(void)
{
	static char path[4096];
	const char *given = getenv("BYRE_AGENT");
	ssize_t n;
	int i;

	if (given)
		return given;
	if (!path[0]) {
		n = readlink("/proc/self/exe", path, sizeof(path) - 16);
		check(n > 0);
		path[n] = 0;
		for (i = 0; i < 2; i++)
			*strrchr(path, '/') = 0;
		strcat(path, "/byre-agent");
	}
	return path;
}

/* ---- sending ---- */

static inline void test_send_raw(const void *p, size_t len)
{
	const uint8_t *at = p;
	ssize_t n;

	while (len) {
		n = send(test_a.fd, at, len, MSG_NOSIGNAL);
		check(n > 0);
		at += n;
		len -= (size_t)n;
	}
}

static inline void test_begin(uint8_t type, uint8_t channel, uint32_t stream)
{
	wire_begin(&test_o, test_mem, sizeof(test_mem), type, channel, stream);
}

static inline void test_send(void)
{
	int n = wire_end(&test_o);

	check(n > 0);
	test_send_raw(test_mem, (size_t)n);
}

static inline void test_simple(uint8_t type, uint8_t channel, uint32_t stream)
{
	test_begin(type, channel, stream);
	test_send();
}

static inline void test_number(uint8_t type, uint8_t channel, uint32_t stream,
			       uint16_t key, uint64_t v)
{
	test_begin(type, channel, stream);
	wire_put_u64(&test_o, key, v);
	test_send();
}

static inline void test_data(uint32_t stream, const void *p, size_t len)
{
	test_begin(WIRE_DATA, WIRE_STDIN, stream);
	wire_put_raw(&test_o, p, len);
	test_send();
}

/* EXEC of sh -c @script; more fields may be added before test_send(). */
static inline void test_shell(uint32_t stream, const char *script)
{
	memset(&test_a.s[stream], 0, sizeof(test_a.s[stream]));
	test_begin(WIRE_EXEC, 0, stream);
	wire_put_str(&test_o, WIRE_K_ARG, "sh");
	wire_put_str(&test_o, WIRE_K_ARG, "-c");
	wire_put_str(&test_o, WIRE_K_ARG, script);
}

/* ---- receiving ---- */

static inline uint64_t test_u64(const struct wire_frame *f, uint16_t key)
{
	uint64_t v = 0;

	check(wire_find_u64(f, key, &v) != -EBADMSG);
	return v;
}

static inline void test_got_entry(struct test_stream *s,
				  const struct wire_frame *f)
{
	unsigned i = s->entries++;

	if (i >= nitems(s->entry))
		return; /* counted */
	check(wire_find_str(f, WIRE_K_PATH, s->entry[i], 160) == 0);
	s->entry_kind[i] = test_u64(f, WIRE_K_KIND);
	s->entry_mode[i] = test_u64(f, WIRE_K_MODE);
	s->entry_size[i] = test_u64(f, WIRE_K_SIZE);
	s->entry_mtime[i] = test_u64(f, WIRE_K_MTIME);
	if (wire_find_str(f, WIRE_K_LINK, s->entry_link[i], 64) < 0)
		s->entry_link[i][0] = 0;
}

static inline void test_got_data(struct test_stream *s,
				 const struct wire_frame *f)
{
	char *out = s->out[f->channel];
	size_t at = s->len[f->channel];
	size_t room = sizeof(s->out[0]) - 1;

	if (at < room)
		memcpy(out + at, f->payload, min(room - at, (size_t)f->len));
	s->len[f->channel] += f->len;
	if (test_a.give_credit)
		test_number(WIRE_CREDIT, f->channel, f->stream, WIRE_K_BYTES,
			    f->len);
	else
		check(s->len[f->channel] <= WIRE_WINDOW);
}

static inline void test_got(const struct wire_frame *f)
{
	struct test_stream *s;

	check(f->stream < TEST_STREAMS);
	s = &test_a.s[f->stream];
	check(!s->done); /* RESULT is the last */
	switch (f->type) {
	case WIRE_DATA:
		check(s->started || s->entries);
		test_got_data(s, f);
		break;
	case WIRE_CREDIT:
		s->credit += test_u64(f, WIRE_K_BYTES);
		break;
	case WIRE_STARTED:
		s->started = true;
		s->pid = test_u64(f, WIRE_K_PID);
		s->has_kind = wire_find_u64(f, WIRE_K_KIND, &s->kind) == 0;
		break;
	case WIRE_ENTRY:
		test_got_entry(s, f);
		break;
	case WIRE_RESULT:
		s->done = true;
		s->code = test_u64(f, WIRE_K_CODE);
		s->signal = test_u64(f, WIRE_K_SIGNAL);
		s->timed_out = test_u64(f, WIRE_K_TIMED_OUT);
		s->error = test_u64(f, WIRE_K_ERRNO);
		if (wire_find_str(f, WIRE_K_MESSAGE, s->message,
				  sizeof(s->message)) < 0)
			s->message[0] = 0;
		break;
	default:
		check(!"a frame the agent should not send");
	}
}

static inline void test_take(size_t used)
{
	test_a.rx_len -= used;
	memmove(test_a.rx, test_a.rx + used, test_a.rx_len);
}

static inline void test_parse(void)
{
	struct wire_frame f = { 0 };
	size_t used = 0, skipped = 0;
	int r;

	if (!test_a.synced) {
		r = wire_sync(test_a.rx, test_a.rx_len, test_a.nonce, &used);
		test_take(used);
		if (r != 0)
			return;
		test_a.synced = true;
	}
	while (wire_next(test_a.rx, test_a.rx_len, &f, &used, &skipped) == 0) {
		check(skipped == 0);
		test_got(&f);
		test_take(used);
	}
}

/* Take what comes within @ms; false: nothing came. */
static inline bool test_poll(int ms)
{
	struct pollfd p = { .fd = test_a.fd, .events = POLLIN };
	ssize_t n;

	if (poll(&p, 1, ms) == 0)
		return false;
	n = recv(test_a.fd, test_a.rx + test_a.rx_len,
		 sizeof(test_a.rx) - test_a.rx_len, 0);
	check(n > 0);
	test_a.rx_len += (size_t)n;
	test_parse();
	return true;
}

static inline struct test_stream *test_wait(uint32_t stream)
{
	while (!test_a.s[stream].done)
		check(test_poll(TEST_PATIENCE_MS));
	return &test_a.s[stream];
}

static inline struct test_stream *test_wait_started(uint32_t stream)
{
	while (!test_a.s[stream].started && !test_a.s[stream].done)
		check(test_poll(TEST_PATIENCE_MS));
	return &test_a.s[stream];
}

static inline struct test_stream *test_run(uint32_t stream)
{
	test_send();
	return test_wait(stream);
}

/* ---- life ---- */

static inline void test_hello(void)
{
	test_a.nonce[0]++;
	test_a.synced = false;
	memset(test_a.s, 0, sizeof(test_a.s));
	test_begin(WIRE_HELLO, 0, 0);
	wire_put(&test_o, WIRE_K_NONCE, test_a.nonce, WIRE_NONCE);
	wire_put_u64(&test_o, WIRE_K_VERSION, WIRE_VERSION);
	test_send();
	while (!test_a.synced)
		check(test_poll(TEST_PATIENCE_MS));
}

static inline void test_start(void)
{
	int fds[2];

	memset(&test_a, 0, sizeof(test_a));
	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
	test_a.fd = fds[0];
	test_a.give_credit = true;
	test_a.pid = fork();
	check(test_a.pid >= 0);
	if (test_a.pid == 0) {
		/* Whatever the runner of this test left open stays out. */
		if (fds[1] == 3)
			fcntl(3, F_SETFD, 0);
		else
			dup2(fds[1], 3);
		close_range(4, ~0u, 0);
		execl(test_binary(), "byre-agent", "--fd", "3", "--no-identity",
		      NULL);
		_exit(127);
	}
	close(fds[1]);
	test_hello();
}

static inline void test_stop(void)
{
	int status = -1;

	close(test_a.fd);
	check(waitpid(test_a.pid, &status, 0) == test_a.pid);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static inline uint64_t test_now_ms(void)
{
	struct timespec ts = { 0 };

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* make(1) starts us with posix_spawn(), which leaves ignored the two signals
 * that the C library keeps to itself; its sigaction() does not touch them. */
static inline void test_reset_signals(void)
{
	static const unsigned long none[4]; /* the kernel's struct sigaction */

	for (int sig = 32; sig <= 33; sig++)
		check(syscall(SYS_rt_sigaction, sig, none, NULL, 8) == 0);
}

/* First of all in main(). The agent is found from wherever the runner
 * stands. */
static inline void test_prepare(void)
{
	test_reset_signals();
	if (access(test_binary(), X_OK) < 0)
		test_skip("no byre-agent: build it or set BYRE_AGENT");
}
