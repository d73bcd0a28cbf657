/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host itself: a new one on the line, a broken one, and what it asks of the
 * machine
 */
#include "agent/test_agent.h"

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

int main(void)
{
	test_prepare();
	test_hello_kills();
	test_malformed();
	test_machine();
	return 0;
}
