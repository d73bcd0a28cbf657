/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Who a command runs as
 */
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Supplementary groups of one user; the kernel would take 65536. */
#define USER_GROUPS_MAX 128

struct user {
	uid_t uid;
	gid_t gid;
	int n_groups;
	gid_t groups[USER_GROUPS_MAX];
	char name[64];
	char home[256];
};

/* Root, without reading a file. */
void user_root(struct user *u);

/* @spec: name, uid, or either with ":group" behind, where group is a name or a
 * gid. @etc: the directory of passwd and group. A uid that passwd does not
 * know is taken as it is, with group 0 and home "/". -ENOENT for unknown
 * names. */
int user_find(const char *etc, const char *spec, struct user *ret,
	      struct err *e) must_check;
