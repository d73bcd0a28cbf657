/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies: what is right comes through whole, what is wrong is refused by name
 */
#include "api/bakes.h"
#include "api/problem.h"
#include "api/sandboxes.h"
#include "api/stores.h"
#include "api/transfers.h"
#include "api/utf8.h"
#include "base/guard.h"
#include "base/test.h"

#include <errno.h>

/* ---- create ---- */

static void check_create(const char *json, const char *say)
{
	struct sandbox_body b = SANDBOX_BODY_NULL;
	struct err e = ERR_NULL;

	if (sandbox_body_parse(json, strlen(json), &b, &e) == -EINVAL &&
	    e.code == EINVAL && strstr(e.msg, say) && !b.root)
		return;
	fprintf(stderr, "%s: \"%s\" does not say \"%s\"\n", json, e.msg, say);
	exit(1);
}

static void test_create(void)
{
	static const char json[] =
		"{\"template\": \"base\", \"name\": \"web-1\","
		" \"ttl_ns\": 600000000000, \"net\": \"user\","
		" \"env\": {\"A\": \"1=2\", \"B\": \"\"}}";
	struct sandbox_body b = SANDBOX_BODY_NULL;
	struct err e = ERR_NULL;

	check(sandbox_body_parse(json, strlen(json), &b, &e) == 0);
	check_str(b.template, "base");
	check_str(b.name, "web-1");
	check(b.ttl_ns == 600000000000ull && b.net == 1 && b.n_env == 2);
	check_str(b.env[0], "A=1=2");
	check_str(b.env[1], "B=");
	check(!b.env[2]);
	sandbox_body_deinit(&b);

	check(sandbox_body_parse("{\"template\":\"b\"}", 16, &b, &e) == 0);
	check(!b.name && !b.ttl_ns && !b.net && !b.n_env && !b.env);
	sandbox_body_deinit(&b);
}

static void test_create_refused(void)
{
	check_create("", "bad JSON");
	check_create("{", "bad JSON");
	check_create("[]", "must be a JSON object");
	check_create("null", "bad JSON");
	check_create("{}", "template is missing");
	check_create("{\"template\":\"a\"} x", "bad JSON");
	check_create("{\"template\":\"a\",\"template\":\"b\"}", "bad JSON");
	check_create("{\"template\":\"a\\u0000b\"}", "bad JSON");
	check_create("{\"template\":\"\xff\"}", "bad JSON");
	check_create("{\"template\":\"a\",\"Name\":\"b\"}", "unknown key Name");
	check_create("{\"template\":null}", "template must be a string");
	check_create("{\"template\":[]}", "template must be a string");
	check_create("{\"template\":\"\"}",
		     "template \"\": not a name (1 to 63");
	check_create("{\"template\":\"../x\"}",
		     "create sandbox: template \"../x\": not a name");
	check_create("{\"template\":\"a\",\"name\":\"-a\"}",
		     "create sandbox: name \"-a\": not a name");
	check_create("{\"template\":\"a\",\"ttl_ns\":1.0}",
		     "ttl_ns must be an integer");
	check_create("{\"template\":\"a\",\"ttl_ns\":\"1\"}",
		     "ttl_ns must be an integer");
	check_create("{\"template\":\"a\",\"ttl_ns\":-1}",
		     "ttl_ns of -1: not between 0 and");
	check_create("{\"name\":\"w\",\"ttl_ns\":9223372036854775807}",
		     "create sandbox w: ttl of 106752 d: more than 3650 d");
	check_create("{\"template\":\"a\",\"ttl_ns\":9223372036854775808}",
		     "bad JSON");
	check_create("{\"template\":\"a\",\"net\":\"tap\"}",
		     "net must be none or user");
	check_create("{\"template\":\"a\",\"net\":true}",
		     "net must be a string");
	check_create("{\"template\":\"a\",\"env\":[]}",
		     "env must be an object");
	check_create("{\"template\":\"a\",\"env\":{\"A\":1}}",
		     "env must be an object of strings");
	check_create("{\"template\":\"a\",\"env\":{\"\":\"1\"}}",
		     "env must have names");
	check_create("{\"template\":\"a\",\"env\":{\"A=B\":\"1\"}}",
		     "env has a name with =");
}

