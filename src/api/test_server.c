/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole API over its socket, with everything below it faked: the registry,
 * templates and bakes answer when the test says so.
 */
#include "api/api.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/log.h"
#include "base/test.h"
#include "base/worker.h"
#include "image/image.h"
#include "sandbox/channel.h"
#include "sandbox/console.h"
#include "sandbox/db.h"
#include "sandbox/sandbox.h"
#include "sandbox/stores.h"
#include "template/bake.h"
#include "template/pull.h"
#include "template/push.h"
#include "template/template.h"
#include "vmm/vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* ---- fakes ---- */

struct sandbox {
	const char *id, *name;
	enum sandbox_state state;
	const char *cause;
	pid_t pid;
	int pidfd;
	void *ram;
	struct channel *channel;
};

static struct sandbox herd[2];
static size_t n_herd;
static char console_path[128];

/* The one request to the registry that waits. */
static sandbox_done_fn waiting;
static void *waiting_arg;
static struct err refusal; /* code: the next request is refused */
static bool forced, forgotten;
static uint64_t asked_ttl_ns;
static char asked_env[64];

struct sandbox *registry_find(struct registry *r, const char *id_or_name)
{
	(void)r;
	for (size_t i = 0; i < n_herd; i++)
		if (!strcmp(herd[i].id, id_or_name) ||
		    !strcmp(herd[i].name, id_or_name))
			return &herd[i];
	return NULL;
}

struct sandbox *registry_next(struct registry *r, struct sandbox *after)
{
	size_t i = after ? (size_t)(after - herd) + 1 : 0;

	(void)r;
	return i < n_herd ? &herd[i] : NULL;
}

const char *sandbox_state_name(enum sandbox_state s)
{
	return s == SANDBOX_RUNNING ? "running" : "failed";
}

struct sandbox_info sandbox_info(const struct sandbox *s)
{
	return (struct sandbox_info){
		.id = s->id,
		.name = s->name,
		.template = "base",
		.state = s->state,
		.pid = s->pid,
		.created_real_ns = 1700000000123456789ull,
		.memory_bytes = 1 << 20,
		.vcpus = 1,
		.cause = s->cause,
		.timings = { 83123456, 0, 1000, 0, 83124500 },
	};
}

static int ask(sandbox_done_fn done, void *arg, struct err *e)
{
	check(!waiting);
	if (refusal.code) {
		*e = refusal;
		refusal = (struct err)ERR_NULL;
		return -e->code;
	}
	waiting = done;
	waiting_arg = arg;
	forgotten = false;
	return 0;
}

int sandbox_create(struct registry *r, const struct sandbox_options *options,
		   sandbox_done_fn done, void *arg, struct err *e)
{
	(void)r;
	asked_ttl_ns = options->ttl_ns;
	snprintf(asked_env, sizeof(asked_env), "%s",
		 options->n_env ? options->env[0] : "");
	return ask(done, arg, e);
}

int sandbox_pause(struct sandbox *s, sandbox_done_fn done, void *arg,
		  struct err *e)
{
	(void)s;
	return ask(done, arg, e);
}

int sandbox_resume(struct sandbox *s, sandbox_done_fn done, void *arg,
		   struct err *e)
{
	(void)s;
	return ask(done, arg, e);
}

int sandbox_remove(struct sandbox *s, bool force, sandbox_done_fn done,
		   void *arg, struct err *e)
{
	(void)s;
	forced = force;
	return ask(done, arg, e);
}

void sandbox_forget(struct registry *r, void *arg)
{
	(void)r;
	if (waiting_arg != arg)
		return;
	forgotten = true;
	waiting = NULL;
	waiting_arg = NULL;
}

static void answer(struct sandbox *s, int code, const char *msg)
{
	sandbox_done_fn done = take(waiting);
	struct err e = ERR_NULL;

	check(done);
	if (code)
		err_set(&e, code, "%s", msg);
	done(waiting_arg, s, &e);
}

struct channel *sandbox_channel(struct sandbox *s, struct err *e)
{
	if (!s->channel)
		err_set(e, EBUSY, "it is not running");
	return s->channel;
}

const char *sandbox_console_path(const struct sandbox *s)
{
	(void)s;
	return console_path;
}

bool sandbox_memory(const struct sandbox *s, struct sandbox_memory *ret)
{
	if (!s->ram)
		return false;
	*ret = (struct sandbox_memory){
		.template = "base",
		.pid = s->pid,
		.ram_addr = (uint64_t)(uintptr_t)s->ram,
		.ram_bytes = 1 << 20,
		.pidfd = s->pidfd,
	};
	snprintf(ret->id, sizeof(ret->id), "%s", s->id);
	return true;
}

static struct image_manifest manifest;
static bool template_there = true;

size_t templates_count(const struct templates *t)
{
	(void)t;
	return template_there ? 2 : 1;
}

