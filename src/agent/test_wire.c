/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The codec against itself, and against what a broken or hostile peer sends
 */
#include "agent/wire.h"
#include "base/test.h"

#include <errno.h>
#include <string.h>

static uint8_t test_mem[4 * WIRE_FRAME_MAX];

/* One frame with a few fields; its size. */
static size_t test_frame(uint8_t *mem, uint32_t stream)
{
	struct wire_out o;
	int n;

	wire_begin(&o, mem, WIRE_FRAME_MAX, WIRE_EXEC, 0, stream);
	wire_put_str(&o, WIRE_K_ARG, "echo");
	wire_put_str(&o, WIRE_K_ARG, "");
	wire_put_u64(&o, WIRE_K_TIMEOUT, 0x0123456789abcdefull);
	n = wire_end(&o);
	check(n == WIRE_HEADER + 6 + 4 + 6 + 6 + 8);
	return (size_t)n;
}

static void test_round_trip(void)
{
	struct wire_frame f = { 0 };
	struct wire_field d = { 0 };
	size_t n, used = 0, skipped = 9, pos = 0;
	uint64_t v = 0;
	char s[8];

	n = test_frame(test_mem, 0xdeadbeef);
	check(test_mem[0] == 0x7e && test_mem[1] == 0xb4);
	check(wire_next(test_mem, n, &f, &used, &skipped) == 0);
	check(used == n && skipped == 0);
	check(f.type == WIRE_EXEC && f.channel == 0);
	check(f.stream == 0xdeadbeef && f.len == n - WIRE_HEADER);
	check(f.payload == test_mem + WIRE_HEADER);

	check(wire_field_next(&f, &pos, &d) == 0);
	check(d.key == WIRE_K_ARG && d.len == 4 && !memcmp(d.p, "echo", 4));
	check(wire_field_u64(&d, &v) == -EBADMSG);
	check(wire_field_next(&f, &pos, &d) == 0 && d.len == 0);
	check(wire_field_next(&f, &pos, &d) == 0);
	check(wire_field_u64(&d, &v) == 0 && v == 0x0123456789abcdefull);
	check(wire_field_next(&f, &pos, &d) == WIRE_MORE);
	check(wire_field_next(&f, &pos, &d) == WIRE_MORE);

	check(wire_find_u64(&f, WIRE_K_TIMEOUT, &v) == 0);
	check(wire_find_u64(&f, WIRE_K_SIZE, &v) == -ENOENT);
	check(wire_find_u64(&f, WIRE_K_ARG, &v) == -EBADMSG);
	check(wire_find_str(&f, WIRE_K_ARG, s, sizeof(s)) == 0);
	check_str(s, "echo");
	check(wire_find_str(&f, WIRE_K_ARG, s, 5) == 0);
	check(wire_find_str(&f, WIRE_K_ARG, s, 4) == -ENAMETOOLONG);
	check(wire_find_str(&f, WIRE_K_CWD, s, sizeof(s)) == -ENOENT);
}

/* Every prefix of a frame is "more", and none of it may be dropped. */
static void test_truncated(void)
{
	struct wire_frame f = { 0 };
	size_t n, i, used = 1, skipped = 1;

	n = test_frame(test_mem, 7);
	for (i = 0; i < n; i++) {
		check(wire_next(test_mem, i, &f, &used, &skipped) == WIRE_MORE);
		check(used == 0 && skipped == 0);
	}
	check(wire_next(test_mem, n, &f, &used, NULL) == 0);
}

