/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Creating a sandbox: from a name to an answering guest
 *
 *	LOOKUP   the template's image, opened and verified        [create_found]
 *	PREPARE  directories, disk, plan, in a worker           [create_prepared]
 *	SPAWN    VMM started; agent and console connected at once
 *	LOAD     device state loaded, guest running              [create_started]
 *	IDENTITY the agent renews what must not be shared       [create_identity]
 *	READY    recorded as RUNNING                               [create_ready]
 *
 * The row is in the database (CREATING) before a process exists, so that a
 * daemon killed at any step leaves something the next one can undo. A failure
 * at any step goes through create_fail(): the VMM is killed, then everything is
 * deleted, then the caller is told.
 *
 * Identity: thousands of guests start from one memory, hence from
 * one random number generator, one clock, one machine-id. The agent gets fresh
 * entropy, the time, and a host name before the first command can reach it:
 * the IDENTITY frame is the first on its channel, and the agent works in order.
 */
#include "sandbox/object.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/log.h"
#include "base/parse.h"
#include "image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* Seed of the guest's generator: 256 bits are enough, twice that is free. */
#define CREATE_ENTROPY 64
/* From a VMM's closing its sockets to its exit: freeing gigabytes included. */
#define CREATE_EXIT_NS (2 * NS_PER_SEC)

/* ---- failing ---- */

void create_fail(struct sandbox *s, const struct err *e)
{
	if (s->failure.code)
		return;
	s->failure = *e;
	loop_timer_del(&s->deadline);
	sandbox_disconnect(s);
	if (s->vmm)
		vmm_kill(s->vmm, e->msg);
	else if (!s->looking)
		sandbox_delete(s);
}

static void create_fail_code(struct sandbox *s, int code, const char *what)
{
	struct err e = ERR_NULL;

	err_set(&e, code, "create from %s: %s", s->row.template, what);
	create_fail(s, &e);
}

void create_vmm_exited(struct sandbox *s, const char *cause)
{
	char line[160];

	if (!s->failure.code) {
		console_last_line(s->dir.vmm_log_path, line, sizeof(line));
		err_set(&s->failure, EIO, "create from %s: %s%s%s%s",
			s->row.template, cause, *line ? " (" : "", line,
			*line ? ")" : "");
	}
	sandbox_disconnect(s);
	sandbox_delete(s);
}

static void create_channel_gone(struct loop_timer *t)
{
	struct sandbox *s = container_of(t, struct sandbox, deadline);

	create_fail_code(s, EIO, "the VMM closed the agent channel");
}

/* Mostly the VMM is going, and its exit, which follows, tells more. */
void create_channel_broken(struct sandbox *s, unused const struct err *e)
{
	struct loop *loop = s->registry->config.loop;

	if (s->vmm && !s->failure.code &&
	    loop_timer_set(loop, &s->deadline, loop->now_ns + NS_PER_SEC,
			   create_channel_gone) < 0)
		create_channel_gone(&s->deadline);
}

static void create_overdue(struct loop_timer *t)
{
	struct sandbox *s = container_of(t, struct sandbox, deadline);
	char line[160], what[240];

	console_last_line(s->dir.log_path, line, sizeof(line));
	snprintf(what, sizeof(what),
		 "the guest did not answer within %llu s%s%s%s",
		 (s->streamed.layer ? SANDBOX_STREAMED_READY_NS
				    : SANDBOX_READY_NS) /
			 NS_PER_SEC,
		 *line ? "; its console: " : "", line, "");
	create_fail_code(s, ETIMEDOUT, what);
}

/* ---- ready ---- */

