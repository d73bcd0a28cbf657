/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QMP against a QEMU that tries everything: a socket pair, one loop, and
 * allocations (ours and jansson's) that can be told to fail.
 *
 * qmp.c and buf.c are compiled in here, with our allocator; the library's own
 * are then not linked.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/test.h"
#include "base/test_sweep.h"

static void *sweep_malloc(size_t size)
{
	return sweep_realloc(NULL, size);
}

/* guard_free frees what jansson allocated, in guard.h: before the macros. */
#include "base/fdpass.h"
#include "base/guard.h"

static void sweep_freep(void *p)
{
	sweep_free(*(void **)p);
}

#define calloc sweep_calloc
#define realloc sweep_realloc
#define free sweep_free
#define guard_freep sweep_freep
#include "base/buf.c"
#include "vmm/qmp.c"
#undef calloc
#undef realloc
#undef free
#undef guard_freep

static struct loop loop;
static struct qmp *qmp;
static int qemu_fd;
static char qemu_in[1 << 17];
static size_t qemu_len;

static unsigned n_greeting, n_event, n_broken;
static struct err broken_why;
static char last_event[64];
static bool free_in_greeting, free_in_event, free_in_broken;

/* A command and what became of it. */
struct answer {
	unsigned n;
	unsigned order; /* among all answers */
	int code;
	char msg[ERR_MSG_MAX];
	json_int_t value; /* of "v" in the result */
	bool free_qmp;
};

static unsigned n_answers;

static void on_greeting(void *arg)
{
	(void)arg;
	n_greeting++;
	if (free_in_greeting)
		qmp = qmp_free(qmp);
}

static void on_event(void *arg, const char *name, json_t *data)
{
	(void)arg;
	n_event++;
	snprintf(last_event, sizeof(last_event), "%s %s", name,
		 data ? json_string_value(json_object_get(data, "x")) : "-");
	if (free_in_event)
		qmp = qmp_free(qmp);
}

static void on_broken(void *arg, const struct err *e)
{
	(void)arg;
	check(e->code > 0 && *e->msg);
	n_broken++;
	broken_why = *e;
	if (free_in_broken)
		qmp = qmp_free(qmp);
}

static const struct qmp_events events = {
	.greeting = on_greeting,
	.event = on_event,
	.broken = on_broken,
};

static void on_done(void *arg, json_t *result, const struct err *e)
{
	struct answer *a = arg;

	check(!n_broken); /* commands hear first */
	check(!result == (e->code != 0));
	a->n++;
	a->order = ++n_answers;
	a->code = e->code;
	snprintf(a->msg, sizeof(a->msg), "%s", e->msg);
	a->value = json_integer_value(json_object_get(result, "v"));
	if (a->free_qmp)
		qmp = qmp_free(qmp);
}

/* ---- QEMU ---- */

static void turn(void)
{
	struct err e = ERR_NULL;

	check(loop_turn(&loop, 0, &e) == 0);
}

static void turns(void)
{
	for (int i = 0; i < 10; i++)
		turn();
}

static void say(const char *text)
{
	size_t len = strlen(text);

	for (int i = 0; len && i < 10000; i++) {
		ssize_t n =
			send(qemu_fd, text, len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n > 0) {
			text += n;
			len -= (size_t)n;
		} else if (n < 0 && errno != EAGAIN) {
			return;
		}
		turn();
	}
	turns();
}

/* The next line QEMU got, or NULL; *ret_fd is the fd that came with what was
 * read, -1 if none. */
static const char *hear(int *ret_fd)
{
	static char line[1 << 16];
	size_t n_fds = 0;
	int fd = -1;
	char *nl;
	ssize_t n;
	size_t len;

	turns();
	n = fdpass_receive(qemu_fd, qemu_in + qemu_len,
			   sizeof(qemu_in) - qemu_len, &fd, 1, &n_fds,
			   MSG_DONTWAIT);
	if (n > 0)
		qemu_len += (size_t)n;
	if (ret_fd)
		*ret_fd = fd;
	else
		check(fd < 0);
	nl = memchr(qemu_in, '\n', qemu_len);
	if (!nl)
		return NULL;
	len = (size_t)(nl - qemu_in);
	check(len < sizeof(line));
	memcpy(line, qemu_in, len);
	line[len] = '\0';
	qemu_len -= len + 1;
	memmove(qemu_in, nl + 1, qemu_len);
	return line;
}

static void heard(const char *want)
{
	const char *line = hear(NULL);

	check(line);
	if (!strstr(line, want))
		fprintf(stderr, "QEMU got %s, not %s\n", line, want);
	check(strstr(line, want));
}

static int connect_qmp(void)
{
	struct err e = ERR_NULL;
	int fds[2];
	int r;

	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
	check(io_set_nonblock(fds[0], true) == 0);
	qemu_fd = fds[1];
	qemu_len = 0;
	n_greeting = n_event = n_broken = n_answers = 0;
	free_in_greeting = free_in_event = false;
	free_in_broken = true;
	qmp = NULL;
	r = qmp_new(&loop, fds[0], &events, NULL, &qmp, &e);
	check(r == 0 || e.code == -r);
	return r;
}

static void begin(void)
{
	check(connect_qmp() == 0);
	heard("\"qmp_capabilities\"");
	say("{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n"
	    "{\"return\": {}}\n");
	check(n_greeting == 1 && !n_broken);
}

static void end(void)
{
	qmp = qmp_free(qmp);
	close(qemu_fd);
	check(loop.n_fds == 0);
	check(sweep_balance == 0);
}

/* ---- tests ---- */

static void test_pipelined(void)
{
	struct answer a[3] = { 0 };

	begin();
	check(qmp_command(qmp, "first", NULL, -1, on_done, &a[0]) == 0);
	check(qmp_command(qmp, "second", json_pack("{s:i}", "n", 7), -1,
			  on_done, &a[1]) == 0);
	check(qmp_command(qmp, "third", NULL, -1, on_done, &a[2]) == 0);
	check(qmp_command(qmp, "nobody-cares", NULL, -1, NULL, NULL) == 0);
	heard("{\"execute\":\"first\"}");
	heard("\"arguments\":{\"n\":7}");
	heard("third");
	heard("nobody-cares");
	check(!hear(NULL));
	/* Events in between, several lines at once, one in pieces. */
	say("{\"event\": \"STOP\", \"timestamp\": {}}\n{\"return\": {\"v\": 1}}"
	    "\r\n{\"event\": \"X\", \"data\": {\"x\": \"y\"}}\n{\"err");
	check(n_event == 2 && a[0].n == 1 && a[0].value == 1 && !a[1].n);
	check_str(last_event, "X y");
	say("or\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n");
	check(a[1].n == 1 && a[1].code == EIO);
	check_str(a[1].msg, "second: no");
	say("{\"return\": {\"v\": 3}}\n{\"return\": {}}\n");
	check(a[2].n == 1 && a[2].value == 3);
	check(a[0].order < a[1].order && a[1].order < a[2].order);
	/* Byte by byte. */
	check(qmp_command(qmp, "slow", NULL, -1, on_done, &a[0]) == 0);
	for (const char *p = "{\"return\": {\"v\": 9}}\n"; *p; p++) {
		char byte[2] = { *p, 0 };

		say(byte);
	}
	check(a[0].n == 2 && a[0].value == 9 && !n_broken);
	end();
}

static void test_fd(void)
{
	struct answer a = { 0 };
	int fds[2], got = -1;
	const char *line;

	begin();
	check(pipe2(fds, O_CLOEXEC) == 0);
	check(qmp_command(qmp, "getfd", NULL, fds[1], on_done, &a) == 0);
	check(qmp_command(qmp, "after", NULL, -1, NULL, NULL) == 0);
	line = hear(&got);
	check(line && strstr(line, "getfd") && got >= 0);
	heard("after");
	check(write(got, "x", 1) == 1);
	close(got);
	close(fds[0]);
	end();

	/* A QEMU that does not read: refused, and nothing of it goes out. */
	begin();
	{
		char filler[4096];
		int r;

		memset(filler, ' ', sizeof(filler));
		while (send(qmp->fd, filler, sizeof(filler), MSG_DONTWAIT) > 0)
			;
		while (send(qmp->fd, filler, 1, MSG_DONTWAIT) > 0)
			;
		r = qmp_command(qmp, "getfd", NULL, fds[1], on_done, &a);
		check(r == -EAGAIN && qmp->count == 0);
		while (recv(qemu_fd, filler, sizeof(filler), MSG_DONTWAIT) > 0)
			;
		turns();
		check(recv(qemu_fd, filler, sizeof(filler), MSG_DONTWAIT) < 0);
		check(qmp_command(qmp, "getfd", NULL, fds[1], on_done, &a) ==
		      0);
		line = hear(&got);
		check(line && strstr(line, "getfd") && got >= 0);
		close(got);
	}
	close(fds[1]);
	end();
}

static void test_full(void)
{
	struct answer a[QMP_PENDING_MAX + 1] = { 0 };

	begin();
	for (int i = 0; i < QMP_PENDING_MAX; i++)
		check(qmp_command(qmp, "x", NULL, -1, on_done, &a[i]) == 0);
	check(qmp_command(qmp, "x", json_object(), -1, on_done,
			  &a[QMP_PENDING_MAX]) == -EBUSY);
	say("{\"return\": {\"v\": 1}}\n");
	check(a[0].n == 1);
	check(qmp_command(qmp, "x", NULL, -1, on_done, &a[QMP_PENDING_MAX]) ==
	      0);
	/* All of them hear of the end, in order. */
	close(qemu_fd);
	qemu_fd = -1;
	turns();
	check(n_broken == 1 && !qmp && broken_why.code == ECONNRESET);
	for (int i = 1; i <= QMP_PENDING_MAX; i++)
		check(a[i].n == 1 && a[i].code == ECONNRESET &&
		      a[i].order == (unsigned)i + 1);
	end();
}

/* What is not the protocol ends it. */
static void test_rubbish(void)
{
	static const char *const bad[] = {
		"\n",
		"{\n",
		"rubbish\n",
		"[]\n",
		"3\n",
		"{}\n",
		"{\"return\": {}}\n", /* nobody asked */
		"{\"event\": 3}\n",
		"{\"error\": {\"desc\": \"nobody asked\"}}\n",
		"{\"event\": \"x\"} {\"event\": \"y\"}\n",
		"\xff\xfe\n",
	};
	char *line;

	for (size_t i = 0; i < nitems(bad); i++) {
		begin();
		say(bad[i]);
		if (n_broken != 1)
			fprintf(stderr, "accepted: %s", bad[i]);
		check(n_broken == 1 && !qmp && broken_why.code == EPROTO);
		end();
	}
	/* An error without a description, one of another type. */
	for (int i = 0; i < 2; i++) {
		struct answer a = { 0 };

		begin();
		check(qmp_command(qmp, "x", NULL, -1, on_done, &a) == 0);
		say(i ? "{\"error\": {\"desc\": 3}}\n" : "{\"error\": {}}\n");
		check(a.n == 1 && a.code == EIO && strstr(a.msg, "x: "));
		end();
	}
	/* A line without an end, and a long one with. */
	line = malloc(QMP_LINE_MAX + 8192);
	check(line);
	memset(line, ' ', QMP_LINE_MAX + 8191);
	line[QMP_LINE_MAX + 8191] = '\0';
	begin();
	say(line);
	check(n_broken == 1 && broken_why.code == EMSGSIZE);
	end();
	strcpy(line + QMP_LINE_MAX - 20000, "{\"event\": \"LONG\"}\n");
	begin();
	say(line);
	for (int i = 0; i < 100; i++)
		turn();
	check(n_broken == 0 && n_event == 1);
	check_str(last_event, "LONG -");
	end();
	free(line);
}

/* One that never stops talking does not keep the loop. */
static void test_flood(void)
{
	static const char event[] = "{\"event\": \"FLOOD\"}\n";
	unsigned sent = 0;

	begin();
	while (send(qemu_fd, event, sizeof(event) - 1, MSG_DONTWAIT) ==
	       sizeof(event) - 1)
		sent++;
	turn();
	check(n_event && n_event <= QMP_READS * 4096 / (sizeof(event) - 1) + 1);
	for (int i = 0; i < 1000 && n_event < sent; i++)
		turn();
	check(n_event >= sent && !n_broken);
	end();
}

/* Freed in each of its callbacks; the rest of what came is not looked at. */
static void test_free_inside(void)
{
	struct answer a = { .free_qmp = true }, b = { 0 };

	check(connect_qmp() == 0);
	free_in_greeting = true;
	say("{\"QMP\": {}}\n{\"return\": {}}\n");
	check(n_greeting == 1 && !qmp && !n_broken);
	end();

	begin();
	free_in_event = true;
	say("{\"event\": \"A\"}\n{\"event\": \"B\"}\nrubbish\n");
	check(n_event == 1 && !qmp && !n_broken);
	end();

	begin();
	check(qmp_command(qmp, "x", NULL, -1, on_done, &a) == 0);
	check(qmp_command(qmp, "y", NULL, -1, on_done, &b) == 0);
	say("{\"return\": {}}\n{\"return\": {}}\n");
	check(a.n == 1 && b.n == 0 && !qmp && !n_broken);
	end();

	/* By the first command that hears of the end. */
	begin();
	a.n = 0;
	check(qmp_command(qmp, "x", NULL, -1, on_done, &a) == 0);
	check(qmp_command(qmp, "y", NULL, -1, on_done, &b) == 0);
	shutdown(qemu_fd, SHUT_RDWR);
	turns();
	check(a.n == 1 && b.n == 0 && !qmp && !n_broken);
	end();

	/* Not freed at all. */
	begin();
	free_in_broken = false;
	shutdown(qemu_fd, SHUT_RDWR);
	turns();
	check(n_broken == 1 && qmp);
	check(qmp_command(qmp, "x", json_object(), -1, on_done, &b) == -EPIPE);
	turns();
	check(n_broken == 1 && b.n == 0);
	end();
	check(qmp_free(NULL) == NULL);
}

/* A life from end to end; each allocation in it fails once. */
static void sweep_life(void)
{
	struct answer a = { 0 }, b = { 0 };
	int sent = 0;

	if (connect_qmp() < 0) {
		close(qemu_fd);
		return;
	}
	say("{\"QMP\": {\"version\": {}}}\n{\"return\": {}}\n");
	if (qmp)
		sent += qmp_command(qmp, "x", json_object(), -1, on_done, &a) ==
			0;
	if (qmp)
		sent += qmp_command(qmp, "y", NULL, -1, on_done, &b) == 0;
	say("{\"event\": \"E\", \"data\": {\"x\": \"y\"}}\n");
	for (int i = 0; i < sent; i++)
		say("{\"return\": {\"v\": 1}}\n");
	check((int)(a.n + b.n) == sent);
	qmp = qmp_free(qmp);
	close(qemu_fd);
}

static void sweep_whole_life(void)
{
	sweep_life();
	check(loop.n_fds == 0);
}

int main(void)
{
	struct err e = ERR_NULL;

	json_set_alloc_funcs(sweep_malloc, sweep_free);
	json_object_seed(1); /* else it opens /dev/urandom, once */
	check(loop_init(&loop, &e) == 0);
	test_pipelined();
	test_fd();
	test_full();
	test_rubbish();
	test_flood();
	test_free_inside();
	sweep(sweep_whole_life, 20);
	loop_deinit(&loop);
	return 0;
}