/* One more variable, one more byte than fits. */
static void test_create_env(void)
{
	char *json = malloc(1 << 20);
	size_t n;

	check(json);
	n = (size_t)sprintf(json, "{\"template\":\"a\",\"env\":{\"v\":\"1\"");
	for (int i = 0; i < 256; i++)
		n += (size_t)sprintf(json + n, ",\"v%d\":\"\"", i);
	strcpy(json + n, "}}");
	check_create(json, "env has more than 256");

	n = (size_t)sprintf(json, "{\"template\":\"a\",\"env\":{\"v\":\"");
	memset(json + n, 'x', 32768);
	strcpy(json + n + 32768, "\"}}");
	check_create(json, "env has more than 32768 bytes");
	free(json);
}

/* ---- bake ---- */

static void check_bake(const char *json, const char *say)
{
	struct bake_body b = BAKE_BODY_NULL;
	struct err e = ERR_NULL;

	if (bake_body_parse(json, strlen(json), &b, &e) == -EINVAL &&
	    e.code == EINVAL && strstr(e.msg, say) && !b.root && !b.warm)
		return;
	fprintf(stderr, "%s: \"%s\" does not say \"%s\"\n", json, e.msg, say);
	exit(1);
}

#define BAKE "{\"name\":\"a\",\"rootfs\":\"/r\","

static void test_bake(void)
{
	static const char json[] = BAKE
		"\"kernel\":\"/k\",\"initrd\":\"/i\",\"cmdline\":\"quiet\","
		"\"memory_bytes\":1073741824,\"vcpus\":2,"
		"\"warm\":[\"true\",\"id\"],\"timeout_ns\":5,"
		"\"replace\":true,\"net\":\"user\",\"share\":\"none\"}";
	static const char least[] = "{\"name\":\"a\",\"rootfs\":\"/r\"}";
	struct bake_body b = BAKE_BODY_NULL;
	struct err e = ERR_NULL;

	check(bake_body_parse(json, strlen(json), &b, &e) == 0);
	check_str(b.options.name, "a");
	check_str(b.options.rootfs, "/r");
	check_str(b.options.kernel, "/k");
	check_str(b.options.initrd, "/i");
	check_str(b.options.cmdline, "quiet");
	check(b.options.memory_bytes == 1ull << 30 && b.options.vcpus == 2);
	check(b.options.n_warm == 2);
	check_str(b.options.warm[1], "id");
	check(b.options.timeout_ns == 5 && b.options.replace);
	check(b.options.net_user && !b.options.share);
	bake_body_deinit(&b);

	check(bake_body_parse(least, strlen(least), &b, &e) == 0);
	check(!b.options.kernel && !b.options.initrd && !b.options.cmdline);
	check(b.options.memory_bytes == BAKE_MEMORY_BYTES);
	check(b.options.vcpus == 1 && b.options.n_warm == 0);
	check(!b.options.replace && !b.options.net_user && b.options.share);
	bake_body_deinit(&b);
}

static void test_bake_refused(void)
{
	check_bake("{\"rootfs\":\"/r\"}", "name is missing");
	check_bake("{\"name\":\"a\"}", "rootfs is missing");
	check_bake("{\"name\":\"a b\",\"rootfs\":\"/r\"}",
		   "bake: name \"a b\": not a name");
	check_bake("{\"name\":\"a\",\"rootfs\":\"r\"}",
		   "rootfs must be an absolute path");
	check_bake(BAKE "\"kernel\":\"k\"}", "kernel must be an absolute path");
	check_bake(BAKE "\"initrd\":\"\"}", "initrd must have 1 to");
	check_bake(BAKE "\"memory_bytes\":1048576}",
		   "bake a: memory of 1 MiB: not between 80 MiB and 64 GiB");
	check_bake(BAKE "\"memory_bytes\":83886079}",
		   "memory_bytes of 83886079: not between 83886080 and");
	check_bake(BAKE "\"memory_bytes\":1099511627776}",
		   "memory of 1 TiB: not between");
	check_bake(BAKE "\"memory_bytes\":1073741825}",
		   "bake a: memory of 1073741825 bytes: not whole MiB");
	check_bake(BAKE "\"vcpus\":0}", "vcpus of 0: not between 1 and 16");
	check_bake(BAKE "\"vcpus\":17}", "vcpus of 17: not between 1 and 16");
	check_bake(BAKE "\"warm\":\"true\"}", "warm must be an array");
	check_bake(BAKE "\"warm\":[1]}", "warm must be an array of strings");
	check_bake(BAKE "\"warm\":[\"\"]}", "warm must have 1 to");
	check_bake(BAKE "\"replace\":1}", "replace must be true or false");
	check_bake(BAKE "\"share\":\"all\"}", "share must be none or template");
	check_bake(BAKE "\"warm\":["
			"\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\","
			"\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\","
			"\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\","
			"\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\","
			"\"1\"]}",
		   "warm has more than 32");
}

