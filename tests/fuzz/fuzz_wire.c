/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's side of the wire: bytes that a guest wrote
 *
 *	clang -g -O1 -fsanitize=fuzzer,address,undefined -std=gnu17 \
 *		-D_GNU_SOURCE -Isrc tests/fuzz/fuzz_wire.c src/agent/wire.c
 *
 * Besides not crashing, the reader must account for every byte, say the same
 * whether bytes come at once or one by one, and never ask for more than a
 * frame.
 */
#include "agent/wire.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_require(bool ok)
{
	if (!ok)
		abort();
}

static void fuzz_fields(const struct wire_frame *f)
{
	struct wire_field d = { 0 };
	size_t pos = 0, last = 0;
	uint64_t v = 0;
	char s[64];
	int r;

	while ((r = wire_field_next(f, &pos, &d)) == 0) {
		fuzz_require(pos > last && pos <= f->len);
		fuzz_require(d.p >= f->payload &&
			     d.p + d.len <= f->payload + f->len);
		last = pos;
		r = wire_field_u64(&d, &v);
		fuzz_require((r == 0) == (d.len == 8));
		r = wire_find_str(f, d.key, s, sizeof(s));
		fuzz_require(r != 0 || strlen(s) < sizeof(s));
	}
	fuzz_require(r < 0 || pos == f->len);
	fuzz_require(wire_find_u64(f, WIRE_K_NONE, &v) != 0);
}

/* Frames found when @step bytes become visible at a time. */
static size_t fuzz_read(const uint8_t *data, size_t size, size_t step,
			uint64_t *ret_sum)
{
	struct wire_frame f = { 0 };
	size_t start = 0, end = 0, used = 0, skipped = 0, frames = 0;
	uint64_t sum = 0;
	int r;

	while (end < size) {
		end = size - end < step ? size : end + step;
		for (;;) {
			r = wire_next(data + start, end - start, &f, &used,
				      &skipped);
			fuzz_require(used <= end - start && skipped <= used);
			start += used;
			if (r == WIRE_MORE)
				break;
			fuzz_require(r == 0 && f.len <= WIRE_PAYLOAD_MAX);
			fuzz_require(skipped + WIRE_HEADER + f.len == used);
			frames++;
			sum = sum * 31 + f.type + f.len + f.stream;
			sum = sum * 31 + (size_t)(f.payload - data);
			fuzz_fields(&f);
		}
		fuzz_require(end - start < WIRE_FRAME_MAX);
	}
	*ret_sum = sum;
	return frames;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t at_once = 0, bit_by_bit = 0;
	size_t frames, used = 0;

	frames = fuzz_read(data, size, size ? size : 1, &at_once);
	fuzz_require(fuzz_read(data, size, 1, &bit_by_bit) == frames);
	fuzz_require(at_once == bit_by_bit);
	if (size >= WIRE_NONCE) {
		if (wire_sync(data, size, data, &used) == 0)
			fuzz_require(used <= size);
		else
			fuzz_require(size - used < WIRE_FRAME_MAX);
	}
	return 0;
}
