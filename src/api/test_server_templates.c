/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Templates and what moves them: bakes, stores, pushes and pulls, the pager
 */
#include "api/test_server.h"

static void test_bake(void)
{
	static const char body[] = "{\"name\":\"base\",\"rootfs\":\"/r\"}";
	static char flood[65536];
	size_t lines = 0;

	stage();
	check_problem(fetch("POST", "/v1/templates",
			    "{\"name\":\"taken\",\"rootfs\":\"/r\"}", 409),
		      "EEXIST", "bake taken");
	ask_http("POST", "/v1/templates", body);
	client_until("\r\n\r\n"); /* the head comes before the first line */
	check(strstr(c.in, " 200 ") && strstr(c.in, "application/x-ndjson"));
	baking->step(baking_arg, "boot", "a\nb", 0, 6);
	client_until("{\"step\":\"boot\",\"detail\":\"a\\nb\",\"done\":0,"
		     "\"total\":6}\n");
	baking->output(baking_arg, "x\xe2\x82", 3);
	client_until("{\"output\":\"x\"}\n");
	baking->output(baking_arg, "\xac\xff", 2);
	client_until("{\"output\":\"\xe2\x82\xac\xef\xbf\xbd\"}\n");
	bake_end(0, NULL);
	client_until("{\"template\":{\"name\":\"base\"");
	client_until(NULL);
	client_close();

	ask_http("POST", "/v1/templates", body);
	settle();
	bake_end(ENOSPC, "bake base: full");
	client_until("{\"error\":\"bake base: full\",\"errno\":\"ENOSPC\"}\n");
	client_until(NULL);
	client_close();

	/* nobody reads, and the result is still told */
	memset(flood, 'x', sizeof(flood));
	ask_http("POST", "/v1/templates", body);
	for (int i = 0; i < 100; i++) {
		turn(0);
		baking->output(baking_arg, flood, sizeof(flood));
	}
	for (int i = 0; i < 100; i++)
		baking->step(baking_arg, "warm", "", 1, 6);
	bake_end(EIO, "the end");
	client_until("the end");
	check(c.len < 2 << 20);
	client_until(NULL);
	for (const char *p = c.in; (p = strstr(p, "{\"step\"")); p++)
		lines++;
	check(lines == 100);
	client_close();

	ask_http("POST", "/v1/templates", body);
	settle();
	check(baking);
	client_close();
	check(!baking); /* given up */

	ask_http("POST", "/v1/templates", body);
	settle();
	strike();
	check(!baking);
	close(c.fd);
}

static void test_stores(void)
{
	json_t *j;

	stage();
	j = fetch("GET", "/v1/stores", "", 200);
	check(json_is_array(j) && json_array_size(j) == 0);
	json_decref(j);
	check_problem(fetch("POST", "/v1/stores",
			    "{\"name\":\"a\",\"url\":\"gopher://x\"}", 400),
		      "EINVAL", "store a");
	check_problem(fetch("POST", "/v1/stores",
			    "{\"name\":\"a\",\"url\":\"s3://bucket/p\","
			    "\"credentials\":\"keys\"}",
			    400),
		      "EINVAL", "credentials must be an absolute path");
	json_decref(fetch("POST", "/v1/stores",
			  "{\"name\":\"lab\",\"url\":\"s3://bucket/p\","
			  "\"region\":\"eu-north-1\","
			  "\"credentials\":\"/etc/keys\"}",
			  201));
	json_decref(fetch("POST", "/v1/stores",
			  "{\"name\":\"used\",\"url\":\"/srv/used\"}", 201));
	check_problem(fetch("POST", "/v1/stores",
			    "{\"name\":\"lab\",\"url\":\"/srv\"}", 409),
		      "EEXIST", "add store lab");
	j = fetch("GET", "/v1/stores", "", 200);
	check(json_array_size(j) == 2);
	check_str(json_string_value(
			  json_object_get(json_array_get(j, 0), "credentials")),
		  "/etc/keys");
	check(json_is_null(json_object_get(json_array_get(j, 0), "endpoint")));
	json_decref(j);
	check_problem(fetch("DELETE", "/v1/stores/used", "", 409), "EBUSY",
		      "template base streams from it");
	check_problem(fetch("DELETE", "/v1/stores/none", "", 404), "ENOENT",
		      "remove store none");
	ask_http("DELETE", "/v1/stores/lab", "");
	client_until(NULL);
	check(strstr(c.in, " 204 "));
	client_close();
	strike();
}

static void test_transfers(void)
{
	static const char push[] = "{\"template\":\"base\",\"store\":\"s\"}";
	static const char pull[] = "{\"store\":\"s\",\"template\":\"t\","
				   "\"name\":\"base\",\"eager\":true}";
	struct err e = ERR_NULL;
	size_t lines = 0;

	stage();
	check_problem(fetch("POST", "/v1/push", push, 404), "ENOENT",
		      "there is no store s");
	{
		struct store_spec spec = { .name = "s", .url = "/srv" };

		check(stores_add(stores, &spec, &e) == 0);
	}
	ask_http("POST", "/v1/push", push);
	client_until("\r\n\r\n");
	moving->step(moving_arg, "upload", "x", 1ull << 40, 1ull << 41);
	client_until("{\"step\":\"upload\",\"detail\":\"x\","
		     "\"done\":1099511627776,\"total\":2199023255552}\n");
	move_end(0, NULL);
	client_until("\"push\":{\"image\":\"im12\",\"parent\":null,");
	client_until("\"sent\":true}}\n");
	client_until(NULL);
	client_close();

	ask_http("POST", "/v1/pull", pull);
	settle();
	check(moving && moving_eager);
	/* Nobody reads: progress is left out, the result is not. */
	for (uint64_t i = 0; i < 100000; i++)
		moving->step(moving_arg, "fetch", "y", i, 100000);
	move_end(0, NULL);
	client_until("{\"template\":{\"name\":\"base\"");
	client_until(NULL);
	for (const char *p = c.in; (p = strstr(p, "{\"step\"")); p++)
		lines++;
	check(lines > 1000 && lines < 100000);
	client_close();

	ask_http("POST", "/v1/pull", pull);
	settle();
	check(moving);
	client_close();
	check(!moving); /* given up */

	ask_http("POST", "/v1/push", push);
	settle();
	move_end(EBADMSG, "push base: images/im12/index is damaged");
	client_until("{\"error\":\"push base: images/im12/index is damaged\","
		     "\"errno\":\"EBADMSG\"}\n");
	client_until(NULL);
	client_close();
	strike();
}

static void test_evict_and_pager(void)
{
	json_t *j;

	stage();
	check_problem(fetch("POST", "/v1/templates/none/evict", "", 404),
		      "ENOENT", "evict template none");
	check_problem(fetch("POST", "/v1/templates/base/evict", "", 409),
		      "EOPNOTSUPP", "not streamed");
	j = fetch("GET", "/v1/pager", "", 200);
	check(json_is_null(json_object_get(j, "pid")));
	check(json_array_size(json_object_get(j, "layers")) == 0);
	check(json_is_integer(
		json_object_get(json_object_get(j, "cache"), "budget")));
	json_decref(j);
	strike();
}

int main(void)
{
	house_open();
	test_bake();
	test_stores();
	test_transfers();
	test_evict_and_pager();
	house_close();
	return 0;
}