static void create_ready(struct sandbox *s)
{
	struct sandbox_timings *t = &s->row.timings;
	struct vmm_timings v = vmm_timings(s->vmm);
	struct err none = ERR_NULL;
	uint64_t identity_ns = clock_mono_ns();
	uint64_t now;

	loop_timer_del(&s->deadline);
	s->row.state = SANDBOX_RUNNING;
	workdir_close(&s->dir);
	s->image = image_unref(s->image);
	t->load_ns = v.load_ns;
	t->spawn_ns = s->running_ns - s->start_ns - v.load_ns;
	t->identity_ns = identity_ns - s->running_ns;
	/* As the next daemon will know it: recording cannot time itself. */
	t->total_ns = identity_ns - s->start_ns;
	sandbox_record(s);
	now = clock_mono_ns();
	t->ready_ns = now - identity_ns;
	t->total_ns = now - s->start_ns;
	sandbox_arm_ttl(s);
	SANDBOX_LOG(info, s, "event=created template=%s pid=%d total_us=%llu",
		    s->row.template, s->row.proc.pid,
		    (unsigned long long)t->total_ns / 1000);
	waiters_tell(&s->creator, s, &none);
}

static void create_identity_frame(struct channel_stream *st,
				  const struct wire_frame *f)
{
	struct sandbox *s = container_of(st, struct sandbox, identity);
	char message[160] = "";
	uint64_t code = 0;

	if (f->type != WIRE_RESULT)
		return;
	if (wire_find_u64(f, WIRE_K_ERRNO, &code) == 0 && code) {
		err_drop(wire_find_str(f, WIRE_K_MESSAGE, message,
				       sizeof(message)));
		create_fail_code(s, EIO,
				 *message ? message
					  : "the agent could not renew the "
					    "guest's identity");
		return;
	}
	create_ready(s);
}

static void create_identity_broken(struct channel_stream *st,
				   unused const struct err *e)
{
	/* create_channel_broken() follows. */
	must(!st->channel);
}

static int create_identity(struct sandbox *s)
{
	guard_free uint8_t *mem = malloc(WIRE_FRAME_MAX);
	uint8_t entropy[CREATE_ENTROPY], machine[16];
	char hex[33];
	struct wire_out o;
	int n;

	if (!mem)
		return -ENOMEM;
	io_random(entropy, sizeof(entropy));
	io_random(machine, sizeof(machine));
	wire_begin(&o, mem, WIRE_FRAME_MAX, WIRE_IDENTITY, 0, 0);
	wire_put(&o, WIRE_K_ENTROPY, entropy, sizeof(entropy));
	wire_put_str(&o, WIRE_K_HOSTNAME,
		     s->row.name[0] ? s->row.name : s->row.id);
	wire_put_str(&o, WIRE_K_MACHINE_ID, format_hex(machine, 16, hex));
	for (size_t i = 0; i < s->n_env; i++)
		wire_put_str(&o, WIRE_K_ENV, s->env[i]);
	if (s->row.net)
		wire_put_u64(&o, WIRE_K_NET, 1);
	wire_put_u64(&o, WIRE_K_CLOCK, clock_real_ns());
	n = wire_end(&o);
	if (n < 0)
		return n;
	s->identity.frame = create_identity_frame;
	s->identity.broken = create_identity_broken;
	return channel_open(s->channel, &s->identity, mem, (size_t)n);
}

/* The guest runs. */
void create_started(struct sandbox *s, const struct err *e)
{
	char line[160];
	struct err mine = ERR_NULL;
	int r;

	if (s->failure.code)
		return;
	if (e->code) {
		console_last_line(s->dir.vmm_log_path, line, sizeof(line));
		err_set(&mine, e->code, "create from %s: %s%s%s%s",
			s->row.template, e->msg, *line ? " (" : "", line,
			*line ? ")" : "");
		/* A process that ended by itself is told by its exit. */
		if (vmm_state(s->vmm) == VMM_ENDED)
			s->failure = mine;
		else
			create_fail(s, &mine);
		return;
	}
	s->running_ns = clock_mono_ns();
	r = create_identity(s);
	if (r < 0)
		create_fail_code(s, -r, strerror(-r));
}

/* ---- start ---- */

