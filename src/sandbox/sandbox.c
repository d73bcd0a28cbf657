/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sandbox that lives, and how it ends
 *
 * See the state diagram in sandbox.h. Creating is in create.c, finding in
 * registry.c; here is what happens between: the agent channel and the console,
 * pause and resume, the end and what is left after it.
 *
 * Invariants:
 *  1. s->vmm is set exactly while a process may live: from vmm_start to its
 *     exited event.
 *  2. Files are deleted only without a VMM, in a worker, and the row after the
 *     files: a crash in between leaves a row whose files the next daemon
 *     deletes.
 *  3. Every state change is in the database before anybody is told.
 */
#include "sandbox/object.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/proc.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

static const char *const sandbox_state_names[] = {
	[SANDBOX_CREATING] = "creating", [SANDBOX_RUNNING] = "running",
	[SANDBOX_PAUSED] = "paused",     [SANDBOX_EXITED] = "exited",
	[SANDBOX_FAILED] = "failed",
};
_Static_assert(nitems(sandbox_state_names) == SANDBOX_STATE_COUNT,
	       "a name for each");

const char *sandbox_state_name(enum sandbox_state st)
{
	return sandbox_state_names[st];
}

static bool sandbox_alive(const struct sandbox *s)
{
	return s->row.state <= SANDBOX_PAUSED;
}

/* By its VMM, not by a user. */
static bool sandbox_stopped(const struct sandbox *s)
{
	return s->row.state == SANDBOX_PAUSED && s->row.paused_because[0];
}

/* A database that cannot be written (disk full) does not stop guests; what it
 * missed is found out again by the next adoption. */
void sandbox_record(struct sandbox *s)
{
	struct err e = ERR_NULL;

	if (db_sandbox_put(s->registry->config.db, &s->row, &e) < 0)
		SANDBOX_LOG(error, s, "event=record error=\"%s\"", e.msg);
}

struct sandbox_info sandbox_info(const struct sandbox *s)
{
	const struct db_sandbox *r = &s->row;

	return (struct sandbox_info){
		.id = r->id,
		.name = r->name,
		.template = r->template,
		.state = r->state,
		.pid = s->vmm ? r->proc.pid : 0,
		.created_real_ns = r->created_ns,
		.ends_real_ns = r->ends_ns,
		.memory_bytes = r->memory_bytes,
		.vcpus = r->vcpus,
		.net = r->net,
		.cause = sandbox_alive(s) ? NULL : r->cause,
		.paused_because = sandbox_stopped(s) ? r->paused_because : NULL,
		.timings = r->timings,
	};
}

const char *sandbox_console_path(const struct sandbox *s)
{
	return s->dir.log_path;
}

bool sandbox_memory(const struct sandbox *s, struct sandbox_memory *ret)
{
	struct gmem_report report;
	size_t bytes;

	if (!s->vmm || !s->plan.head || s->row.proc.pid == 0)
		return false;
	report = plan_view_report(&s->plan);
	if (report.ram_addr == 0)
		return false;
	*ret = (struct sandbox_memory){
		.pid = s->row.proc.pid,
		.pidfd = vmm_pidfd(s->vmm),
		.ram_addr = report.ram_addr,
		.ram_bytes = s->row.memory_bytes,
	};
	snprintf(ret->id, sizeof(ret->id), "%s", s->row.id);
	snprintf(ret->template, sizeof(ret->template), "%s", s->row.template);
	bytes = (ret->ram_bytes / PLAN_PAGE + 7) / 8;
	ret->surrendered = malloc(bytes);
	if (ret->surrendered)
		memcpy(ret->surrendered, s->plan.bitmap, bytes);
	return true;
}

bool sandbox_layer(const struct sandbox *s, struct sandbox_layer *ret)
{
	if (s->layer_fd < 0)
		return false;
	*ret = (struct sandbox_layer){
		.template = s->row.template,
		.image = s->row.image,
		.fd = s->layer_fd,
		.bytes = s->row.memory_bytes,
		.zero_bytes = s->row.zero_bytes,
	};
	return true;
}

