/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent stream against a peer that keeps to nothing
 */
#include "base/io.h"
#include "base/test.h"
#include "cmd/stream.h"
#include "cmd/test_peer.h"

#include <errno.h>
#include <sys/socket.h>

static const char head[] = "HTTP/1.1 101 Switching Protocols\r\n"
			   "Connection: Upgrade\r\n"
			   "Upgrade: " STREAM_PROTOCOL "\r\n\r\n";
static char run[64];
static const char *const command[] = { "true", NULL };

/* What the peer is going to send. */
static uint8_t script[4u << 20];
static size_t script_len;

static void add_frame(uint8_t type, uint8_t ch, uint32_t stream, uint16_t key,
		      uint64_t value)
{
	struct wire_out o;
	int len;

	wire_begin(&o, script + script_len, WIRE_FRAME_MAX, type, ch, stream);
	if (key)
		wire_put_u64(&o, key, value);
	len = wire_end(&o);
	check(len > 0);
	script_len += (size_t)len;
}

static void add_data(uint8_t ch, uint32_t stream, uint32_t len)
{
	wire_header(script + script_len, WIRE_DATA, ch, stream, len);
	memset(script + script_len + WIRE_HEADER, 'x', len);
	script_len += WIRE_HEADER + len;
}

/* A child that upgrades one connection and sends the script at once, then
 * reads until the client hangs up (or hangs up itself). */
static pid_t serve(bool hang_up)
{
	char text[65536];
	int peer = -1;
	pid_t pid = peer_fork(run, &peer);

	if (pid)
		return pid;
	signal(SIGPIPE, SIG_IGN);
	if (io_write_full(peer, head, sizeof(head) - 1) == 0)
		err_drop(io_write_full(peer, script, script_len));
	while (!hang_up && read(peer, text, sizeof(text)) > 0)
		;
	_exit(0);
}

/* One command against the script. */
static int play(bool hang_up, struct stream_result *result, struct err *e)
{
	struct stream s = STREAM_NULL;
	pid_t pid = serve(hang_up);
	int r;

	*e = (struct err)ERR_NULL;
	*result = (struct stream_result){ 0 };
	r = stream_connect(&s, "web", e);
	if (r == 0)
		r = stream_command(&s, command, result, e);
	stream_deinit(&s);
	check(waitpid(pid, NULL, 0) == pid);
	script_len = 0;
	return r;
}

static void test_results(void)
{
	struct stream_result x;
	struct err e;

	for (int hang_up = 0; hang_up < 2; hang_up++) {
		add_frame(WIRE_STARTED, 0, 1, WIRE_K_PID, 12);
		add_data(WIRE_STDOUT, 1, 1000);
		add_data(WIRE_STDERR, 1, WIRE_PAYLOAD_MAX);
		add_frame(WIRE_RESULT, 0, 1, WIRE_K_CODE, 3);
		check(play(hang_up, &x, &e) == 0);
		check(x.has_code && x.code == 3 && !x.signal && !x.error);
	}
	add_frame(WIRE_RESULT, 0, 1, WIRE_K_SIGNAL, 9);
	check(play(false, &x, &e) == 0 && x.signal == 9 && !x.has_code);
	add_frame(WIRE_RESULT, 0, 1, WIRE_K_ERRNO, ENOSPC);
	check(play(false, &x, &e) == 0 && x.error == ENOSPC);
	add_frame(WIRE_RESULT, 0, 1, 0, 0);
	check(play(false, &x, &e) == -EPROTO);
}

/* A full window of each channel passes; a byte more does not. */
static void test_window(void)
{
	struct stream s = STREAM_NULL;
	struct wire_frame f = { 0 };
	struct err e = ERR_NULL;
	pid_t pid;
	int r, n = 0;

	for (unsigned i = 0; i < WIRE_WINDOW / WIRE_PAYLOAD_MAX; i++) {
		add_data(WIRE_STDOUT, 1, WIRE_PAYLOAD_MAX);
		add_data(WIRE_STDERR, 1, WIRE_PAYLOAD_MAX);
	}
	add_data(WIRE_STDOUT, 1, 1);
	pid = serve(true);
	check(stream_connect(&s, "web", &e) == 0);
	wire_put_str(stream_begin_open(&s, WIRE_EXEC), WIRE_K_ARG, "x");
	check(stream_send(&s, &e) == 0);
	/* Without ever giving credit. */
	while ((r = stream_wait(&s, &f, &e)) == 0)
		n++;
	check(r == -EPROTO && n == 2 * WIRE_WINDOW / WIRE_PAYLOAD_MAX);
	stream_deinit(&s);
	check(waitpid(pid, NULL, 0) == pid);
	script_len = 0;
}

/* Who is given credit can send for ever. */
static void test_flood(void)
{
	struct stream_result x;
	struct err e;

	for (int i = 0; i < 50; i++)
		add_data(WIRE_STDOUT, 1, WIRE_PAYLOAD_MAX);
	add_frame(WIRE_RESULT, 0, 1, WIRE_K_CODE, 0);
	check(play(false, &x, &e) == 0 && x.has_code && x.code == 0);
}

static void test_manners(void)
{
	struct stream_result x;
	struct err e;

	add_data(WIRE_STDOUT, 2, 10); /* a stream that is not open */
	check(play(false, &x, &e) == -EPROTO);
	/* A probe that nobody sent. */
	add_frame(WIRE_RESULT, 0, UINT32_MAX, WIRE_K_CODE, 0);
	check(play(false, &x, &e) == -EPROTO);
	add_frame(WIRE_CREDIT, WIRE_STDIN, 1, WIRE_K_BYTES, 1);
	check(play(false, &x, &e) == -EPROTO); /* nothing was sent */
	add_frame(WIRE_CREDIT, WIRE_STDIN, 1, 0, 0);
	check(play(false, &x, &e) == -EPROTO);
	memcpy(script, "garbage that is no frame", 24);
	script_len = 24;
	check(play(false, &x, &e) == -EPROTO);
	/* Cut in a frame, between frames, at once. */
	add_data(WIRE_STDOUT, 1, 1000);
	script_len -= 500;
	check(play(true, &x, &e) == -ECONNRESET);
	add_data(WIRE_STDOUT, 1, 1000);
	check(play(true, &x, &e) == -ECONNRESET);
	check(play(true, &x, &e) == -ECONNRESET);
	check(strstr(e.msg, "web"));
}

static void test_too_long(void)
{
	struct stream s = STREAM_NULL;
	static char word[WIRE_PAYLOAD_MAX];
	const char *const argv[] = { "true", word, NULL };
	struct stream_result x;
	struct err e = ERR_NULL;
	pid_t pid = serve(false);

	memset(word, 'x', sizeof(word) - 1);
	check(stream_connect(&s, "web", &e) == 0);
	check(stream_command(&s, argv, &x, &e) == -EMSGSIZE);
	stream_deinit(&s);
	check(waitpid(pid, NULL, 0) == pid);
}

int main(void)
{
	test_dir(run, sizeof(run));
	setenv("BYRE_RUN", run, 1);
	test_results();
	test_window();
	test_flood();
	test_manners();
	test_too_long();
	check(io_remove_tree(run, NULL) == 0);
	return 0;
}
