/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The note beside an upload under way (internal to the stores)
 *
 * It says what is being uploaded where, and the handle by which the store
 * knows the half that is there: a file's name, or the id of a multipart upload.
 */
#include "image/store_ops.h"

/* S3 promises nothing about the length of an id; those seen are below 200. */
#define STORE_HANDLE_MAX 1024
#define STORE_OBJECT_MAX 256

struct store_note {
	char url[STORE_URL_MAX];
	char endpoint[STORE_URL_MAX];
	char object[STORE_OBJECT_MAX];
	uint64_t bytes;
	char handle[STORE_HANDLE_MAX];
};

/* A missing note, and one that makes no sense, are STORE_MISS. */
int store_note_load(const char *path, struct store_note *ret,
		    struct err *e) must_check;
/* Written whole and synced. */
int store_note_save(const char *path, const struct store_note *n,
		    struct err *e) must_check;
void store_note_remove(const char *path);
/* Without a handle yet. */
void store_note_init(struct store_note *n, const struct store *s,
		     const struct store_upload *u);
/* Is it of the same store? And of the same upload? */
bool store_note_ours(const struct store_note *n, const struct store *s);
bool store_note_fits(const struct store_note *n, const struct store *s,
		     const struct store_upload *u);
