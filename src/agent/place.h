/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Naming things in the guest's file tree
 */
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

/* What the kernel takes. */
#define PLACE_PATH_MAX 4096
#define PLACE_NAME_MAX 256

/* A name in a directory. */
struct place {
	int dir_fd; /* O_PATH */
	char name[PLACE_NAME_MAX]; /* "." for a directory itself */
};

#define PLACE_NULL           \
	{                    \
		.dir_fd = -1 \
	}

/* Find the directory that holds the absolute @path. With @root_fd other than
 * AT_FDCWD the path is taken below it and may hold neither ".." nor links.
 * @follow: a link at the end is followed as long as it leads somewhere. */
int place_open(int root_fd, const char *path, bool follow, struct place *ret,
	       struct err *e) must_check;
void place_close(struct place *p);

/* Open (O_PATH) the directory @len bytes of @path lead to from @dir_fd. No
 * links, no "..", no empty names: -EINVAL. "" gives a duplicate. */
int place_walk(int dir_fd, const char *path, size_t len) must_check;
