/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The private memory of any process tree on the host (byre mem --pid)
 */
#include "base/err.h"
#include "ledger/buckets.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Buckets over the private mappings of one process. `shared` is what is still
 * the parent's or the file's, `private` what is its own; balloon is 0. A
 * private mapping that is no longer writable counts with its copied pages only.
 */
struct proc_memory {
	pid_t pid;
	pid_t ppid;
	char comm[32]; /* printable ASCII */
	uint64_t configured; /* bytes of private mappings; the buckets' sum */
	struct buckets b;
	uint64_t vmm; /* page tables and kernel stacks */
};

/* Most processes one tree may have. */
#define PROC_TREE_MAX 4096

/* *ret is an allocation of *ret_n entries, root first, then by pid. Zombies
 * and processes that end meanwhile are left out; -ESRCH if that is the root,
 * -E2BIG beyond PROC_TREE_MAX. */
int proc_tree_count(const char *proc_root, pid_t root, struct proc_memory **ret,
		    size_t *ret_n, struct err *e) must_check;
