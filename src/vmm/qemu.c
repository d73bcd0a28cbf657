/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The QEMU driver
 *
 * One qemu-system-x86_64 process per guest, steered over QMP.
 *
 * Restore: QEMU starts with `-incoming defer` and a memory backend
 * it believes to be shared; capability x-ignore-shared makes it leave RAM out
 * of the stream, so "migrating in" is loading 50 KB of device state. The shim
 * has mapped the RAM privately meanwhile, which is the copy-on-write. All QMP
 * commands are written before QEMU has even started: the socket was listening
 * before the process existed, so connecting never waits.
 *
 *	spawn -> greeting -> capabilities, migrate-incoming -> RESUME event
 *
 * Save is the same in the other direction: a paused guest "migrates" its device
 * state into an fd handed over with getfd.
 *
 * A streamed guest's layer is still being filled and its base disk still being
 * fetched. What this driver does about it is pass fds: of /dev/userfaultfd and a
 * socket for the shim, which sends the userfaultfd over it while QEMU maps the
 * RAM, and of the directory in which the disk is served. Meanwhile QEMU may stop
 * anywhere, at a page that is missing, with its monitor silent; and "stop" waits
 * for disk requests that wait for a pager. Requests made then are answered when
 * the pager has caught up; killing always works.
 *
 * Invariants:
 *  1. One struct qemu per struct vmm, from start or adopt to free.
 *  2. A request's callback is told exactly once: by QEMU's answer or, when the
 *     control connection breaks, with that error.
 *  3. The control connection may break at any time (the process ended); the
 *     end of the process itself is vmm.c's to notice. A connection that breaks
 *     under a living process is not repaired: the guest is killed, because
 *     nobody could pause or save it any more.
 *  4. Numbers of fds that a later daemon looks up in the process (plan, layer,
 *     trim, userfaultfd) never change for a guest's life, and nothing else is
 *     ever at them.
 */
#include "vmm/driver.h"
#include "vmm/qemu_args.h"
#include "vmm/qmp.h"
#include "vmm/spawn.h"
#include "vmm/zygote.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/parse.h"
#include "gmem/plan.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* linux/kvm.h, without needing it */
#define QEMU_KVM_GET_API_VERSION 0xae00

struct qemu_host {
	struct vmm_host base;
	uint64_t tsc_khz;
	char preload[512]; /* environment of the process */
	char zygote_preload[1024];
	struct zygote *zygote;
	uint64_t zygote_retry_ns;
};

struct qemu {
	struct vmm *v;
	struct qmp *qmp;
	bool restoring;
	bool want_paused;
	bool disk_failed; /* told; the STOP that follows is no pause */
	struct vmm_request run; /* pause or resume */
	enum vmm_state run_to;
	struct vmm_request save;
	struct vmm_request balloon;
	int trim_fd;
	vmm_balloon_fn balloon_fn;
	void *balloon_arg;
};

/* ---- requests ---- */

static void qemu_finish(struct vmm_request *req, const struct err *e)
{
	struct vmm_request r = *req;

	req->done = NULL;
	if (r.done)
		r.done(r.arg, e);
}

static int qemu_begin(struct vmm_request *req, vmm_done_fn done, void *arg)
{
	if (req->done)
		return -EBUSY;
	req->done = done;
	req->arg = arg;
	return 0;
}

static void qemu_run_done(void *arg, unused json_t *result, const struct err *e)
{
	struct qemu *q = arg;

	if (e->code == 0)
		q->v->state = q->run_to;
	qemu_finish(&q->run, e);
}

static int qemu_run(struct vmm *v, const char *command, enum vmm_state to,
		    vmm_done_fn done, void *arg)
{
	struct qemu *q = v->driver;
	int r = qemu_begin(&q->run, done, arg);

	if (r < 0)
		return r;
	q->run_to = to;
	r = qmp_command(q->qmp, command, NULL, -1, qemu_run_done, q);
	if (r < 0)
		q->run.done = NULL;
	return r;
}

static int qemu_pause(struct vmm *v, vmm_done_fn done, void *arg)
{
	return qemu_run(v, "stop", VMM_PAUSED, done, arg);
}

