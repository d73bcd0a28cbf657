/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The port: one byte stream each way, with bounded memory on both
 *
 * In a VM the fd is a virtio-serial port, in tests a socket. A virtio port is
 * peculiar in that it outlives its reader: while no host is connected, read()
 * returns 0, poll() says EPOLLHUP all the time, and write() would block. So the
 * fd is watched edge-triggered: the driver wakes its wait queue when a host
 * comes or goes, once, and nothing spins in between. "readable" and "blocked"
 * are what was learned at the last edge.
 *
 * Both buffers are linear and start again at their beginning whenever they are
 * empty, which they nearly always are: a restored guest then dirties one page
 * of each, where a ring would in time dirty them all.
 *
 * 1. rx_start <= rx_end, tx_start <= tx_end; the bytes between are live.
 * 2. tx holds whole frames, except that the first may lack its beginning:
 *    tx_left bytes of it are left.
 * 3. DATA never takes the last PORT_CONTROL bytes of tx. Whoever queues a frame
 *    asks for room first; running out in port_begin() is a bug.
 */
#include "agent/port.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

void port_init(struct port *p, int fd, bool comes_back)
{
	p->fd = fd;
	p->readable = true; /* until a read says otherwise */
	p->blocked = p->closed = p->starved = false;
	p->comes_back = comes_back;
	p->rx_start = p->rx_end = 0;
	p->tx_start = p->tx_end = p->tx_left = 0;
}

static void port_fill(struct port *p)
{
	ssize_t n;

	if (p->rx_start == p->rx_end) {
		p->rx_start = p->rx_end = 0;
	} else if (sizeof(p->rx) - p->rx_end < 4096) {
		memmove(p->rx, p->rx + p->rx_start, p->rx_end - p->rx_start);
		p->rx_end -= p->rx_start;
		p->rx_start = 0;
	}
	n = read(p->fd, p->rx + p->rx_end, sizeof(p->rx) - p->rx_end);
	if (n > 0) {
		p->rx_end += (size_t)n;
		return;
	}
	if (n < 0 && errno == EINTR)
		return;
	p->readable = false;
	if (!p->comes_back && (n == 0 || errno != EAGAIN))
		p->closed = true;
}

int port_next(struct port *p, struct wire_frame *ret)
{
	size_t used = 0;
	int r;

	for (;;) {
		if (p->rx_start < p->rx_end) {
			r = wire_next(p->rx + p->rx_start,
				      p->rx_end - p->rx_start, ret, &used,
				      NULL);
			p->rx_start += used;
			if (r == 0)
				return 0;
		}
		if (!p->readable)
			return WIRE_MORE;
		port_fill(p);
	}
}

static size_t port_room(const struct port *p)
{
	return sizeof(p->tx) - (p->tx_end - p->tx_start);
}

bool port_has_data_room(struct port *p, size_t len)
{
	if (port_room(p) >= WIRE_HEADER + len + PORT_CONTROL)
		return true;
	p->starved = true;
	return false;
}

bool port_has_control_room(struct port *p)
{
	if (port_room(p) >= PORT_CONTROL / 2)
		return true;
	p->starved = true;
	return false;
}

/* Bring the room behind tx_end. */
static void port_make_room(struct port *p, size_t size)
{
	if (p->tx_start == p->tx_end)
		p->tx_start = p->tx_end = 0;
	if (sizeof(p->tx) - p->tx_end >= size)
		return;
	memmove(p->tx, p->tx + p->tx_start, p->tx_end - p->tx_start);
	p->tx_end -= p->tx_start;
	p->tx_start = 0;
	must(sizeof(p->tx) - p->tx_end >= size);
}

void port_begin(struct port *p, struct wire_out *o, size_t size, uint8_t type,
		uint8_t channel, uint32_t stream)
{
	port_make_room(p, WIRE_HEADER + size);
	wire_begin(o, p->tx + p->tx_end, WIRE_HEADER + size, type, channel,
		   stream);
}

void port_end(struct port *p, struct wire_out *o)
{
	int n;

	n = wire_end(o);
	must(n > 0);
	p->tx_end += (size_t)n;
}

uint8_t *port_data(struct port *p, size_t len)
{
	port_make_room(p, WIRE_HEADER + len);
	return p->tx + p->tx_end + WIRE_HEADER;
}

void port_data_commit(struct port *p, uint8_t channel, uint32_t stream,
		      size_t len)
{
	if (len == 0)
		return;
	must(len <= WIRE_PAYLOAD_MAX);
	wire_header(p->tx + p->tx_end, WIRE_DATA, channel, stream,
		    (uint32_t)len);
	p->tx_end += WIRE_HEADER + len;
}

/* @n bytes from tx_start have left: where in a frame are we now? */
static void port_sent(struct port *p, size_t n)
{
	struct wire_frame f = { 0 };
	size_t used = 0, step;

	while (n > 0) {
		if (p->tx_left == 0) {
			must(wire_next(p->tx + p->tx_start,
				       p->tx_end - p->tx_start, &f, &used,
				       NULL) == 0);
			p->tx_left = used;
		}
		step = min(n, p->tx_left);
		p->tx_start += step;
		p->tx_left -= step;
		n -= step;
	}
}

void port_flush(struct port *p)
{
	ssize_t n;

	while (p->tx_start < p->tx_end && !p->blocked && !p->closed) {
		n = write(p->fd, p->tx + p->tx_start, p->tx_end - p->tx_start);
		if (n > 0)
			port_sent(p, (size_t)n);
		else if (n < 0 && errno == EINTR)
			continue;
		else if (n < 0 && errno != EAGAIN && !p->comes_back)
			p->closed = true;
		else
			p->blocked = true;
	}
}

void port_drop(struct port *p)
{
	p->tx_end = p->tx_start + p->tx_left;
}
