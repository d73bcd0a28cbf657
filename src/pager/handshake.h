/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What a Firecracker says when it hands over its memory
 *
 * One message: a JSON array with an object per region, and one fd. All versions
 * since 1.1: `page_size` (bytes, 1.12), `page_size_kib` (1.7; bytes, too, in
 * spite of its name), neither (4096). Unknown keys are ignored.
 */
#include "base/err.h"
#include "pager/engine.h"

#include <stddef.h>

/* Tens of regions with every key. */
#define HANDSHAKE_BYTES_MAX 65536u

/* @image_bytes: regions must lie inside. -EAGAIN: the text ends too early,
 * perhaps more of it is to come. Results are set on success only. */
int handshake_parse(const char *json, size_t len, uint64_t image_bytes,
		    struct engine_region ret[ENGINE_REGIONS_MAX],
		    unsigned *ret_n, struct err *e) must_check;