static int qemu_resume(struct vmm *v, vmm_done_fn done, void *arg)
{
	return qemu_run(v, "cont", VMM_RUNNING, done, arg);
}

/* Device state goes out as a migration; its end is an event. */
static void qemu_migrate_done(void *arg, unused json_t *result,
			      const struct err *e)
{
	struct qemu *q = arg;

	if (e->code)
		qemu_finish(&q->save, e);
}

static int qemu_save(struct vmm *v, int fd, vmm_done_fn done, void *arg)
{
	struct qemu *q = v->driver;
	int r = qemu_begin(&q->save, done, arg);

	if (r < 0)
		return r;
	r = qmp_command(q->qmp, "getfd", json_pack("{s:s}", "fdname", "save"),
			fd, NULL, NULL);
	if (r == 0)
		r = qmp_command(q->qmp, "migrate-set-capabilities",
				json_pack("{s:[{s:s,s:b}]}", "capabilities",
					  "capability", "events", "state", 1),
				-1, NULL, NULL);
	if (r == 0)
		r = qmp_command(q->qmp, "migrate",
				json_pack("{s:s}", "uri", "fd:save"), -1,
				qemu_migrate_done, q);
	if (r < 0)
		q->save.done = NULL;
	return r;
}

static void qemu_balloon_set_done(void *arg, unused json_t *result,
				  const struct err *e)
{
	struct qemu *q = arg;

	qemu_finish(&q->balloon, e);
}

static int qemu_balloon_set(struct vmm *v, uint64_t bytes, vmm_done_fn done,
			    void *arg)
{
	struct qemu *q = v->driver;
	int r = qemu_begin(&q->balloon, done, arg);

	if (r < 0)
		return r;
	r = qmp_command(q->qmp, "balloon",
			json_pack("{s:I}", "value", (json_int_t)bytes), -1,
			qemu_balloon_set_done, q);
	if (r < 0)
		q->balloon.done = NULL;
	return r;
}

static void qemu_balloon_got(void *arg, json_t *result, const struct err *e)
{
	struct qemu *q = arg;
	struct vmm_balloon b = { 0 };
	vmm_balloon_fn fn = q->balloon_fn;

	q->balloon_fn = NULL;
	if (e->code == 0)
		b.actual_bytes = (uint64_t)json_integer_value(
			json_object_get(result, "actual"));
	if (fn)
		fn(q->balloon_arg, e, &b);
}

static int qemu_balloon_get(struct vmm *v, vmm_balloon_fn done, void *arg)
{
	struct qemu *q = v->driver;
	int r;

	if (q->balloon_fn)
		return -EBUSY;
	r = qmp_command(q->qmp, "query-balloon", NULL, -1, qemu_balloon_got, q);
	if (r < 0)
		return r;
	q->balloon_fn = done;
	q->balloon_arg = arg;
	return 0;
}

static void qemu_trim(struct vmm *v)
{
	struct qemu *q = v->driver;
	uint64_t one = 1;

	if (v->host->facts.accel == VMM_TCG && q->trim_fd >= 0)
		err_drop((int)write(q->trim_fd, &one, sizeof(one)));
}

/* ---- what QEMU says ---- */

static void qemu_greeting(void *arg)
{
	struct qemu *q = arg;

	vmm_greeted(q->v);
}

static void qemu_on_shutdown(struct qemu *q, json_t *data)
{
	const char *reason = json_string_value(json_object_get(data, "reason"));
	bool guest = json_is_true(json_object_get(data, "guest"));

	if (!reason)
		reason = "unknown";
	if (!strcmp(reason, "guest-shutdown"))
		vmm_note_cause(q->v, true, "the guest powered off");
	else if (!strcmp(reason, "guest-reset"))
		vmm_note_cause(q->v, true,
			       "the guest rebooted (or its kernel panicked)");
	else
		vmm_note_cause(q->v, guest, "the VMM shut down: %s", reason);
}

