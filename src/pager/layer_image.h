/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * An image directory as the memory of a layer
 */
#include "base/err.h"

#include <stdint.h>

struct engine;
struct store_spec;

/*
 * Layer @number of @g is the memory of the image in @dir; its disk is left out.
 * An image that is all here is verified, and served from its file. One that is
 * remote is served from @store, into a memfd of its own. Blocking.
 */
int layer_add_image(struct engine *g, uint32_t number, const char *dir,
		    const struct store_spec *store, uint64_t *ret_bytes,
		    struct err *e) must_check;
