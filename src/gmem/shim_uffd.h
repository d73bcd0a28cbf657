/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The shim's userfaultfd: made early, armed and handed over when RAM is mapped
 *
 * Internal to libbyre-gmem.so. Whatever fails before the guest runs ends the
 * process with a sentence: a guest of which only some extents are armed would
 * find zeros where its memory should be.
 */
#include "base/must.h"

#include <stdbool.h>
#include <stdint.h>

struct gmem_extent;

/* ---- of shim.c ---- */

/* Say why, note it in the plan's report, end. */
void shim_refuse(uint32_t extent, int code, const char *fmt, ...)
	printf_like(3, 4) __attribute__((noreturn));
/* The number of an open fd in variable @name, which is removed; -1 without. */
int shim_env_fd(const char *name);

/* ---- of shim_uffd.c ---- */

/* From the constructor. @flags: of the plan. PLAN_STREAMED: make it; otherwise
 * what the environment passed for it is closed. @taken: numbers of fds that
 * are in use, n of them. */
void shim_uffd_start(uint32_t flags, const int *taken, int n);
/* Arm extent number @i of the mapped RAM. */
void shim_uffd_arm(char *ram, const struct gmem_extent *x, uint32_t i);
/* Have extent @x of the mapped RAM mapped as it is touched, without neighbours;
 * a kernel that cannot is not asked again. */
void shim_uffd_exact(char *ram, const struct gmem_extent *x);
/* All are armed: tell the daemon. */
void shim_uffd_hand_over(const char *ram, uint64_t ram_bytes);
