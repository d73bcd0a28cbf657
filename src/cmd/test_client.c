/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client against a daemon that says whatever the test wants
 */
#include "base/io.h"
#include "base/test.h"
#include "cmd/client.h"
#include "cmd/test_peer.h"

#include <errno.h>
#include <sys/socket.h>

static char run[64];

/* A child that answers one request with @text, in pieces, and hangs up. */
static pid_t serve(const char *text, size_t piece)
{
	int peer = -1;
	pid_t pid = peer_fork(run, &peer);

	if (pid)
		return pid;
	for (size_t n, len = strlen(text); len; len -= n, text += n) {
		n = min(piece, len);
		if (send(peer, text, n, MSG_NOSIGNAL) < 0)
			break;
		if (piece < 100)
			usleep(100);
	}
	_exit(0);
}

static int call(const char *text, size_t piece, json_t **ret, struct err *e)
{
	pid_t pid = serve(text, piece);
	int r, status = 0;

	*ret = NULL;
	*e = (struct err)ERR_NULL;
	r = client_call("GET", "/v1/x", NULL, ret, e);
	check(waitpid(pid, &status, 0) == pid && !status);
	return r;
}

static void test_answers(void)
{
	static const size_t pieces[] = { 1, 3, 7, 1000 };
	struct err e;
	json_t *v;

	for (size_t i = 0; i < nitems(pieces); i++) {
		check(call("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}",
			   pieces[i], &v, &e) == 0);
		check(json_integer_value(json_object_get(v, "a")) == 1);
		json_decref(v);
		check(call("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n",
			   pieces[i], &v, &e) == 0);
		check(json_integer_value(json_object_get(v, "a")) == 1);
		json_decref(v);
		check(call("HTTP/1.1 200 OK\r\n\r\n[1,2]", pieces[i], &v, &e) ==
		      0);
		check(json_array_size(v) == 2);
		json_decref(v);
	}
}

static void test_problems(void)
{
	struct err e;
	json_t *v;

	check(call("HTTP/1.1 404 Not Found\r\nContent-Type: application/problem+json\r\n\r\n{\"detail\": \"remove x: gone\", \"errno\": \"ENOENT\"}",
		   1000, &v, &e) == -ENOENT);
	check_str(e.msg, "remove x: gone");
	check(call("HTTP/1.1 500 Oops\r\n\r\n{\"errno\": \"EWHAT\"}", 1000, &v,
		   &e) == -EIO);
	check(strstr(e.msg, "500"));
	check(call("HTTP/1.1 503 Oops\r\nContent-Length: 0\r\n\r\n", 1000, &v,
		   &e) == -EIO);
}

static void test_nonsense(void)
{
	static const char *const bad[] = {
		"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":",
		"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{a}",
		"HTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\n\r\n{\"a\":1,\"a\":2}",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[1,2]\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
		"220 mail.example ESMTP\r\n",
		"",
	};
	struct err e;
	json_t *v;

	for (size_t i = 0; i < nitems(bad); i++) {
		check(call(bad[i], 1000, &v, &e) < 0);
		check(e.code && *e.msg && !v);
	}
}

static void test_no_daemon(void)
{
	char path[80], want[300];
	struct err e = ERR_NULL;
	json_t *v = NULL;

	snprintf(path, sizeof(path), "%s/api.sock", run);
	unlink(path);
	check(client_call("GET", "/v1/x", NULL, &v, &e) == -ENOENT);
	snprintf(
		want, sizeof(want),
		"connect to the daemon at %s: No such file or directory (start it with: byre serve)",
		path);
	check_str(e.msg, want);
}

static void test_upgrade(void)
{
	struct client c = CLIENT_NULL;
	struct err e = ERR_NULL;
	pid_t pid = serve(
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: byre/1\r\n\r\nhello",
		1000);

	check(client_upgrade(&c, "/v1/s", "byre/1", &e) == 0);
	/* What came behind the head is not lost. */
	check(buf_len(&c.in) == 5 && !memcmp(buf_data(&c.in), "hello", 5));
	client_deinit(&c);
	check(waitpid(pid, NULL, 0) == pid);

	pid = serve("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
		    1000);
	check(client_upgrade(&c, "/v1/s", "byre/1", &e) == -EBADMSG);
	client_deinit(&c);
	check(waitpid(pid, NULL, 0) == pid);
}

static void test_paths(void)
{
	char *p = client_path("/v1/", "a b/../c%?#\n", "/x");

	check_str(p, "/v1/a%20b%2F..%2Fc%25%3F%23%0A/x");
	free(p);
	/* No segment that somebody could take for a way up. */
	p = client_path("/v1/", "..", "");
	check_str(p, "/v1/.%2E");
	free(p);
	p = client_path("/v1/", "we-b_1.2", "");
	check_str(p, "/v1/we-b_1.2");
	free(p);
}

int main(void)
{
	test_dir(run, sizeof(run));
	setenv("BYRE_RUN", run, 1);
	test_answers();
	test_problems();
	test_nonsense();
	test_upgrade();
	test_no_daemon();
	test_paths();
	check(io_remove_tree(run, NULL) == 0);
	return 0;
}
