/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the daemon holds of one streamed layer: index, memory, disk
 *
 *	DIR/index      as it was pulled
 *	(memfd)        the memory; sealed GROW | SHRINK, mode 0400
 *	DIR/disk.part  the disk, sparse; or DIR/disk once it is complete
 *	DIR/disk.boot  "BOOT_ID NUMBER": of which boot disk.part is, and which
 *	               number the layer had then
 */
#include "base/err.h"
#include "image/index.h"

#include <stdbool.h>
#include <stdint.h>

struct hold {
	struct index *index;
	int index_fd; /* read-only */
	int memory_fd; /* read-write */
	int vmm_fd; /* the same, read-only: what a VMM gets */
	int disk_fd; /* read-write; empty when the image has no disk */
};

#define HOLD_NULL                                                            \
	{                                                                    \
		.index_fd = -1, .memory_fd = -1, .vmm_fd = -1, .disk_fd = -1 \
	}

/* @memory_fd: a VMM's fd of the memory, checked and opened anew; -1: a fresh
 * memfd. @number is noted beside the disk. */
int hold_init(struct hold *h, const char *dir, uint32_t number, int memory_fd,
	      struct err *e) must_check;
void hold_deinit(struct hold *h);
/* Nobody will begin anew with what is left of the disk. */
void hold_forget(const char *dir);
/* Is @fd the same memory? */
bool hold_is(const struct hold *h, int fd);
/* The number that @dir's layer had earlier in this boot. */
bool hold_number(const char *dir, uint32_t *ret) must_check;