static int create_spawn(struct sandbox *s, struct err *e)
{
	const struct image_manifest *m = image_manifest(s->image);
	struct vmm_spec spec = {
		.id = s->row.id,
		.ram_bytes = m->memory_bytes,
		.vcpus = m->vcpus,
		.net_user = s->row.net,
		.slot = s->row.slot,
	};
	int r;

	workdir_spec(&s->dir, &spec);
	streamed_spec(s, &spec);
	r = plan_view_open(s->dir.plan_fd, m->memory_bytes, &s->plan, e);
	if (r == 0)
		r = vmm_start(s->registry->config.host, &spec,
			      &sandbox_vmm_events, s, &s->vmm, e);
	if (r < 0)
		return r;
	s->row.proc = vmm_proc(s->vmm);
	sandbox_record(s);
	r = streamed_spawned(s, e);
	return r < 0 ? r : sandbox_connect(s, true, e);
}

struct create_job {
	struct worker_job job;
	struct sandbox *s;
	bool streamed;
	struct workdir_layer layer;
	struct err e;
};

static void create_prepare(struct worker_job *job)
{
	struct create_job *j = container_of(job, struct create_job, job);

	err_drop(workdir_make_restore(&j->s->dir, j->s->image,
				      j->streamed ? &j->layer : NULL, &j->e));
}

static void create_prepared(struct worker_job *job)
{
	struct create_job *j = container_of(job, struct create_job, job);
	struct sandbox *s = j->s;
	struct err e = j->e;

	free(j);
	s->looking = false;
	if (s->failure.code) {
		sandbox_delete(s);
		return;
	}
	if (e.code == 0)
		err_drop(create_spawn(s, &e));
	if (e.code == 0)
		return;
	err_prefix(&e, "create from %s", s->row.template);
	create_fail(s, &e);
}

/* What it maps, for as long as it lives: a template may be replaced. */
static int create_keep_layer(struct sandbox *s, struct err *e)
{
	const char *dir = strrchr(image_dir(s->image), '/');

	s->layer_fd =
		fcntl(image_fd(s->image, IMAGE_MEMORY), F_DUPFD_CLOEXEC, 0);
	if (s->layer_fd < 0)
		return err_errno(e, errno, "keep the layer");
	snprintf(s->row.image, sizeof(s->row.image), "%s",
		 dir ? dir + 1 : image_dir(s->image));
	s->row.zero_bytes = image_manifest(s->image)->zero_bytes;
	return 0;
}

/* The image is there; is all of it? */
static int create_take_image(struct sandbox *s, struct image *image,
			     struct err *e)
{
	struct loop *loop = s->registry->config.loop;
	int r;

	s->image = image_ref(image);
	s->row.memory_bytes = image_manifest(image)->memory_bytes;
	s->row.vcpus = image_manifest(image)->vcpus;
	r = streamed_prepare(s, e);
	if (r == 0 && !s->streamed.layer && image_manifest(image)->share)
		r = create_keep_layer(s, e);
	/* Moving one that is armed cannot fail. */
	if (r == 0 && s->streamed.layer)
		err_drop(
			loop_timer_set(loop, &s->deadline,
				       loop->now_ns + SANDBOX_STREAMED_READY_NS,
				       create_overdue));
	return r;
}

static void create_found(void *arg, struct image *image, const struct err *e)
{
	struct sandbox *s = arg;
	struct create_job *j;
	struct err mine = *e;

	s->looking = false;
	if (s->failure.code) {
		sandbox_delete(s);
		return;
	}
	if (!mine.code)
		err_drop(create_take_image(s, image, &mine));
	if (mine.code)
		err_prefix(&mine, "create from %s", s->row.template);
	j = mine.code ? NULL : calloc(1, sizeof(*j));
	if (!mine.code && !j)
		err_errno(&mine, ENOMEM, "create from %s", s->row.template);
	if (!j) {
		create_fail(s, &mine);
		return;
	}
	s->looking = true;
	j->s = s;
	j->streamed = streamed_layer(s, &j->layer);
	worker_submit(s->registry->config.worker, &j->job, create_prepare,
		      create_prepared);
}

/* ---- the request ---- */

static int create_check(struct registry *r, const struct sandbox_options *o,
			struct err *e)
{
	size_t bytes = 0;

