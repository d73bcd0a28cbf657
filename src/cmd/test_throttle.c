/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The relay and the server behind it: right bytes, right ranges, and not
 * before their time
 */
#include "cmd/range_server.h"
#include "cmd/throttle.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#define TEST_BYTES 3000000u
#define TEST_DELAY_NS (5 * NS_PER_MS)

static uint8_t test_byte(size_t i)
{
	return (uint8_t)(i * 2654435761u >> 13);
}

static int test_dial(uint16_t port)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_port = htons(port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	check(fd >= 0);
	check(connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0);
	return fd;
}

/* One request on a connection of its own; the whole answer. */
static size_t test_get(uint16_t port, const char *path, const char *range,
		       char *out, size_t size)
{
	int fd = test_dial(port);
	char text[256];
	size_t n = 0;
	ssize_t r;

	snprintf(
		text, sizeof(text),
		"GET %s HTTP/1.1\r\nHost: x\r\n%s%s%sConnection: close\r\n\r\n",
		path, range ? "Range: bytes=" : "", range ? range : "",
		range ? "\r\n" : "");
	check(io_write_full(fd, text, strlen(text)) == 0);
	while ((r = read(fd, out + n, size - 1 - n)) > 0)
		n += (size_t)r;
	check(r == 0);
	out[n] = '\0';
	close(fd);
	return n;
}

static const char *test_body(const char *answer)
{
	const char *p = strstr(answer, "\r\n\r\n");

	check(p);
	return p + 4;
}

static void test_answers(uint16_t port, char *out, size_t size)
{
	const char *body;
	size_t n;

	n = test_get(port, "/file", NULL, out, size);
	check(strncmp(out, "HTTP/1.1 200", 12) == 0);
	body = test_body(out);
	check(n - (size_t)(body - out) == TEST_BYTES);
	for (size_t i = 0; i < TEST_BYTES; i++)
		check((uint8_t)body[i] == test_byte(i));

	n = test_get(port, "/file", "1000000-1000099", out, size);
	check(strncmp(out, "HTTP/1.1 206", 12) == 0);
	check(strstr(out, "Content-Range: bytes 1000000-1000099/3000000"));
	body = test_body(out);
	check(n - (size_t)(body - out) == 100);
	for (size_t i = 0; i < 100; i++)
		check((uint8_t)body[i] == test_byte(1000000 + i));

	test_get(port, "/file", "3000000-", out, size);
	check(strncmp(out, "HTTP/1.1 416", 12) == 0);
	test_get(port, "/none", NULL, out, size);
	check(strncmp(out, "HTTP/1.1 404", 12) == 0);
	test_get(port, "/../file", NULL, out, size);
	check(strncmp(out, "HTTP/1.1 405", 12) == 0);
}

int main(void)
{
	char dir[] = "/tmp/byre-throttle-XXXXXX", path[64];
	size_t size = TEST_BYTES + 4096;
	uint8_t *data = malloc(TEST_BYTES);
	char *out = malloc(size);
	struct range_server *server;
	struct throttle *throttle;
	struct err e = ERR_NULL;
	uint64_t from;

	check(data && out && mkdtemp(dir));
	for (size_t i = 0; i < TEST_BYTES; i++)
		data[i] = test_byte(i);
	snprintf(path, sizeof(path), "%s/file", dir);
	check(io_write_file(path, data, TEST_BYTES, 0600, &e) == 0);
	check(range_server_new(dir, &server, &e) == 0);
	test_answers(range_server_port(server), out, size);

	check(throttle_new(range_server_port(server), TEST_DELAY_NS, 0,
			   &throttle, &e) == 0);
	test_answers(throttle_port(throttle), out, size);
	/* A handshake, there and back: never less. */
	from = clock_mono_ns();
	test_get(throttle_port(throttle), "/none", NULL, out, size);
	check(clock_mono_ns() - from >= 4 * TEST_DELAY_NS);
	throttle_free(throttle);

	/* 3 MB at 100 Mbit/s are 240 ms. */
	check(throttle_new(range_server_port(server), 0, 100000000, &throttle,
			   &e) == 0);
	from = clock_mono_ns();
	test_get(throttle_port(throttle), "/file", NULL, out, size);
	check(clock_mono_ns() - from >= 230 * NS_PER_MS);
	throttle_free(throttle);

	range_server_free(server);
	check(io_remove_tree(dir, &e) == 0);
	free(data);
	free(out);
	return 0;
}
