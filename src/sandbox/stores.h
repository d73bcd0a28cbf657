/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The stores this host knows, by name; kept in the database
 */
#include "base/err.h"
#include "image/store.h"

#include <stdbool.h>
#include <stddef.h>

struct db;
struct stores;

/* Object stores of one host. */
#define STORES_MAX 64

int stores_new(struct db *db, struct stores **ret, struct err *e) must_check;
struct stores *stores_free(struct stores *s);
size_t stores_count(const struct stores *s);
/* By position, in order of their names. */
const struct store_spec *stores_get(const struct stores *s, size_t i);
/* NULL: no such store. */
const struct store_spec *stores_find(const struct stores *s, const char *name);
/* -EEXIST, -EINVAL (store_check) ... */
int stores_add(struct stores *s, const struct store_spec *spec,
	       struct err *e) must_check;
/* -ENOENT. Whether templates still stream from it is the caller's question. */
int stores_remove(struct stores *s, const char *name, struct err *e) must_check;
