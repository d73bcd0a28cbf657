/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMM processes, whatever the driver
 *
 * This file owns what every driver has in common: the process (pidfd in the
 * loop, so that its end is noticed at once), the state, the cause of the end
 * and the timings. The driver owns the conversation with the process.
 *
 * Invariants:
 *  1. `started` is told exactly once, before `exited`; `exited` exactly once,
 *     and it is the last thing told.
 *  2. `exited` is told only when the process is gone (pidfd readable), so that
 *     whoever hears it may delete the guest's files.
 *  3. The first cause noted wins: a kill by us notes its reason before the
 *     signal is sent, so that "killed by signal 9" never hides it.
 */
#include "vmm/driver.h"

#include "base/clock.h"
#include "base/guard.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>

static const char *const accel_names[] = {
	[VMM_TCG] = "tcg",
	[VMM_KVM] = "kvm",
};
_Static_assert(nitems(accel_names) == VMM_ACCEL_COUNT, "a name for each");

const char *vmm_accel_name(enum vmm_accel a)
{
	return accel_names[a];
}

/* ---- the host ---- */

int vmm_host_new(struct loop *loop, const char *force_accel,
		 struct vmm_host **ret, struct err *e)
{
	return qemu_ops.host_new(loop, force_accel, ret, e);
}

struct vmm_host *vmm_host_free(struct vmm_host *h)
{
	if (h)
		h->ops->host_free(h);
	return NULL;
}

const struct vmm_host_facts *vmm_host_facts(const struct vmm_host *h)
{
	return &h->facts;
}

static int vmm_flavor_differs(struct err *e, const char *what, const char *have,
			      const char *want)
{
	if (!strcmp(have, want))
		return 0;
	return err_set(e, ENOTSUP, "baked with %s %s, this host has %s", what,
		       want, have);
}

int vmm_host_accepts(const struct vmm_host *h, const struct vmm_flavor *f,
		     struct err *e)
{
	const struct vmm_flavor *own = &h->facts.flavor;
	int r = vmm_flavor_differs(e, "VMM", own->driver, f->driver);

	if (r == 0)
		r = vmm_flavor_differs(e, "VMM version", own->version,
				       f->version);
	if (r == 0)
		r = vmm_flavor_differs(e, "accelerator", own->accel, f->accel);
	if (r == 0)
		r = vmm_flavor_differs(e, "CPU model", own->cpu, f->cpu);
	if (r == 0)
		r = vmm_flavor_differs(e, "machine", own->machine, f->machine);
	return r;
}

/* ---- what drivers report ---- */

void vmm_greeted(struct vmm *v)
{
	v->greeted_ns = clock_mono_ns();
	v->timings.spawn_ns = v->greeted_ns - v->start_ns;
}

void vmm_started(struct vmm *v, enum vmm_state state)
{
	struct err none = ERR_NULL;

	if (v->state == VMM_ENDED || v->started_told)
		return;
	v->state = state;
	v->started_told = true;
	v->timings.load_ns = clock_mono_ns() - v->greeted_ns;
	v->events->started(v->arg, &none);
}

void vmm_start_failed(struct vmm *v, const struct err *e)
{
	if (v->state == VMM_ENDED || v->started_told)
		return;
	v->started_told = true;
	vmm_note_cause(v, false, "%s", e->msg);
	v->events->started(v->arg, e);
}

void vmm_note_cause(struct vmm *v, bool guest, const char *fmt, ...)
{
	va_list ap;

	if (v->cause[0])
		return;
	v->guest_ended = guest;
	va_start(ap, fmt);
	vsnprintf(v->cause, sizeof(v->cause), fmt, ap);
	va_end(ap);
}

/* The process is gone. */
static void vmm_pid_ready(struct loop_fd *f, unused uint32_t events)
{
	struct vmm *v = container_of(f, struct vmm, pid_source);
	char how[128];
	int status;

	if (proc_how_ended(v->pidfd, how, sizeof(how), &status) == -EAGAIN)
		return;
	loop_fd_del(&v->pid_source);
	vmm_note_cause(v, false, "the VMM process %d ended: %s", v->proc.pid,
		       how);
	if (!v->started_told) {
		struct err e = ERR_NULL;

		err_set(&e, ECHILD, "%s", v->cause);
		v->started_told = true;
		v->state = VMM_ENDED;
		v->events->started(v->arg, &e);
		/* `started` never frees: the exited event is still to come. */
	}
	v->state = VMM_ENDED;
	v->events->exited(v->arg, v->cause, v->guest_ended);
}

int vmm_watch(struct vmm *v, const struct proc_id *id, int pidfd_take,
	      struct err *e)
{
	int r;