/* ---- the agent ---- */

struct channel *sandbox_channel(struct sandbox *s, struct err *e)
{
	if (s->row.state == SANDBOX_RUNNING && s->channel)
		return s->channel;
	if (s->row.state == SANDBOX_RUNNING)
		err_set(e, EAGAIN, "sandbox %s: its agent does not answer",
			s->row.id);
	else if (sandbox_stopped(s))
		err_set(e, EBUSY,
			"sandbox %s is paused: %s; resume it when there is "
			"space",
			s->row.id, s->row.paused_because);
	else if (sandbox_alive(s))
		err_set(e, EBUSY, "sandbox %s is %s", s->row.id,
			sandbox_state_name(s->row.state));
	else
		err_set(e, ESRCH, "sandbox %s has %s: %s", s->row.id,
			sandbox_state_name(s->row.state), s->row.cause);
	return NULL;
}

static void sandbox_reconnect(struct loop_timer *t)
{
	struct sandbox *s = container_of(t, struct sandbox, reconnect);
	struct err e = ERR_NULL;

	if (!s->vmm || s->channel)
		return;
	if (sandbox_connect(s, false, &e) < 0)
		SANDBOX_LOG(warn, s, "event=reconnect error=\"%s\"", e.msg);
}

static void sandbox_channel_broken(void *arg, const struct err *e)
{
	struct sandbox *s = arg;

	s->channel = channel_free(s->channel);
	if (s->row.state == SANDBOX_CREATING) {
		create_channel_broken(s, e);
		return;
	}
	if (!s->vmm)
		return;
	/* Often the first sign that the VMM goes as it was told to. */
	if (list_empty(&s->removers) && !s->row.cause[0])
		SANDBOX_LOG(warn, s, "event=agent-lost cause=\"%s\"", e->msg);
	err_drop(loop_timer_set(s->registry->config.loop, &s->reconnect,
				s->registry->config.loop->now_ns +
					SANDBOX_RECONNECT_NS,
				sandbox_reconnect));
}

static void sandbox_is_idle(struct loop_timer *t)
{
	struct sandbox *s = container_of(t, struct sandbox, idle);

	if (s->vmm && s->channel && channel_streams(s->channel) == 0)
		vmm_trim(s->vmm);
}

static void sandbox_channel_idle(void *arg)
{
	struct sandbox *s = arg;
	struct loop *loop = s->registry->config.loop;

	err_drop(loop_timer_set(loop, &s->idle, loop->now_ns + SANDBOX_IDLE_NS,
				sandbox_is_idle));
}

static const struct channel_events sandbox_channel_events = {
	.idle = sandbox_channel_idle,
	.broken = sandbox_channel_broken,
};

/* Agent channel and console. */
int sandbox_connect(struct sandbox *s, bool fresh, struct err *e)
{
	struct loop *loop = s->registry->config.loop;
	int fd = -1;
	int r;

	if (!s->console) {
		r = io_connect_unix(s->dir.console_path, true, &fd, e);
		if (r == 0)
			r = console_new(loop, fd, s->dir.log_path, &s->console,
					e);
		if (r < 0)
			return r;
	}
	r = io_connect_unix(s->dir.agent_path, true, &fd, e);
	if (r < 0)
		return r;
	return channel_new(loop, fd, fresh, &sandbox_channel_events, s,
			   &s->channel, e);
}

void sandbox_disconnect(struct sandbox *s)
{
	channel_abandon(&s->identity);
	s->channel = channel_free(s->channel);
	s->console = console_free(s->console);
	loop_timer_del(&s->reconnect);
	loop_timer_del(&s->idle);
}

/* ---- ttl ---- */

static void sandbox_ttl_over(struct loop_timer *t)
{
	struct sandbox *s = container_of(t, struct sandbox, ttl);
	char age[16];

	if (!sandbox_alive(s)) {
		SANDBOX_LOG(info, s, "event=forget");
		sandbox_delete(s);
		return;
	}
	if (s->row.state == SANDBOX_CREATING || !s->vmm)
		return;
	format_duration_ns(s->row.ends_ns - s->row.created_ns, age);
	SANDBOX_LOG(info, s, "event=ttl age=\"%s\"", age);
	snprintf(s->row.cause, sizeof(s->row.cause), "its ttl of %s is over",
		 age);
	vmm_kill(s->vmm, s->row.cause);
}

