/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Names in a store
 *
 *	templates/NAME      a reference: small JSON, replaced in one step
 *	images/ID/index     image/index.h
 *	images/ID/pack      frames, one behind another
 *
 * The reference is written last: who can read it finds everything.
 */
#include "base/digest.h"
#include "base/err.h"
#include "image/index.h"

#include <stddef.h>
#include <stdint.h>

#define REFERENCE_FORMAT 1
#define REFERENCE_BYTES_MAX 4096u
#define REFERENCE_OBJECT_MAX 128

struct reference {
	char image[INDEX_ID_MAX];
	uint64_t index_bytes;
	char index_sha256[DIGEST_HEX];
	uint64_t pack_bytes;
	char created[32];
};

int reference_parse(const char *json, size_t len, struct reference *ret,
		    struct err *e) must_check;
int reference_print(const struct reference *r, char **ret) must_check;

/* @name is a template's (parse_name_ok), @id an image's. */
void reference_object(const char *name, char out[REFERENCE_OBJECT_MAX]);
void reference_index_object(const char *id, char out[REFERENCE_OBJECT_MAX]);
void reference_pack_object(const char *id, char out[REFERENCE_OBJECT_MAX]);
