/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Being told that a file has grown
 */
#include "base/err.h"
#include "base/list.h"

struct follow;
struct follower;
struct loop;

/* Embedded in whoever reads the file. */
struct follower {
	struct follow *follow; /* NULL while not started */
	struct list link;
	int watch;
	/* Something happened to the file, or nothing for a while. Must not
	 * stop other followers. */
	void (*changed)(struct follower *f);
};

int follow_new(struct loop *loop, struct follow **ret,
	       struct err *e) must_check;
/* All followers must have stopped. */
struct follow *follow_free(struct follow *w);

/* @fd: the open file. */
int follower_start(struct follow *w, struct follower *f, int fd,
		   void (*changed)(struct follower *f),
		   struct err *e) must_check;
/* Idempotent. */
void follower_stop(struct follower *f);