	v->proc = *id;
	v->pidfd = pidfd_take;
	r = loop_fd_add(v->loop, &v->pid_source, v->pidfd, EPOLLIN,
			vmm_pid_ready);
	if (r < 0)
		return err_errno(e, -r, "watch process %d", id->pid);
	return 0;
}

/* ---- one guest ---- */

static struct vmm *vmm_alloc(struct vmm_host *h,
			     const struct vmm_events *events, void *arg)
{
	struct vmm *v = calloc(1, sizeof(*v));

	if (!v)
		return NULL;
	v->ops = h->ops;
	v->host = h;
	v->loop = h->loop;
	v->events = events;
	v->arg = arg;
	v->pidfd = -1;
	v->pid_source = (struct loop_fd)LOOP_FD_NULL;
	v->start_ns = clock_mono_ns();
	return v;
}

int vmm_start(struct vmm_host *h, const struct vmm_spec *spec,
	      const struct vmm_events *events, void *arg, struct vmm **ret,
	      struct err *e)
{
	struct vmm *v = vmm_alloc(h, events, arg);
	int r;

	if (!v)
		return err_errno(e, ENOMEM, "start a VMM");
	r = h->ops->start(h, spec, v, e);
	if (r < 0) {
		if (v->pidfd >= 0)
			vmm_kill(v, "start failed");
		vmm_free(v);
		return r;
	}
	*ret = v;
	return 0;
}

int vmm_adopt(struct vmm_host *h, const struct proc_id *id,
	      const char *control_path, const struct vmm_events *events,
	      void *arg, struct vmm **ret, struct err *e)
{
	struct vmm *v = vmm_alloc(h, events, arg);
	int pidfd, r;

	if (!v)
		return err_errno(e, ENOMEM, "adopt a VMM");
	v->adopted = true;
	r = proc_open(id, &pidfd);
	if (r < 0)
		err_errno(e, -r, "process %d", id->pid);
	else
		r = vmm_watch(v, id, pidfd, e);
	if (r == 0)
		r = h->ops->adopt(h, control_path, v, e);
	if (r < 0) {
		vmm_free(v);
		return r;
	}
	*ret = v;
	return 0;
}

struct vmm *vmm_free(struct vmm *v)
{
	if (!v)
		return NULL;
	v->ops->free(v);
	loop_fd_del(&v->pid_source);
	fd_close(&v->pidfd);
	free(v);
	return NULL;
}

enum vmm_state vmm_state(const struct vmm *v)
{
	return v->state;
}

struct proc_id vmm_proc(const struct vmm *v)
{
	return v->proc;
}

int vmm_pidfd(const struct vmm *v)
{
	return v->pidfd;
}

struct vmm_timings vmm_timings(const struct vmm *v)
{
	return v->timings;
}

/* ---- requests ---- */

static int vmm_expect(const struct vmm *v, enum vmm_state want)
{
	if (v->state == want)
		return 0;
	return v->state == VMM_ENDED ? -ESRCH : -EINVAL;
}

int vmm_pause(struct vmm *v, vmm_done_fn done, void *arg)
{
	int r = vmm_expect(v, VMM_RUNNING);

	return r < 0 ? r : v->ops->pause(v, done, arg);
}

int vmm_resume(struct vmm *v, vmm_done_fn done, void *arg)
{
	int r = vmm_expect(v, VMM_PAUSED);

	return r < 0 ? r : v->ops->resume(v, done, arg);
}

int vmm_save(struct vmm *v, int fd, vmm_done_fn done, void *arg)
{
	int r = vmm_expect(v, VMM_PAUSED);

	return r < 0 ? r : v->ops->save(v, fd, done, arg);
}

int vmm_balloon_set(struct vmm *v, uint64_t bytes, vmm_done_fn done, void *arg)
{
	int r = vmm_expect(v, VMM_RUNNING);

	return r < 0 ? r : v->ops->balloon_set(v, bytes, done, arg);
}

int vmm_balloon_get(struct vmm *v, vmm_balloon_fn done, void *arg)
{
	if (v->state == VMM_ENDED || v->state == VMM_STARTING)
		return -ESRCH;
	return v->ops->balloon_get(v, done, arg);
}

void vmm_trim(struct vmm *v)
{
	if (v->state == VMM_RUNNING || v->state == VMM_PAUSED)
		v->ops->trim(v);
}

void vmm_kill(struct vmm *v, const char *cause)
{
	if (v->state == VMM_ENDED || v->pidfd < 0)
		return;
	vmm_note_cause(v, false, "%s", cause);
	syscall(SYS_pidfd_send_signal, v->pidfd, SIGKILL, NULL, 0);
}