static void qemu_on_migration(struct qemu *q, json_t *data)
{
	const char *status = json_string_value(json_object_get(data, "status"));
	struct err e = ERR_NULL;

	if (!status)
		return;
	if (!strcmp(status, "failed")) {
		err_set(&e, EIO, "the VMM could not %s the device state",
			q->restoring ? "load" : "save");
		if (q->save.done)
			qemu_finish(&q->save, &e);
		else
			vmm_start_failed(q->v, &e);
	} else if (!strcmp(status, "completed")) {
		if (q->save.done)
			qemu_finish(&q->save, &e);
		else if (q->restoring && q->want_paused)
			vmm_started(q->v, VMM_PAUSED);
	}
}

/* A streamed disk stops the guest at every error, for reading (rerror=stop) and
 * for writing: the part of a cluster that is not written comes from the base.
 * Lack of room on the host passes, and is told by STOP. */
static void qemu_on_disk_error(struct qemu *q, json_t *data)
{
	const char *action = json_string_value(json_object_get(data, "action"));
	const char *what =
		json_string_value(json_object_get(data, "operation"));
	const char *why = json_string_value(json_object_get(data, "reason"));
	char text[160];

	if (!action || strcmp(action, "stop") != 0 || q->disk_failed ||
	    json_is_true(json_object_get(data, "nospace")))
		return;
	q->disk_failed = true;
	snprintf(text, sizeof(text), "disk: cannot %s: %s",
		 what ? what : "read", why ? why : "no reason given");
	q->v->events->disk_failed(q->v->arg, text);
}

static void qemu_event(void *arg, const char *name, json_t *data)
{
	struct qemu *q = arg;

	if (!strcmp(name, "RESUME")) {
		if (q->restoring && !q->v->started_told)
			vmm_started(q->v, VMM_RUNNING);
	} else if (!strcmp(name, "MIGRATION")) {
		qemu_on_migration(q, data);
	} else if (!strcmp(name, "STOP")) {
		/* Not asked for: a write met a full disk (QEMU's default,
		 * werror=enospc). SHUTDOWN and a disk that failed stop too, but
		 * come first. */
		if (q->v->state == VMM_RUNNING && !q->run.done &&
		    !q->v->cause[0] && !q->disk_failed) {
			q->v->state = VMM_PAUSED;
			q->v->events->stopped(q->v->arg,
					      "the disk of the host is full");
		}
	} else if (!strcmp(name, "BLOCK_IO_ERROR")) {
		qemu_on_disk_error(q, data);
	} else if (!strcmp(name, "SHUTDOWN")) {
		qemu_on_shutdown(q, data);
	}
}

static void qemu_broken(void *arg, const struct err *e)
{
	struct qemu *q = arg;

	qemu_finish(&q->run, e);
	qemu_finish(&q->save, e);
	qemu_finish(&q->balloon, e);
	if (q->balloon_fn)
		qemu_balloon_got(q, NULL, e);
	/* Usually the process is just ending, its pidfd will say why, and the
	 * signal is lost on it. Otherwise see invariant 3. */
	syscall(SYS_pidfd_send_signal, q->v->pidfd, SIGKILL, NULL, 0);
}

static const struct qmp_events qemu_qmp_events = {
	.greeting = qemu_greeting,
	.event = qemu_event,
	.broken = qemu_broken,
};

/* ---- start ---- */

/* A connection that is lost while starting is told by the end of the process,
 * which knows why. */
static bool qemu_lost(const struct err *e)
{
	return e->code == ECONNRESET || e->code == EPIPE;
}

static void qemu_step(void *arg, unused json_t *result, const struct err *e)
{
	struct qemu *q = arg;

	if (e->code && !qemu_lost(e))
		vmm_start_failed(q->v, e);
}

static void qemu_retried(void *arg, unused json_t *result, const struct err *e)
{
	struct qemu *q = arg;

	if (e->code && !qemu_lost(e))
		vmm_start_failed(q->v, e);
	else if (!e->code)
		vmm_started(q->v, VMM_RUNNING);
}

/* An error of the disk stopped the guest while no daemon heard of it. It may
 * have passed; if not it comes again, and is told. */
static bool qemu_retry(struct qemu *q, json_t *result)
{
	const char *status =
		json_string_value(json_object_get(result, "status"));

	return status && !strcmp(status, "io-error") &&
	       qmp_command(q->qmp, "cont", NULL, -1, qemu_retried, q) == 0;
}

