/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Stores as the API takes them
 */
#include "base/err.h"
#include "image/store.h"

#include <stddef.h>

/* The body of an add; the spec is checked (store_check). */
int store_body_parse(const char *text, size_t len, struct store_spec *ret,
		     struct err *e) must_check;