struct template_info templates_info(struct templates *t, size_t i)
{
	(void)t;
	if (i == 0)
		return (struct template_info){ .name = "bad",
					       .created = "then",
					       .problem = "torn" };
	return (struct template_info){ .name = "base",
				       .created = "now",
				       .manifest = &manifest,
				       .resident_bytes = 4096 };
}

bool templates_has(const struct templates *t, const char *name)
{
	(void)t;
	return !strcmp(name, "bad") ||
	       (template_there && !strcmp(name, "base"));
}

int templates_remove(struct templates *t, struct registry *r, const char *name,
		     struct err *e)
{
	(void)r;
	if (!templates_has(t, name))
		return err_set(e, ENOENT, "remove template %s: no", name);
	return 0;
}

struct template_info templates_find(struct templates *t, const char *name)
{
	for (size_t i = 0; i < templates_count(t); i++)
		if (!strcmp(templates_info(t, i).name, name))
			return templates_info(t, i);
	return (struct template_info){ 0 };
}

const char *templates_user_of(const struct templates *t, const char *store)
{
	(void)t;
	return strcmp(store, "used") ? NULL : "base";
}

/* The one push or pull. */
static const struct job_events *moving;
static void *moving_arg;
static bool moving_eager;

static void move(const struct job_events *events, void *arg)
{
	check(!moving);
	moving = events;
	moving_arg = arg;
}

int push_start(const struct transfer_config *config,
	       const struct push_options *options,
	       const struct job_events *events, void *arg, struct push **ret,
	       struct err *e)
{
	if (!stores_find(config->stores, options->store))
		return err_set(e, ENOENT, "push %s: there is no store %s",
			       options->template, options->store);
	move(events, arg);
	*ret = (struct push *)&moving;
	return 0;
}

void push_abandon(struct push *p)
{
	check(p == (struct push *)&moving && moving);
	moving = NULL;
}

const struct push_result *push_result(const struct push *p)
{
	static const struct push_result result = { .image = "im12",
						   .pack_bytes = 5,
						   .sent = true };

	check(p == (const struct push *)&moving);
	return &result;
}

int pull_start(const struct transfer_config *config,
	       const struct pull_options *options,
	       const struct job_events *events, void *arg, struct pull **ret,
	       struct err *e)
{
	(void)config;
	(void)e;
	move(events, arg);
	moving_eager = options->eager;
	*ret = (struct pull *)&moving;
	return 0;
}

void pull_abandon(struct pull *p)
{
	check(p == (struct pull *)&moving && moving);
	moving = NULL;
}

static void move_end(int code, const char *msg)
{
	struct err e = ERR_NULL;

	if (code)
		err_set(&e, code, "%s", msg);
	take(moving)->done(moving_arg, &e);
}

static const struct job_events *baking;
static void *baking_arg;

int bake_start(const struct bake_config *config,
	       const struct bake_options *options,
	       const struct job_events *events, void *arg, struct bake **ret,
	       struct err *e)
{
	(void)config;
	if (!strcmp(options->name, "taken"))
		return err_set(e, EEXIST, "bake taken: there is one");
	check(!baking);
	baking = events;
	baking_arg = arg;
	*ret = (struct bake *)&baking;
	return 0;
}

void bake_abandon(struct bake *b)
{
	check(b == (struct bake *)&baking && baking);
	baking = NULL;
}

static void bake_end(int code, const char *msg)
{
	struct err e = ERR_NULL;

	if (code)
		err_set(&e, code, "%s", msg);
	take(baking)->done(baking_arg, &e);
}

const struct vmm_host_facts *vmm_host_facts(const struct vmm_host *h)
{
	static const struct vmm_host_facts facts = {
		.flavor = { "qemu", "7.2", "tcg", "max", "microvm" },
		.accel_reason = "no \"kvm\"",
	};

	(void)h;
	return &facts;
}

const char *vmm_accel_name(enum vmm_accel a)
{
	return a == VMM_TCG ? "tcg" : "kvm";
}

/* ---- stage ---- */

static struct loop loop;
static struct worker *worker;
static struct api *api;
static struct db *db;
static struct stores *stores;
static char dir[64], root[80], socket_path[128];

static void stage(void)
{
	struct api_config config = { .root = "/root/\xff",
				     .run = dir,
				     .proc_root = "/proc",
				     .loop = &loop };
	struct err e = ERR_NULL;

	check(loop_init(&loop, &e) == 0);
	check(worker_new(&loop, 1, &worker, &e) == 0);
	snprintf(root, sizeof(root), "%s/root", dir);
	check(mkdir(root, 0700) == 0);
	check(db_open(root, &db, &e) == 0);
	check(stores_new(db, &stores, &e) == 0);
	config.worker = worker;
	config.stores = stores;
	check(api_new(&config, &api, &e) == 0);
	waiting = NULL;
	n_herd = 2;
	herd[0] = (struct sandbox){ .id = "sb0",
				    .name = "web",
				    .state = SANDBOX_RUNNING,
				    .pid = getpid(),
				    .pidfd = -1 };
	herd[1] = (struct sandbox){ .id = "sb1",
				    .name = "",
				    .state = SANDBOX_FAILED,
				    .cause = "killed by signal 9",
				    .pidfd = -1 };
}

