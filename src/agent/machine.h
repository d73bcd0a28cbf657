/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What concerns the guest as a whole: its memory, its rest, its end
 */
#include "agent/wire.h"
#include "base/err.h"

struct machine_memory {
	uint64_t total_bytes;
	uint64_t free_bytes;
	uint64_t available_bytes;
	uint64_t cached_bytes;
};

/* @proc: where procfs is. */
int machine_memory(const char *proc, struct machine_memory *ret,
		   struct err *e) must_check;

/* Make the guest a good thing to photograph: files on disk; with @drop caches
 * dropped and free memory compacted. */
int machine_settle(const char *proc, bool drop, struct err *e) must_check;

/* Files on disk, root read-only: after this a power cut costs nothing. */
void machine_quiesce(void);
__attribute__((noreturn)) void machine_power_off(void);
