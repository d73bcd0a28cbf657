/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The inside of a bake, for bake.c, bake_warm.c and bake_trial.c
 */
#include "base/clock.h"
#include "base/loop.h"
#include "base/worker.h"
#include "image/image.h"
#include "sandbox/db.h"
#include "sandbox/workdir.h"
#include "template/bake.h"
#include "template/rig.h"
#include "template/squeeze.h"

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

/* ---- bake.c ---- */

void bake_step(struct bake *b, enum bake_step step, const char *detail);
/* The first one counts; the VMM goes off, and then the rest. */
void bake_fail(struct bake *b, const struct err *e);
void bake_fail_code(struct bake *b, int code, const char *what);
/* @run sets b->e through bake_work_error(). */
void bake_work(struct bake *b, worker_fn run, void (*next)(struct bake *));
void bake_work_error(struct bake *b, struct err *e);
void bake_new_id(char id[SANDBOX_ID_MAX], const char *prefix);
extern const struct rig_events bake_rig_events;

/* After the settling. */
void bake_save(struct bake *b);
/* After the last trial. */
void bake_publish(struct bake *b);

/* ---- bake_warm.c ---- */

/* The agent of the boot answers, or a command has ended. */
void bake_warm_next(struct bake *b);
/* Run one warm-up command in the guest; number 0 is the shell itself. */
void bake_command(struct bake *b);
/* An identity like any other, but for its names. */
void bake_identity(struct bake *b, const char *hostname, rig_result_fn result);

/* ---- bake_trial.c ---- */

/* Between trials, and after the last. */
void bake_trial(struct bake *b);
/* The agent of a trial answers. */
void bake_trial_up(struct bake *b);
/* It has its identity, or a command has ended. */
void bake_trial_warm(struct bake *b);
/* What the trials so far say; nothing is in it before the first. */
int bake_write_workingset(struct bake *b, struct err *e) must_check;
