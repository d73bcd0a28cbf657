/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames and fields: bytes in, structs out, and back
 *
 * Both ends of the connection use this file, and neither end trusts the
 * other's bytes: the host reads what a guest wrote, the agent reads what is
 * left of a conversation whose host may have died in mid-frame. So the reader
 * has no state and no way to fail. It looks at a span of memory that the caller
 * owns and finds one of three things: a whole frame, the beginning of one, or
 * garbage, of which it says how much can be dropped.
 *
 * A header is believed when its magic, type, channel and length all make sense.
 * Where it is not, hunting goes on at the next byte, not behind the supposed
 * frame: a length that cannot be believed must not be used to skip.
 *
 * 1. No function here allocates, blocks, or reads outside the span it is given.
 * 2. A frame's payload points into the caller's memory; it lives as long.
 * 3. Numbers are assembled from bytes, so alignment and byte order of the
 *    machine do not matter.
 * 4. Nothing here calls must(): the same code is compiled into the agent, and
 *    every length it judges belongs to a peer.
 */
#include "agent/wire.h"

#include <errno.h>
#include <string.h>

/* key and length in front of each field's bytes */
#define WIRE_FIELD_HEADER 6

static const char *const wire_type_names[] = {
	[WIRE_NONE] = "none",         [WIRE_HELLO] = "hello",
	[WIRE_IDENTITY] = "identity", [WIRE_EXEC] = "exec",
	[WIRE_RESIZE] = "resize",     [WIRE_SIGNAL] = "signal",
	[WIRE_CLOSE] = "close",       [WIRE_PUT] = "put",
	[WIRE_GET] = "get",           [WIRE_FACTS] = "facts",
	[WIRE_SETTLE] = "settle",     [WIRE_POWEROFF] = "poweroff",
	[WIRE_DATA] = "data",         [WIRE_EOF] = "eof",
	[WIRE_CREDIT] = "credit",     [WIRE_ENTRY] = "entry",
	[WIRE_STARTED] = "started",   [WIRE_RESULT] = "result",
};
_Static_assert(nitems(wire_type_names) == WIRE_TYPE_COUNT,
	       "every frame type has a name");

static uint16_t wire_get16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t wire_get32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
	       (uint32_t)p[3] << 24;
}

static uint64_t wire_get64(const uint8_t *p)
{
	return wire_get32(p) | (uint64_t)wire_get32(p + 4) << 32;
}

static void wire_set16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static void wire_set32(uint8_t *p, uint32_t v)
{
	wire_set16(p, (uint16_t)v);
	wire_set16(p + 2, (uint16_t)(v >> 16));
}

static void wire_set64(uint8_t *p, uint64_t v)
{
	wire_set32(p, (uint32_t)v);
	wire_set32(p + 4, (uint32_t)(v >> 32));
}

static bool wire_has_channel(uint8_t type)
{
	return type == WIRE_DATA || type == WIRE_EOF || type == WIRE_CREDIT;
}

/* Could a header begin with these @len bytes? Judging what is there of it, and
 * not only whole headers, keeps garbage at the end of a span from waiting for
 * more garbage. */
static bool wire_header_ok(const uint8_t *p, size_t len)
{
	if (len >= 2 && wire_get16(p) != WIRE_MAGIC)
		return false;
	if (len >= 3 && (p[2] == WIRE_NONE || p[2] >= WIRE_TYPE_COUNT))
		return false;
	if (len >= 4 &&
	    p[3] >= (wire_has_channel(p[2]) ? WIRE_CHANNEL_COUNT : 1))
		return false;
	if (len >= WIRE_HEADER && wire_get32(p + 8) > WIRE_PAYLOAD_MAX)
		return false;
	return true;
}

int wire_next(const uint8_t *p, size_t len, struct wire_frame *ret,
	      size_t *ret_used, size_t *ret_skipped)
{
	const uint8_t *q;
	size_t i, left = 0;
	uint32_t payload = 0;
	bool whole = false;

	for (i = 0; i < len; i++) {
		q = memchr(p + i, WIRE_MAGIC & 0xff, len - i);
		if (!q) {
			i = len;
			break;
		}
		i = (size_t)(q - p);
		left = len - i;
		if (!wire_header_ok(q, left))
			continue;
		if (left < WIRE_HEADER)
			break;
		payload = wire_get32(q + 8);
		whole = left - WIRE_HEADER >= payload;
		break;
	}
	if (ret_skipped)
		*ret_skipped = i;
	*ret_used = i;
	if (!whole)
		return WIRE_MORE;

	*ret = (struct wire_frame){
		.type = p[i + 2],
		.channel = p[i + 3],
		.stream = wire_get32(p + i + 4),
		.len = payload,
		.payload = p + i + WIRE_HEADER,
	};
	*ret_used = i + WIRE_HEADER + payload;
	return 0;
}

