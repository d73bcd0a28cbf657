/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sandboxes: made, waited for, their consoles, memory and streams
 */
#include "api/test_server.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>

static void test_create(void)
{
	json_t *j;

	stage();
	ask_http("POST", "/v1/sandboxes",
		 "{\"template\":\"base\",\"ttl_ns\":5,\"env\":{\"A\":\"b\"}}");
	settle();
	check(waiting && c.len == 0);
	check(asked_ttl_ns == 5);
	check_str(asked_env, "A=b");
	answer(&herd[0], 0, NULL);
	client_until(NULL);
	j = result(201);
	check_str(text_at(j, "id"), "sb0");
	json_decref(j);

	ask_http("POST", "/v1/sandboxes", "{\"template\":\"base\"}");
	settle();
	answer(NULL, ETIMEDOUT, "create from base: too slow");
	client_until(NULL);
	check_problem(result(504), "ETIMEDOUT", "create from base: too slow");

	err_set(&refusal, EEXIST, "create: the name is taken");
	check_problem(
		fetch("POST", "/v1/sandboxes", "{\"template\":\"b\"}", 409),
		"EEXIST", "the name is taken");

	ask_http("DELETE", "/v1/sandboxes/web?force=1", "");
	settle();
	check(forced);
	answer(NULL, 0, NULL);
	client_until(NULL);
	check(strstr(c.in, " 204 "));
	close(c.fd);

	ask_http("POST", "/v1/sandboxes/web/pause", "{}");
	settle();
	answer(&herd[0], 0, NULL);
	client_until(NULL);
	json_decref(result(200));
	strike();
}

/* The client goes away while its request waits; or the daemon does. */
static void test_hang_up(void)
{
	stage();
	ask_http("POST", "/v1/sandboxes", "{\"template\":\"base\"}");
	settle();
	check(waiting);
	client_close();
	check(forgotten && !waiting);

	/* only its writing side: it still wants the answer */
	ask_http("POST", "/v1/sandboxes", "{\"template\":\"base\"}");
	settle();
	shutdown(c.fd, SHUT_WR);
	settle();
	check(waiting && !forgotten);
	answer(&herd[0], 0, NULL);
	client_until(NULL);
	json_decref(result(201));

	/* hang-up and answer in one turn */
	ask_http("POST", "/v1/sandboxes", "{\"template\":\"base\"}");
	settle();
	answer(&herd[0], 0, NULL);
	client_close();
	check(!waiting);

	ask_http("POST", "/v1/sandboxes", "{\"template\":\"base\"}");
	settle();
	check(waiting);
	strike();
	check(forgotten);
	close(c.fd);
}

static void log_write(const char *text)
{
	int fd = open(console_path, O_WRONLY | O_APPEND | O_CREAT, 0600);

	check(fd >= 0 && io_write_full(fd, text, strlen(text)) == 0);
	close(fd);
}

static void test_logs(void)
{
	stage();
	check_problem(fetch("GET", "/v1/sandboxes/web/logs", "", 404), "ENOENT",
		      "open");
	log_write("one\n");
	ask_http("GET", "/v1/sandboxes/web/logs", "");
	client_until("one\n");
	client_until(NULL);
	client_close();

	ask_http("GET", "/v1/sandboxes/web/logs?follow=1", "");
	client_until("one\n");
	log_write("two\n");
	client_until("two\n");
	settle();
	check(!c.end);
	check(truncate(console_path, 600000) == 0);
	log_write("long\n");
	client_until("long\n");
	check(truncate(console_path, CONSOLE_LOG_MAX / 2) == 0); /* cut */
	log_write("three\n");
	client_until("three\n");
	log_write("four\n");
	herd[0].state = SANDBOX_FAILED; /* nobody says so */
	client_until("four\n");
	client_until(NULL);
	client_close();

	herd[0].state = SANDBOX_RUNNING;
	ask_http("GET", "/v1/sandboxes/web/logs?follow=1", "");
	client_until("four\n");
	client_close();
	ask_http("GET", "/v1/sandboxes/web/logs?follow=1", "");
	client_until("four\n");
	n_herd = 0; /* removed */
	client_until(NULL);
	client_close();
	n_herd = 2;
	ask_http("GET", "/v1/sandboxes/web/logs?follow=1", "");
	client_until("four\n");
	strike();
	close(c.fd);
}

