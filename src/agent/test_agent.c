/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The built byre-agent on a socket, spoken to as the host does
 *
 * Each test starts its own agent. What comes back is collected per stream, in
 * a bounded table; credit is given back only where the test says so.
 */
#include "agent/wire.h"
#include "base/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
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
static const char *test_binary(void)
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

static void test_send_raw(const void *p, size_t len)
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

static void test_begin(uint8_t type, uint8_t channel, uint32_t stream)
{
	wire_begin(&test_o, test_mem, sizeof(test_mem), type, channel, stream);
}

static void test_send(void)
{
	int n = wire_end(&test_o);

	check(n > 0);
	test_send_raw(test_mem, (size_t)n);
}

static void test_simple(uint8_t type, uint8_t channel, uint32_t stream)
{
	test_begin(type, channel, stream);
	test_send();
}

static void test_number(uint8_t type, uint8_t channel, uint32_t stream,
			uint16_t key, uint64_t v)
{
	test_begin(type, channel, stream);
	wire_put_u64(&test_o, key, v);
	test_send();
}

static void test_data(uint32_t stream, const void *p, size_t len)
{
	test_begin(WIRE_DATA, WIRE_STDIN, stream);
	wire_put_raw(&test_o, p, len);
	test_send();
}

/* EXEC of sh -c @script; more fields may be added before test_send(). */
static void test_shell(uint32_t stream, const char *script)
{
	memset(&test_a.s[stream], 0, sizeof(test_a.s[stream]));
	test_begin(WIRE_EXEC, 0, stream);
	wire_put_str(&test_o, WIRE_K_ARG, "sh");
	wire_put_str(&test_o, WIRE_K_ARG, "-c");
	wire_put_str(&test_o, WIRE_K_ARG, script);
}

/* ---- receiving ---- */

static uint64_t test_u64(const struct wire_frame *f, uint16_t key)
{
	uint64_t v = 0;

	check(wire_find_u64(f, key, &v) != -EBADMSG);
	return v;
}

static void test_got_entry(struct test_stream *s, const struct wire_frame *f)
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

static void test_got_data(struct test_stream *s, const struct wire_frame *f)
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

static void test_got(const struct wire_frame *f)
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

static void test_take(size_t used)
{
	test_a.rx_len -= used;
	memmove(test_a.rx, test_a.rx + used, test_a.rx_len);
}

static void test_parse(void)
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
static bool test_poll(int ms)
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

static struct test_stream *test_wait(uint32_t stream)
{
	while (!test_a.s[stream].done)
		check(test_poll(TEST_PATIENCE_MS));
	return &test_a.s[stream];
}

static struct test_stream *test_wait_started(uint32_t stream)
{
	while (!test_a.s[stream].started && !test_a.s[stream].done)
		check(test_poll(TEST_PATIENCE_MS));
	return &test_a.s[stream];
}

static struct test_stream *test_run(uint32_t stream)
{
	test_send();
	return test_wait(stream);
}

/* ---- life ---- */

static void test_hello(void)
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

static void test_start(void)
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