/* Garbage in front, of every length and with false starts in it. */
static void test_hunting(void)
{
	static const uint8_t junk[] = {
		0x7e,
		0xb4,
		0,
		0, /* no type */
		0x7e,
		0xb4,
		0xff,
		0, /* no such type */
		0x7e,
		0xb4,
		WIRE_DATA,
		WIRE_CHANNEL_COUNT, /* channel */
		0x7e,
		0xb4,
		WIRE_EXEC,
		1, /* channel where none is */
		0x7e,
		0x7e,
		0x7e,
		0x7e, /* half a magic */
		/* a length that cannot be */
		0x7e,
		0xb4,
		WIRE_DATA,
		0,
		1,
		0,
		0,
		0,
		1,
		0,
		1,
		0,
	};
	struct wire_frame f = { 0 };
	size_t n, i, used = 0, skipped = 0;

	for (i = 0; i <= sizeof(junk); i++) {
		memcpy(test_mem, junk + sizeof(junk) - i, i);
		n = test_frame(test_mem + i, 5);
		check(wire_next(test_mem, i + n, &f, &used, &skipped) == 0);
		check(skipped == i && used == i + n && f.stream == 5);
	}
	/* Garbage alone can be dropped, but for a possible beginning. */
	memset(test_mem, 0xaa, 100);
	check(wire_next(test_mem, 100, &f, &used, &skipped) == WIRE_MORE);
	check(used == 100 && skipped == 100);
	test_mem[99] = 0x7e;
	check(wire_next(test_mem, 100, &f, &used, &skipped) == WIRE_MORE);
	check(used == 99);
	check(wire_next(test_mem, 0, &f, &used, &skipped) == WIRE_MORE);
	check(used == 0 && skipped == 0);
}

/* A host died within a frame: zeros of the agreed length complete it or are
 * skipped, and the HELLO behind them is found, wherever the cut was. */
static void test_resync(void)
{
	struct wire_frame f = { 0 };
	uint8_t nonce[WIRE_NONCE] = "fresh nonce 123";
	size_t cut, at, used, len, n = 0;
	struct wire_out o;
	bool found;
	int r;

	for (cut = 0; cut < 80; cut++) {
		wire_begin(&o, test_mem, sizeof(test_mem), WIRE_DATA, 0, 3);
		for (at = 0; at < WIRE_PAYLOAD_MAX; at += sizeof(nonce))
			wire_put_raw(&o, "0123456789abcdef", 16);
		check(wire_end(&o) == (int)WIRE_FRAME_MAX);
		len = cut;
		memset(test_mem + len, 0, WIRE_FRAME_MAX);
		len += WIRE_FRAME_MAX;
		wire_begin(&o, test_mem + len, 100, WIRE_HELLO, 0, 0);
		wire_put(&o, WIRE_K_NONCE, nonce, sizeof(nonce));
		r = wire_end(&o);
		check(r > 0);
		len += (size_t)r;
		found = false;
		for (at = 0, n = 0; !found && n < 3; n++) {
			used = 0;
			if (wire_next(test_mem + at, len - at, &f, &used,
				      NULL) != 0)
				break;
			at += used;
			found = f.type == WIRE_HELLO;
		}
		check(found && at == len);
	}
}

/* A frame completed by zeros is malformed, not obeyed in part; only a number at
 * the very end, cut within its own bytes, goes unnoticed. */
static void test_cut_fields(void)
{
	struct wire_frame f = { 0 };
	struct wire_field d = { 0 };
	size_t n, cut, pos, used = 0;
	int r, got;

	for (cut = 0; cut < 19; cut++) {
		n = test_frame(test_mem, 1);
		memset(test_mem + WIRE_HEADER + cut, 0, n - WIRE_HEADER - cut);
		check(wire_next(test_mem, n, &f, &used, NULL) == 0);
		pos = 0;
		got = 0;
		while ((r = wire_field_next(&f, &pos, &d)) == 0)
			got++;
		check(r == -EBADMSG && got <= 3);
	}
}

static void test_bad_fields(void)
{
	struct wire_frame f = { .type = WIRE_EXEC };
	struct wire_field d = { 0 };
	uint8_t p[16] = { WIRE_K_CWD, 0, 4, 0, 0, 0, 'a', 0, 'b', 'c' };
	size_t pos;
	uint64_t v;
	char s[16];

	f.payload = p;
	f.len = 10;
	check(wire_find_str(&f, WIRE_K_CWD, s, sizeof(s)) == -EBADMSG);
	for (f.len = 1; f.len < 10; f.len++) {
		pos = 0;
		check(wire_field_next(&f, &pos, &d) == -EBADMSG);
		check(wire_find_u64(&f, WIRE_K_PID, &v) == -EBADMSG);
	}
	/* The greatest length there is. */
	memset(p + 2, 0xff, 4);
	f.len = 16;
	pos = 0;
	check(wire_field_next(&f, &pos, &d) == -EBADMSG && pos == 0);
}