void sandbox_arm_ttl(struct sandbox *s)
{
	struct loop *loop = s->registry->config.loop;
	uint64_t now_real = clock_real_ns();
	uint64_t left = SANDBOX_KEEP_NS;

	if (sandbox_alive(s)) {
		if (!s->row.ends_ns)
			return;
		left = s->row.ends_ns > now_real ? s->row.ends_ns - now_real
						 : 0;
	}
	err_drop(loop_timer_set(loop, &s->ttl, loop->now_ns + left,
				sandbox_ttl_over));
}

/* ---- the end ---- */

/* Deleting files takes a while: a job of its own, which may outlive s. */
struct sandbox_cleanup {
	struct worker_job job;
	struct sandbox *s; /* NULL: only files */
	struct workdir dir; /* names only */
	bool everything;
	struct err e;
};

static void sandbox_cleanup_run(struct worker_job *job)
{
	struct sandbox_cleanup *c =
		container_of(job, struct sandbox_cleanup, job);

	err_drop(c->everything ? workdir_remove(&c->dir, &c->e)
			       : workdir_remove_disk(&c->dir, &c->e));
}

static void sandbox_cleanup_done(struct worker_job *job)
{
	struct sandbox_cleanup *c =
		container_of(job, struct sandbox_cleanup, job);
	struct sandbox *s = c->s;
	struct err none = ERR_NULL;

	if (c->e.code)
		log_error("event=cleanup error=\"%s\"", c->e.msg);
	workdir_deinit(&c->dir);
	free(c);
	if (!s)
		return;
	if (db_sandbox_delete(s->registry->config.db, s->row.id, &none) < 0)
		SANDBOX_LOG(error, s, "event=forget error=\"%s\"", none.msg);
	none = (struct err)ERR_NULL;
	waiters_tell(&s->creator, NULL, &s->failure);
	waiters_tell(&s->removers, NULL, &none);
	sandbox_free(s);
}

static void sandbox_cleanup(struct sandbox *s, bool everything)
{
	const struct registry_config *config = &s->registry->config;
	struct sandbox_cleanup *c = calloc(1, sizeof(*c));

	if (!c || workdir_init(&c->dir, config->root, config->run, s->row.id,
			       NULL) < 0) {
		/* Out of memory: the next daemon's start cleans up. */
		free(c);
		return;
	}
	c->s = everything ? s : NULL;
	c->everything = everything;
	worker_submit(config->worker, &c->job, sandbox_cleanup_run,
		      sandbox_cleanup_done);
}

void sandbox_delete(struct sandbox *s)
{
	must(!s->vmm);
	if (s->removing)
		return;
	s->removing = true;
	loop_timer_del(&s->ttl);
	loop_timer_del(&s->deadline);
	sandbox_disconnect(s);
	streamed_end(s);
	sandbox_cleanup(s, true);
}

void sandbox_ended(struct sandbox *s, const char *cause, bool orderly)
{
	struct err gone = ERR_NULL;

	s->row.state = orderly ? SANDBOX_EXITED : SANDBOX_FAILED;
	if (s->row.cause != cause)
		snprintf(s->row.cause, sizeof(s->row.cause), "%s", cause);
	sandbox_disconnect(s);
	streamed_end(s);
	plan_view_close(&s->plan);
	workdir_close(&s->dir);
	fd_close(&s->dir.plan_fd);
	fd_close(&s->layer_fd);
	if (list_empty(&s->removers))
		sandbox_record(s);
	SANDBOX_LOG(info, s, "event=%s cause=\"%s\"",
		    sandbox_state_name(s->row.state), s->row.cause);
	err_set(&gone, ESRCH, "sandbox %s has ended: %s", s->row.id,
		s->row.cause);
	waiters_tell(&s->runners, NULL, &gone);
	if (!list_empty(&s->removers)) {
		sandbox_delete(s);
		return;
	}
	sandbox_cleanup(s, false);
	sandbox_arm_ttl(s);
}

