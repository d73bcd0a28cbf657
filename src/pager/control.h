/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The pager's end of the socket to the daemon
 */
#include "base/err.h"
#include "image/index.h"
#include "pager/proto.h"

struct control;

/* What a packet brought; fds that are still there are closed by
 * control_done(). */
struct control_packet {
	struct pager_message message;
	int fd[PAGER_FDS_MAX];
	unsigned n_fds;
};

/* Outcome: the daemon is gone. */
#define CONTROL_GONE 1

int control_new(int fd, struct control **ret, struct err *e) must_check;
/* What is not sent yet is lost. */
struct control *control_free(struct control *c);

/* The next packet, judged: types, numbers, texts, number of fds. -EAGAIN: none
 * is there; -EPROTO: one that is not right, and dropped; CONTROL_GONE. */
int control_receive(struct control *c, struct control_packet *ret,
		    struct err *e) must_check;
void control_done(struct control_packet *p);

/* Never waits, never fails: what the socket does not take at once is sent by a
 * thread. Order is kept. */
void control_send(struct control *c, const struct pager_message *m);
