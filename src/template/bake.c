/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bake, step by step
 *
 *	PREPARE  (worker) copy the rootfs, make an empty memory file
 *	BOOT     a VMM on that memory, shared; until the agent answers
 *	WARM     a shell, then the warm-up commands
 *	SETTLE   sync, drop caches; the commands again, so that what they touch
 *	         is in memory and what only booting touched is not; squeeze
 *	SAVE     pause, device state to a file, VMM off
 *	SEAL     (worker) zero map, overlay, digests, manifest
 *	TRIAL    restore it TRIALS times, note which pages are touched (and only
 *	         those: the kernel's mapping of neighbours is off, PLAN_EXACT)
 *	PUBLISH  (worker) seal again with the working set; rename, record
 *
 * Everything lies below ROOT/sandboxes/<bake id> until the last rename, and the
 * id is in the database before the VMM is started: whatever a killed daemon
 * leaves of a bake is found and removed by the next.
 *
 * WARM and SETTLE are in bake_warm.c, TRIAL is in bake_trial.c; here is what
 * surrounds them: the order, files, failures and the end.
 */
#include "template/bake_steps.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/log.h"
#include "base/parse.h"
#include "gmem/plan.h"
#include "template/baked.h"
#include "template/kernel.h"
#include "template/template.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define BAKE_TIMEOUT_NS (120 * NS_PER_SEC)

static const char *const bake_step_names[] = {
	[BAKE_PREPARE] = "prepare", [BAKE_BOOT] = "boot",
	[BAKE_WARM] = "warm",       [BAKE_SETTLE] = "settle",
	[BAKE_SAVE] = "save",       [BAKE_SEAL] = "seal",
	[BAKE_TRIAL] = "trial",     [BAKE_PUBLISH] = "publish",
};
_Static_assert(nitems(bake_step_names) == BAKE_STEP_COUNT, "a name for each");

static void bake_finish(struct bake *b);

void bake_step(struct bake *b, enum bake_step step, const char *detail)
{
	if (b->events)
		b->events->step(b->arg, bake_step_names[step], detail, step,
				BAKE_STEP_COUNT);
}

/* ---- the end ---- */

static void bake_free(struct bake *b)
{
	rig_deinit(&b->rig);
	squeeze_stop(&b->squeeze);
	loop_timer_del(&b->quiet);
	image_unref(b->image);
	workdir_deinit(&b->dir);
	if (b->trial_open)
		workdir_deinit(&b->trial);
	fd_close(&b->memory_fd);
	for (size_t i = 0; i < b->n_warm; i++)
		free(b->warm[i]);
	free(b->root);
	free(b->run);
	free(b->kernel);
	free(b->initrd);
	free(b->rootfs);
	free(b->cmdline);
	free(b->image_dir);
	free(b->touched);
	free(b);
}

static void bake_cleanup_run(struct worker_job *job)
{
	struct bake *b = container_of(job, struct bake, job);
	struct err e = ERR_NULL;

	if (workdir_remove(&b->dir, &e) < 0)
		log_error("event=cleanup error=\"%s\"", e.msg);
	if (b->trial_open && workdir_remove(&b->trial, &e) < 0)
		log_error("event=cleanup error=\"%s\"", e.msg);
}

static void bake_cleanup_done(struct worker_job *job)
{
	struct bake *b = container_of(job, struct bake, job);
	struct err e = ERR_NULL;

	if (db_bake_delete(b->config.db, b->id, &e) < 0 ||
	    (b->trial_id[0] &&
	     db_bake_delete(b->config.db, b->trial_id, &e) < 0))
		log_error("event=cleanup error=\"%s\"", e.msg);
	if (b->events)
		b->events->done(b->arg, &b->e);
	bake_free(b);
}

/* The VMM is off: files, rows, callback. */
static void bake_finish(struct bake *b)
{
	b->ending = true;
	squeeze_stop(&b->squeeze);
	loop_timer_del(&b->quiet);
	/* An open file keeps its blocks, and the rows may need them: the disk
	 * may be full. */
	b->image = image_unref(b->image);
	fd_close(&b->memory_fd);
	workdir_close(&b->dir);
	if (b->trial_open)
		workdir_close(&b->trial);
	worker_submit(b->config.worker, &b->job, bake_cleanup_run,
		      bake_cleanup_done);
}

static bool bake_disk_full(const struct bake *b)
{
	struct statvfs st;

	/* Less than a megabyte: whatever failed, failed of this. */
	return statvfs(b->root, &st) == 0 &&
	       st.f_bavail * st.f_frsize < (1u << 20);
}

void bake_fail(struct bake *b, const struct err *e)
{
	if (b->ending || b->e.code)
		return;
	b->e = *e;
	if (bake_disk_full(b)) {
		b->e.code = ENOSPC;
		err_prefix(&b->e, "the file system of %s is full", b->root);
	}
	err_prefix(&b->e, "bake %s", b->m.name);
	squeeze_stop(&b->squeeze);
	loop_timer_del(&b->quiet);
	if (!b->working)
		rig_off(&b->rig);
}

void bake_fail_code(struct bake *b, int code, const char *what)
{
	struct err e = ERR_NULL;

	err_set(&e, code, "%s", what);
	bake_fail(b, &e);
}

void bake_abandon(struct bake *b)
{
	b->events = NULL;
	if (!b->ending)
		bake_fail_code(b, ECANCELED, "given up");
}

static void bake_rig_failed(struct rig *g, const struct err *e)
{
	bake_fail(container_of(g, struct bake, rig), e);
}

/* ---- work in a worker, then the next step ---- */

static void bake_work_done(struct worker_job *job)
{
	struct bake *b = container_of(job, struct bake, job);

	b->working = false;
	if (b->e.code && !b->rig.vmm) {
		bake_finish(b);
		return;
	}
	if (b->e.code) {
		rig_off(&b->rig);
		return;
	}
	b->next(b);
}

void bake_work(struct bake *b, worker_fn run, void (*next)(struct bake *))
{
	b->working = true;
	b->next = next;
	worker_submit(b->config.worker, &b->job, run, bake_work_done);
}

void bake_work_error(struct bake *b, struct err *e)
{
	if (bake_disk_full(b)) {
		e->code = ENOSPC;
		err_prefix(e, "the file system of %s is full", b->root);
	}
	err_prefix(e, "bake %s", b->m.name);
	b->e = *e;
}

/* ---- PREPARE ---- */

static int bake_prepare_files(struct bake *b, struct err *e)
{
	guard_free char *disk = io_path("%s/disk", b->image_dir);
	guard_free char *memory = io_path("%s/memory", b->image_dir);
	int r;

	if (!disk || !memory)
		return err_errno(e, ENOMEM, "prepare");
	r = workdir_make(&b->dir, e);
	if (r == 0)
		r = io_mkdirs(b->image_dir, 0700, e);
	if (r == 0)
		r = baked_copy(b->rootfs, disk, e);
	if (r == 0)
		r = baked_digest(disk, b->m.rootfs_sha256, e);
	if (r == 0)
		r = baked_digest(b->kernel, b->m.kernel_sha256, e);
	if (r < 0)
		return r;
	kernel_release(b->kernel, b->m.kernel, sizeof(b->m.kernel));
	b->memory_fd =
		open(memory, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (b->memory_fd < 0)
		return err_errno(e, errno, "create %s", memory);
	if (ftruncate(b->memory_fd, (off_t)b->m.memory_bytes) < 0)
		return err_errno(e, errno, "size %s", memory);
	b->dir.disk.kind = VMM_DISK_RAW;
	b->dir.disk.rw_fd = open(disk, O_RDWR | O_CLOEXEC);
	if (b->dir.disk.rw_fd < 0)
		return err_errno(e, errno, "open %s", disk);
	return 0;
}

static int bake_prepare_plan(struct bake *b, struct err *e)
{
	struct plan *plan = NULL;
	int r = plan_new(PLAN_SHARED, b->m.memory_bytes, &plan, e);

	if (r == 0)
		r = plan_add(plan, PLAN_LAYER, b->m.memory_bytes, 0);
	if (r == 0)
		r = plan_finish(plan, &b->dir.plan_fd, e);
	plan_free(plan);
	return r;
}

static void bake_prepare_run(struct worker_job *job)
{
	struct bake *b = container_of(job, struct bake, job);
	struct err e = ERR_NULL;

	if (bake_prepare_files(b, &e) < 0 || bake_prepare_plan(b, &e) < 0)
		bake_work_error(b, &e);
}

/* ---- BOOT ---- */

static void bake_up(struct rig *g);
static void bake_off(struct rig *g);

const struct rig_events bake_rig_events = {
	.up = bake_up,
	.failed = bake_rig_failed,
	.off = bake_off,
};

static void bake_boot(struct bake *b)
{
	struct vmm_spec spec = {
		.id = b->id,
		.ram_bytes = b->m.memory_bytes,
		.vcpus = b->m.vcpus,
		.net_user = b->net_user,
		.kernel = b->kernel,
		.initrd = b->initrd,
		.cmdline = b->cmdline,
	};
	struct err e = ERR_NULL;

	bake_step(b, BAKE_BOOT, b->m.kernel);
	workdir_spec(&b->dir, &spec);
	spec.layer_fd = b->memory_fd;
	spec.state_fd = -1;
	b->boot_start_ns = clock_mono_ns();
	if (rig_start(&b->rig, b->config.loop, b->config.host, &b->dir, &spec,
		      &bake_rig_events, b->timeout_ns, &e) < 0)
		bake_fail(b, &e);
}

static void bake_up(struct rig *g)
{
	struct bake *b = container_of(g, struct bake, rig);

	if (b->trial_open) {
		bake_trial_up(b);
		return;
	}
	bake_warm_next(b);
}

/* ---- SAVE ---- */

static void bake_saved(void *arg, const struct err *e)
{
	struct bake *b = arg;

	if (e->code)
		bake_fail(b, e);
	else
		rig_off(&b->rig); /* bake_off goes on */
}

static void bake_paused(void *arg, const struct err *e)
{
	struct bake *b = arg;
	guard_free char *path = io_path("%s/state", b->image_dir);
	guard_fd int fd = -1;
	int r;

	if (e->code) {
		bake_fail(b, e);
		return;
	}
	if (path)
		fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		bake_fail_code(b, errno, "create the device state's file");
		return;
	}
	r = vmm_save(b->rig.vmm, fd, bake_saved, b);
	if (r < 0)
		bake_fail_code(b, -r, "save the device state");
}

void bake_save(struct bake *b)
{
	int r;

	bake_step(b, BAKE_SAVE, "");
	r = vmm_pause(b->rig.vmm, bake_paused, b);
	if (r < 0)
		bake_fail_code(b, -r, "pause");
}

/* ---- SEAL ---- */

static void bake_seal_run(struct worker_job *job)
{
	struct bake *b = container_of(job, struct bake, job);
	struct err e = ERR_NULL;

	if (baked_zeromap(b->image_dir, b->memory_fd, b->m.memory_bytes, &e) <
		    0 ||
	    baked_reserve(b->image_dir, &e) < 0 ||
	    baked_overlay(b->image_dir, &e) < 0 ||
	    bake_write_workingset(b, &e) < 0 ||
	    image_seal(b->image_dir, &b->m, &e) < 0 ||
	    image_open(b->image_dir, &b->image, &e) < 0)
		bake_work_error(b, &e);
}

/* A VMM is off: which one says where we are. */
static void bake_off(struct rig *g)
{
	struct bake *b = container_of(g, struct bake, rig);

	if (b->e.code) {
		bake_finish(b);
		return;
	}
	b->rig = (struct rig){ 0 };
	if (b->trial_open) {
		bake_trial(b);
		return;
	}
	bake_step(b, BAKE_SEAL, "zero map, digests");
	bake_work(b, bake_seal_run, bake_trial);
}

/* ---- PUBLISH ---- */

static void bake_publish_run(struct worker_job *job)
{
	struct bake *b = container_of(job, struct bake, job);
	guard_free char *path = io_path("%s/workingset", b->image_dir);
	struct err e = ERR_NULL;

	if (!path)
		err_errno(&e, ENOMEM, "publish");
	else if (unlink(path) < 0)
		err_errno(&e, errno, "remove %s", path);
	if (e.code || bake_write_workingset(b, &e) < 0 ||
	    image_seal(b->image_dir, &b->m, &e) < 0)
		bake_work_error(b, &e);
	else
		baked_drop_holes(b->image_dir, b->memory_fd, b->m.memory_bytes);
}

static void bake_published(struct bake *b)
{
	struct err e = ERR_NULL;

	if (templates_publish(b->config.templates, b->m.name, b->image_dir,
			      b->replace, &e) < 0) {
		err_prefix(&e, "bake %s", b->m.name);
		b->e = e;
	}
	bake_finish(b);
}

void bake_publish(struct bake *b)
{
	bake_step(b, BAKE_PUBLISH, "");
	b->image = image_unref(b->image);
	bake_work(b, bake_publish_run, bake_published);
}

/* ---- start ---- */

void bake_new_id(char id[SANDBOX_ID_MAX], const char *prefix)
{
	uint8_t random[6];
	char hex[13];

	io_random(random, sizeof(random));
	snprintf(id, SANDBOX_ID_MAX, "%s%s", prefix,
		 format_hex(random, sizeof(random), hex));
}

static int bake_check(const struct bake_config *c, const struct bake_options *o,
		      struct err *e)
{
	if (!o->name || !parse_name_ok(o->name))
		return err_set(
			e, EINVAL,
			"bake: \"%s\" is no name: letters, digits, _ . - "
			"and at most 63 of them",
			o->name ? o->name : "");
	if (!o->rootfs || o->rootfs[0] != '/')
		return err_set(e, EINVAL,
			       "bake %s: rootfs must be an absolute path",
			       o->name);
	if (o->memory_bytes < BAKE_MEMORY_MIN ||
	    o->memory_bytes > BAKE_MEMORY_MAX || o->memory_bytes % (1u << 20))
		return err_set(e, EINVAL,
			       "bake %s: memory of %llu bytes: not whole MiB "
			       "between 80 MiB and 64 GiB",
			       o->name, (unsigned long long)o->memory_bytes);
	if (o->vcpus < 1 || o->vcpus > BAKE_VCPUS_MAX)
		return err_set(e, EINVAL, "bake %s: %u vCPUs: not 1 to %d",
			       o->name, o->vcpus, BAKE_VCPUS_MAX);
	if (o->n_warm > BAKE_WARM_MAX)
		return err_set(e, E2BIG,
			       "bake %s: more than %d warm-up commands",
			       o->name, BAKE_WARM_MAX);
	if (templates_has(c->templates, o->name) && !o->replace)
		return err_set(e, EEXIST,
			       "bake %s: the template exists (--replace bakes "
			       "it anew)",
			       o->name);
	if (templates_replaceable(c->templates, o->name, o->replace, e) < 0)
		return err_prefix(e, "bake %s", o->name);
	return 0;
}

static void bake_manifest(struct bake *b, const struct bake_options *o)
{
	const struct vmm_host_facts *h = vmm_host_facts(b->config.host);
	struct image_manifest *m = &b->m;

	snprintf(m->name, sizeof(m->name), "%s", o->name);
	clock_rfc3339(clock_real_ns(), m->created);
	snprintf(m->driver, sizeof(m->driver), "%s", h->flavor.driver);
	snprintf(m->version, sizeof(m->version), "%s", h->flavor.version);
	snprintf(m->accel, sizeof(m->accel), "%s", h->flavor.accel);
	snprintf(m->cpu, sizeof(m->cpu), "%s", h->flavor.cpu);
	snprintf(m->machine, sizeof(m->machine), "%s", h->flavor.machine);
	m->memory_bytes = o->memory_bytes;
	m->vcpus = o->vcpus;
	m->share = o->share;
	m->net = o->net_user;
}

static char *bake_or_default(const struct bake_config *c, const char *given,
			     const char *name)
{
	return given ? strdup(given) : io_path("%s/%s", c->guest_dir, name);
}

static int bake_copy_options(struct bake *b, const struct bake_options *o)
{
	const struct bake_config *c = &b->config;

	b->root = strdup(c->root);
	b->run = strdup(c->run);
	b->rootfs = strdup(o->rootfs);
	/* Not vmlinuz: unpacking takes time under emulation, and leaves 35 MiB
	 * of rubble in the image. */
	b->kernel = bake_or_default(c, o->kernel, "vmlinux");
	b->initrd = bake_or_default(c, o->initrd, "initrd");
	b->cmdline = strdup(o->cmdline ? o->cmdline : "");
	if (!b->root || !b->run || !b->rootfs || !b->kernel || !b->initrd ||
	    !b->cmdline)
		return -ENOMEM;
	for (; b->n_warm < o->n_warm; b->n_warm++) {
		b->warm[b->n_warm] = strdup(o->warm[b->n_warm]);
		if (!b->warm[b->n_warm])
			return -ENOMEM;
	}
	b->timeout_ns = o->timeout_ns ? o->timeout_ns : BAKE_TIMEOUT_NS;
	b->replace = o->replace;
	b->net_user = o->net_user;
	return 0;
}

static int bake_check_files(const struct bake *b, struct err *e)
{
	const char *const files[] = { b->rootfs, b->kernel, b->initrd };

	for (size_t i = 0; i < nitems(files); i++)
		if (access(files[i], R_OK) < 0)
			return err_errno(e, errno, "%s", files[i]);
	return 0;
}

/* The row is the last: from here on there is something to undo. */
static int bake_init(struct bake *b, const struct bake_options *o,
		     struct err *e)
{
	const struct bake_config *c = &b->config;
	int r;

	bake_manifest(b, o);
	bake_new_id(b->id, "bk");
	r = workdir_init(&b->dir, c->root, c->run, b->id, e);
	if (r == 0 && bake_copy_options(b, o) < 0)
		r = err_errno(e, ENOMEM, "prepare");
	if (r == 0)
		r = bake_check_files(b, e);
	if (r == 0) {
		b->image_dir = io_path("%s/image", b->dir.dir);
		if (!b->image_dir)
			r = err_errno(e, ENOMEM, "prepare");
	}
	if (r == 0)
		r = db_bake_put(c->db, b->id, e);
	return r < 0 ? err_prefix(e, "bake %s", o->name) : 0;
}

int bake_start(const struct bake_config *config, const struct bake_options *o,
	       const struct job_events *events, void *arg, struct bake **ret,
	       struct err *e)
{
	struct bake *b;
	int r = bake_check(config, o, e);

	if (r < 0)
		return r;
	b = calloc(1, sizeof(*b));
	if (!b)
		return err_errno(e, ENOMEM, "bake %s", o->name);
	b->config = *config;
	b->memory_fd = -1;
	b->events = events;
	b->arg = arg;
	r = bake_init(b, o, e);
	if (r < 0) {
		bake_free(b);
		return r;
	}
	*ret = b;
	bake_step(b, BAKE_PREPARE, b->rootfs);
	bake_work(b, bake_prepare_run, bake_boot);
	return 0;
}
