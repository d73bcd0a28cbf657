/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The agent's end of the connection: whole frames in, whole frames out
 */
#include "agent/wire.h"

#include <stdbool.h>
#include <stddef.h>

/* A whole frame and a read behind it; a read of a virtio port gives at most
 * one page. */
#define PORT_RX_BYTES (WIRE_FRAME_MAX + 4 * 4096)
/* One virtqueue buffer: the virtio console driver cuts writes at 32 KiB. */
#define PORT_CHUNK (32768u - WIRE_HEADER)
/* Four such buffers under way, as WIRE_WINDOW has four frames. */
#define PORT_TX_BYTES (4 * 32768u + PORT_CONTROL)
/* Kept free of DATA, so that frames that end or account for something are not
 * stuck behind it. Half of it is what one frame from the host may cause: an
 * ENTRY with two paths (8.4 KiB) and a RESULT. */
#define PORT_CONTROL 24576u

struct port {
	int fd;
	/* Edge-triggered: what we know between the edges. */
	bool readable;
	bool blocked; /* the last write was refused: wait for EPOLLOUT */
	bool closed; /* end of file on a thing that does not come back */
	bool comes_back; /* a virtio port: no reader is not the end */
	bool starved; /* somebody asked for room and got none */
	size_t rx_start, rx_end;
	size_t tx_start, tx_end;
	size_t tx_left; /* of the frame partly written */
	uint8_t rx[PORT_RX_BYTES];
	uint8_t tx[PORT_TX_BYTES];
};

/* Borrows @fd, which must be non-blocking. */
void port_init(struct port *p, int fd, bool comes_back);

/* The next frame, valid until the next call: 0; WIRE_MORE when nothing more
 * can be had now. */
int port_next(struct port *p, struct wire_frame *ret) must_check;

/* May DATA of @len payload bytes be queued? Remembers who was refused. */
bool port_has_data_room(struct port *p, size_t len);
/* May any small frame be queued? The same. */
bool port_has_control_room(struct port *p);

/* A frame built in place of at most @size payload bytes; that much room must
 * have been asked for. */
void port_begin(struct port *p, struct wire_out *o, size_t size, uint8_t type,
		uint8_t channel, uint32_t stream);
void port_end(struct port *p, struct wire_out *o);

/* DATA read straight into its place: fill up to @len bytes at the pointer, then
 * commit what came (0: nothing happens). */
uint8_t *port_data(struct port *p, size_t len);
void port_data_commit(struct port *p, uint8_t channel, uint32_t stream,
		      size_t len);

/* Write what can be written. */
void port_flush(struct port *p);

/* Forget what is queued, except the rest of a frame partly written: a frame
 * boundary must stay one. */
void port_drop(struct port *p);

static inline bool port_idle(const struct port *p)
{
	return p->tx_start == p->tx_end;
}