/* A process with one page touched; and one that has ended. */
static void test_mem(void)
{
	json_t *j, *row;
	pid_t child;

	if (syscall(SYS_pidfd_open, getpid(), 1) < 0 && errno == ENOSYS) {
		puts("no pidfds (valgrind): the ledger is not tried");
		return;
	}
	stage();
	herd[0].ram = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	check(herd[0].ram != MAP_FAILED);
	check(madvise(herd[0].ram, 1 << 20, MADV_NOHUGEPAGE) == 0);
	memset((char *)herd[0].ram + 8192, 1, 4096);
	herd[0].pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	child = fork();
	if (child == 0)
		_exit(0);
	herd[1].pid = child;
	herd[1].ram = herd[0].ram;
	herd[1].pidfd = (int)syscall(SYS_pidfd_open, child, 0);
	check(herd[1].pidfd >= 0);
	check(poll(&(struct pollfd){ .fd = herd[1].pidfd, .events = POLLIN }, 1,
		   5000) == 1);

	j = fetch("GET", "/v1/mem", "", 200);
	check(number_at(json_object_get(j, "host"), "promised") == 1 << 20);
	check(json_array_size(json_object_get(j, "templates")) == 1);
	check(json_array_size(json_object_get(j, "sandboxes")) == 1);
	row = json_array_get(json_object_get(j, "sandboxes"), 0);
	check_str(text_at(row, "id"), "sb0");
	check(number_at(row, "private") == 4096);
	check(number_at(row, "configured") == 1 << 20);
	check(number_at(row, "absent") + number_at(row, "zero") ==
	      (1 << 20) - 4096);
	check(number_at(row, "vmm") > 0);
	check(number_at(json_object_get(j, "host"), "billed") ==
	      4096 + 4096 + number_at(row, "vmm"));
	json_decref(j);

	j = fetch("GET", "/v1/mem/web", "", 200);
	check_str(text_at(j, "id"), "sb0");
	json_decref(j);
	check_problem(fetch("GET", "/v1/mem/sb1", "", 409), "ESRCH",
		      "count memory of sandbox sb1");
	check_problem(fetch("GET", "/v1/mem/none", "", 404), "ENOENT", "none");

	/* hang up while it is counted; the daemon's end in mid-count */
	ask_http("GET", "/v1/mem", "");
	turn(0);
	turn(0);
	client_close();
	settle();
	ask_http("GET", "/v1/mem", "");
	turn(0);
	turn(0);
	strike();
	close(c.fd);
	munmap(herd[0].ram, 1 << 20);
	close(herd[0].pidfd);
	close(herd[1].pidfd);
	check(waitpid(child, NULL, 0) == child);
}

/* Two map the image of a template that has another one now: a row, once. */
static void test_mem_replaced(void)
{
	int fd = memfd_create("layer", MFD_CLOEXEC);
	json_t *j, *rows;

	check(fd >= 0 && ftruncate(fd, 1 << 20) == 0);
	for (int i = 0; i < 3; i++)
		check(pwrite(fd, "x", 1, i * 8192) == 1);
	stage();
	herd[0].image = herd[1].image = "im-old";
	herd[0].layer_fd = herd[1].layer_fd = fd;
	j = fetch("GET", "/v1/mem", "", 200);
	rows = json_object_get(j, "templates");
	check(json_array_size(rows) == 2);
	check_str(text_at(json_array_get(rows, 0), "name"), "base");
	check(json_is_false(
		json_object_get(json_array_get(rows, 0), "replaced")));
	check_str(text_at(json_array_get(rows, 1), "name"), "base (replaced)");
	check(json_is_true(
		json_object_get(json_array_get(rows, 1), "replaced")));
	check(number_at(json_array_get(rows, 1), "resident") == 3 * 4096);
	check(number_at(json_array_get(rows, 1), "configured") == 1 << 20);
	check(number_at(json_array_get(rows, 1), "zero") == 1 << 19);
	check(number_at(json_array_get(rows, 1), "present") == 1 << 19);
	check(number_at(json_object_get(j, "host"), "billed") == 4 * 4096);
	json_decref(j);
	/* Each its own; one of them is the template's. */
	herd[1].image = "im-now";
	j = fetch("GET", "/v1/mem", "", 200);
	check(json_array_size(json_object_get(j, "templates")) == 2);
	json_decref(j);
	herd[0].image = NULL;
	j = fetch("GET", "/v1/mem", "", 200);
	check(json_array_size(json_object_get(j, "templates")) == 1);
	check(number_at(json_object_get(j, "host"), "billed") == 4096);
	json_decref(j);
	strike();
	close(fd);
}

