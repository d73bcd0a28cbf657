/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Frames on their way to a client
 */
#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct outbox {
	int fd; /* borrowed */
	struct buf waiting;
	uint64_t sent; /* bytes that have left `waiting` */
	uint64_t last; /* where the last frame in it began, counted likewise */
};

void outbox_init(struct outbox *o, int fd, size_t max_bytes);
void outbox_deinit(struct outbox *o);

/*
 * Send a frame, or as much of it as the socket takes, and keep the rest.
 * -ENOBUFS when the rest does not fit (then nothing was sent), else what the
 * socket said.
 */
int outbox_add(struct outbox *o, uint8_t type, uint8_t channel, uint32_t stream,
	       const void *payload, uint32_t len) must_check;

/* The same for frames of our own making: RESULT with ERRNO and MESSAGE, CREDIT
 * on STDIN. */
int outbox_add_result(struct outbox *o, uint32_t stream,
		      const struct err *e) must_check;
int outbox_add_credit(struct outbox *o, uint32_t stream,
		      uint64_t bytes) must_check;

/* Send what waits, as far as the socket takes it. */
int outbox_flush(struct outbox *o) must_check;

static inline size_t outbox_waiting(const struct outbox *o)
{
	return buf_len(&o->waiting);
}
