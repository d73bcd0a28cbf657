/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What an index says of the files of its image
 */
#include "base/err.h"

#include <stddef.h>

struct image_manifest;
struct index;

/* The manifest in an index, which is of the same sizes as the index. @text (may
 * be NULL): fresh, its bytes. */
int pack_manifest(const struct index *x, struct image_manifest *ret,
		  char **text, size_t *len, struct err *e) must_check;