int wire_sync(const uint8_t *p, size_t len, const uint8_t nonce[WIRE_NONCE],
	      size_t *ret_used)
{
	uint8_t want[WIRE_FIELD_HEADER + WIRE_NONCE];
	struct wire_frame f = { 0 };
	const uint8_t *q;
	size_t at = 0, used = 0;

	wire_set16(want, WIRE_K_NONCE);
	wire_set32(want + 2, WIRE_NONCE);
	memcpy(want + WIRE_FIELD_HEADER, nonce, WIRE_NONCE);

	while ((q = memmem(p + at, len - at, want, sizeof(want)))) {
		at = (size_t)(q - p) + 1;
		if (q - p < WIRE_HEADER)
			continue;
		q -= WIRE_HEADER;
		if (!wire_header_ok(q, WIRE_HEADER) || q[2] != WIRE_HELLO ||
		    wire_get32(q + 4) != 0)
			continue;
		if (wire_next(q, len - (size_t)(q - p), &f, &used, NULL) ==
		    WIRE_MORE) {
			*ret_used = (size_t)(q - p);
			return WIRE_MORE;
		}
		*ret_used = (size_t)(q - p) + used;
		return 0;
	}
	/* A header and all but one byte of the nonce may be the end of it. */
	at = WIRE_HEADER + sizeof(want) - 1;
	*ret_used = len > at ? len - at : 0;
	return WIRE_MORE;
}

void wire_header(uint8_t out[WIRE_HEADER], uint8_t type, uint8_t channel,
		 uint32_t stream, uint32_t len)
{
	wire_set16(out, WIRE_MAGIC);
	out[2] = type;
	out[3] = channel;
	wire_set32(out + 4, stream);
	wire_set32(out + 8, len);
}

void wire_begin(struct wire_out *o, void *mem, size_t size, uint8_t type,
		uint8_t channel, uint32_t stream)
{
	*o = (struct wire_out){
		.p = mem,
		.size = min(size, (size_t)WIRE_FRAME_MAX),
		.len = WIRE_HEADER,
	};
	if (size < WIRE_HEADER) {
		o->overflow = true;
		return;
	}
	wire_header(o->p, type, channel, stream, 0);
}

void wire_put_raw(struct wire_out *o, const void *p, size_t len)
{
	if (o->overflow || len > o->size - o->len) {
		o->overflow = true;
		return;
	}
	if (len)
		memcpy(o->p + o->len, p, len);
	o->len += len;
}

void wire_put(struct wire_out *o, uint16_t key, const void *p, size_t len)
{
	uint8_t head[WIRE_FIELD_HEADER];

	if (len > WIRE_PAYLOAD_MAX) {
		o->overflow = true;
		return;
	}
	wire_set16(head, key);
	wire_set32(head + 2, (uint32_t)len);
	wire_put_raw(o, head, sizeof(head));
	wire_put_raw(o, p, len);
}

void wire_put_str(struct wire_out *o, uint16_t key, const char *s)
{
	wire_put(o, key, s, strlen(s));
}

void wire_put_u64(struct wire_out *o, uint16_t key, uint64_t v)
{
	uint8_t bytes[8];

	wire_set64(bytes, v);
	wire_put(o, key, bytes, sizeof(bytes));
}

int wire_end(struct wire_out *o)
{
	if (o->overflow)
		return -EMSGSIZE;
	wire_set32(o->p + 8, (uint32_t)(o->len - WIRE_HEADER));
	return (int)o->len;
}

int wire_field_next(const struct wire_frame *f, size_t *pos,
		    struct wire_field *ret)
{
	struct wire_field got;
	const uint8_t *p;
	size_t left;

	if (*pos >= f->len)
		return WIRE_MORE;
	left = f->len - *pos;
	p = f->payload + *pos;
	if (left < WIRE_FIELD_HEADER)
		return -EBADMSG;
	got.key = wire_get16(p);
	got.len = wire_get32(p + 2);
	got.p = p + WIRE_FIELD_HEADER;
	if (got.key == WIRE_K_NONE || got.len > left - WIRE_FIELD_HEADER)
		return -EBADMSG;
	*pos += WIRE_FIELD_HEADER + got.len;
	*ret = got;
	return 0;
}

int wire_field_u64(const struct wire_field *f, uint64_t *ret)
{
	if (f->len != 8)
		return -EBADMSG;
	*ret = wire_get64(f->p);
	return 0;
}

static int wire_find(const struct wire_frame *f, uint16_t key,
		     struct wire_field *ret)
{
	size_t pos = 0;
	int r;

	while ((r = wire_field_next(f, &pos, ret)) == 0)
		if (ret->key == key)
			return 0;
	return r == WIRE_MORE ? -ENOENT : r;
}

int wire_find_u64(const struct wire_frame *f, uint16_t key, uint64_t *ret)
{
	struct wire_field got = { 0 };
	int r;

	r = wire_find(f, key, &got);
	return r < 0 ? r : wire_field_u64(&got, ret);
}

int wire_find_str(const struct wire_frame *f, uint16_t key, char *out,
		  size_t size)
{
	struct wire_field got = { 0 };
	int r;

	r = wire_find(f, key, &got);
	if (r < 0)
		return r;
	if (memchr(got.p, 0, got.len))
		return -EBADMSG;
	if (got.len >= size)
		return -ENAMETOOLONG;
	memcpy(out, got.p, got.len);
	out[got.len] = 0;
	return 0;
}

const char *wire_type_name(uint8_t type)
{
	return type < WIRE_TYPE_COUNT ? wire_type_names[type] : "unknown";
}