/* ---- stores ---- */

static void check_store(const char *json, const char *say)
{
	struct store_spec s = { 0 };
	struct err e = ERR_NULL;

	if (store_body_parse(json, strlen(json), &s, &e) == -EINVAL &&
	    e.code == EINVAL && strstr(e.msg, say) && !s.name[0])
		return;
	fprintf(stderr, "%s: \"%s\" does not say \"%s\"\n", json, e.msg, say);
	exit(1);
}

static void test_store(void)
{
	static const char all[] =
		"{\"name\":\"lab\",\"url\":\"s3://bucket/prefix\","
		"\"endpoint\":\"http://127.0.0.1:9000\","
		"\"region\":\"eu-north-1\",\"credentials\":\"/etc/keys\"}";
	static const char least[] = "{\"name\":\"d\",\"url\":\"/srv/d\"}";
	struct store_spec s = { 0 };
	struct err e = ERR_NULL;

	check(store_body_parse(all, strlen(all), &s, &e) == 0);
	check_str(s.name, "lab");
	check_str(s.url, "s3://bucket/prefix");
	check_str(s.endpoint, "http://127.0.0.1:9000");
	check_str(s.region, "eu-north-1");
	check_str(s.credentials, "/etc/keys");
	check_str(s.ca, "");
	check(store_body_parse(least, strlen(least), &s, &e) == 0);
	check(!s.endpoint[0] && !s.region[0] && !s.credentials[0]);
}

#define STORE "{\"name\":\"a\",\"url\":\"s3://bucket\","

static void test_store_refused(void)
{
	check_store("{\"url\":\"/srv\"}", "name is missing");
	check_store("{\"name\":\"a\"}", "url is missing");
	check_store("{\"name\":\"a\",\"url\":\"\"}", "url must have 1 to");
	check_store("{\"name\":\"../a\",\"url\":\"/srv\"}", "name");
	check_store("{\"name\":\"a\",\"url\":\"file:///srv\"}", "store a");
	check_store("{\"name\":\"a\",\"url\":\"/srv\\n/x\"}", "control");
	check_store(STORE "\"credentials\":\"keys\"}",
		    "credentials must be an absolute path");
	check_store(STORE "\"ca\":\"ca.pem\"}", "ca must be an absolute path");
	check_store(STORE "\"secret\":\"x\"}", "unknown key secret");
	check_store(STORE "\"region\":1}", "region must be a string");
}

/* ---- push and pull ---- */

static void check_push(const char *json, const char *say)
{
	struct push_body b = { .root = NULL };
	struct err e = ERR_NULL;

	if (push_body_parse(json, strlen(json), &b, &e) == -EINVAL &&
	    e.code == EINVAL && strstr(e.msg, say) && !b.root)
		return;
	fprintf(stderr, "%s: \"%s\" does not say \"%s\"\n", json, e.msg, say);
	exit(1);
}

static void check_pull(const char *json, const char *say)
{
	struct pull_body b = { .root = NULL };
	struct err e = ERR_NULL;

	if (pull_body_parse(json, strlen(json), &b, &e) == -EINVAL &&
	    e.code == EINVAL && strstr(e.msg, say) && !b.root)
		return;
	fprintf(stderr, "%s: \"%s\" does not say \"%s\"\n", json, e.msg, say);
	exit(1);
}

#define PUSH "{\"template\":\"t\",\"store\":\"s\""

static void test_push_and_pull(void)
{
	static const char push[] = PUSH ",\"parent\":\"p\",\"force\":true}";
	static const char pull[] = PUSH ",\"name\":\"n\",\"eager\":true,"
					"\"replace\":true}";
	static const char least[] = PUSH "}";
	struct push_body a = { .root = NULL };
	struct pull_body b = { .root = NULL };
	struct err e = ERR_NULL;

	check(push_body_parse(push, strlen(push), &a, &e) == 0);
	check_str(a.options.template, "t");
	check_str(a.options.store, "s");
	check_str(a.options.parent, "p");
	check(a.options.force);
	json_decref(a.root);
	check(push_body_parse(least, strlen(least), &a, &e) == 0);
	check(!a.options.parent && !a.options.force);
	json_decref(a.root);

	check(pull_body_parse(pull, strlen(pull), &b, &e) == 0);
	check_str(b.options.template, "t");
	check_str(b.options.store, "s");
	check_str(b.options.name, "n");
	check(b.options.eager && b.options.replace);
	json_decref(b.root);
	check(pull_body_parse(least, strlen(least), &b, &e) == 0);
	check(!b.options.name && !b.options.eager && !b.options.replace);
	json_decref(b.root);
}

