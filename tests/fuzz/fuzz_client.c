/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client's side of HTTP: heads and bodies from whoever owns the socket
 *
 *	clang -g -O1 -fsanitize=fuzzer,address,undefined -std=gnu17 \
 *		-D_GNU_SOURCE -Isrc tests/fuzz/fuzz_client.c src/cmd/http.c
 *
 * Besides not crashing: a head is accepted or refused alike however many bytes
 * are there behind it, a body is the same whether it comes at once or in
 * pieces, and nobody waits for more than a head's or a line's maximum.
 */
#include "cmd/http.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_require(bool ok)
{
	if (!ok)
		abort();
}

/* How a body ended, and what was in it. */
struct fuzz_body {
	int r;
	size_t n;
	uint64_t sum;
};

static struct fuzz_body fuzz_body(const struct http_head *h, const uint8_t *p,
				  size_t size, size_t step)
{
	struct fuzz_body x = { 0 };
	size_t at = 0, end = 0, skip, data;
	struct http_body b;

	http_body_init(&b, h);
	for (;;) {
		skip = data = 0;
		x.r = http_body_next(&b, p + at, end - at, &skip, &data);
		fuzz_require(skip <= end - at && data <= end - at - skip);
		fuzz_require((x.r == 0) == (data > 0));
		for (size_t i = 0; i < data; i++)
			x.sum = x.sum * 31 + p[at + skip + i];
		x.n += data;
		at += skip + data;
		if (x.r < 0 || x.r == HTTP_END)
			return x;
		if (x.r == 0)
			continue;
		fuzz_require(end - at < HTTP_LINE_MAX);
		if (end == size)
			return x;
		end = size - end < step ? size : end + step;
	}
}

static void fuzz_bodies(const struct http_head *h, const uint8_t *p,
			size_t size)
{
	const struct fuzz_body all = fuzz_body(h, p, size, size ? size : 1);
	static const size_t steps[] = { 1, 3, 100 };

	for (size_t i = 0; i < nitems(steps); i++) {
		const struct fuzz_body x = fuzz_body(h, p, size, steps[i]);

		fuzz_require(x.r == all.r && x.n == all.n && x.sum == all.sum);
	}
	fuzz_require(h->framing != HTTP_LENGTH || all.n <= h->length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const enum http_framing framings[] = { HTTP_CHUNKED, HTTP_LENGTH,
						      HTTP_TILL_CLOSE };
	struct http_head h = { 0 }, again = { 0 };
	size_t used = 0, used_again = 0;
	int r;

	r = http_head_parse(data, size, &h, &used);
	fuzz_require(r == 0 || r == HTTP_MORE || r == -EBADMSG);
	fuzz_require(r != HTTP_MORE || size < HTTP_HEAD_MAX);
	if (r == 0) {
		fuzz_require(used <= size && used <= HTTP_HEAD_MAX);
		fuzz_require(http_head_parse(data, used, &again, &used_again) ==
			     0);
		fuzz_require(used == used_again &&
			     !memcmp(&h, &again, sizeof(h)));
		fuzz_require(h.status == 101 ||
			     (h.status >= 200 && h.status <= 599));
		fuzz_bodies(&h, data + used, size - used);
		return 0;
	}
	/* What is no head is tried as a body. */
	for (size_t i = 0; i < nitems(framings); i++) {
		h = (struct http_head){ .framing = framings[i],
					.length = size / 2 };
		fuzz_bodies(&h, data, size);
	}
	return 0;
}
