/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Files here become a tree in a guest
 */
#include "base/err.h"

#include <stdbool.h>

struct stream;
struct stream_result;

/* Deeper trees are refused: one fd per level, and the agent sends as deep. */
#define PACK_DEPTH_MAX 64

enum {
	PACK_OVER = 1, /* the agent ended it early: its RESULT is in *ret */
};

/*
 * Send @path (a link at its end is followed when a slash stands behind it) as
 * ENTRY and DATA of the open PUT stream @s, under the name @top ("": it is the
 * target itself).
 * @contents: not the directory itself, only what is in it. Devices, sockets and
 * pipes are left out, with a line on stderr.
 */
int pack_send(struct stream *s, const char *path, const char *top,
	      bool contents, struct stream_result *ret,
	      struct err *e) must_check;