static void qemu_status(void *arg, json_t *result, const struct err *e)
{
	struct qemu *q = arg;
	bool running = json_is_true(json_object_get(result, "running"));

	if (qemu_lost(e))
		return;
	if (e->code)
		vmm_start_failed(q->v, e);
	else if (qemu_retry(q, result))
		return;
	else
		vmm_started(q->v, running ? VMM_RUNNING : VMM_PAUSED);
}

/* RAM stays where it is. Events of a migration are wanted where its end is one:
 * a restored guest that runs tells so by itself (RESUME). */
static json_t *qemu_capabilities(const struct qemu *q)
{
	json_t *list = json_pack("[{s:s,s:b}]", "capability", "x-ignore-shared",
				 "state", 1);

	if (!q->restoring || q->want_paused)
		json_array_append_new(list, json_pack("{s:s,s:b}", "capability",
						      "events", "state", 1));
	return json_pack("{s:o}", "capabilities", list);
}

static int qemu_converse(struct qemu *q, bool capabilities)
{
	int r = 0;

	if (capabilities)
		r = qmp_command(q->qmp, "migrate-set-capabilities",
				qemu_capabilities(q), -1, qemu_step, q);
	if (r == 0 && q->restoring) {
		char uri[16];

		snprintf(uri, sizeof(uri), "fd:%d", QEMU_FD_STATE);
		return qmp_command(q->qmp, "migrate-incoming",
				   json_pack("{s:s}", "uri", uri), -1,
				   qemu_step, q);
	}
	if (r == 0)
		r = qmp_command(q->qmp, "query-status", NULL, -1, qemu_status,
				q);
	return r;
}

static int qemu_attach(struct vmm *v, int connected_take, bool capabilities,
		       struct err *e)
{
	struct qemu *q = v->driver;
	int r = qmp_new(v->loop, connected_take, &qemu_qmp_events, q, &q->qmp,
			e);

	if (r < 0)
		return r;
	r = qemu_converse(q, capabilities);
	if (r < 0)
		return err_errno(e, -r, "talk to the VMM");
	return 0;
}

static struct qemu *qemu_alloc(struct vmm *v)
{
	struct qemu *q = calloc(1, sizeof(*q));

	if (q) {
		q->trim_fd = -1;
		q->v = v;
		v->driver = q;
	}
	return q;
}

/* Passing a kernel: QEMU opens /proc/self/fd/N, so any readable file will do. */
static int qemu_open_boot(const struct vmm_spec *spec, int fds[QEMU_FD_COUNT],
			  struct err *e)
{
	if (!spec->kernel)
		return 0;
	fds[QEMU_FD_KERNEL] = open(spec->kernel, O_RDONLY | O_CLOEXEC);
	if (fds[QEMU_FD_KERNEL] < 0)
		return err_errno(e, errno, "open kernel %s", spec->kernel);
	fds[QEMU_FD_INITRD] = open(spec->initrd, O_RDONLY | O_CLOEXEC);
	if (fds[QEMU_FD_INITRD] < 0)
		return err_errno(e, errno, "open initrd %s", spec->initrd);
	return 0;
}

/* A zygote that died is replaced, but not more often than this. */
#define QEMU_ZYGOTE_RETRY_NS (10 * NS_PER_SEC)

/* MODULE_INIT_QOM in include/qemu/module.h, read for these versions. */
static int qemu_class_kind(const struct vmm_host_facts *f)
{
	return !strncmp(f->flavor.version, "7.2.", 4) ? 3 : 0;
}

/* False when VMMs must be started the long way. */
static bool qemu_zygote(struct qemu_host *h)
{
	struct err e = ERR_NULL;
	uint64_t now = h->base.loop->now_ns;

	if (h->zygote || !h->zygote_preload[0] || now < h->zygote_retry_ns)
		return h->zygote != NULL;
	h->zygote_retry_ns = now + QEMU_ZYGOTE_RETRY_NS;
	return zygote_new(h->base.facts.program, h->zygote_preload,
			  qemu_class_kind(&h->base.facts), &h->zygote, &e) == 0;
}

/* What the shim is told: NAME=NUMBER. */
struct qemu_env {
	char text[5][40];
	const char *vars[10];
};