static void test_stop(void)
{
	int status = -1;

	close(test_a.fd);
	check(waitpid(test_a.pid, &status, 0) == test_a.pid);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static uint64_t test_now_ms(void)
{
	struct timespec ts = { 0 };

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* ---- commands ---- */

static void test_exec(void)
{
	struct test_stream *s;

	test_start();
	test_shell(1, "echo out; echo err >&2; exit 3");
	s = test_run(1);
	check(s->started && s->pid && s->code == 3 && !s->signal && !s->error);
	check_str(s->out[WIRE_STDOUT], "out\n");
	check_str(s->out[WIRE_STDERR], "err\n");

	test_shell(1, "kill -9 $$");
	s = test_run(1);
	check(s->signal == 9 && s->code == 0);

	/* stdin is /dev/null unless asked for */
	test_shell(1, "cat; pwd; umask; readlink /proc/self/fd/0");
	s = test_run(1);
	check_str(s->out[WIRE_STDOUT], "/\n0022\n/dev/null\n");

	/* No descriptor leaks: 0, 1, 2 and that of the listing itself. */
	test_shell(1, "ls /proc/self/fd | wc -l");
	s = test_run(1);
	check(atoi(s->out[WIRE_STDOUT]) == 4);

	/* signals: nothing is blocked or ignored */
	test_shell(1, "grep -E 'Sig(Blk|Ign)' /proc/self/status");
	s = test_run(1);
	check_str(s->out[WIRE_STDOUT], "SigBlk:\t0000000000000000\n"
				       "SigIgn:\t0000000000000000\n");
	test_stop();
}

static void test_exec_fails(void)
{
	struct test_stream *s;

	test_start();
	test_begin(WIRE_EXEC, 0, 1);
	wire_put_str(&test_o, WIRE_K_ARG, "no-such-program");
	s = test_run(1);
	check(!s->started && s->code == 127 && s->error == ENOENT);
	check(strstr(s->message, "no-such-program"));

	memset(s, 0, sizeof(*s));
	test_begin(WIRE_EXEC, 0, 1);
	wire_put_str(&test_o, WIRE_K_ARG, "/etc/passwd");
	s = test_run(1);
	check(s->code == 126 && s->error == EACCES);

	test_shell(1, "true");
	wire_put_str(&test_o, WIRE_K_CWD, "/no/such/dir");
	s = test_run(1);
	check(s->code == 126 && s->error == ENOENT);
	check(strstr(s->message, "/no/such/dir"));

	test_shell(1, "true");
	wire_put_str(&test_o, WIRE_K_USER, "nobody-of-this-name");
	s = test_run(1);
	check(s->code == 126 && s->error == ENOENT);
	check(strstr(s->message, "nobody-of-this-name"));

	memset(s, 0, sizeof(*s));
	test_simple(WIRE_EXEC, 0, 1);
	s = test_wait(1);
	check(s->error == EINVAL);
	test_stop();
}

static void test_env(void)
{
	struct test_stream *s;

	test_start();
	test_begin(WIRE_IDENTITY, 0, 1);
	wire_put_str(&test_o, WIRE_K_ENV, "A=identity");
	wire_put_str(&test_o, WIRE_K_ENV, "B=identity");
	s = test_run(1);
	check(s->code == 0 && !s->error);

	test_shell(2, "echo $A $B $C $HOME $USER; echo $PATH");
	wire_put_str(&test_o, WIRE_K_ENV, "B=lost");
	wire_put_str(&test_o, WIRE_K_ENV, "B=exec");
	wire_put_str(&test_o, WIRE_K_ENV, "C=exec");
	wire_put_str(&test_o, WIRE_K_CWD, "/usr");
	s = test_run(2);
	check_str(s->out[WIRE_STDOUT],
		  "identity exec exec /root root\n/usr/local/sbin:/usr/local/"
		  "bin:/usr/sbin:/usr/bin:/sbin:/bin\n");

	/* PATH of the command is the one searched, and CWD is where it runs. */
	test_begin(WIRE_EXEC, 0, 3);
	wire_put_str(&test_o, WIRE_K_ARG, "pwd");
	wire_put_str(&test_o, WIRE_K_CWD, "/usr");
	wire_put_str(&test_o, WIRE_K_ENV, "PATH=/nowhere:/bin");
	s = test_run(3);
	check_str(s->out[WIRE_STDOUT], "/usr\n");
	test_begin(WIRE_EXEC, 0, 4);
	wire_put_str(&test_o, WIRE_K_ARG, "pwd");
	wire_put_str(&test_o, WIRE_K_ENV, "PATH=/nowhere");
	s = test_run(4);
	check(s->code == 127);

	/* A malformed identity is refused. */
	test_begin(WIRE_IDENTITY, 0, 5);
	wire_put_str(&test_o, WIRE_K_MACHINE_ID, "xyz");
	s = test_run(5);
	check(s->error == EINVAL);
	test_stop();
}

static void test_user(void)
{
	struct test_stream *s;

	if (geteuid() != 0)
		return; /* becoming somebody else takes root */
	test_start();
	test_shell(1, "id -u; id -g; id -G; echo $USER $HOME");
	wire_put_str(&test_o, WIRE_K_USER, "12345:54321");
	s = test_run(1);
	check_str(s->out[WIRE_STDOUT], "12345\n54321\n54321\n12345 /\n");
	test_shell(2, "id -un; id -gn; echo $USER");
	wire_put_str(&test_o, WIRE_K_USER, "nobody");
	s = test_run(2);
	check_str(s->out[WIRE_STDOUT], "nobody\nnogroup\nnobody\n");
	test_shell(3, "id -un; id -gn");
	wire_put_str(&test_o, WIRE_K_USER, "nobody:daemon");
	s = test_run(3);
	check_str(s->out[WIRE_STDOUT], "nobody\ndaemon\n");
	test_stop();
}

static void test_timeout(void)
{
	struct test_stream *s;
	uint64_t t = test_now_ms();

	test_start();
	test_shell(1, "sleep 100");
	wire_put_u64(&test_o, WIRE_K_TIMEOUT, 100000000);
	test_send();
	/* Ignores SIGTERM, and so do its children. */
	test_shell(2, "trap '' TERM; echo x; sleep 100; sleep 100");
	wire_put_u64(&test_o, WIRE_K_TIMEOUT, 100000000);
	test_send();
	s = test_wait(1);
	check(s->timed_out == 1 && s->code == WIRE_EXIT_TIMEOUT);
	s = test_wait(2);
	check(s->timed_out == 1 && s->code == WIRE_EXIT_TIMEOUT);
	check_str(s->out[WIRE_STDOUT], "x\n");
	t = test_now_ms() - t;
	check(t >= 2100 && t < TEST_PATIENCE_MS);
	test_stop();
}

static void test_signals(void)
{
	struct test_stream *s;

	test_start();
	test_shell(1, "trap 'echo usr1; exit 7' USR1; echo ready; "
		      "while :; do sleep 0.05; done");
	test_send();
	while (!test_a.s[1].len[WIRE_STDOUT])
		check(test_poll(TEST_PATIENCE_MS));
	test_number(WIRE_SIGNAL, 0, 1, WIRE_K_SIGNAL, 0); /* ignored */
	test_number(WIRE_SIGNAL, 0, 1, WIRE_K_SIGNAL, 12345);
	test_number(WIRE_SIGNAL, 0, 1, WIRE_K_SIGNAL, SIGUSR1);
	s = test_wait(1);
	check(s->code == 7);
	check_str(s->out[WIRE_STDOUT], "ready\nusr1\n");

	/* CLOSE ends what ignores everything, and its children. */
	test_shell(2, "trap '' HUP TERM INT; sleep 1000 & wait; wait; sleep 9");
	test_send();
	test_wait_started(2);
	test_simple(WIRE_CLOSE, 0, 2);
	s = test_wait(2);
	check(s->signal == SIGKILL || s->signal == SIGHUP);
	test_stop();
}

static void test_pty(void)
{
	struct test_stream *s;

	test_start();
	test_shell(1, "stty size; test -t 0 && test -t 2 && tty >/dev/null && "
		      "echo tty $TERM; read x; stty size; read y; echo $y");
	wire_put_u64(&test_o, WIRE_K_ROWS, 33);
	wire_put_u64(&test_o, WIRE_K_COLS, 77);
	wire_put_u64(&test_o, WIRE_K_STDIN, 1);
	test_send();
	s = &test_a.s[1];
	while (!strstr(s->out[WIRE_STDOUT], "xterm\r\n"))
		check(test_poll(TEST_PATIENCE_MS));
	check(!strncmp(s->out[WIRE_STDOUT], "33 77\r\ntty ", 11));
	test_begin(WIRE_RESIZE, 0, 1);
	wire_put_u64(&test_o, WIRE_K_ROWS, 10);
	wire_put_u64(&test_o, WIRE_K_COLS, 20);
	test_send();
	test_data(1, "\n", 1);
	while (!strstr(s->out[WIRE_STDOUT], "10 20\r\n"))
		check(test_poll(TEST_PATIENCE_MS));
	test_data(1, "last\n", 5);
	s = test_wait(1);
	check(s->code == 0 && strstr(s->out[WIRE_STDOUT], "last\r\nlast\r\n"));
	check(s->len[WIRE_STDERR] == 0);

	/* The end of input is Control-D, and Control-C interrupts. */
	test_shell(2, "stty -echo; cat; echo end");
	wire_put_u64(&test_o, WIRE_K_ROWS, 24);
	wire_put_u64(&test_o, WIRE_K_COLS, 80);
	test_send();
	test_data(2, "abc\n", 4);
	test_simple(WIRE_EOF, WIRE_STDIN, 2);
	s = test_wait(2);
	check(s->code == 0 && strstr(s->out[WIRE_STDOUT], "abc\r\nend\r\n"));
	test_shell(3, "echo go; sleep 1000");
	wire_put_u64(&test_o, WIRE_K_ROWS, 24);
	wire_put_u64(&test_o, WIRE_K_COLS, 80);
	test_send();
	while (!test_a.s[3].len[WIRE_STDOUT])
		check(test_poll(TEST_PATIENCE_MS));
	/* More than once: dash forgets one that comes just before it forks. */
	s = &test_a.s[3];
	while (!s->done) {
		test_data(3, "\003", 1);
		test_poll(200);
	}
	check(s->signal == SIGINT || s->code == 130);
	test_stop();
}

static void test_stdin(void)
{
	static uint8_t block[32768];
	struct test_stream *s;
	unsigned i, sum = 0;

	test_start();
	test_shell(1, "cat");
	wire_put_u64(&test_o, WIRE_K_STDIN, 1);
	test_send();
	test_data(1, "hello", 5);
	test_data(1, " world", 6);
	test_simple(WIRE_EOF, WIRE_STDIN, 1);
	s = test_wait(1);
	check_str(s->out[WIRE_STDOUT], "hello world");
	check(s->code == 0);

	/* Much more than a window, paid for by credit, arrives whole. */
	memset(block, 'x', sizeof(block));
	test_shell(2, "wc -c");
	wire_put_u64(&test_o, WIRE_K_STDIN, 1);
	test_send();
	s = &test_a.s[2];
	for (i = 0; i < 64; i++) {
		while (sum + sizeof(block) > WIRE_WINDOW + s->credit)
			check(test_poll(TEST_PATIENCE_MS));
		test_data(2, block, sizeof(block));
		sum += sizeof(block);
	}
	test_simple(WIRE_EOF, WIRE_STDIN, 2);
	s = test_wait(2);
	check((unsigned)atoi(s->out[WIRE_STDOUT]) == sum);

	/* A child that never reads: no credit beyond what its pipe took. */
	test_shell(3, "sleep 1000");
	wire_put_u64(&test_o, WIRE_K_STDIN, 1);
	test_send();
	for (i = 0; i < WIRE_WINDOW / sizeof(block); i++)
		test_data(3, block, sizeof(block));
	test_shell(4, "echo alive");
	s = test_run(4);
	check_str(s->out[WIRE_STDOUT], "alive\n");
	while (test_poll(100))
		continue;
	check(test_a.s[3].credit <= 65536 && !test_a.s[3].done);
	/* More than there was credit for ends it. */
	test_data(3, block, sizeof(block));
	test_data(3, block, sizeof(block));
	test_data(3, block, sizeof(block));
	s = test_wait(3);
	check(s->signal == SIGKILL);

	/* A child that closes its input early: the rest is dropped. */
	test_shell(5, "exec <&-; sleep 0.3; echo fine");
	wire_put_u64(&test_o, WIRE_K_STDIN, 1);
	test_send();
	for (i = 0; i < WIRE_WINDOW / sizeof(block); i++)
		test_data(5, block, sizeof(block));
	s = test_wait(5);
	check_str(s->out[WIRE_STDOUT], "fine\n");
	test_stop();
}

/* A flood without credit costs one window; others do not notice. */
static void test_flood(void)
{
	struct test_stream *s;

	test_start();
	test_a.give_credit = false;
	test_shell(1, "yes");
	test_send();
	while (test_poll(200))
		continue;
	check(test_a.s[1].len[WIRE_STDOUT] == WIRE_WINDOW);
	test_shell(2, "echo still here");
	s = test_run(2);
	check_str(s->out[WIRE_STDOUT], "still here\n");
	/* Credit sets it going again, to the byte. */
	test_a.s[1].len[WIRE_STDOUT] = 0;
	test_number(WIRE_CREDIT, WIRE_STDOUT, 1, WIRE_K_BYTES, 1000);
	while (test_poll(200))
		continue;
	check(test_a.s[1].len[WIRE_STDOUT] == 1000);
	/* Nobody can give back more than a window. */
	test_a.s[1].len[WIRE_STDOUT] = 0;
	test_number(WIRE_CREDIT, WIRE_STDOUT, 1, WIRE_K_BYTES, UINT64_MAX);
	while (test_poll(200))
		continue;
	check(test_a.s[1].len[WIRE_STDOUT] == WIRE_WINDOW);
	test_simple(WIRE_CLOSE, 0, 1);
	s = test_wait(1);
	check(s->signal == SIGKILL || s->signal == SIGHUP);

	/* Output of a command that has ended waits for credit, all of it. */
	test_shell(3, "head -c 300000 /dev/zero");
	test_send();
	while (test_poll(400))
		continue;
	s = &test_a.s[3];
	check(!s->done && s->len[WIRE_STDOUT] == WIRE_WINDOW);
	s->len[WIRE_STDOUT] = 0;
	test_number(WIRE_CREDIT, WIRE_STDOUT, 3, WIRE_K_BYTES, WIRE_WINDOW);
	s = test_wait(3);
	check(s->code == 0 && s->len[WIRE_STDOUT] == 300000 - WIRE_WINDOW);
	test_stop();
}

static void test_many(void)
{
	unsigned i, refused = 0;
	struct test_stream *s;
	char script[64];

	test_start();
	for (i = 1; i <= WIRE_STREAMS_MAX; i++) {
		snprintf(script, sizeof(script), "read x; echo %u; exit %u", i,
			 i);
		test_shell(i, script);
		wire_put_u64(&test_o, WIRE_K_STDIN, 1);
		test_send();
		test_wait_started(i);
	}
	test_shell(i, "true");
	s = test_run(i);
	refused = s->error == EAGAIN;
	check(refused == 1);
	/* An open number is not opened again. */
	test_begin(WIRE_EXEC, 0, 1);
	wire_put_str(&test_o, WIRE_K_ARG, "false");
	test_send();
	for (i = 1; i <= WIRE_STREAMS_MAX; i++)
		test_data(i, "go\n", 3);
	for (i = 1; i <= WIRE_STREAMS_MAX; i++) {
		s = test_wait(i);
		check(s->code == i);
		check((unsigned)atoi(s->out[WIRE_STDOUT]) == i);
	}
	/* And room is there again. */
	for (i = 0; i < 200; i++) {
		test_shell(1 + i % 7, "exit 5");
		check(test_run(1 + i % 7)->code == 5);
	}
	test_stop();
}

/* Somebody in the background keeps the pipes: RESULT comes all the same. */
static void test_background(void)
{
	struct test_stream *s;
	uint64_t t;

	test_start();
	t = test_now_ms();
	test_shell(1, "sleep 5 & echo started");
	s = test_run(1);
	t = test_now_ms() - t;
	check(s->code == 0 && t >= 200 && t < 5000);
	check_str(s->out[WIRE_STDOUT], "started\n");
	/* Even one that never stops talking. */
	test_shell(2, "(while echo noise; do :; done) & sleep 0.1; exit 4");
	s = test_run(2);
	check(s->code == 4);
	/* It survived its stream, as a server should; and now it goes: nobody
	 * reads its pipe. */
	test_stop();
}

static void test_hello_kills(void)
{
	struct test_stream *s;
	uint64_t pid;

	test_start();
	test_shell(1, "trap '' HUP TERM; echo $$; sleep 1000; sleep 1000");
	test_send();
	s = test_wait_started(1);
	pid = s->pid;
	check(kill((pid_t)pid, 0) == 0);
	test_hello();
	/* Gone or a zombie about to be reaped. */
	while (kill((pid_t)pid, 0) == 0)
		usleep(1000);
	test_shell(1, "echo again");
	s = test_run(1);
	check_str(s->out[WIRE_STDOUT], "again\n");
	test_stop();
}

static void test_malformed(void)
{
	static const uint8_t zeros[WIRE_FRAME_MAX];
	struct test_stream *s;
	uint8_t junk[600];
	unsigned i;
	size_t n;

	test_start();
	/* Garbage between frames. */
	for (i = 0; i < sizeof(junk); i++)
		junk[i] = (uint8_t)(i * 37);
	test_send_raw(junk, sizeof(junk));
	test_shell(1, "echo ok");
	s = test_run(1);
	check_str(s->out[WIRE_STDOUT], "ok\n");

	/* Fields that end in the middle, for everything that takes fields. */
	for (i = WIRE_IDENTITY; i <= WIRE_GET; i++) {
		if (i == WIRE_CLOSE || i == WIRE_SIGNAL || i == WIRE_RESIZE)
			continue;
		memset(&test_a.s[2], 0, sizeof(test_a.s[2]));
		test_begin((uint8_t)i, 0, 2);
		wire_put_raw(&test_o, "\x08\0\xff\xff\0\0abc", 9);
		s = test_run(2);
		check(s->error == EBADMSG);
	}
	/* A string with a NUL, a number of three bytes. */
	memset(s, 0, sizeof(*s));
	test_begin(WIRE_EXEC, 0, 2);
	wire_put(&test_o, WIRE_K_ARG, "a\0b", 3);
	check(test_run(2)->error == EBADMSG);
	test_shell(2, "true");
	wire_put(&test_o, WIRE_K_TIMEOUT, "abc", 3);
	check(test_run(2)->error == EBADMSG);

	/* Frames for streams that are not there, types only agents send. */
	for (i = 1; i < WIRE_TYPE_COUNT; i++)
		if (i != WIRE_HELLO && (i < WIRE_IDENTITY || i > WIRE_EXEC) &&
		    (i < WIRE_PUT || i > WIRE_POWEROFF))
			test_simple((uint8_t)i, 0, 77);
	/* Openers on the connection's own number. */
	test_simple(WIRE_EXEC, 0, 0);
	test_simple(WIRE_POWEROFF, 0, 0);

	/* The host dies in mid-frame; the next one resynchronises, wherever
	 * the cut was. */
	for (n = 1; n < 60; n += 3) {
		test_shell(3, "echo this must not run > /dev/null; exit 1");
		check(wire_end(&test_o) > 60);
		test_send_raw(test_mem, n);
		test_send_raw(zeros, sizeof(zeros));
		test_hello();
		test_shell(3, "echo back");
		s = test_run(3);
		check_str(s->out[WIRE_STDOUT], "back\n");
	}
	/* In the middle of a flood, with the agent's own frame cut short. */
	test_a.give_credit = false;
	test_shell(4, "yes");
	test_send();
	usleep(200000);
	test_a.rx_len = 0;
	check(recv(test_a.fd, junk, sizeof(junk), 0) == sizeof(junk));
	test_hello();
	test_shell(4, "echo fresh");
	s = test_run(4);
	check_str(s->out[WIRE_STDOUT], "fresh\n");
	test_stop();
}

/* ---- files ---- */

static char test_tmp[256];

static const char *test_path(const char *name)
{
	static char path[4][512];
	static unsigned i;

	snprintf(path[++i % 4], sizeof(path[0]), "%s%s", test_tmp, name);
	return path[i % 4];
}

static void test_entry(uint32_t stream, const char *path, uint64_t kind,
		       uint64_t mode, uint64_t size, const char *link)
{
	test_begin(WIRE_ENTRY, 0, stream);
	wire_put_str(&test_o, WIRE_K_PATH, path);
	wire_put_u64(&test_o, WIRE_K_KIND, kind);
	wire_put_u64(&test_o, WIRE_K_MODE, mode);
	wire_put_u64(&test_o, WIRE_K_UID, geteuid());
	wire_put_u64(&test_o, WIRE_K_GID, getegid());
	wire_put_u64(&test_o, WIRE_K_MTIME, 1000000000500000000ull);
	wire_put_u64(&test_o, WIRE_K_SIZE, size);
	if (link)
		wire_put_str(&test_o, WIRE_K_LINK, link);
	test_send();
}

static struct test_stream *test_put(uint32_t stream, const char *path)
{
	memset(&test_a.s[stream], 0, sizeof(test_a.s[stream]));
	test_begin(WIRE_PUT, 0, stream);
	wire_put_str(&test_o, WIRE_K_PATH, path);
	test_send();
	return test_wait_started(stream);
}

static struct test_stream *test_put_end(uint32_t stream)
{
	test_simple(WIRE_EOF, WIRE_STDIN, stream);
	return test_wait(stream);
}

static struct test_stream *test_get(uint32_t stream, const char *path)
{
	memset(&test_a.s[stream], 0, sizeof(test_a.s[stream]));
	test_begin(WIRE_GET, 0, stream);
	wire_put_str(&test_o, WIRE_K_PATH, path);
	return test_run(stream);
}

static unsigned test_find_entry(const struct test_stream *s, const char *path)
{
	unsigned i;

	for (i = 0; i < s->entries; i++)
		if (!strcmp(s->entry[i], path))
			return i;
	check(!"the entry is missing");
	return 0;
}

static int test_remove(const char *path, const struct stat *st, int type,
		       struct FTW *where)
{
	(void)st;
	(void)type;
	(void)where;
	return remove(path);
}

static void test_files(void)
{
	struct test_stream *s;
	struct stat st;
	char text[64] = { 0 };
	unsigned i;
	int fd;

	test_start();
	s = test_put(1, test_path("/tree"));
	check(s->started && !s->has_kind);
	test_entry(1, "", WIRE_KIND_DIR, 0750, 0, NULL);
	test_entry(1, "a", WIRE_KIND_FILE, 04711, 5, NULL);
	test_data(1, "he", 2);
	test_data(1, "llo", 3);
	test_entry(1, "d", WIRE_KIND_DIR, 0500, 0, NULL);
	test_entry(1, "d/empty", WIRE_KIND_FILE, 0600, 0, NULL);
	test_entry(1, "d/e", WIRE_KIND_DIR, 0755, 0, NULL);
	test_entry(1, "d/e/deep", WIRE_KIND_FILE, 0444, 3, NULL);
	test_data(1, "abc", 3);
	test_entry(1, "dd", WIRE_KIND_LINK, 0, 0, "d/e/../empty");
	s = test_put_end(1);
	check(!s->error && s->code == 0);

	check(stat(test_path("/tree"), &st) == 0);
	check((st.st_mode & 07777) == 0750);
	check(st.st_mtim.tv_sec == 1000000000);
	check(st.st_mtim.tv_nsec == 500000000);
	check(stat(test_path("/tree/a"), &st) == 0 && st.st_size == 5);
	check((st.st_mode & 07777) == 04711);
	check(st.st_mtim.tv_sec == 1000000000);
	check(stat(test_path("/tree/d"), &st) == 0);
	check((st.st_mode & 07777) == 0500);
	check(st.st_mtim.tv_sec == 1000000000);
	check(lstat(test_path("/tree/dd"), &st) == 0 && S_ISLNK(st.st_mode));
	check(st.st_mtim.tv_sec == 1000000000);
	fd = open(test_path("/tree/d/e/deep"), O_RDONLY);
	check(read(fd, text, sizeof(text)) == 3 && !strcmp(text, "abc"));
	close(fd);

	check(mkfifo(test_path("/tree/pipe"), 0600) == 0); /* skipped */
	s = test_get(2, test_path("/tree"));
	check(s->code == 0 && !s->error && s->entries == 7);
	check_str(s->entry[0], "");
	check(s->entry_kind[0] == WIRE_KIND_DIR && s->entry_mode[0] == 0750);
	i = test_find_entry(s, "a");
	check(s->entry_size[i] == 5 && s->entry_mode[i] == 04711);
	check(s->entry_mtime[i] == 1000000000500000000ull);
	i = test_find_entry(s, "dd");
	check(s->entry_kind[i] == WIRE_KIND_LINK);
	check_str(s->entry_link[i], "d/e/../empty");
	check(test_find_entry(s, "d/e/deep") > test_find_entry(s, "d/e"));
	check(test_find_entry(s, "d/e") > test_find_entry(s, "d"));
	test_find_entry(s, "d/empty");
	check(s->len[WIRE_STDIN] == 8);

	/* One file, one link, through a link, nothing. */
	s = test_get(2, test_path("/tree/a"));
	check(s->entries == 1 && s->entry_kind[0] == WIRE_KIND_FILE);
	check_str(s->entry[0], "");
	check_str(s->out[WIRE_STDIN], "hello");
	s = test_get(2, test_path("/tree/dd"));
	check(s->entries == 1 && s->entry_kind[0] == WIRE_KIND_LINK);
	check(symlink("tree", test_path("/alias")) == 0);
	s = test_get(2, test_path("/alias/"));
	check(s->entries == 7);
	s = test_get(2, test_path("/missing"));
	check(s->error == ENOENT && strstr(s->message, "/missing"));
	s = test_get(2, test_path("/tree/pipe"));
	check(s->error == EINVAL);
	s = test_get(2, "relative");
	check(s->error == EINVAL);

	/* What exists is told, and merged or kept. */
	s = test_put(3, test_path("/alias"));
	check(s->has_kind && s->kind == WIRE_KIND_DIR);
	test_entry(3, "", WIRE_KIND_DIR, 0700, 0, NULL);
	test_entry(3, "a", WIRE_KIND_FILE, 0600, 2, NULL);
	test_data(3, "hi", 2);
	s = test_put_end(3);
	check(s->code == 0 && !s->error);
	check(stat(test_path("/tree"), &st) == 0);
	check((st.st_mode & 07777) == 0750);
	check(stat(test_path("/tree/a"), &st) == 0 && st.st_size == 2);
	s = test_put(3, test_path("/tree/a"));
	check(s->has_kind && s->kind == WIRE_KIND_FILE);
	test_simple(WIRE_CLOSE, 0, 3);
	check(test_wait(3)->error == ECANCELED);
	test_stop();
}

static struct test_stream *test_put_one(const char *path, const char *entry,
					uint64_t kind, uint64_t size)
{
	test_put(5, path);
	test_entry(5, entry, kind, 0644, size, "target");
	return &test_a.s[5];
}

static void test_files_refused(void)
{
	static uint8_t big[WIRE_PAYLOAD_MAX];
	struct test_stream *s;
	struct dirent *d;
	struct stat st;
	unsigned i;
	DIR *dir;

	test_start();
	test_put_one(test_path("/tree"), "", WIRE_KIND_FILE, 0);
	check(test_wait(5)->error == EISDIR);
	test_put_one(test_path("/tree"), "d", WIRE_KIND_FILE, 1);
	s = test_wait(5);
	check(s->error == EISDIR && strstr(s->message, "d"));
	test_put_one(test_path("/tree"), "a", WIRE_KIND_DIR, 0);
	check(test_wait(5)->error == ENOTDIR);
	test_put_one(test_path("/tree"), "a/b", WIRE_KIND_FILE, 0);
	check(test_wait(5)->error == ENOTDIR);
	test_put_one(test_path("/tree"), "none/b", WIRE_KIND_FILE, 0);
	check(test_wait(5)->error == ENOENT);
	test_put_one(test_path("/tree"), "d/../../b", WIRE_KIND_FILE, 0);
	check(test_wait(5)->error == EINVAL);
	test_put_one(test_path("/tree"), "..", WIRE_KIND_LINK, 0);
	check(test_wait(5)->error == EINVAL);
	test_put_one(test_path("/tree"), "/abs", WIRE_KIND_FILE, 0);
	check(test_wait(5)->error == EINVAL);
	test_put_one(test_path("/tree"), "x", 99, 0);
	check(test_wait(5)->error == EPROTO);
	/* Never through a link below PATH. */
	check(symlink("/tmp", test_path("/tree/out")) == 0);
	test_put_one(test_path("/tree"), "out/b", WIRE_KIND_FILE, 0);
	check(test_wait(5)->error == ENOTDIR);
	test_put(5, "/no/such/place");
	check(test_wait(5)->error == ENOENT);

	/* Too much, too little, out of turn: nothing half is left. */
	test_put_one(test_path("/half"), "", WIRE_KIND_FILE, 3);
	test_data(5, "abcd", 4);
	check(test_wait(5)->error == EPROTO);
	test_put_one(test_path("/half"), "", WIRE_KIND_FILE, 3);
	test_data(5, "ab", 2);
	check(test_put_end(5)->error == EPROTO);
	test_put_one(test_path("/half"), "", WIRE_KIND_FILE, 3);
	test_hello();
	check(stat(test_path("/half"), &st) < 0);
	dir = opendir(test_path(""));
	check(dir);
	while ((d = readdir(dir)))
		check(strncmp(d->d_name, ".byre", 5));
	closedir(dir);

	/* A full disk; data sent after the RESULT is ignored. */
	if (access("/dev/full", W_OK) == 0 && geteuid() == 0) {
		test_put(6, "/proc/self/x");
		test_entry(6, "", WIRE_KIND_FILE, 0600, 100, NULL);
		s = test_wait(6);
		check(s->error && strstr(s->message, "x"));
		test_data(6, "late", 4);
	}

	/* Many windows one way and the other. */
	for (i = 0; i < sizeof(big); i++)
		big[i] = (uint8_t)(i ^ i >> 8);
	test_put(7, test_path("/big"));
	test_entry(7, "", WIRE_KIND_FILE, 0600, 40 * sizeof(big), NULL);
	for (i = 0; i < 40; i++) {
		while ((i + 1) * sizeof(big) > WIRE_WINDOW + test_a.s[7].credit)
			check(test_poll(TEST_PATIENCE_MS));
		test_data(7, big, sizeof(big));
	}
	s = test_put_end(7);
	check(s->code == 0 && !s->error);
	s = test_get(8, test_path("/big"));
	check(s->len[WIRE_STDIN] == 40 * sizeof(big));
	check(!memcmp(s->out[WIRE_STDIN], big, 4096));

	/* A file that shrinks while it is read is filled up. */
	test_a.give_credit = false;
	memset(&test_a.s[9], 0, sizeof(test_a.s[9]));
	test_begin(WIRE_GET, 0, 9);
	wire_put_str(&test_o, WIRE_K_PATH, test_path("/big"));
	test_send();
	while (test_a.s[9].len[WIRE_STDIN] < WIRE_WINDOW)
		check(test_poll(TEST_PATIENCE_MS));
	check(truncate(test_path("/big"), 1000) == 0);
	test_a.give_credit = true;
	test_number(WIRE_CREDIT, WIRE_STDIN, 9, WIRE_K_BYTES, WIRE_WINDOW);
	s = test_wait(9);
	check(s->code == 0 && s->len[WIRE_STDIN] == 40 * sizeof(big));
	test_stop();
}

/* A walk as deep as it goes, and one too deep. */
static void test_files_deep(void)
{
	struct test_stream *s;
	char path[1024];
	size_t len;
	unsigned i;

	test_start();
	len = (size_t)snprintf(path, sizeof(path), "%s/deep", test_tmp);
	check(mkdir(path, 0755) == 0);
	for (i = 0; i < 64; i++) {
		len += (size_t)snprintf(path + len, sizeof(path) - len, "/d");
		check(mkdir(path, 0755) == 0);
	}
	s = test_get(1, test_path("/deep/d"));
	check(s->code == 0 && !s->error && s->entries == 64);
	s = test_get(1, test_path("/deep"));
	check(s->error == ENAMETOOLONG && s->message[0]);
	test_stop();
}

/* ---- the machine ---- */

static void test_machine(void)
{
	struct test_stream *s;
	int status = -1;

	test_start();
	test_simple(WIRE_FACTS, 0, 1);
	s = test_wait(1);
	check(s->code == 0 && !s->error);
	test_number(WIRE_SETTLE, 0, 2, WIRE_K_DROP, 1);
	check(test_wait(2)->code == 0);
	test_simple(WIRE_POWEROFF, 0, 3);
	check(test_wait(3)->code == 0);
	check(waitpid(test_a.pid, &status, 0) == test_a.pid);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	close(test_a.fd);
}

/* make(1) starts us with posix_spawn(), which leaves ignored the two signals
 * that the C library keeps to itself; its sigaction() does not touch them. */
static void test_reset_signals(void)
{
	static const unsigned long none[4]; /* the kernel's struct sigaction */

	for (int sig = 32; sig <= 33; sig++)
		check(syscall(SYS_rt_sigaction, sig, none, NULL, 8) == 0);
}

int main(void)
{
	test_reset_signals();
	/* Found from wherever the runner stands. */
	if (access(test_binary(), X_OK) < 0)
		test_skip("no byre-agent: build it or set BYRE_AGENT");
	test_exec();
	test_exec_fails();
	test_env();
	test_user();
	test_timeout();
	test_signals();
	test_pty();
	test_stdin();
	test_flood();
	test_many();
	test_background();
	test_hello_kills();
	test_malformed();
	test_dir(test_tmp, sizeof(test_tmp));
	test_files();
	test_files_refused();
	test_files_deep();
	/* Not root: what cannot be written cannot be emptied. */
	check(chmod(test_path("/tree/d"), 0700) == 0);
	check(nftw(test_tmp, test_remove, 16, FTW_DEPTH | FTW_PHYS) == 0);
	test_machine();
	return 0;
}
