/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Making a sandbox: what create, run and bench share
 */
#include "cmd/opt.h"

#include <jansson.h>

struct err;

struct create_options {
	const char *name;
	uint64_t ttl_ns;
	const char *net;
	struct opt_list env;
};

/* For a struct create_options. */
extern const struct opt create_opts[];

/* *ret is the sandbox as the API has it; it answers commands. */
int create_sandbox(const char *template, const struct create_options *o,
		   json_t **ret, struct err *e) must_check;

/* End a sandbox and forget it; one that is gone already is no error. */
int create_undo(const char *id, struct err *e) must_check;
