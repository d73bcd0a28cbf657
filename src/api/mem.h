/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The ledger, as the API shows it
 */
#include "base/err.h"

struct api;
struct mem;

int mem_new(struct api *api, struct mem **ret, struct err *e) must_check;
/* No request may wait; a count under way ends by itself. */
struct mem *mem_free(struct mem *m);
