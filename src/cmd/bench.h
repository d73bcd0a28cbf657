/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the benches share
 */
#include "base/err.h"

#include <jansson.h>
#include <stdint.h>

struct cmd;
struct create_options;

extern const struct cmd bench_create;
extern const struct cmd bench_density;
extern const struct cmd bench_stream;

/* What a sandbox is asked first: "sh -c COMMAND"; NULL: "echo ok". */
struct bench_sandbox {
	const char *template;
	const char *command;
};

/* When a sandbox was where, in monotonic ns. */
struct bench_times {
	uint64_t start_ns; /* create sent */
	uint64_t created_ns; /* create answered */
	uint64_t answered_ns; /* the command's exit code is here */
};

/* Create a sandbox and have it answer a command. *ret is the sandbox as soon
 * as there is one, also when this then fails. */
int bench_start(const struct bench_sandbox *b, json_t **ret,
		struct bench_times *ret_times, struct err *e) must_check;

/* The template, checked to exist. */
int bench_template(const char *name, json_t **ret, struct err *e) must_check;