/* As its VMM says. */
static void sandbox_set_state(struct sandbox *s)
{
	s->row.state = vmm_state(s->vmm) == VMM_PAUSED ? SANDBOX_PAUSED
						       : SANDBOX_RUNNING;
	if (s->row.state == SANDBOX_RUNNING)
		s->row.paused_because[0] = '\0';
}

static void sandbox_vmm_started(void *arg, const struct err *e)
{
	struct sandbox *s = arg;

	if (s->row.state == SANDBOX_CREATING) {
		create_started(s, e);
		return;
	}
	/* adopted, and perhaps ended at once: its ttl may be over */
	if (e->code && s->row.cause[0])
		return;
	if (e->code) {
		SANDBOX_LOG(error, s, "event=adopt error=\"%s\"", e->msg);
		vmm_kill(s->vmm, e->msg);
		return;
	}
	sandbox_set_state(s);
	sandbox_record(s);
	SANDBOX_LOG(info, s, "event=adopted pid=%d state=%s", s->row.proc.pid,
		    sandbox_state_name(s->row.state));
}

static void sandbox_vmm_stopped(void *arg, const char *why)
{
	struct sandbox *s = arg;

	if (s->row.state != SANDBOX_RUNNING)
		return;
	s->row.state = SANDBOX_PAUSED;
	snprintf(s->row.paused_because, sizeof(s->row.paused_because), "%s",
		 why);
	sandbox_record(s);
	SANDBOX_LOG(warn, s, "event=stopped cause=\"%s\"", why);
}

static void sandbox_vmm_disk_failed(void *arg, const char *why)
{
	streamed_disk_failed(arg, why);
}

static void sandbox_vmm_exited(void *arg, const char *cause, bool guest)
{
	struct sandbox *s = arg;
	char text[SANDBOX_CAUSE_MAX], line[120];
	bool ordered = !strcmp(cause, s->row.cause) && *cause;

	snprintf(text, sizeof(text), "%s", cause);
	s->vmm = vmm_free(s->vmm);
	if (s->row.state == SANDBOX_CREATING) {
		create_vmm_exited(s, text);
		return;
	}
	if (guest) {
		/* A panic looks like a reboot to the VMM. */
		s->console = console_free(s->console);
		guest = !console_panicked(s->dir.log_path, line, sizeof(line));
		if (!guest)
			snprintf(text, sizeof(text),
				 "the guest's kernel panicked (%s)", line);
	} else if (!ordered && list_empty(&s->removers) &&
		   !s->streamed.failed) {
		console_last_line(s->dir.vmm_log_path, line, sizeof(line));
		if (*line)
			snprintf(text + strlen(text),
				 sizeof(text) - strlen(text), " (%s)", line);
	}
	sandbox_ended(s, text, guest || ordered || !list_empty(&s->removers));
}

const struct vmm_events sandbox_vmm_events = {
	.started = sandbox_vmm_started,
	.stopped = sandbox_vmm_stopped,
	.disk_failed = sandbox_vmm_disk_failed,
	.exited = sandbox_vmm_exited,
};

/* ---- requests ---- */

static void sandbox_clock_frame(unused struct channel_stream *st,
				unused const struct wire_frame *f)
{
}

static void sandbox_clock_broken(unused struct channel_stream *st,
				 unused const struct err *e)
{
}

/* A guest that stood still is late. It hears the time before any later command,
 * for its agent works in order; an agent that does not answer keeps nobody. */
static void sandbox_set_clock(struct sandbox *s)
{
	uint8_t mem[64];
	struct wire_out o;
	int n;

	if (!s->channel || s->identity.channel)
		return;
	wire_begin(&o, mem, sizeof(mem), WIRE_IDENTITY, 0, 0);
	wire_put_u64(&o, WIRE_K_CLOCK, clock_real_ns());
	n = wire_end(&o);
	must(n > 0);
	s->identity.frame = sandbox_clock_frame;
	s->identity.broken = sandbox_clock_broken;
	err_drop(channel_open(s->channel, &s->identity, mem, (size_t)n));
}

