/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Baking: boot once, warm, snapshot, publish
 *
 * A bake runs in the loop beside everything else. Its steps are reported as
 * they begin; at the end comes one result. Whatever happens before the last
 * step leaves nothing behind but the console's last lines in the error.
 */
#include "template/job.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop;
struct worker;
struct vmm_host;
struct templates;
struct registry;
struct bake;
struct db;

/* Default when the user names none. */
#define BAKE_MEMORY_BYTES (2ull << 30)
/* Below this the stock kernel does not boot. */
#define BAKE_MEMORY_MIN (80ull << 20)
#define BAKE_MEMORY_MAX (64ull << 30)
#define BAKE_VCPUS_MAX 16
#define BAKE_WARM_MAX 32

struct bake_options {
	const char *name;
	const char *rootfs; /* path, absolute */
	const char *kernel; /* NULL: the one byre was built with */
	const char *initrd; /* NULL: likewise */
	const char *cmdline; /* appended; NULL: nothing */
	uint64_t memory_bytes;
	unsigned vcpus;
	const char *const *warm; /* shell commands */
	size_t n_warm;
	uint64_t timeout_ns; /* of boot and of each warm command; 0: 120 s */
	bool replace;
	bool net_user;
	bool share; /* false: every guest gets pages of its own */
};

struct bake_config {
	const char *root; /* BYRE_ROOT */
	const char *run;
	struct loop *loop;
	struct worker *worker;
	struct vmm_host *host;
	struct templates *templates;
	struct db *db;
	const char *guest_dir; /* default kernel and initrd */
};

/* Steps count steps; output is that of the warm commands. */
int bake_start(const struct bake_config *config,
	       const struct bake_options *options,
	       const struct job_events *events, void *arg, struct bake **ret,
	       struct err *e) must_check;
/* Give up; no more callbacks. Its VMM is killed and its files removed. */
void bake_abandon(struct bake *b);