static void qemu_env_make(struct qemu_env *v, const char *preload,
			  const struct zygote_numbers *n)
{
	const struct {
		const char *name;
		int32_t fd;
	} fds[] = { { PLAN_ENV, n->plan },
		    { PLAN_ENV_LAYER, n->layer },
		    { PLAN_ENV_UFFD_DEV, n->uffd_dev },
		    { PLAN_ENV_UFFD_SOCK, n->uffd_sock },
		    { PLAN_ENV_UFFD, n->uffd } };
	size_t used = 0;

	_Static_assert(nitems(fds) == nitems(v->text), "room for each");
	v->vars[used++] = preload;
	v->vars[used++] = "LC_ALL=C";
	/* One arena: a VMM has few threads that allocate, and each arena costs
	 * touched pages. */
	v->vars[used++] = "MALLOC_ARENA_MAX=1";
	for (size_t i = 0; i < nitems(fds); i++) {
		if (fds[i].fd < 0)
			continue;
		snprintf(v->text[i], sizeof(v->text[i]), "%s=%d", fds[i].name,
			 fds[i].fd);
		v->vars[used++] = v->text[i];
	}
	v->vars[used] = NULL;
}

/* Of the fds that are passed, where the shim and the trimming find theirs. */
static struct zygote_numbers qemu_numbers(const int fds[QEMU_FD_COUNT])
{
#define QEMU_NUMBER(n) (fds[n] < 0 ? -1 : (int32_t)(n))
	return (struct zygote_numbers){
		.plan = QEMU_NUMBER(QEMU_FD_PLAN),
		.layer = QEMU_NUMBER(QEMU_FD_LAYER),
		.trim = QEMU_NUMBER(QEMU_FD_TRIM),
		.uffd_dev = QEMU_NUMBER(QEMU_FD_UFFD_DEV),
		.uffd_sock = QEMU_NUMBER(QEMU_FD_UFFD_SOCK),
		.uffd = QEMU_NUMBER(QEMU_FD_UFFD),
	};
#undef QEMU_NUMBER
}

static int qemu_spawn(struct qemu_host *h, const struct vmm_spec *spec,
		      const struct qemu_args *args, int fds[QEMU_FD_COUNT],
		      struct vmm *v, struct err *e)
{
	struct zygote_numbers numbers = qemu_numbers(fds);
	struct qemu_env env;
	struct spawn s = { .argv = args->argv, .envp = env.vars };
	struct proc_id id = { 0 };
	int pidfd = -1;
	int r = -EPIPE;

	qemu_env_make(&env, h->preload, &numbers);
	memcpy(s.child.fds, fds, sizeof(int) * QEMU_FD_COUNT);
	s.child.n_fds = QEMU_FD_COUNT;
	s.child.drop = h->base.facts.unprivileged;
	s.child.uid = SPAWN_UID_BASE + spec->slot % SPAWN_SLOTS;
	if (qemu_zygote(h))
		r = zygote_fork(h->zygote, s.argv, &s.child, &numbers, &id,
				&pidfd, e);
	if (r == -EPIPE) {
		h->zygote = zygote_free(h->zygote);
		*e = (struct err)ERR_NULL;
		r = spawn_run(&s, &id, &pidfd, e);
	}
	if (r < 0)
		return r;
	return vmm_watch(v, &id, pidfd, e);
}

/* What comes from the spec, @null_fd where there must be something. Those of
 * a kernel and for trimming are left at -1. */
