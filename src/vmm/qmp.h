/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * QMP: QEMU's control protocol, as a state machine in the loop
 *
 * Commands are answered in the order they were given, so many may be under way
 * at once; each ends in its callback. Events come whenever they like.
 */
#include "base/err.h"

#include <jansson.h>

struct loop;
struct qmp;

/* Commands under way at once; more is a bug of the driver. */
#define QMP_PENDING_MAX 16

/* @result is the "return" value (borrowed), NULL when @e->code is set. The
 * callback may free the connection. */
typedef void (*qmp_done_fn)(void *arg, json_t *result, const struct err *e);

struct qmp_events {
	void (*greeting)(void *arg);
	/* @data may be NULL. May free the connection. */
	void (*event)(void *arg, const char *name, json_t *data);
	/* Closed or broken; pending commands were told first. */
	void (*broken)(void *arg, const struct err *e);
};

/* @connected_take: a non-blocking socket. The handshake (qmp_capabilities) is
 * sent by qmp_new itself; commands may be given at once. */
int qmp_new(struct loop *loop, int connected_take,
	    const struct qmp_events *events, void *arg, struct qmp **ret,
	    struct err *e) must_check;
/* Pending commands are dropped without their callbacks. */
struct qmp *qmp_free(struct qmp *q);

/* @arguments is stolen (may be NULL). @fd: passed along with the command
 * (getfd), borrowed; -1: none. @done may be NULL. */
int qmp_command(struct qmp *q, const char *name, json_t *arguments, int fd,
		qmp_done_fn done, void *arg) must_check;
