/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * byre image: a directory that is looked at
 */
#include "base/err.h"
#include "cmd/cmd.h"
#include "image/image.h"

#include <stdbool.h>

struct index;

/* An image directory, or one with an index and perhaps a pack. */
struct image_at {
	char *dir;
	bool has_manifest; /* a file of its own: an image directory */
	struct image_manifest manifest; /* that, or the index' */
	struct index *index; /* NULL: there is none */
	bool has_pack;
	char remote[IMAGE_REMOTE_MAX]; /* "": none */
};

#define IMAGE_AT_NULL       \
	{                   \
		.dir = NULL \
	}

/* @what: NAME of a template, or DIR, which has a slash. Manifest and index are
 * read and checked, nothing else. @bad_index (may be NULL): what is wrong with
 * the index of an image directory, instead of failing. */
int image_at_open(const char *what, struct image_at *ret, struct err *bad_index,
		  struct err *e) must_check;
void image_at_deinit(struct image_at *at);
/* -errno; a file that is not there is ENOENT. */
int image_at_file(const struct image_at *at, const char *name,
		  struct err *e) must_check;

/* Template @name of the store: prints what is good or damaged. Returns the exit
 * code. */
int image_store_verify(const char *name, const char *store) must_check;

extern const struct cmd cmd_image_inspect;
extern const struct cmd cmd_image_verify;
