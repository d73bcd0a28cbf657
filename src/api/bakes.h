/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The body of a bake
 */
#include "base/err.h"
#include "template/bake.h"

#include <jansson.h>

struct bake_body {
	json_t *root; /* owns the strings */
	const char **warm;
	struct bake_options options; /* points into both */
};

#define BAKE_BODY_NULL       \
	{                    \
		.root = NULL \
	}

int bake_body_parse(const char *text, size_t len, struct bake_body *ret,
		    struct err *e) must_check;
void bake_body_deinit(struct bake_body *b);
