/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Sandboxes as the API shows and takes them
 */
#include "base/err.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

struct sandbox;

/* NULL when out of memory. */
json_t *sandbox_json(const struct sandbox *s);

/* The body of a create, read and checked. */
struct sandbox_body {
	json_t *root; /* owns the strings */
	const char *template;
	const char *name; /* NULL: none */
	uint64_t ttl_ns;
	unsigned net; /* 0: none, 1: user */
	char **env; /* "NAME=value", NULL at the end */
	size_t n_env;
};

#define SANDBOX_BODY_NULL    \
	{                    \
		.root = NULL \
	}

int sandbox_body_parse(const char *text, size_t len, struct sandbox_body *ret,
		       struct err *e) must_check;
void sandbox_body_deinit(struct sandbox_body *b);
