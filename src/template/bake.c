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
 */
#include "template/bake.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/worker.h"
#include "gmem/plan.h"
#include "image/image.h"
#include "ledger/pagemap.h"
#include "sandbox/db.h"
#include "template/baked.h"
#include "template/kernel.h"
#include "template/rig.h"
#include "template/squeeze.h"
#include "template/template.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

/* A page is of the working set when a trial touched it: one too many costs
 * some hundred bytes, one too few a round trip to the store. */
#define BAKE_TRIALS 3
#define BAKE_TRIALS_MIN 1
#define BAKE_QUIET_NS (1500 * NS_PER_MS)
/* After the last trial's commands: what a guest's kernel does by itself touches
 * pages too (it looks for dirty ones every 5 s). */
#define BAKE_IDLE_NS (6 * NS_PER_SEC)
#define BAKE_TIMEOUT_NS (120 * NS_PER_SEC)
/* For the agent's own requests. */
#define BAKE_REQUEST_NS (60 * NS_PER_SEC)

enum bake_step {
	BAKE_PREPARE,
	BAKE_BOOT,
	BAKE_WARM,
	BAKE_SETTLE,
	BAKE_SAVE,
	BAKE_SEAL,
	BAKE_TRIAL,
	BAKE_PUBLISH,
	BAKE_STEP_COUNT,
};

static const char *const bake_step_names[] = {
	[BAKE_PREPARE] = "prepare", [BAKE_BOOT] = "boot",
	[BAKE_WARM] = "warm",       [BAKE_SETTLE] = "settle",
	[BAKE_SAVE] = "save",       [BAKE_SEAL] = "seal",
	[BAKE_TRIAL] = "trial",     [BAKE_PUBLISH] = "publish",
};
_Static_assert(nitems(bake_step_names) == BAKE_STEP_COUNT, "a name for each");

struct bake {
	struct bake_config config;
	char *root, *run, *kernel, *initrd, *rootfs, *cmdline;
	char *warm[BAKE_WARM_MAX];
	size_t n_warm;
	uint64_t timeout_ns;
	bool replace;
	bool net_user;
	const struct job_events *events; /* NULL: abandoned */
	void *arg;
	struct image_manifest m;
	char id[SANDBOX_ID_MAX];
	struct workdir dir; /* of the boot */
	char *image_dir;
	int memory_fd;
	struct rig rig;
	uint64_t boot_start_ns;
	size_t next_warm;
	bool second_round;
	struct squeeze squeeze;
	struct loop_timer quiet;
	/* trials */
	struct image *image;
	char trial_id[SANDBOX_ID_MAX];
	struct workdir trial;
	bool trial_open;
	unsigned n_trials;
	uint8_t *touched; /* per page: in how many trials */
	/* worker */
	struct worker_job job;
	bool working;
	void (*next)(struct bake *b);
	struct err e; /* first failure */
	bool ending;
};

static void bake_boot(struct bake *b);
static void bake_warm_next(struct bake *b);
static void bake_settle(struct bake *b);
static void bake_squeeze(struct bake *b);
static void bake_save(struct bake *b);
static void bake_trial(struct bake *b);
static void bake_trial_warm(struct bake *b);
static void bake_publish(struct bake *b);
static void bake_finish(struct bake *b);

static void bake_step(struct bake *b, enum bake_step step, const char *detail)
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

static void bake_fail(struct bake *b, const struct err *e)
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

static void bake_fail_code(struct bake *b, int code, const char *what)
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

/* @run sets b->e through bake_work_error(). */
static void bake_work(struct bake *b, worker_fn run,
		      void (*next)(struct bake *))
{
	b->working = true;
	b->next = next;
	worker_submit(b->config.worker, &b->job, run, bake_work_done);
}

static void bake_work_error(struct bake *b, struct err *e)
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

