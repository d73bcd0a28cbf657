/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process says that connects to the pager's Firecracker socket
 *
 * The first byte is the image's size in units of 2 MiB, the rest the text. What
 * is accepted must be what handshake.c promises, since the numbers become
 * addresses; what is refused has a sentence of printable ASCII, and leaves the
 * results alone.
 */
#include "pager/handshake.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define UNIT (2ull << 20)

static void fuzz_region(const struct engine_region *r, uint64_t image_bytes)
{
	must(r->page_bytes == 4096 || r->page_bytes == UNIT);
	must(r->bytes > 0 && r->bytes % r->page_bytes == 0);
	must(r->addr % r->page_bytes == 0 && r->offset % r->page_bytes == 0);
	must(r->addr + r->bytes > r->addr);
	must(r->offset <= image_bytes);
	must(r->bytes <= image_bytes - r->offset);
}

static void fuzz_apart(const struct engine_region *a,
		       const struct engine_region *b)
{
	must(a->addr >= b->addr + b->bytes || b->addr >= a->addr + a->bytes);
	must(a->offset >= b->offset + b->bytes ||
	     b->offset >= a->offset + a->bytes);
}

static void fuzz_refused(int r, const struct err *e)
{
	must(e->code == -r && e->msg[0]);
	for (const char *s = e->msg; *s; s++)
		must(*s >= 0x20 && *s < 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct engine_region region[ENGINE_REGIONS_MAX];
	struct err e = ERR_NULL;
	uint64_t image_bytes;
	unsigned n = 12345;
	int r;

	if (!size)
		return 0;
	image_bytes = data[0] * UNIT;
	memset(region, 0x5a, sizeof(region));
	r = handshake_parse((const char *)data + 1, size - 1, image_bytes,
			    region, &n, &e);
	if (r < 0) {
		fuzz_refused(r, &e);
		must(n == 12345 && region[0].addr == 0x5a5a5a5a5a5a5a5aull);
		return 0;
	}
	must(n >= 1 && n <= ENGINE_REGIONS_MAX);
	for (unsigned i = 0; i < n; i++) {
		fuzz_region(&region[i], image_bytes);
		for (unsigned j = 0; j < i; j++)
			fuzz_apart(&region[i], &region[j]);
	}
	return 0;
}
