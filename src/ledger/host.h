/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Host totals, in bytes, from /proc/meminfo and /proc/sys/vm
 */
#include "base/err.h"

#include <stdint.h>

struct host_memory {
	uint64_t mem_total;
	uint64_t mem_available;
	uint64_t mem_free;
	uint64_t swap_total;
	uint64_t swap_free;
	uint64_t committed_as;
	uint64_t commit_limit;
	int overcommit_memory;
};

/* A number that is missing (-EPROTO), odd (-EINVAL) or too big (-ERANGE) is
 * named in the sentence. */
int host_memory_read(const char *proc_root, struct host_memory *ret,
		     struct err *e) must_check;

/* The text of meminfo alone; fills all but overcommit_memory. @text is
 * changed. */
int host_memory_parse(char *text, struct host_memory *ret,
		      struct err *e) must_check;