static void test_bounds(void)
{
	static uint8_t big[WIRE_PAYLOAD_MAX + 1];
	struct wire_frame f = { 0 };
	uint8_t small[WIRE_HEADER + 14];
	size_t used = 0;
	struct wire_out o;

	wire_begin(&o, small, WIRE_HEADER - 1, WIRE_EOF, 0, 1);
	check(wire_end(&o) == -EMSGSIZE);
	wire_begin(&o, small, WIRE_HEADER, WIRE_EOF, 2, 1);
	check(wire_end(&o) == WIRE_HEADER);
	wire_begin(&o, small, sizeof(small), WIRE_CREDIT, 0, 1);
	wire_put_u64(&o, WIRE_K_BYTES, 1);
	check(wire_end(&o) == sizeof(small));
	wire_put_raw(&o, "x", 1);
	check(wire_end(&o) == -EMSGSIZE);
	wire_put_raw(&o, "", 0);
	check(wire_end(&o) == -EMSGSIZE);

	/* The largest frame there is, and one byte more. */
	wire_begin(&o, test_mem, sizeof(test_mem), WIRE_DATA, 1, 1);
	wire_put_raw(&o, big, WIRE_PAYLOAD_MAX);
	check(wire_end(&o) == (int)WIRE_FRAME_MAX);
	check(wire_next(test_mem, WIRE_FRAME_MAX, &f, &used, NULL) == 0);
	check(f.len == WIRE_PAYLOAD_MAX && f.channel == 1);
	wire_put_raw(&o, big, 1);
	check(wire_end(&o) == -EMSGSIZE);
	wire_begin(&o, test_mem, sizeof(test_mem), WIRE_EXEC, 0, 1);
	wire_put(&o, WIRE_K_ARG, big, sizeof(big));
	check(wire_end(&o) == -EMSGSIZE);

	wire_header(test_mem, WIRE_DATA, 2, 9, 0);
	check(wire_next(test_mem, WIRE_HEADER, &f, &used, NULL) == 0);
	check(f.channel == 2 && f.stream == 9 && f.len == 0);
}

/* The host finds the answer to its HELLO in whatever came before. */
static void test_sync(void)
{
	static const uint8_t nonce[WIRE_NONCE] = "0123456789abcde";
	static const uint8_t other[WIRE_NONCE] = "another nonce..";
	size_t hello, len, i, used = 0;
	struct wire_frame f = { 0 };
	struct wire_out o;

	/* A header that swallows, as a guest could write it. */
	memset(test_mem, 0x55, 1000);
	wire_header(test_mem + 100, WIRE_DATA, 1, 1, WIRE_PAYLOAD_MAX);
	wire_begin(&o, test_mem + 500, 500, WIRE_HELLO, 0, 0);
	wire_put(&o, WIRE_K_NONCE, other, sizeof(other));
	check(wire_end(&o) > 0);
	wire_begin(&o, test_mem + 1000, 500, WIRE_HELLO, 0, 0);
	wire_put(&o, WIRE_K_NONCE, nonce, sizeof(nonce));
	wire_put_u64(&o, WIRE_K_VERSION, 1);
	hello = (size_t)wire_end(&o);
	len = 1000 + hello;
	len += test_frame(test_mem + len, 8);

	check(wire_sync(test_mem, len, nonce, &used) == 0);
	check(used == 1000 + hello);
	check(wire_next(test_mem + used, len - used, &f, &used, NULL) == 0);
	check(f.stream == 8);
	/* In pieces: what may be dropped never contains it. */
	for (i = 0; i < 1000 + hello; i++) {
		check(wire_sync(test_mem, i, nonce, &used) == WIRE_MORE);
		check(used <= 1000 && i - used < WIRE_FRAME_MAX);
		check(wire_sync(test_mem + used, len - used, nonce, &used) ==
		      0);
	}
	check(wire_sync(test_mem, len, test_mem, &used) == WIRE_MORE);
	/* The nonce alone is not the answer. */
	memcpy(test_mem, nonce, sizeof(nonce));
	check(wire_sync(test_mem, 500, nonce, &used) == WIRE_MORE);
}

int main(void)
{
	unsigned i;

	test_round_trip();
	test_truncated();
	test_hunting();
	test_resync();
	test_cut_fields();
	test_bad_fields();
	test_bounds();
	test_sync();
	for (i = 0; i < WIRE_TYPE_COUNT; i++)
		check(wire_type_name((uint8_t)i)[0]);
	check_str(wire_type_name(255), "unknown");
	return 0;
}
