/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests as such: what is looked at, refused, too long, one after another
 */
#include "api/test_server.h"

static void test_look(void)
{
	json_t *j, *t;

	stage();
	j = fetch("GET", "/v1/host", "", 200);
	check_str(text_at(j, "root"), "/root/\xef\xbf\xbd");
	check_str(text_at(j, "accel_reason"), "no \"kvm\"");
	check(json_is_false(json_object_get(j, "unprivileged")));
	check(json_object_size(j) == 10);
	json_decref(j);

	j = fetch("GET", "/v1/templates", "", 200);
	check(json_array_size(j) == 2);
	t = json_array_get(j, 0);
	check(json_is_null(json_object_get(t, "memory_bytes")));
	check_str(text_at(t, "problem"), "torn");
	check(json_object_size(t) == 23);
	t = json_array_get(j, 1);
	check(json_is_null(json_object_get(t, "problem")));
	check(number_at(t, "resident_bytes") == 4096);
	check(number_at(t, "image_bytes") == 1000);
	check(json_object_size(t) == 23);
	json_decref(j);
	json_decref(fetch("GET", "/v1/templates/base", "", 200));

	j = fetch("GET", "/v1/sandboxes", "", 200);
	check(json_array_size(j) == 2);
	check_str(text_at(json_array_get(j, 0), "name"), "web");
	check_str(text_at(json_array_get(j, 0), "created"),
		  "2023-11-14T22:13:20.123Z");
	check(strstr(c.in, "\"spawn\":83.123,"));
	check(json_is_null(json_object_get(json_array_get(j, 0), "cause")));
	check(json_is_null(json_object_get(json_array_get(j, 1), "name")));
	check(json_is_null(json_object_get(json_array_get(j, 1), "pid")));
	check_str(text_at(json_array_get(j, 1), "cause"), "killed by signal 9");
	json_decref(j);
	j = fetch("GET", "/v1/sandboxes/%77eb", "", 200);
	check_str(text_at(j, "id"), "sb0");
	check(json_is_null(json_object_get(j, "paused_because")));
	json_decref(j);
	/* Alive, so there is no cause; but a reason. */
	herd[0].state = SANDBOX_PAUSED;
	herd[0].paused_because = "the disk of the host is full";
	j = fetch("GET", "/v1/sandboxes/web", "", 200);
	check_str(text_at(j, "state"), "paused");
	check_str(text_at(j, "paused_because"), herd[0].paused_because);
	check(json_is_null(json_object_get(j, "cause")));
	json_decref(j);
	strike();
}

static void test_refused(void)
{
	json_t *j;

	stage();
	check_problem(fetch("GET", "/", "", 404), "ENOENT", "no such path");
	check_problem(fetch("GET", "/v1/sandboxes/", "", 404), "ENOENT", "");
	check_problem(fetch("GET", "/v1//host", "", 404), "ENOENT", "");
	check_problem(fetch("GET", "/v1/host/x", "", 404), "ENOENT", "");
	check_problem(fetch("GET", "/v1%2fhost", "", 404), "ENOENT", "");
	check_problem(fetch("GET", "/v1/sandboxes/x%00", "", 400), "EINVAL",
		      "");
	check_problem(fetch("GET", "/v1/sandboxes/x%2", "", 400), "EINVAL", "");
	check_problem(fetch("GET", "/v1/host?x=1", "", 400), "EINVAL",
		      "unknown query parameter x");
	check_problem(fetch("GET", "/v1/sandboxes/web/logs?follow=2", "", 400),
		      "EINVAL", "follow must be 0 or 1");
	check_problem(fetch("GET", "/v1/sandboxes/none", "", 404), "ENOENT",
		      "inspect sandbox none: no such sandbox");
	check_problem(fetch("DELETE", "/v1/templates/none", "", 404), "ENOENT",
		      "remove template none");
	check_problem(fetch("POST", "/v1/sandboxes", "{\"x\":1}", 400),
		      "EINVAL", "create sandbox: unknown key x");
	check_problem(fetch("POST", "/v1/sandboxes", "", 400), "EINVAL",
		      "create sandbox: bad JSON");
	check_problem(fetch("GET", "/v1/host", "{\"x\":1}", 400), "EINVAL",
		      "unknown key x");
	json_decref(fetch("GET", "/v1/host", "{}", 200));
	check_problem(fetch("GET", "/v1/sandboxes/web/stream", "", 426),
		      "EPROTO", "byre-agent/1");
	check(strstr(c.in, "Upgrade: byre-agent/1\r\n"));

	j = fetch("PATCH", "/v1/sandboxes/web", "", 405);
	check(strstr(c.in, "Allow: GET, DELETE\r\n"));
	check_problem(j, "EOPNOTSUPP", "GET, DELETE");
	strike();
}

static void send_body(size_t bytes, bool chunked)
{
	static char piece[65536];
	char head[256];
	size_t n;

	memset(piece, ' ', sizeof(piece));
	client_open();
	n = (size_t)snprintf(head, sizeof(head),
			     "POST /v1/sandboxes HTTP/1.1\r\nHost: b\r\n");
	n += chunked ? (size_t)snprintf(head + n, sizeof(head) - n,
					"Transfer-Encoding: chunked\r\n\r\n")
		     : (size_t)snprintf(head + n, sizeof(head) - n,
					"Content-Length: %zu\r\n\r\n", bytes);
	client_send(head, n);
	for (size_t left = bytes; left;) {
		size_t now = min(left, sizeof(piece));

		if (chunked) {
			n = (size_t)snprintf(head, sizeof(head), "%zx\r\n",
					     now);
			client_send(head, n);
		}
		client_send(piece, now);
		if (chunked)
			client_send("\r\n", 2);
		left -= now;
	}
	if (chunked)
		client_send("0\r\n\r\n", 5);
}

static void test_body_limit(void)
{
	stage();
	send_body(1 << 20, false); /* just not too large: only bad JSON */
	client_until("bad JSON");
	client_close();
	send_body((1 << 20) + 1, false);
	client_until("larger than");
	check(strstr(c.in, " 413 "));
	client_close();
	send_body((1 << 20) + 1, true);
	client_until("larger than");
	check(strstr(c.in, " 413 "));
	client_close();
	send_body(20 << 20, true); /* this is no mistake any more: cut */
	client_until(NULL);
	check(c.len == 0);
	client_close();
	strike();
}

static void test_keep_alive(void)
{
	static const char two[] = "GET /v1/host HTTP/1.1\r\nHost: b\r\n\r\n"
				  "GET /v1/mem/none HTTP/1.1\r\n"
				  "Host: b\r\n\r\n";
	static const char junk[] = "\x16\x03\x01\x02\x01\r\n\r\n";

	stage();
	client_open();
	for (size_t i = 0; i < strlen(two); i++) /* slowly */
		client_send(two + i, 1);
	client_until("no such sandbox");
	check(strstr(c.in, "200 OK") && strstr(c.in, "404 Not Found"));
	check(!c.end);
	client_send(two, strlen(two)); /* at once */
	client_until("no such sandbox");
	client_close();
	client_open();
	client_send(junk, strlen(junk));
	client_until(NULL);
	client_close();
	client_open();
	client_send("GET", 3); /* left hanging at the end */
	strike();
	close(c.fd);
}

int main(void)
{
	house_open();
	test_look();
	test_refused();
	test_body_limit();
	test_keep_alive();
	house_close();
	return 0;
}