static const struct rig_events bake_rig_events = {
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

/* ---- WARM ---- */

static void bake_output(struct rig *g, const void *p, size_t len)
{
	struct bake *b = container_of(g, struct bake, rig);

	if (b->events && b->events->output && !b->second_round && b->next_warm)
		b->events->output(b->arg, p, len);
}

/* Number 0: a shell that runs, and says something, for that takes a page. In the
 * second round of the bake it also reads itself and its libraries into the page
 * cache, whole, whatever a later command will touch of them. Where there is no
 * cat or sed it runs, and that is all. In a trial it does what a user's would. */
static const char bake_shell_command[] =
	"cat /proc/$$/exe $(sed -n 's/.* \\//\\//p' /proc/$$/maps) "
	">/dev/null 2>&1; echo ok";

static const char *bake_warm_command(const struct bake *b)
{
	if (b->next_warm)
		return b->warm[b->next_warm - 1];
	return b->second_round && !b->trial_open ? bake_shell_command
						 : "echo ok";
}

static void bake_warm_result(struct rig *g, const struct wire_frame *f)
{
	struct bake *b = container_of(g, struct bake, rig);
	const char *cmd = bake_warm_command(b);
	char message[120] = "", what[300];
	uint64_t code = 0, sig = 0, eno = 0;

	err_drop(wire_find_u64(f, WIRE_K_CODE, &code));
	err_drop(wire_find_u64(f, WIRE_K_SIGNAL, &sig));
	err_drop(wire_find_u64(f, WIRE_K_ERRNO, &eno));
	err_drop(wire_find_str(f, WIRE_K_MESSAGE, message, sizeof(message)));
	if (code == 0 && sig == 0 && eno == 0) {
		/* A cold boot ends where a create does: with the answer to a
		 * first command. */
		if (b->next_warm == 0 && !b->second_round)
			b->m.boot_ms =
				(double)(clock_mono_ns() - b->boot_start_ns) /
				1000000.0;
		b->next_warm++;
		if (b->trial_open)
			bake_trial_warm(b);
		else
			bake_warm_next(b);
		return;
	}
	if (b->next_warm == 0)
		snprintf(what, sizeof(what), "rootfs %s has no working sh%s%s",
			 b->rootfs, *message ? ": " : "", message);
	else if (sig)
		snprintf(what, sizeof(what),
			 "warm-up command \"%s\" was killed by signal %llu",
			 cmd, (unsigned long long)sig);
	else
		snprintf(what, sizeof(what),
			 "warm-up command \"%s\" ended with code %llu%s%s", cmd,
			 (unsigned long long)code, *message ? ": " : "",
			 message);
	bake_fail_code(b, EIO, what);
}

/* Run one warm-up command in the guest; number 0 is the shell itself. */
static void bake_command(struct bake *b)
{
	guard_free uint8_t *mem = malloc(WIRE_FRAME_MAX);
	struct wire_out o;
	int n, r;

	if (!mem) {
		bake_fail_code(b, ENOMEM, "warm-up");
		return;
	}
	wire_begin(&o, mem, WIRE_FRAME_MAX, WIRE_EXEC, 0, 0);
	wire_put_str(&o, WIRE_K_ARG, "sh");
	wire_put_str(&o, WIRE_K_ARG, "-c");
	wire_put_str(&o, WIRE_K_ARG, bake_warm_command(b));
	wire_put_u64(&o, WIRE_K_TIMEOUT, b->timeout_ns);
	n = wire_end(&o);
	r = n < 0 ? n
		  : rig_request(&b->rig, mem, (size_t)n, "warm-up",
				b->timeout_ns + 5 * NS_PER_SEC, bake_output,
				bake_warm_result);
	if (r < 0)
		bake_fail_code(b, -r, "warm-up command");
}

static void bake_warm_next(struct bake *b)
{
	if (b->next_warm <= b->n_warm) {
		if (!b->second_round)
			bake_step(b, BAKE_WARM,
				  b->next_warm ? bake_warm_command(b) : "sh");
		bake_command(b);
	} else if (!b->second_round) {
		bake_settle(b);
	} else {
		bake_squeeze(b);
	}
}

static void bake_trial_up(struct bake *b);

static void bake_up(struct rig *g)
{
	struct bake *b = container_of(g, struct bake, rig);

	if (b->trial_open) {
		bake_trial_up(b);
		return;
	}
	bake_warm_next(b);
}

/* ---- SETTLE ---- */

static void bake_ask(struct bake *b, enum wire_type type, bool drop,
		     const char *doing, rig_result_fn result)
{
	uint8_t mem[64];
	struct wire_out o;
	int n, r;

	wire_begin(&o, mem, sizeof(mem), (uint8_t)type, 0, 0);
	if (drop)
		wire_put_u64(&o, WIRE_K_DROP, 1);
	n = wire_end(&o);
	r = n < 0 ? n
		  : rig_request(&b->rig, mem, (size_t)n, doing, BAKE_REQUEST_NS,
				NULL, result);
	if (r < 0)
		bake_fail_code(b, -r, doing);
}

static void bake_settled(struct rig *g, unused const struct wire_frame *f)
{
	struct bake *b = container_of(g, struct bake, rig);

	b->second_round = true;
	b->next_warm = 0;
	bake_warm_next(b);
}

static void bake_settle(struct bake *b)
{
	bake_step(b, BAKE_SETTLE, "drop caches, run again");
	bake_ask(b, WIRE_SETTLE, true, "settle", bake_settled);
}

/* The guest's own loose ends (grace periods, delayed work, a commit) are tied
 * up by now; what is pending in a snapshot is done by every guest again. */
static void bake_quiet(struct loop_timer *t)
{
	bake_save(container_of(t, struct bake, quiet));
}

static void bake_synced(struct rig *g, unused const struct wire_frame *f)
{
	struct bake *b = container_of(g, struct bake, rig);

	if (loop_timer_set(b->config.loop, &b->quiet,
			   b->config.loop->now_ns + BAKE_QUIET_NS,
			   bake_quiet) < 0)
		bake_fail_code(b, ENOMEM, "settle");
}

static void bake_identity(struct bake *b, const char *hostname,
			  rig_result_fn result);

static void bake_rehearsed(struct rig *g, unused const struct wire_frame *f)
{
	bake_ask(container_of(g, struct bake, rig), WIRE_SETTLE, false,
		 "settle", bake_synced);
}

/* What every restored guest does first, done once before: then it finds its
 * memory allocated. */
static void bake_rehearse(struct bake *b)
{
	bake_identity(b, "template", bake_rehearsed);
}

static void bake_squeezed(void *arg, const struct err *e)
{
	if (e->code)
		bake_fail(arg, e);
	else
		bake_rehearse(arg);
}

static void bake_facts(struct rig *g, const struct wire_frame *f)
{
	struct bake *b = container_of(g, struct bake, rig);
	uint64_t free_bytes = 0;

	err_drop(wire_find_u64(f, WIRE_K_MEM_FREE, &free_bytes));
	if (!squeeze_start(&b->squeeze, b->config.loop, b->rig.vmm,
			   b->m.memory_bytes, free_bytes, bake_squeezed, b))
		bake_rehearse(b);
}

static void bake_squeeze(struct bake *b)
{
	bake_step(b, BAKE_SETTLE, "give back free memory");
	bake_ask(b, WIRE_FACTS, false, "squeeze", bake_facts);
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

static void bake_save(struct bake *b)
{
	int r;

	bake_step(b, BAKE_SAVE, "");
	r = vmm_pause(b->rig.vmm, bake_paused, b);
	if (r < 0)
		bake_fail_code(b, -r, "pause");
}

/* ---- SEAL ---- */

static int bake_write_workingset(struct bake *b, struct err *e)
{
	guard_free char *path = io_path("%s/workingset", b->image_dir);
	struct bitmap ws = BITMAP_NULL;
	int r;

	if (!path || bitmap_init(&ws, b->m.memory_bytes / IMAGE_PAGE) < 0)
		return err_errno(e, ENOMEM, "working set");
	for (uint64_t i = 0; b->touched && i < ws.n; i++)
		if (b->touched[i] >= BAKE_TRIALS_MIN)
			bitmap_set(&ws, i);
	r = bitmap_write(&ws, path, e);
	bitmap_deinit(&ws);
	return r;
}

static void bake_seal_run(struct worker_job *job)
{
	struct bake *b = container_of(job, struct bake, job);
	struct err e = ERR_NULL;

	if (baked_zeromap(b->image_dir, b->memory_fd, b->m.memory_bytes, &e) <
		    0 ||
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

/* ---- TRIAL ---- */

static void bake_new_id(char id[SANDBOX_ID_MAX], const char *prefix)
{
	uint8_t random[6];
	char hex[13];

	io_random(random, sizeof(random));
	snprintf(id, SANDBOX_ID_MAX, "%s%s", prefix,
		 format_hex(random, sizeof(random), hex));
}

static void bake_trial_prepare_run(struct worker_job *job)
{
	struct bake *b = container_of(job, struct bake, job);
	struct err e = ERR_NULL;

	if (workdir_remove(&b->trial, &e) < 0 ||
	    workdir_make_restore(&b->trial, b->image, NULL, &e) < 0)
		bake_work_error(b, &e);
}

static void bake_trial_start(struct bake *b)
{
	struct vmm_spec spec = {
		.id = b->trial_id,
		.ram_bytes = b->m.memory_bytes,
		.vcpus = b->m.vcpus,
		.net_user = b->net_user,
	};
	struct err e = ERR_NULL;

	workdir_spec(&b->trial, &spec);
	if (rig_start(&b->rig, b->config.loop, b->config.host, &b->trial, &spec,
		      &bake_rig_events, b->timeout_ns, &e) < 0)
		bake_fail(b, &e);
	workdir_close(&b->trial);
}

/* Between trials, and after the last. */
static void bake_trial(struct bake *b)
{
	struct err e = ERR_NULL;
	char detail[32];
	int r = 0;

	if (b->n_trials == BAKE_TRIALS) {
		bake_publish(b);
		return;
	}
	snprintf(detail, sizeof(detail), "%u of %u", b->n_trials + 1,
		 BAKE_TRIALS);
	bake_step(b, BAKE_TRIAL, detail);
	if (b->trial_open) {
		workdir_deinit(&b->trial);
		b->trial_open = false;
	} else {
		bake_new_id(b->trial_id, "tr");
		r = db_bake_put(b->config.db, b->trial_id, &e);
		b->touched = calloc(b->m.memory_bytes / IMAGE_PAGE, 1);
		if (!b->touched && r == 0)
			r = err_errno(&e, ENOMEM, "trial");
	}
	if (r == 0)
		r = workdir_init(&b->trial, b->root, b->run, b->trial_id, &e);
	if (r < 0) {
		bake_fail(b, &e);
		return;
	}
	b->trial.exact = true;
	b->trial_open = true;
	b->next_warm = 0;
	bake_work(b, bake_trial_prepare_run, bake_trial_start);
}

static void bake_trial_note(struct bake *b)
{
	struct plan_view view = PLAN_VIEW_NULL;
	struct bitmap now = BITMAP_NULL;
	struct gmem_report report;
	struct err e = ERR_NULL;
	uint64_t n = b->m.memory_bytes / IMAGE_PAGE;

	if (plan_view_open(b->trial.plan_fd, b->m.memory_bytes, &view, &e) <
		    0 ||
	    bitmap_init(&now, n) < 0) {
		bake_fail_code(b, ENOMEM, "trial");
		return;
	}
	report = plan_view_report(&view);
	plan_view_close(&view);
	if (pagemap_touched("/proc", vmm_proc(b->rig.vmm).pid, report.ram_addr,
			    b->m.memory_bytes, now.bits, &e) < 0) {
		bitmap_deinit(&now);
		bake_fail(b, &e);
		return;
	}
	/* What is zero in the image needs no bringing. */
	for (uint64_t i = 0; i < n; i++)
		if (bitmap_get(&now, i) &&
		    !bitmap_get(image_zeromap(b->image), i))
			b->touched[i]++;
	bitmap_deinit(&now);
	b->n_trials++;
	rig_off(&b->rig);
}

static void bake_trial_idle(struct loop_timer *t)
{
	bake_trial_note(container_of(t, struct bake, quiet));
}

static void bake_trial_done(struct bake *b)
{
	if (b->n_trials + 1 < BAKE_TRIALS)
		bake_trial_note(b);
	else if (loop_timer_set(b->config.loop, &b->quiet,
				b->config.loop->now_ns + BAKE_IDLE_NS,
				bake_trial_idle) < 0)
		bake_fail_code(b, ENOMEM, "trial");
}

static void bake_trial_warm(struct bake *b)
{
	if (b->next_warm <= b->n_warm)
		bake_command(b);
	else
		bake_trial_done(b);
}

static void bake_trial_identity(struct rig *g,
				unused const struct wire_frame *f)
{
	bake_trial_warm(container_of(g, struct bake, rig));
}

/* An identity like any other, but for its names. */
static void bake_identity(struct bake *b, const char *hostname,
			  rig_result_fn result)
{
	uint8_t mem[256], entropy[32];
	struct wire_out o;
	int n, r;

	io_random(entropy, sizeof(entropy));
	wire_begin(&o, mem, sizeof(mem), WIRE_IDENTITY, 0, 0);
	wire_put(&o, WIRE_K_ENTROPY, entropy, sizeof(entropy));
	wire_put_u64(&o, WIRE_K_CLOCK, clock_real_ns());
	wire_put_str(&o, WIRE_K_HOSTNAME, hostname);
	wire_put_str(&o, WIRE_K_MACHINE_ID, "00000000000000000000000000000001");
	n = wire_end(&o);
	r = n < 0 ? n
		  : rig_request(&b->rig, mem, (size_t)n, "identity",
				BAKE_REQUEST_NS, NULL, result);
	if (r < 0)
		bake_fail_code(b, -r, "identity");
}

static void bake_trial_up(struct bake *b)
{
	bake_identity(b, b->trial_id, bake_trial_identity);
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

static void bake_publish(struct bake *b)
{
	bake_step(b, BAKE_PUBLISH, "");
	b->image = image_unref(b->image);
	bake_work(b, bake_publish_run, bake_published);
}

/* ---- start ---- */

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
			return err_errno(e, errno, "bake %s: %s", b->m.name,
					 files[i]);
	return 0;
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
	bake_manifest(b, o);
	bake_new_id(b->id, "bk");
	r = workdir_init(&b->dir, config->root, config->run, b->id, e);
	if (r == 0 && bake_copy_options(b, o) < 0)
		r = err_errno(e, ENOMEM, "bake %s", o->name);
	if (r == 0)
		r = bake_check_files(b, e);
	if (r == 0) {
		b->image_dir = io_path("%s/image", b->dir.dir);
		if (!b->image_dir)
			r = err_errno(e, ENOMEM, "bake %s", o->name);
	}
	if (r == 0)
		r = db_bake_put(config->db, b->id, e);
	if (r < 0) {
		bake_free(b);
		return r;
	}
	*ret = b;
	bake_step(b, BAKE_PREPARE, b->rootfs);
	bake_work(b, bake_prepare_run, bake_boot);
	return 0;
}
