/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What a VMM process costs outside its guest's RAM
 */
#include "base/err.h"

#include <stdint.h>
#include <sys/types.h>

/*
 * Anonymous and shared memory of its own, page tables, kernel stacks; in
 * bytes. Pages it shares with another process are counted by share (Pss), so a
 * herd's sum is right. Clean file pages (program text) are not counted.
 */
struct overhead {
	uint64_t anon; /* Pss of anonymous pages, incl. swap */
	uint64_t shmem; /* Pss of shared mappings of memfds and the like */
	uint64_t tables; /* page tables, the guest RAM's included */
	uint64_t kernel; /* stacks of threads */
};

uint64_t overhead_sum(const struct overhead *o);

/* [ram_addr, ram_addr + ram_len) is left out (0, 0: count everything). -ESRCH:
 * no such process, or it ended meanwhile; -EINVAL: no range of pages. */
int overhead_count(const char *proc_root, pid_t pid, uint64_t ram_addr,
		   uint64_t ram_len, struct overhead *ret,
		   struct err *e) must_check;
