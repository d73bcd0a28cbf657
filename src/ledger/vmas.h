/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The mappings of a process, in address order
 */
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

struct vma {
	uint64_t start;
	uint64_t end;
	bool read, write, exec;
	bool shared;
	bool special; /* kernel pages ([vvar]...): nobody's memory */
	dev_t dev; /* of the file; 0 with inode 0 */
	uint64_t inode; /* 0: anonymous */
};

/* A line of maps, or a heading of smaps; -EINVAL for any other line. */
int vma_parse(const char *line, struct vma *ret) must_check;

/* Outcome of vmas_next: there are no more. */
#define VMAS_END 1

struct vmas {
	FILE *text; /* maps */
	pid_t pid;
	bool query; /* PROCMAP_QUERY works */
	char *line;
	size_t line_size;
	struct vma last; /* text: the mapping read last */
};

#define VMAS_NULL            \
	{                    \
		.text = NULL \
	}

int vmas_open(struct vmas *v, int dir_fd, pid_t pid, struct err *e) must_check;
void vmas_close(struct vmas *v);

/* The first mapping that ends behind @from, which never decreases: 0 or
 * VMAS_END. */
int vmas_next(struct vmas *v, uint64_t from, struct vma *ret,
	      struct err *e) must_check;
