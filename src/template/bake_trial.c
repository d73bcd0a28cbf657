/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The trials of a bake: which pages does a guest touch?
 *
 * The new image is restored BAKE_TRIALS times, each time as a guest with an
 * identity that runs a shell and the warm commands, the last one idles for a
 * while besides; then the kernel is asked which pages
 * are there (ledger/pagemap.h), with its mapping of neighbours off (PLAN_EXACT).
 * Pages that are zero in the image do not count: they need no bringing. What is
 * left is the working set.
 *
 * Invariants:
 *  1. A trial is a restore like any other: a working directory and a row of its
 *     own, both gone with the bake.
 *  2. One at a time, on the same rig as the boot: b->trial_open tells whose VMM
 *     it is.
 */
#include "template/bake_steps.h"

#include "base/guard.h"
#include "base/io.h"
#include "gmem/plan.h"
#include "ledger/pagemap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* A page is of the working set when a trial touched it: one too many costs
 * some hundred bytes, one too few a round trip to the store. */
#define BAKE_TRIALS 3
#define BAKE_TRIALS_MIN 1
/* After the last trial's commands: what a guest's kernel does by itself touches
 * pages too (it looks for dirty ones every 5 s). */
#define BAKE_IDLE_NS (6 * NS_PER_SEC)

int bake_write_workingset(struct bake *b, struct err *e)
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

void bake_trial(struct bake *b)
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

void bake_trial_warm(struct bake *b)
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

void bake_trial_up(struct bake *b)
{
	bake_identity(b, b->trial_id, bake_trial_identity);
}
