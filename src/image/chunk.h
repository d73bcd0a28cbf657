/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The digests of memory, chunk by chunk
 *
 * The list (the file memory.digests) has one line per IMAGE_CHUNK of memory:
 * 64 lower-case hex digits and a newline. What a chunk's digest covers, chunk.c
 * says; holes and written zeros are the same to it.
 */
#include "base/digest.h"
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct bitmap;

/* 64 digits and a newline. */
#define CHUNK_LINE 65u

/* Of the list, for that much memory. */
size_t chunk_list_bytes(uint64_t memory_bytes);

/* Fresh, not zero-terminated, chunk_list_bytes(@bytes) long. Refuses a page
 * that is not zero although @zeromap (may be NULL) says so. */
int chunk_list_make(int fd, uint64_t bytes, const struct bitmap *zeromap,
		    char **ret, struct err *e) must_check;

/* -EBADMSG at the first chunk that is not as its line says. */
int chunk_list_verify(int fd, uint64_t bytes, const char *list,
		      struct err *e) must_check;

/*
 * The digest of any file, at the cost of its data: that of the list its chunks
 * make. One whose length is no whole number of pages is hashed as it is.
 */
int chunk_file_digest(int fd, uint64_t bytes, char hex[DIGEST_HEX],
		      struct err *e) must_check;
