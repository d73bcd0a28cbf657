/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands: their surroundings, users, signals, terminals and ends
 */
#include "agent/test_agent.h"

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

	/* An identity without variables leaves them as they are. */
	test_begin(WIRE_IDENTITY, 0, 6);
	wire_put_u64(&test_o, WIRE_K_CLOCK, 1);
	s = test_run(6);
	check(s->code == 0 && !s->error);
	test_shell(7, "echo $A $B");
	s = test_run(7);
	check_str(s->out[WIRE_STDOUT], "identity identity\n");
	/* One with some replaces them all. */
	test_begin(WIRE_IDENTITY, 0, 8);
	wire_put_str(&test_o, WIRE_K_ENV, "B=new");
	s = test_run(8);
	check(s->code == 0 && !s->error);
	test_shell(9, "echo $A $B");
	s = test_run(9);
	check_str(s->out[WIRE_STDOUT], "new\n");

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

int main(void)
{
	test_prepare();
	test_exec();
	test_exec_fails();
	test_env();
	test_user();
	test_timeout();
	test_signals();
	test_pty();
	test_background();
	return 0;
}