static void qemu_fds(int fds[QEMU_FD_COUNT], const struct vmm_spec *spec,
		     int null_fd)
{
	for (int i = 0; i < QEMU_FD_COUNT; i++)
		fds[i] = -1;
	fds[QEMU_FD_STDIN] = null_fd;
	fds[QEMU_FD_STDOUT] = fds[QEMU_FD_STDERR] = spec->log_fd;
	fds[QEMU_FD_PLAN] = spec->plan_fd;
	fds[QEMU_FD_LAYER] = spec->layer_fd;
	fds[QEMU_FD_CONTROL] = spec->control_fd;
	fds[QEMU_FD_AGENT] = spec->agent_fd;
	fds[QEMU_FD_CONSOLE] = spec->console_fd;
	fds[QEMU_FD_STATE] = spec->state_fd;
	if (spec->disk.kind != VMM_DISK_NONE)
		fds[QEMU_FD_DISK_RW] = spec->disk.rw_fd;
	if (spec->disk.kind == VMM_DISK_OVERLAY)
		fds[QEMU_FD_DISK_RO] = spec->disk.ro_fd;
	if (spec->disk.kind == VMM_DISK_OVERLAY_NBD)
		fds[QEMU_FD_NBD_DIR] = spec->disk.nbd_dir_fd;
	if (spec->streamed) {
		fds[QEMU_FD_UFFD_DEV] = spec->uffd_dev_fd;
		fds[QEMU_FD_UFFD_SOCK] = spec->uffd_sock_fd;
		fds[QEMU_FD_UFFD] = null_fd; /* so that nobody takes it */
	}
}

static int qemu_start(struct vmm_host *host, const struct vmm_spec *spec,
		      struct vmm *v, struct err *e)
{
	struct qemu_host *h = container_of(host, struct qemu_host, base);
	guard_free struct qemu_args *args = malloc(sizeof(*args));
	guard_fd int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct qemu *q = qemu_alloc(v);
	int fds[QEMU_FD_COUNT];
	int control = -1;
	int r;

	if (!args || !q)
		return err_errno(e, ENOMEM, "start a VMM");
	r = qemu_args_make(args, &host->facts, spec, h->tsc_khz);
	if (r < 0)
		return err_errno(e, -r, "command line of the VMM");
	qemu_fds(fds, spec, null_fd);
	q->trim_fd = eventfd(0, EFD_CLOEXEC);
	if (q->trim_fd < 0)
		return err_errno(e, errno, "eventfd");
	fds[QEMU_FD_TRIM] = q->trim_fd;
	q->restoring = !spec->kernel;
	q->want_paused = spec->paused;
	/* The socket listens already: connect before the process exists. */
	r = io_connect_unix(spec->control_path, true, &control, e);
	if (r == 0)
		r = qemu_attach(v, fd_take(&control), true, e);
	if (r == 0)
		r = qemu_open_boot(spec, fds, e);
	if (r == 0)
		r = qemu_spawn(h, spec, args, fds, v, e);
	fd_close(&fds[QEMU_FD_KERNEL]);
	fd_close(&fds[QEMU_FD_INITRD]);
	return r;
}

static int qemu_adopt(unused struct vmm_host *h, const char *control_path,
		      struct vmm *v, struct err *e)
{
	struct qemu *q = qemu_alloc(v);
	int control = -1;
	int r;

	if (!q)
		return err_errno(e, ENOMEM, "adopt a VMM");
	/* It may be gone, or of a daemon that did not trim: then we do not. */
	q->trim_fd = (int)syscall(SYS_pidfd_getfd, v->pidfd, QEMU_FD_TRIM, 0);
	r = io_connect_unix(control_path, true, &control, e);
	if (r < 0)
		return r;
	return qemu_attach(v, fd_take(&control), false, e);
}

static void qemu_free(struct vmm *v)
{
	struct qemu *q = v->driver;

	if (!q)
		return;
	qmp_free(q->qmp);
	fd_close(&q->trim_fd);
	free(q);
	v->driver = NULL;
}

/* ---- the host ---- */

/*
 * The host's TSC frequency. A software perf event's page carries the kernel's
 * own factor (include/uapi/linux/perf_event.h, time_mult and time_shift); where
 * perf is forbidden it is measured against the clock.
 */
static uint64_t qemu_tsc_perf(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_DUMMY,
		.exclude_kernel = 1,
	};
	guard_fd int fd =
		(int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, 8u);
	struct perf_event_mmap_page *p;
	uint64_t khz = 0;

	if (fd < 0)
		return 0;
	p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return 0;
	if (p->cap_user_time && p->time_mult)
		khz = (1000000ull << p->time_shift) / p->time_mult;
	munmap(p, 4096);
	return khz;
}

