/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A tree from a guest becomes files here, and nowhere else
 */
#include "cmd/entry.h"

/* Deeper trees are refused; the agent sends 64 levels. */
#define UNPACK_DEPTH_MAX 128

struct unpack_level {
	size_t path_len;
	uint32_t mode;
	uint64_t mtime_ns;
};

struct unpack {
	int base_fd; /* directory the top is in */
	char name[ENTRY_NAME_MAX]; /* the top's; "" : base_fd is the top */
	bool started; /* the top's entry has come */
	int top_fd; /* the top, when it is a directory */
	/* the directory of the last entry */
	int parent_fd;
	char parent[ENTRY_PATH_MAX];
	/* the file being received */
	int file_fd;
	int file_dir_fd; /* borrowed: base_fd or parent_fd */
	char file_name[ENTRY_NAME_MAX];
	char temp[32];
	unsigned temps;
	uint64_t left; /* bytes to come */
	struct entry file;
	/* directories we made, whose mode and time are to be set */
	unsigned depth;
	char deepest[ENTRY_PATH_MAX];
	struct unpack_level levels[UNPACK_DEPTH_MAX];
};

/* @dir_take: an open directory. The tree's top becomes @name in it; with "" the
 * directory itself is the top, which must be a directory too. */
void unpack_init(struct unpack *u, int dir_take, const char *name);
/* Half a file is removed. Idempotent. */
void unpack_deinit(struct unpack *u);

int unpack_entry(struct unpack *u, const struct entry *x,
		 struct err *e) must_check;
int unpack_data(struct unpack *u, const void *p, size_t len,
		struct err *e) must_check;
/* That was all: -EBADMSG when it was not whole. */
int unpack_end(struct unpack *u, struct err *e) must_check;