	if (!o->template || !parse_name_ok(o->template))
		return err_set(e, EINVAL, "create: \"%s\" is no template name",
			       o->template ? o->template : "");
	if (o->name && !parse_name_ok(o->name))
		return err_set(
			e, EINVAL,
			"create: \"%s\" is no name: letters, digits, _ . "
			"- and at most 63 of them",
			o->name);
	if (o->name && registry_find(r, o->name))
		return err_set(e, EEXIST,
			       "create: the name %s is taken by sandbox %s",
			       o->name, registry_find(r, o->name)->row.id);
	for (size_t i = 0; i < o->n_env; i++) {
		const char *eq = strchr(o->env[i], '=');

		if (!eq || eq == o->env[i])
			return err_set(e, EINVAL,
				       "create: environment \"%s\": not "
				       "NAME=value",
				       o->env[i]);
		bytes += strlen(o->env[i]);
	}
	if (o->n_env > SANDBOX_ENV_MAX || bytes > SANDBOX_ENV_BYTES_MAX)
		return err_set(e, E2BIG,
			       "create: more than %d variables or %d bytes of "
			       "environment",
			       SANDBOX_ENV_MAX, SANDBOX_ENV_BYTES_MAX);
	return 0;
}

static int create_copy_env(struct sandbox *s, const struct sandbox_options *o)
{
	if (!o->n_env)
		return 0;
	s->env = calloc(o->n_env, sizeof(*s->env));
	if (!s->env)
		return -ENOMEM;
	for (s->n_env = 0; s->n_env < o->n_env; s->n_env++) {
		s->env[s->n_env] = strdup(o->env[s->n_env]);
		if (!s->env[s->n_env])
			return -ENOMEM;
	}
	return 0;
}

static void create_new_id(struct registry *r, char id[SANDBOX_ID_MAX])
{
	uint8_t random[6];
	char hex[13];

	do {
		io_random(random, sizeof(random));
		snprintf(id, SANDBOX_ID_MAX, "sb%s",
			 format_hex(random, sizeof(random), hex));
	} while (registry_find(r, id));
}

static int create_fill(struct sandbox *s, const struct sandbox_options *o,
		       struct err *e)
{
	const struct registry_config *config = &s->registry->config;
	char id[SANDBOX_ID_MAX];
	int r;

	create_new_id(s->registry, id); /* s itself is in the registry */
	snprintf(s->row.id, sizeof(s->row.id), "%s", id);
	snprintf(s->row.name, sizeof(s->row.name), "%s",
		 o->name ? o->name : "");
	snprintf(s->row.template, sizeof(s->row.template), "%s", o->template);
	s->row.net = o->net_user;
	s->row.created_ns = clock_real_ns();
	if (o->ttl_ns)
		s->row.ends_ns = s->row.created_ns + o->ttl_ns;
	s->start_ns = clock_mono_ns();
	if (registry_free_slot(s->registry, &s->row.slot) < 0)
		return err_set(e, EAGAIN, "create: too many sandboxes");
	if (create_copy_env(s, o) < 0)
		return err_errno(e, ENOMEM, "create from %s", o->template);
	r = workdir_init(&s->dir, config->root, config->run, s->row.id, e);
	if (r == 0)
		r = db_sandbox_put(config->db, &s->row, e);
	return r;
}

int sandbox_create(struct registry *r, const struct sandbox_options *o,
		   sandbox_done_fn done, void *arg, struct err *e)
{
	const struct registry_templates *t = &r->config.templates;
	struct sandbox *s;
	int ret = create_check(r, o, e);

	if (ret < 0)
		return ret;
	s = registry_add(r);
	if (!s || waiter_add(&s->creator, done, arg) < 0) {
		if (s)
			sandbox_free(s);
		return err_errno(e, ENOMEM, "create from %s", o->template);
	}
	ret = create_fill(s, o, e);
	if (ret == 0)
		ret = loop_timer_set(r->config.loop, &s->deadline,
				     r->config.loop->now_ns + SANDBOX_READY_NS,
				     create_overdue);
	if (ret < 0) {
		waiters_forget(&s->creator, arg);
		sandbox_free(s);
		return ret;
	}
	s->looking = true;
	t->lookup(t->self, s->row.template, create_found, s);
	return 0;
}
