/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Keys of an S3 store (internal to the stores)
 */
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* Keys are 20 and 40 bytes at the largest vendor; others allow 128. */
#define CREDENTIALS_KEY_MAX 129
#define CREDENTIALS_SECRET_MAX 257
/* Session tokens have no documented limit; those seen are below 2 KiB. */
#define CREDENTIALS_TOKEN_MAX 4096

struct credentials {
	char key[CREDENTIALS_KEY_MAX]; /* "": none, be anonymous */
	char secret[CREDENTIALS_SECRET_MAX];
	char token[CREDENTIALS_TOKEN_MAX]; /* "": none */
};

/* From @file; "": from the environment, where nothing is no error. The caller
 * wipes *ret in every case. */
int credentials_load(const char *file, struct credentials *ret,
		     struct err *e) must_check;
/* The text of such a file; not a word of it gets into the error. */
int credentials_parse(char *text, struct credentials *ret,
		      struct err *e) must_check;
void credentials_wipe(struct credentials *c);
