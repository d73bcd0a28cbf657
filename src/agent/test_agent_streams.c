/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input and output of commands: windows, credit, many at once
 */
#include "agent/test_agent.h"

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

int main(void)
{
	test_prepare();
	test_stdin();
	test_flood();
	test_many();
	return 0;
}
