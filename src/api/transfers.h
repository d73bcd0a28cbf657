/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The bodies of a push and a pull
 */
#include "base/err.h"
#include "template/pull.h"
#include "template/push.h"

#include <jansson.h>

struct push_body {
	json_t *root; /* owns the strings */
	struct push_options options;
};

struct pull_body {
	json_t *root;
	struct pull_options options;
};

/* After an error nothing is left to release; else json_decref(root). */
int push_body_parse(const char *text, size_t len, struct push_body *ret,
		    struct err *e) must_check;
int pull_body_parse(const char *text, size_t len, struct pull_body *ret,
		    struct err *e) must_check;