static void test_push_and_pull_refused(void)
{
	check_push("{\"template\":\"t\"}", "store is missing");
	check_push("{\"store\":\"s\"}", "template is missing");
	check_push(PUSH ",\"parent\":\"../p\"}", "parent \"../p\": not a name");
	check_push(PUSH ",\"eager\":true}", "unknown key eager");
	check_push(PUSH ",\"force\":1}", "key force");
	check_push("{\"template\":\"a/b\",\"store\":\"s\"}",
		   "template \"a/b\": not a name");
	check_push("{\"template\":\"a\",\"store\":\"s s\"}",
		   "store \"s s\": not a name");
	check_pull("{\"template\":\"t\"}", "store is missing");
	check_pull("{\"store\":\"s\"}", "template is missing");
	check_pull(PUSH ",\"name\":\".\"}", "name \".\": not a name");
	check_pull(PUSH ",\"eager\":1}", "eager must be true or false");
	check_pull(PUSH ",\"parent\":\"p\"}", "unknown key parent");
}

/* ---- text ---- */

static void check_utf8(const char *in, size_t len, const char *out)
{
	json_t *j = utf8_json(in, len);

	check(j);
	check_str(json_string_value(j), out);
	json_decref(j);
}

#define FFFD "\xef\xbf\xbd"

static void test_utf8(void)
{
	json_t *j = utf8_json_text(NULL);

	check(json_is_null(j));
	check_utf8("", 0, "");
	check_utf8("a\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\x84", 10,
		   "a\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\x84");
	check_utf8("a\xff"
		   "b",
		   3, "a" FFFD "b");
	check_utf8("a\0b", 3, "a" FFFD "b");
	check_utf8("\xc0\xaf", 2, FFFD FFFD); /* overlong */
	check_utf8("\xe0\x80\x80", 3, FFFD FFFD FFFD);
	check_utf8("\xed\xa0\x80", 3, FFFD FFFD FFFD); /* surrogate */
	check_utf8("\xf4\x90\x80\x80", 4, FFFD FFFD FFFD FFFD);
	check_utf8("\xe2\x82", 2, FFFD FFFD); /* cut */
	check_utf8("\xe2\x82"
		   "a",
		   3, FFFD FFFD "a");

	check(utf8_whole("", 0) == 0);
	check(utf8_whole("abc", 3) == 3);
	check(utf8_whole("a\xc3", 2) == 1);
	check(utf8_whole("a\xc3\xa4", 3) == 3);
	check(utf8_whole("a\xe2\x82", 3) == 1);
	check(utf8_whole("a\xf0\x9f\x90", 4) == 1);
	check(utf8_whole("\x80\x80\x80\x80", 4) == 4); /* never was one */
}

static void test_problem(void)
{
	json_t *j = problem_json(404, ENOENT, "remove sandbox \xff: no such");

	check(j);
	check_str(json_string_value(json_object_get(j, "title")), "Not Found");
	check_str(json_string_value(json_object_get(j, "errno")), "ENOENT");
	check_str(json_string_value(json_object_get(j, "detail")),
		  "remove sandbox " FFFD ": no such");
	check(json_integer_value(json_object_get(j, "status")) == 404);
	json_decref(j);

	check(problem_status(EINVAL) == 400);
	check(problem_status(ENOENT) == 404);
	check(problem_status(EEXIST) == 409 && problem_status(EBUSY) == 409);
	check(problem_status(E2BIG) == 413);
	check(problem_status(ENOSPC) == 507);
	check(problem_status(ENOMEM) == 503);
	check(problem_status(ETIMEDOUT) == 504);
	check(problem_status(EIO) == 500 && problem_status(0) == 500);
}

int main(void)
{
	test_create();
	test_create_refused();
	test_create_env();
	test_bake();
	test_bake_refused();
	test_store();
	test_store_refused();
	test_push_and_pull();
	test_push_and_pull_refused();
	test_utf8();
	test_problem();
	return 0;
}