static void on_ready(void *arg)
{
	(void)arg;
}

static void on_broken(void *arg, const struct err *e)
{
	(void)arg;
	(void)e;
	herd[0].channel = channel_free(herd[0].channel);
}

static void test_stream(void)
{
	static const struct channel_events events = { .ready = on_ready,
						      .broken = on_broken };
	static const char head[] = "GET /v1/sandboxes/web/stream HTTP/1.1\r\n"
				   "Host: byre\r\n"
				   "Connection: keep-alive, Upgrade\r\n"
				   "Upgrade: byre-agent/1\r\n\r\n";
	struct wire_frame f;
	struct err e = ERR_NULL;
	uint8_t frame[64], in[4096];
	char both[512];
	struct wire_out o;
	size_t used, len;
	ssize_t n;
	int fd[2];

	stage();
	client_open();
	client_send(head, strlen(head));
	client_until("it is not running");
	check(strstr(c.in, " 409 "));
	client_close();

	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) == 0);
	check(channel_new(&loop, fd[0], true, &events, NULL, &herd[0].channel,
			  &e) == 0);
	settle();
	n = recv(fd[1], in, sizeof(in), 0); /* HELLO */
	check(n > 0 && send(fd[1], in, (size_t)n, 0) == n);

	/* the first frame is sent ahead, behind the head */
	wire_begin(&o, frame, sizeof(frame), WIRE_EXEC, 0, 5);
	wire_put_str(&o, WIRE_K_ARG, "true");
	len = (size_t)wire_end(&o);
	memcpy(both, head, strlen(head));
	memcpy(both + strlen(head), frame, len);
	client_open();
	client_send(both, strlen(head) + len);
	client_until("\r\n\r\n");
	check(strstr(c.in, "HTTP/1.1 101 ") &&
	      strstr(c.in, "Upgrade: byre-agent/1\r\n"));
	settle();
	n = recv(fd[1], in, sizeof(in), 0);
	check(n > 0 && wire_next(in, (size_t)n, &f, &used, NULL) == 0);
	check(f.type == WIRE_EXEC);
	wire_begin(&o, frame, sizeof(frame), WIRE_RESULT, 0, f.stream);
	wire_put_u64(&o, WIRE_K_CODE, 3);
	len = (size_t)wire_end(&o);
	c.len = 0;
	check(send(fd[1], frame, len, 0) == (ssize_t)len);
	settle();
	check(wire_next((uint8_t *)c.in, c.len, &f, &used, NULL) == 0);
	check(f.type == WIRE_RESULT && f.stream == 5);

	/* a broken protocol closes the connection */
	client_send("garbage", 7);
	client_until(NULL);
	client_close();

	/* and so does the end of the daemon */
	client_open();
	client_send(head, strlen(head));
	client_until("\r\n\r\n");
	strike();
	client_read();
	check(c.end);
	close(c.fd);
	close(fd[1]);
}

int main(void)
{
	house_open();
	test_create();
	test_hang_up();
	test_logs();
	test_mem();
	test_mem_replaced();
	test_stream();
	house_close();
	return 0;
}
