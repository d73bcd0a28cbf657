/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a Firecracker says when it hands over its memory
 *
 *	[{"base_host_virt_addr": 140000000000, "size": 268435456, "offset": 0,
 *	  "page_size": 4096, "page_size_kib": 4096}, ...]
 *
 * Lenient about what is said besides (each version added keys), strict about
 * the numbers: they become addresses for ioctls in another process, and offsets
 * into the image.
 *
 * Invariants, of what is accepted:
 *  1. 1 .. ENGINE_REGIONS_MAX regions; none is empty, each lies within the
 *     address space and within the image, and no two share an address or a
 *     byte of the image.
 *  2. Address, size and offset are whole pages of the region's page size, which
 *     is one that x86 has for guests: 4 KiB or 2 MiB.
 *  3. A sentence carries no foreign bytes: numbers and positions only.
 *
 * `page_size_kib` was meant to be in KiB and never was. Should both be there
 * and differ, nobody knows what is meant, and it is refused.
 */
#include <jansson.h>

#include "pager/handshake.h"

#include "base/guard.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>

#define HANDSHAKE_PAGE 4096u
#define HANDSHAKE_HUGE (2u << 20)

static void handshake_decrefp(json_t **j)
{
	json_decref(*j);
}

/* A number >= 0 of region @i; absent: @fallback, unless that is -1. */
static int handshake_number(const json_t *region, unsigned i, const char *key,
			    int64_t fallback, uint64_t *ret, struct err *e)
{
	const json_t *j = json_object_get(region, key);
	json_int_t v;

	if (!j && fallback >= 0) {
		*ret = (uint64_t)fallback;
		return 0;
	}
	if (!j)
		return err_set(e, EBADMSG, "region %u: no %s", i, key);
	if (!json_is_integer(j))
		return err_set(e, EBADMSG, "region %u: %s is no integer", i,
			       key);
	v = json_integer_value(j);
	if (v < 0)
		return err_set(e, ERANGE, "region %u: %s is negative", i, key);
	*ret = (uint64_t)v;
	return 0;
}

static int handshake_page_bytes(const json_t *region, unsigned i, uint64_t *ret,
				struct err *e)
{
	uint64_t bytes = 0, older = 0;
	int r = handshake_number(region, i, "page_size", 0, &bytes, e);

	if (r == 0)
		r = handshake_number(region, i, "page_size_kib", 0, &older, e);
	if (r < 0)
		return r;
	if (bytes && older && bytes != older)
		return err_set(e, EINVAL,
			       "region %u: page_size is %" PRIu64
			       ", page_size_kib (bytes as well) %" PRIu64,
			       i, bytes, older);
	bytes = bytes ? bytes : older ? older : HANDSHAKE_PAGE;
	if (bytes != HANDSHAKE_PAGE && bytes != HANDSHAKE_HUGE)
		return err_set(e, ENOTSUP,
			       "region %u: pages of %" PRIu64 " bytes", i,
			       bytes);
	*ret = bytes;
	return 0;
}

static int handshake_region(const json_t *region, unsigned i,
			    uint64_t image_bytes, struct engine_region *ret,
			    struct err *e)
{
	int r;

	if (!json_is_object(region))
		return err_set(e, EBADMSG, "region %u: no object", i);
	r = handshake_number(region, i, "base_host_virt_addr", -1, &ret->addr,
			     e);
	if (r == 0)
		r = handshake_number(region, i, "size", -1, &ret->bytes, e);
	if (r == 0)
		r = handshake_number(region, i, "offset", -1, &ret->offset, e);
	if (r == 0)
		r = handshake_page_bytes(region, i, &ret->page_bytes, e);
	if (r < 0)
		return r;
	if (!ret->bytes)
		return err_set(e, ERANGE, "region %u: is empty", i);
	if (ret->addr % ret->page_bytes || ret->bytes % ret->page_bytes ||
	    ret->offset % ret->page_bytes)
		return err_set(e, EINVAL,
			       "region %u: not whole pages of %" PRIu64
			       " bytes",
			       i, ret->page_bytes);
	/* Each below 2^63: a sum does not wrap. */
	if (ret->addr + ret->bytes > INT64_MAX)
		return err_set(e, ERANGE, "region %u: beyond the address space",
			       i);
	if (ret->offset > image_bytes || ret->bytes > image_bytes - ret->offset)
		return err_set(e, ERANGE,
			       "region %u: [%" PRIu64 ", +%" PRIu64
			       ") is outside the image's %" PRIu64 " bytes",
			       i, ret->offset, ret->bytes, image_bytes);
	return 0;
}

static bool handshake_overlap(uint64_t a, uint64_t a_len, uint64_t b,
			      uint64_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

static int handshake_disjoint(const struct engine_region *regions, unsigned n,
			      struct err *e)
{
	const struct engine_region *a, *b;

	for (unsigned i = 1; i < n; i++) {
		for (unsigned j = 0; j < i; j++) {
			a = &regions[i];
			b = &regions[j];
			if (handshake_overlap(a->addr, a->bytes, b->addr,
					      b->bytes) ||
			    handshake_overlap(a->offset, a->bytes, b->offset,
					      b->bytes))
				return err_set(e, EINVAL,
					       "regions %u and %u overlap", j,
					       i);
		}
	}
	return 0;
}

static int handshake_load(const char *json, size_t len, json_t **ret,
			  struct err *e)
{
	json_error_t why = { 0 };

	*ret = json_loadb(json, len, JSON_REJECT_DUPLICATES, &why);
	if (*ret)
		return 0;
	if (json_error_code(&why) == json_error_premature_end_of_input)
		return err_set(e, EAGAIN, "the JSON ends too early");
	return err_set(e, EBADMSG, "no JSON, at byte %d", why.position);
}

int handshake_parse(const char *json, size_t len, uint64_t image_bytes,
		    struct engine_region ret[ENGINE_REGIONS_MAX],
		    unsigned *ret_n, struct err *e)
{
	struct engine_region regions[ENGINE_REGIONS_MAX] = { 0 };
	guard(handshake_decrefp) json_t *j = NULL;
	size_t n;
	int r;

	if (len > HANDSHAKE_BYTES_MAX)
		return err_set(e, E2BIG, "%zu bytes of JSON", len);
	r = handshake_load(json, len, &j, e);
	if (r < 0)
		return r;
	if (!json_is_array(j))
		return err_set(e, EBADMSG, "no array of regions");
	n = json_array_size(j);
	if (n == 0 || n > ENGINE_REGIONS_MAX)
		return err_set(e, ERANGE, "%zu regions", n);
	for (unsigned i = 0; i < n; i++) {
		r = handshake_region(json_array_get(j, i), i, image_bytes,
				     &regions[i], e);
		if (r < 0)
			return r;
	}
	r = handshake_disjoint(regions, (unsigned)n, e);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < n; i++)
		ret[i] = regions[i];
	*ret_n = (unsigned)n;
	return 0;
}
