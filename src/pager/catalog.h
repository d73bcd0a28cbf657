/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A look into a root's database from beside its daemon
 */
#include "base/err.h"
#include "image/store.h"

/* The directory of template @name, fresh. -ENOENT: no such template. */
int catalog_template(const char *root, const char *name, char **ret,
		     struct err *e) must_check;
/* -ENOENT: no such store. */
int catalog_store(const char *root, const char *name, struct store_spec *ret,
		  struct err *e) must_check;
