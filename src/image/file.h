/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * One file of an image, and how to know it again
 */
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

struct stat;

/* One content of one inode: writing to a file moves its change time. */
struct file_id {
	dev_t dev;
	ino_t ino;
	uint64_t bytes;
	struct timespec ctim;
};

struct file_id file_id_of(const struct stat *st);
bool file_id_same(const struct file_id *a, const struct file_id *b);

/* Open the plain file @name in @dirfd read-only, and tell what it is now. A
 * link is refused. The sentences name the file. */
int file_open(int dirfd, const char *name, int *ret_fd, struct file_id *ret_id,
	      struct err *e) must_check;
/* -ESTALE when an open file is no longer what file_open() saw. */
int file_check(int fd, const char *name, const struct file_id *id,
	       struct err *e) must_check;
/* The same for what @name in @dirfd leads to now. While the file that had @id
 * is open its inode number cannot be given to another, so this is enough. */
int file_check_at(int dirfd, const char *name, const struct file_id *id,
		  struct err *e) must_check;
/* All of an open file, which has @id, into a fresh zero-terminated allocation.
 * EFBIG above @max bytes. */
int file_read(int fd, const char *name, const struct file_id *id, size_t max,
	      char **ret, struct err *e) must_check;