static uint64_t qemu_tsc_measured(void)
{
	uint64_t t0 = clock_mono_ns();
	uint64_t c0 = __builtin_ia32_rdtsc();
	uint64_t dt;

	/* 50 ms against a clock of some 50 ns: one part in a million. */
	usleep(50000);
	dt = clock_mono_ns() - t0;
	return (__builtin_ia32_rdtsc() - c0) * 1000000 / dt;
}

/* Empty when KVM can be used. */
static void qemu_why_not_kvm(char *why, size_t size)
{
	guard_fd int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	guard_free char *cpu = NULL;

	*why = '\0';
	if (fd < 0)
		snprintf(why, size, "open /dev/kvm: %s", strerror(errno));
	else if (ioctl(fd, QEMU_KVM_GET_API_VERSION, 0) != 12)
		snprintf(why, size, "/dev/kvm speaks another API version");
	else if (io_read_file("/proc/cpuinfo", 16u << 20, &cpu, NULL, NULL) < 0)
		snprintf(why, size, "/proc/cpuinfo cannot be read");
	else if (!strstr(cpu, " vmx") && !strstr(cpu, " svm"))
		snprintf(why, size,
			 "the CPU advertises neither vmx nor svm (/dev/kvm "
			 "cannot run a Linux guest here)");
}

static int qemu_pick_accel(struct vmm_host_facts *f, const char *force,
			   struct err *e)
{
	qemu_why_not_kvm(f->accel_reason, sizeof(f->accel_reason));
	f->accel = f->accel_reason[0] ? VMM_TCG : VMM_KVM;
	if (!force || !*force)
		return 0;
	if (!strcmp(force, "tcg")) {
		snprintf(f->accel_reason, sizeof(f->accel_reason),
			 "BYRE_ACCEL=tcg");
		f->accel = VMM_TCG;
		return 0;
	}
	if (strcmp(force, "kvm") != 0)
		return err_set(e, EINVAL, "BYRE_ACCEL=%s: neither kvm nor tcg",
			       force);
	if (f->accel != VMM_KVM)
		return err_set(e, ENOTSUP, "BYRE_ACCEL=kvm: %s",
			       f->accel_reason);
	return 0;
}

/* Debian 12's small program is built without seccomp. */
static bool qemu_can_sandbox(const char *program)
{
	const char *const argv[] = { program, "-sandbox", "on", "--version",
				     NULL };

	return proc_run(argv, 4096, NULL, NULL) == 0;
}

/* The small program has no TCG, and costs 7 MB less per guest. But guests are
 * kept in by a seccomp filter, and that is not for sale. */
static int qemu_pick_program(struct vmm_host_facts *f, struct err *e)
{
	static const char small[] = "/usr/bin/qemu-system-x86_64-microvm";
	static const char full[] = "/usr/bin/qemu-system-x86_64";
	const char *pick = full;

	if (f->accel == VMM_KVM && access(small, X_OK) == 0 &&
	    qemu_can_sandbox(small))
		pick = small;
	if (access(pick, X_OK) < 0)
		return err_set(e, ENOENT,
			       "%s is missing (install qemu-system-x86)", pick);
	snprintf(f->program, sizeof(f->program), "%s", pick);
	return 0;
}

static int qemu_version(struct vmm_host_facts *f, struct err *e)
{
	const char *const argv[] = { f->program, "--version", NULL };
	guard_free char *out = NULL;
	int r = proc_run(argv, 4096, &out, e);

	if (r < 0)
		return err_prefix(e, "ask %s for its version", f->program);
	if (sscanf(out, "QEMU emulator version %63s", f->flavor.version) != 1)
		return err_set(e, EPROTO, "%s --version: not understood",
			       f->program);
	return 0;
}

