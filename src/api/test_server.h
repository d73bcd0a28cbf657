/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The whole API over its socket, with everything below it faked: the registry,
 * templates and bakes answer when the test says so
 *
 * The fakes stand in for the modules of the same names, so a program includes
 * this once.
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
#include <jansson.h>
#include <sys/socket.h>
#include <sys/stat.h>

/* ---- fakes ---- */

struct sandbox {
	const char *id, *name;
	enum sandbox_state state;
	const char *cause, *paused_because;
	pid_t pid;
	int pidfd;
	void *ram;
	struct channel *channel;
	const char *image; /* NULL: none */
	int layer_fd;
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
	return s == SANDBOX_RUNNING  ? "running"
	       : s == SANDBOX_PAUSED ? "paused"
				     : "failed";
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
		.paused_because = s->paused_because,
		.timings = { 83123456, 0, 1000, 0, 83124500 },
	};
}

static inline int ask(sandbox_done_fn done, void *arg, struct err *e)
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

static inline void answer(struct sandbox *s, int code, const char *msg)
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

bool sandbox_layer(const struct sandbox *s, struct sandbox_layer *ret)
{
	if (!s->image)
		return false;
	*ret = (struct sandbox_layer){
		.template = "base",
		.image = s->image,
		.fd = s->layer_fd,
		.bytes = 1 << 20,
		.zero_bytes = 1 << 19,
	};
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

bool templates_has_image(const struct templates *t, const char *image)
{
	(void)t;
	return !strcmp(image, "im-now");
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

static inline void move(const struct job_events *events, void *arg)
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

static inline void move_end(int code, const char *msg)
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

static inline void bake_end(int code, const char *msg)
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

static inline void stage(void)
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

static inline void strike(void)
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

static inline void turn(int ms)
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

static inline void client_open(void)
{
	struct err e = ERR_NULL;

	check(io_connect_unix(socket_path, true, &c.fd, &e) == 0);
	c.len = 0;
	c.end = false;
}

static inline void client_send(const char *p, size_t len)
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

static inline void client_read(void)
{
	ssize_t n = recv(c.fd, c.in + c.len, sizeof(c.in) - c.len - 1, 0);

	if (n > 0)
		c.len += (size_t)n;
	else
		c.end = n == 0 || errno != EAGAIN;
	c.in[c.len] = '\0';
}

/* Turn the loop until @text has come, or until the connection ends (NULL). */
static inline void client_until(const char *text)
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

static inline void client_close(void)
{
	close(c.fd);
	for (int i = 0; i < 5; i++)
		turn(0);
}

/* Turns until nothing more happens. */
static inline void settle(void)
{
	for (int i = 0; i < 10; i++)
		turn(1);
	client_read();
}

static inline void ask_http(const char *method, const char *path,
			    const char *body)
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
static inline json_t *result(int status)
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

static inline json_t *fetch(const char *method, const char *path,
			    const char *body, int status)
{
	ask_http(method, path, body);
	client_until(NULL);
	return result(status);
}

static inline void check_problem(json_t *j, const char *name,
				 const char *detail)
{
	check(strstr(c.in, "application/problem+json"));
	check_str(json_string_value(json_object_get(j, "errno")), name);
	if (!strstr(json_string_value(json_object_get(j, "detail")), detail)) {
		fprintf(stderr, "%s: not \"%s\"\n", c.in, detail);
		exit(1);
	}
	json_decref(j);
}

static inline const char *text_at(json_t *j, const char *key)
{
	return json_string_value(json_object_get(j, key));
}

static inline json_int_t number_at(json_t *j, const char *key)
{
	check(json_is_integer(json_object_get(j, key)));
	return json_integer_value(json_object_get(j, key));
}

/* ---- the house ---- */

/* First and last in main(). */
static inline void house_open(void)
{
	log_set_level(LOG_LEVEL_ERROR);
	test_dir(dir, sizeof(dir));
	snprintf(socket_path, sizeof(socket_path), "%s/api.sock", dir);
	snprintf(console_path, sizeof(console_path), "%s/console", dir);
	manifest = (struct image_manifest){ .memory_bytes = 5000,
					    .zero_bytes = 4000,
					    .vcpus = 1,
					    .share = true };
}

static inline void house_close(void)
{
	unlink(console_path);
	check(rmdir(dir) == 0);
}
