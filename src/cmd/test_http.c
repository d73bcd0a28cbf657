/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP heads and bodies: what is accepted, what is refused, in any pieces
 */
#include "base/test.h"
#include "cmd/http.h"

#include <errno.h>

static struct http_head head;
static size_t used;

/* Every beginning asks for more, the whole is accepted (or refused). */
static int parse(const char *text)
{
	size_t len = strlen(text);
	const uint8_t *p = (const uint8_t *)text;

	for (size_t n = 0; n < len; n++) {
		int r = http_head_parse(p, n, &head, &used);

		if (r != HTTP_MORE)
			return r;
	}
	return http_head_parse(p, len, &head, &used);
}

static void test_heads(void)
{
	check(parse("HTTP/1.1 200 OK\r\nContent-Length: 12\r\ncontent-TYPE: Application/JSON; charset=x\r\n\r\n") ==
	      0);
	check(head.status == 200 && head.framing == HTTP_LENGTH);
	check(head.length == 12);
	check_str(head.type, "application/json");
	check(parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n") ==
	      0);
	check(head.framing == HTTP_CHUNKED);
	check(parse("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: byre-agent/1\r\n\r\n") ==
	      0);
	check(head.framing == HTTP_UPGRADED);
	check_str(head.upgrade, "byre-agent/1");
	check(parse("HTTP/1.1 204 \r\n\r\n") == 0);
	check(head.framing == HTTP_NO_BODY);
	check(parse("HTTP/1.1 200\r\nX:\r\n\r\n") == 0);
	check(head.framing == HTTP_TILL_CLOSE);
}

static void test_bad_heads(void)
{
	static const char *const bad[] = {
		"SSH-2.0-OpenSSH\r\n",
		"HTTP/1.0 200 OK\r\n\r\n",
		"HTTP/1.1 20 OK\r\n\r\n",
		"HTTP/1.1 2000 OK\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\n",
		"HTTP/1.1 999 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
		"HTTP/1.1 200 OK\r\n: no name\r\n\r\n",
		"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
		"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
		"HTTP/1.1 200 OK\nA: b\r\n\r\n",
		"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1 2\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
	};

	for (size_t i = 0; i < nitems(bad); i++)
		check(parse(bad[i]) == -EBADMSG);
}

static void test_endless_heads(void)
{
	char *text = malloc(HTTP_HEAD_MAX + 1);
	size_t n = (size_t)sprintf(text, "HTTP/1.1 200 OK\r\nA: ");

	memset(text + n, 'x', HTTP_HEAD_MAX - n);
	text[HTTP_HEAD_MAX] = '\0';
	check(parse(text) == -EBADMSG);

	n = (size_t)sprintf(text, "HTTP/1.1 200 OK\r\n");
	for (unsigned i = 0; i <= HTTP_FIELDS_MAX; i++)
		n += (size_t)sprintf(text + n, "A: b\r\n");
	strcpy(text + n, "\r\n");
	check(parse(text) == -EBADMSG);
	free(text);
}

/* Feed @text in pieces of @piece bytes; the body goes to @out. */
static int body(enum http_framing framing, uint64_t length, const char *text,
		size_t piece, char *out)
{
	const struct http_head h = { .framing = framing, .length = length };
	size_t len = strlen(text), have = 0, at = 0, skip, data;
	struct http_body b;
	int r;

	*out = '\0';
	http_body_init(&b, &h);
	for (;;) {
		skip = data = 0;
		r = http_body_next(&b, (const uint8_t *)text + at, have - at,
				   &skip, &data);
		check(skip + data <= have - at);
		strncat(out, text + at + skip, data);
		at += skip + data;
		if (r != 0 && r != HTTP_MORE)
			return r;
		if (r == 0)
			continue;
		if (have == len)
			return HTTP_MORE;
		have += min(piece, len - have);
	}
}

static void test_bodies(void)
{
	static const char chunked[] =
		"4\r\nWiki\r\n5;x=y\r\npedia\r\nE\r\n in\r\n\r\nchunks.\r\n0\r\nT: x\r\n\r\n";
	char out[300];

	for (size_t piece = 1; piece < sizeof(chunked); piece++) {
		check(body(HTTP_CHUNKED, 0, chunked, piece, out) == HTTP_END);
		check_str(out, "Wikipedia in\r\n\r\nchunks.");
		check(body(HTTP_LENGTH, 5, "12345xx", piece, out) == HTTP_END);
		check_str(out, "12345");
		check(body(HTTP_TILL_CLOSE, 0, "12345", piece, out) ==
		      HTTP_MORE);
		check_str(out, "12345");
	}
	check(body(HTTP_LENGTH, 0, "x", 1, out) == HTTP_END);
	check(body(HTTP_NO_BODY, 0, "x", 1, out) == HTTP_END);
	check(body(HTTP_LENGTH, 6, "12345", 9, out) == HTTP_MORE);
}

static void test_bad_bodies(void)
{
	static const char *const bad[] = {
		"\r\n",
		"x\r\n",
		"-1\r\n",
		" 1\r\n",
		"1000000000000000\r\n", /* 16 digits */
		"1\r\nab\r\n",
		"1\r\na\n\r\n",
		"0\r\na\nb\r\n\r\n",
		"1x\r\n",
	};
	char out[300], line[HTTP_LINE_MAX + 10];

	for (size_t i = 0; i < nitems(bad); i++)
		for (size_t piece = 1; piece < 20; piece++)
			check(body(HTTP_CHUNKED, 0, bad[i], piece, out) ==
			      -EBADMSG);
	memset(line, '0', sizeof(line));
	line[sizeof(line) - 1] = '\0';
	check(body(HTTP_CHUNKED, 0, line, 7, out) == -EBADMSG);
}

int main(void)
{
	test_heads();
	test_bad_heads();
	test_endless_heads();
	test_bodies();
	test_bad_bodies();
	return 0;
}