/* Our libraries lie beside the program (a build) or where it is installed. */
static int qemu_find_shim(struct qemu_host *h, struct err *e)
{
	char exe[360], dir[380];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	char *slash;

	if (n <= 0)
		return err_errno(e, errno, "readlink /proc/self/exe");
	exe[n] = '\0';
	slash = strrchr(exe, '/');
	if (!slash)
		return err_set(e, ENOENT, "%s: no directory", exe);
	*slash = '\0';
	snprintf(dir, sizeof(dir), "%s", exe);
	snprintf(h->preload, sizeof(h->preload),
		 "LD_PRELOAD=%s/libbyre-gmem.so", dir);
	if (access(h->preload + strlen("LD_PRELOAD="), R_OK) < 0) {
		snprintf(dir, sizeof(dir), "%s/../lib/byre", exe);
		snprintf(h->preload, sizeof(h->preload),
			 "LD_PRELOAD=%s/libbyre-gmem.so", dir);
	}
	if (access(h->preload + strlen("LD_PRELOAD="), R_OK) < 0)
		return err_errno(e, errno, "%s",
				 h->preload + strlen("LD_PRELOAD="));
	snprintf(h->zygote_preload, sizeof(h->zygote_preload),
		 "%s:%s/libbyre-zygote.so", h->preload, dir);
	if (access(strchr(h->zygote_preload, ':') + 1, R_OK) < 0)
		h->zygote_preload[0] = '\0'; /* slower, no less right */
	return 0;
}

/* The flavor names the CPU: with KVM a state fits only on hosts whose CPU is
 * called the same. */
static void qemu_cpu(struct vmm_host_facts *f)
{
	guard_free char *info = NULL;
	char *model = NULL;

	if (f->accel == VMM_TCG) {
		snprintf(f->flavor.cpu, sizeof(f->flavor.cpu), "%s",
			 QEMU_TCG_CPU);
		return;
	}
	if (io_read_file("/proc/cpuinfo", 16u << 20, &info, NULL, NULL) == 0)
		model = strstr(info, "model name");
	if (model)
		model = strchr(model, ':');
	if (model)
		model[strcspn(model, "\n")] = '\0';
	snprintf(f->flavor.cpu, sizeof(f->flavor.cpu), "host (%s)",
		 model ? model + 2 : "unknown");
}

static void qemu_host_free(struct vmm_host *host)
{
	struct qemu_host *h = container_of(host, struct qemu_host, base);

	zygote_free(h->zygote);
	free(h);
}

static int qemu_host_new(struct loop *loop, const char *force_accel,
			 struct vmm_host **ret, struct err *e)
{
	struct qemu_host *h = calloc(1, sizeof(*h));
	struct vmm_host_facts *f;
	int r;

	if (!h)
		return err_errno(e, ENOMEM, "VMM driver");
	f = &h->base.facts;
	h->base.ops = &qemu_ops;
	h->base.loop = loop;
	f->unprivileged = geteuid() == 0;
	r = qemu_pick_accel(f, force_accel, e);
	if (r == 0)
		r = qemu_pick_program(f, e);
	if (r == 0)
		r = qemu_version(f, e);
	if (r == 0)
		r = qemu_find_shim(h, e);
	if (r < 0) {
		free(h);
		return r;
	}
	snprintf(f->flavor.driver, sizeof(f->flavor.driver), "qemu");
	snprintf(f->flavor.accel, sizeof(f->flavor.accel), "%s",
		 vmm_accel_name(f->accel));
	snprintf(f->flavor.machine, sizeof(f->flavor.machine), QEMU_MACHINE);
	qemu_cpu(f);
	h->tsc_khz = qemu_tsc_perf();
	if (!h->tsc_khz)
		h->tsc_khz = qemu_tsc_measured();
	/* Now rather than on the way of the first guest. */
	(void)qemu_zygote(h);
	*ret = &h->base;
	return 0;
}

int vmm_plan_fd_number(void)
{
	return QEMU_FD_PLAN;
}

int vmm_layer_fd_number(void)
{
	return QEMU_FD_LAYER;
}

int vmm_uffd_fd_number(void)
{
	return QEMU_FD_UFFD;
}

_Static_assert(QEMU_FD_COUNT <= CHILD_FDS_MAX, "an fd for each number");

const struct vmm_ops qemu_ops = {
	.name = "qemu",
	.host_new = qemu_host_new,
	.host_free = qemu_host_free,
	.start = qemu_start,
	.adopt = qemu_adopt,
	.free = qemu_free,
	.pause = qemu_pause,
	.resume = qemu_resume,
	.save = qemu_save,
	.balloon_set = qemu_balloon_set,
	.balloon_get = qemu_balloon_get,
	.trim = qemu_trim,
};
