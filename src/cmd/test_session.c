/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A command whose guest says nothing: deadline, grace, and a slow reader
 *
 * The daemon is a child. What it sends before and after it was asked for a
 * sign of life is in struct peer; its word is all that counts.
 */
#include "base/clock.h"
#include "base/io.h"
#include "base/test.h"
#include "cmd/session.h"
#include "cmd/stream.h"
#include "cmd/test_peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>

#define MS NS_PER_MS
/* Longer than any step takes here, shorter than our patience. */
#define LONG_NS (20 * NS_PER_SEC)

static const char head[] = "HTTP/1.1 101 Switching Protocols\r\n"
			   "Connection: Upgrade\r\n"
			   "Upgrade: " STREAM_PROTOCOL "\r\n\r\n";
static char run[64];

/* What the daemon does. */
struct peer {
	int signal; /* to us, when the command has been asked for */
	uint32_t output_bytes; /* on stdout, then */
	bool answers; /* probes */
	int refuses; /* probes, with this errno */
	unsigned result_ms; /* when the command ends, with code 7; 0: never */
};

static void peer_send(int fd, uint8_t type, uint32_t stream, uint16_t key,
		      uint64_t value)
{
	uint8_t mem[64];
	struct wire_out o;
	int len;

	wire_begin(&o, mem, sizeof(mem), type, 0, stream);
	wire_put_u64(&o, key, value);
	len = wire_end(&o);
	check(len > 0 && io_write_full(fd, mem, (size_t)len) == 0);
}

static void peer_output(int fd, uint32_t stream, uint32_t len)
{
	static uint8_t data[WIRE_PAYLOAD_MAX];
	uint8_t header[WIRE_HEADER];

	for (uint32_t n; len; len -= n) {
		n = min(len, WIRE_PAYLOAD_MAX);
		wire_header(header, WIRE_DATA, WIRE_STDOUT, stream, n);
		check(io_write_full(fd, header, sizeof(header)) == 0);
		check(io_write_full(fd, data, n) == 0);
	}
}

static void peer_frame(const struct peer *p, int fd, const struct wire_frame *f)
{
	if (f->type == WIRE_EXEC) {
		peer_output(fd, f->stream, p->output_bytes);
		if (p->signal)
			check(kill(getppid(), p->signal) == 0);
	} else if (f->type == WIRE_FACTS && p->refuses) {
		peer_send(fd, WIRE_RESULT, f->stream, WIRE_K_ERRNO,
			  (uint64_t)p->refuses);
	} else if (f->type == WIRE_FACTS && p->answers) {
		peer_send(fd, WIRE_RESULT, f->stream, WIRE_K_CODE, 0);
	}
}

/* Until the client hangs up, or the result was sent. */
static void peer_play(const struct peer *p, int fd)
{
	uint64_t end = clock_mono_ns() + p->result_ms * MS;
	struct pollfd ready = { .fd = fd, .events = POLLIN };
	uint8_t in[2 * WIRE_FRAME_MAX];
	size_t len = 0, used = 0, skipped = 0;
	struct wire_frame f;
	ssize_t n;

	for (;;) {
		n = poll(&ready, 1, p->result_ms ? 10 : -1);
		if (p->result_ms && clock_mono_ns() >= end)
			return peer_send(fd, WIRE_RESULT, 1, WIRE_K_CODE, 7);
		if (n == 0)
			continue;
		n = read(fd, in + len, sizeof(in) - len);
		if (n <= 0)
			return;
		len += (size_t)n;
		while (wire_next(in, len, &f, &used, &skipped) == 0) {
			peer_frame(p, fd, &f);
			len -= used;
			memmove(in, in + used, len);
		}
	}
}

static pid_t peer_serve(const struct peer *p)
{
	char text[4096];
	int fd = -1;
	pid_t pid = peer_fork(run, &fd);

	if (pid)
		return pid;
	check(io_write_full(fd, head, sizeof(head) - 1) == 0);
	peer_play(p, fd);
	while (read(fd, text, sizeof(text)) > 0)
		;
	_exit(0);
}

