/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames on their way to a client
 *
 * Normally nothing waits: a frame goes from the channel's buffer to the
 * client's socket in one sendmsg, uncopied, in the turn in which it came. Only
 * what the socket does not take is copied and kept.
 *
 *	frame --sendmsg--> socket
 *	  |                  ^
 *	  +--> waiting ------+ outbox_flush, when the socket is writable
 *
 * A guest that writes single bytes makes frames of thirteen. If they have to
 * wait, DATA that continues the frame before it is put into that frame, so what
 * a stalled client costs is the bytes it may be owed and not their headers.
 *
 * Invariants:
 *  1. Frames leave in the order they came, whole or (when the connection
 *     breaks) cut at the end of the stream.
 *  2. Nothing is sent past bytes that wait.
 *  3. A frame that is joined to has not begun to leave: last >= sent.
 *
 * It does not judge how much one stream may hold: see relay.c.
 */
#include "api/outbox.h"

#include "agent/wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

void outbox_init(struct outbox *o, int fd, size_t max_bytes)
{
	*o = (struct outbox){ .fd = fd };
	buf_init(&o->waiting, max_bytes);
}

void outbox_deinit(struct outbox *o)
{
	buf_deinit(&o->waiting);
}

/* How much the socket took, 0 when it is full, -errno when it is broken. */
static ssize_t outbox_send(struct outbox *o, struct iovec *iov, size_t n)
{
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = n };
	ssize_t r;

	do
		r = sendmsg(o->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return errno == EAGAIN ? 0 : -errno;
	return r;
}

int outbox_flush(struct outbox *o)
{
	while (buf_len(&o->waiting)) {
		struct iovec iov = { buf_data(&o->waiting),
				     buf_len(&o->waiting) };
		ssize_t n = outbox_send(o, &iov, 1);

		if (n <= 0)
			return (int)n;
		buf_consume(&o->waiting, (size_t)n);
		o->sent += (uint64_t)n;
	}
	return 0;
}

/* Can DATA like this be put into the frame that waits last? */
static bool outbox_joins(struct outbox *o, const uint8_t header[WIRE_HEADER],
			 uint32_t len)
{
	const uint8_t *last;

	if (header[2] != WIRE_DATA || !buf_len(&o->waiting) ||
	    o->last < o->sent)
		return false;
	last = buf_data(&o->waiting) + (o->last - o->sent);
	/* the same but for the length: magic, type, channel, stream */
	if (memcmp(last, header, 8) != 0)
		return false;
	return o->sent + buf_len(&o->waiting) - o->last - WIRE_HEADER + len <=
	       WIRE_PAYLOAD_MAX;
}

static int outbox_join(struct outbox *o, uint8_t channel, uint32_t stream,
		       const void *payload, uint32_t len)
{
	int r = buf_add(&o->waiting, payload, len);

	if (r < 0)
		return r;
	wire_header(buf_data(&o->waiting) + (o->last - o->sent), WIRE_DATA,
		    channel, stream,
		    (uint32_t)(o->sent + buf_len(&o->waiting) - o->last -
			       WIRE_HEADER));
	return 0;
}

/* Keep the frame but for @skip bytes of it, which have left. There is room. */
static int outbox_keep(struct outbox *o, const uint8_t header[WIRE_HEADER],
		       const void *payload, uint32_t len, size_t skip)
{
	size_t head = min(skip, (size_t)WIRE_HEADER);
	int r;

	o->sent += skip;
	/* May lie before `sent`: then nothing joins it. */
	o->last = o->sent + buf_len(&o->waiting) - skip;
	r = buf_add(&o->waiting, header + head, WIRE_HEADER - head);
	if (r == 0 && len)
		r = buf_add(&o->waiting,
			    (const uint8_t *)payload + (skip - head),
			    len - (skip - head));
	return r;
}

int outbox_add(struct outbox *o, uint8_t type, uint8_t channel, uint32_t stream,
	       const void *payload, uint32_t len)
{
	uint8_t header[WIRE_HEADER];
	struct iovec iov[2];
	size_t n_iov = 1;
	ssize_t n = 0;

	wire_header(header, type, channel, stream, len);
	if (outbox_joins(o, header, len))
		return outbox_join(o, channel, stream, payload, len);
	if (buf_room(&o->waiting) < WIRE_HEADER + (size_t)len)
		return -ENOBUFS;
	if (!buf_len(&o->waiting)) {
		iov[0] = (struct iovec){ header, sizeof(header) };
		if (len) {
			/* iovec has no const; sendmsg only reads. */
			memcpy(&iov[1].iov_base, &payload, sizeof(payload));
			iov[1].iov_len = len;
			n_iov++;
		}
		n = outbox_send(o, iov, n_iov);
		if (n < 0)
			return (int)n;
		if ((size_t)n == WIRE_HEADER + (size_t)len) {
			o->sent += (uint64_t)n;
			return 0;
		}
	}
	return outbox_keep(o, header, payload, len, (size_t)n);
}

int outbox_add_result(struct outbox *o, uint32_t stream, const struct err *e)
{
	uint8_t mem[WIRE_HEADER + ERR_MSG_MAX + 64];
	struct wire_out w;
	int n;

	wire_begin(&w, mem, sizeof(mem), WIRE_RESULT, 0, stream);
	wire_put_u64(&w, WIRE_K_ERRNO, (uint64_t)e->code);
	wire_put_str(&w, WIRE_K_MESSAGE, e->msg);
	n = wire_end(&w);
	must(n > 0);
	return outbox_add(o, WIRE_RESULT, 0, stream, mem + WIRE_HEADER,
			  (uint32_t)n - WIRE_HEADER);
}

int outbox_add_credit(struct outbox *o, uint32_t stream, uint64_t bytes)
{
	uint8_t mem[WIRE_HEADER + 32];
	struct wire_out w;
	int n;

	wire_begin(&w, mem, sizeof(mem), WIRE_CREDIT, WIRE_STDIN, stream);
	wire_put_u64(&w, WIRE_K_BYTES, bytes);
	n = wire_end(&w);
	must(n > 0);
	return outbox_add(o, WIRE_CREDIT, WIRE_STDIN, stream, mem + WIRE_HEADER,
			  (uint32_t)n - WIRE_HEADER);
}
