/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What one VMM works with: its directories, sockets, disk and memory plan
 *
 *	ROOT/sandboxes/ID/   disk, console.log, vmm.log
 *	RUN/sandboxes/ID/    control, agent, console (listening unix sockets)
 *
 * Making it blocks (directories, a copy): it is done in a worker. The fds are
 * for starting the VMM and closed afterwards, except the plan's.
 */
#include "base/err.h"
#include "vmm/vmm.h"

struct bitmap;
struct image;

/* A layer that is being filled, in place of the image's memory; and where its
 * disk is served. All borrowed. */
struct workdir_layer {
	int fd; /* read-only */
	int nbd_dir_fd;
	const char *nbd_name; /* outlives the workdir */
};

struct workdir {
	char *dir; /* ROOT/sandboxes/ID */
	char *run; /* RUN/sandboxes/ID */
	char *control_path, *agent_path, *console_path; /* sockets */
	char *log_path; /* console.log */
	char *vmm_log_path;
	struct vmm_disk disk;
	int layer_fd; /* owned only with a private copy */
	bool layer_owned;
	bool exact; /* a PLAN_EXACT plan, to learn a working set */
	int plan_fd;
	int state_fd;
	int control_fd, agent_fd, console_fd; /* listening */
	int vmm_log_fd;
};

#define WORKDIR_NULL                                                    \
	{                                                               \
		.disk = { .rw_fd = -1, .ro_fd = -1, .nbd_dir_fd = -1 }, \
		.layer_fd = -1, .plan_fd = -1, .state_fd = -1,          \
		.control_fd = -1, .agent_fd = -1, .console_fd = -1,     \
		.vmm_log_fd = -1                                        \
	}

/* Names only; nothing is touched. */
int workdir_init(struct workdir *w, const char *root, const char *run,
		 const char *id, struct err *e) must_check;
/* Closes and frees; removes nothing. */
void workdir_deinit(struct workdir *w);

/* Directories and sockets. */
int workdir_make(struct workdir *w, struct err *e) must_check;
/* And everything for restoring from @image; @layer is NULL for one that is all
 * here. */
int workdir_make_restore(struct workdir *w, struct image *image,
			 const struct workdir_layer *layer,
			 struct err *e) must_check;
/* How long a run of zero pages must be to get an extent of its own in the plan
 * of a guest with that memory; shorter ones are holes in extents of data. */
uint64_t workdir_zero_run(const struct bitmap *zeromap);
/* The fds that only starting needs. */
void workdir_close(struct workdir *w);

/* Delete the disk and sockets, keep the logs. */
int workdir_remove_disk(const struct workdir *w, struct err *e) must_check;
/* Delete everything. */
int workdir_remove(const struct workdir *w, struct err *e) must_check;

/* The fields of a spec that come from here. */
void workdir_spec(const struct workdir *w, struct vmm_spec *spec);