static void sandbox_ran(void *arg, const struct err *e)
{
	struct sandbox *s = arg;

	if (e->code == 0) {
		sandbox_set_state(s);
		sandbox_record(s);
		SANDBOX_LOG(info, s, "event=%s",
			    sandbox_state_name(s->row.state));
		if (s->row.state == SANDBOX_RUNNING)
			sandbox_set_clock(s);
	}
	waiters_tell(&s->runners, s, e);
}

static int sandbox_expect(const struct sandbox *s, enum sandbox_state want,
			  const char *verb, struct err *e)
{
	if (s->row.state == want && s->vmm)
		return 0;
	return err_set(e, EBUSY, "%s sandbox %s: it is %s", verb, s->row.id,
		       sandbox_state_name(s->row.state));
}

static int sandbox_change(struct sandbox *s, bool pause, sandbox_done_fn done,
			  void *arg, struct err *e)
{
	const char *verb = pause ? "pause" : "resume";
	int r = sandbox_expect(s, pause ? SANDBOX_RUNNING : SANDBOX_PAUSED,
			       verb, e);

	if (r < 0)
		return r;
	if (!list_empty(&s->runners))
		return err_set(e, EBUSY,
			       "%s sandbox %s: another request is under way",
			       verb, s->row.id);
	if (waiter_add(&s->runners, done, arg) < 0)
		return err_errno(e, ENOMEM, "%s sandbox %s", verb, s->row.id);
	r = pause ? vmm_pause(s->vmm, sandbox_ran, s)
		  : vmm_resume(s->vmm, sandbox_ran, s);
	if (r < 0) {
		waiters_forget(&s->runners, arg);
		err_set(e, -r, "%s sandbox %s: %s", verb, s->row.id,
			strerror(-r));
		waiters_tell(&s->runners, NULL, e);
	}
	return r;
}

int sandbox_pause(struct sandbox *s, sandbox_done_fn done, void *arg,
		  struct err *e)
{
	return sandbox_change(s, true, done, arg, e);
}

int sandbox_resume(struct sandbox *s, sandbox_done_fn done, void *arg,
		   struct err *e)
{
	return sandbox_change(s, false, done, arg, e);
}

/* From here on the row says what it says of a sandbox half made: undo it. A
 * daemon killed before the files are gone has a successor that goes on. */
static void sandbox_record_going(const struct sandbox *s)
{
	struct db_sandbox row = s->row;

	row.state = SANDBOX_CREATING;
	err_drop(db_sandbox_put(s->registry->config.db, &row, NULL));
}

int sandbox_remove(struct sandbox *s, bool force, sandbox_done_fn done,
		   void *arg, struct err *e)
{
	if (sandbox_alive(s) && !force)
		return err_set(e, EBUSY,
			       "remove sandbox %s: it is %s (rm -f ends it)",
			       s->row.id, sandbox_state_name(s->row.state));
	if (waiter_add(&s->removers, done, arg) < 0)
		return err_errno(e, ENOMEM, "remove sandbox %s", s->row.id);
	sandbox_record_going(s);
	if (s->row.state == SANDBOX_CREATING) {
		struct err cancel = ERR_NULL;

		err_set(&cancel, ECANCELED, "sandbox %s was removed",
			s->row.id);
		create_fail(s, &cancel);
	} else if (s->vmm) {
		vmm_kill(s->vmm, "removed");
	} else {
		sandbox_delete(s);
	}
	return 0;
}

void sandbox_forget(struct registry *r, void *arg)
{
	struct sandbox *s, *tmp;

	list_for_each (s, tmp, &r->sandboxes, struct sandbox, link) {
		waiters_forget(&s->creator, arg);
		waiters_forget(&s->runners, arg);
		waiters_forget(&s->removers, arg);
	}
}