/* One command; how long it took is in *ret_ms. */
static struct stream_result play(const struct peer *p, uint64_t deadline_ns,
				 uint64_t grace_ns, uint64_t *ret_ms)
{
	const struct session_options o = { .deadline_ns = deadline_ns,
					   .grace_ns = grace_ns };
	struct stream_result x = { 0 };
	struct stream s = STREAM_NULL;
	struct err e = ERR_NULL;
	pid_t pid = peer_serve(p);
	uint64_t start;

	check(stream_connect(&s, "web", &e) == 0);
	start = clock_mono_ns();
	wire_put_str(stream_begin_open(&s, WIRE_EXEC), WIRE_K_ARG, "x");
	check(stream_send(&s, &e) == 0);
	check(session_run(&s, &o, &x, &e) == 0);
	*ret_ms = (clock_mono_ns() - start) / MS;
	stream_deinit(&s);
	check(waitpid(pid, NULL, 0) == pid);
	return x;
}

static void test_deadline(void)
{
	const struct peer silent = { 0 }, late = { .result_ms = 200 };
	struct stream_result x;
	uint64_t ms;

	x = play(&silent, 100 * MS, LONG_NS, &ms);
	check(x.timed_out && x.error == ETIMEDOUT && x.message[0]);
	check(!x.has_code && !x.signal && ms >= 100);
	/* In time: the agent's word. None set: as long as it takes. */
	x = play(&late, LONG_NS, LONG_NS, &ms);
	check(x.has_code && x.code == 7 && !x.timed_out && !x.error);
	x = play(&late, 0, LONG_NS, &ms);
	check(x.has_code && x.code == 7);
}

static void test_grace(void)
{
	struct peer p = { .signal = SIGTERM };
	struct stream_result x;
	uint64_t ms;

	x = play(&p, 0, 100 * MS, &ms);
	check(x.signal == SIGTERM && x.error == ETIMEDOUT && ms >= 100);
	check(!x.timed_out);
	p.signal = SIGHUP;
	p.refuses = EBUSY; /* paused: the daemon's answer, not the guest's */
	x = play(&p, 0, 100 * MS, &ms);
	check(x.signal == SIGHUP && x.error == ETIMEDOUT && ms >= 100);
	/* The guest is there; the command takes its time. */
	p = (struct peer){ .signal = SIGTERM,
			   .answers = true,
			   .result_ms = 400 };
	x = play(&p, 0, 100 * MS, &ms);
	check(x.has_code && x.code == 7 && !x.error && ms >= 400);
	p = (struct peer){ .signal = SIGTERM,
			   .refuses = EMFILE,
			   .result_ms = 400 };
	x = play(&p, 0, 100 * MS, &ms);
	check(x.has_code && x.code == 7);
}

/* The reader of our stdout comes late: it gets every byte, and the result is
 * the guest's. */
static void test_slow_reader(void)
{
	const struct peer p = { .output_bytes = WIRE_WINDOW, .result_ms = 200 };
	int saved = dup(STDOUT_FILENO), fds[2];
	char text[4096];
	struct stream_result x;
	size_t total = 0;
	uint64_t ms;
	ssize_t n;
	int status = 0;
	pid_t pid;

	check(saved >= 0 && pipe2(fds, O_CLOEXEC) == 0);
	pid = fork();
	check(pid >= 0);
	if (!pid) {
		close(fds[1]);
		usleep(500000);
		while ((n = read(fds[0], text, sizeof(text))) > 0)
			total += (size_t)n;
		_exit(total == WIRE_WINDOW ? 0 : 1);
	}
	close(fds[0]);
	check(dup2(fds[1], STDOUT_FILENO) >= 0);
	close(fds[1]);
	x = play(&p, 100 * MS, LONG_NS, &ms);
	check(dup2(saved, STDOUT_FILENO) >= 0);
	close(saved);
	check(x.has_code && x.code == 7 && !x.error && ms >= 200);
	check(waitpid(pid, &status, 0) == pid && status == 0);
}

int main(void)
{
	test_dir(run, sizeof(run));
	setenv("BYRE_RUN", run, 1);
	test_deadline();
	test_grace();
	test_slow_reader();
	check(io_remove_tree(run, NULL) == 0);
	return 0;
}