static void strike(void)
{
	struct err e = ERR_NULL;

	api = api_free(api);
	worker = worker_free(worker);
	stores = stores_free(stores);
	db = db_close(db);
	check(io_remove_tree(root, &e) == 0);
	herd[0].channel = channel_free(herd[0].channel);
	loop_deinit(&loop);
	check(access(socket_path, F_OK) < 0);
}

static void turn(int ms)
{
	struct err e = ERR_NULL;

	check(loop_turn(&loop, ms, &e) == 0);
}

/* ---- a client ---- */

struct client {
	int fd;
	size_t len;
	bool end; /* of the connection */
	char in[4 << 20];
};

static struct client c;

static void client_open(void)
{
	struct err e = ERR_NULL;

	check(io_connect_unix(socket_path, true, &c.fd, &e) == 0);
	c.len = 0;
	c.end = false;
}

static void client_send(const char *p, size_t len)
{
	while (len) {
		ssize_t n = send(c.fd, p, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EPIPE)
			return;
		check(n >= 0 || errno == EAGAIN);
		p += max(n, 0);
		len -= (size_t)max(n, 0);
		turn(0);
	}
}

static void client_read(void)
{
	ssize_t n = recv(c.fd, c.in + c.len, sizeof(c.in) - c.len - 1, 0);

	if (n > 0)
		c.len += (size_t)n;
	else
		c.end = n == 0 || errno != EAGAIN;
	c.in[c.len] = '\0';
}

/* Turn the loop until @text has come, or until the connection ends (NULL). */
static void client_until(const char *text)
{
	uint64_t until_ns = clock_mono_ns() + 5 * NS_PER_SEC;

	for (;;) {
		turn(1);
		client_read();
		if (text && memmem(c.in, c.len, text, strlen(text)))
			return;
		if (c.end && !text)
			return;
		if (!c.end && clock_mono_ns() < until_ns)
			continue;
		fprintf(stderr, "no \"%s\" in: %s\n", text ? text : "end",
			c.in);
		exit(1);
	}
}

static void client_close(void)
{
	close(c.fd);
	for (int i = 0; i < 5; i++)
		turn(0);
}

/* Turns until nothing more happens. */
static void settle(void)
{
	for (int i = 0; i < 10; i++)
		turn(1);
	client_read();
}

static void ask_http(const char *method, const char *path, const char *body)
{
	static char text[4096];

	client_open();
	snprintf(text, sizeof(text),
		 "%s %s HTTP/1.1\r\nHost: byre\r\nConnection: close\r\n"
		 "Content-Length: %zu\r\n\r\n%s",
		 method, path, strlen(body), body);
	client_send(text, strlen(text));
}

/* Status, and the JSON body. */
static json_t *result(int status)
{
	const char *body = strstr(c.in, "\r\n\r\n");
	json_t *j;

	check(body && !strncmp(c.in, "HTTP/1.1 ", 9));
	if (atoi(c.in + 9) != status) {
		fprintf(stderr, "not %d: %s\n", status, c.in);
		exit(1);
	}
	close(c.fd);
	j = json_loads(body + 4, 0, NULL);
	check(j);
	return j;
}

static json_t *fetch(const char *method, const char *path, const char *body,
		     int status)
{
	ask_http(method, path, body);
	client_until(NULL);
	return result(status);
}

static void check_problem(json_t *j, const char *name, const char *detail)
{
	check(strstr(c.in, "application/problem+json"));
	check_str(json_string_value(json_object_get(j, "errno")), name);
	if (!strstr(json_string_value(json_object_get(j, "detail")), detail)) {
		fprintf(stderr, "%s: not \"%s\"\n", c.in, detail);
		exit(1);
	}
	json_decref(j);
}

static const char *text_at(json_t *j, const char *key)
{
	return json_string_value(json_object_get(j, key));
}

static json_int_t number_at(json_t *j, const char *key)
{
	check(json_is_integer(json_object_get(j, key)));
	return json_integer_value(json_object_get(j, key));
}

/* ---- tests ---- */

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
	log_set_level(LOG_LEVEL_ERROR);
	test_dir(dir, sizeof(dir));
	snprintf(socket_path, sizeof(socket_path), "%s/api.sock", dir);
	snprintf(console_path, sizeof(console_path), "%s/console", dir);
	manifest = (struct image_manifest){ .memory_bytes = 5000,
					    .zero_bytes = 4000,
					    .vcpus = 1,
					    .share = true };
	test_look();
	test_refused();
	test_body_limit();
	test_create();
	test_hang_up();
	test_keep_alive();
	test_bake();
	test_stores();
	test_transfers();
	test_evict_and_pager();
	test_logs();
	test_mem();
	test_stream();
	unlink(console_path);
	check(rmdir(dir) == 0);
	return 0;
}
