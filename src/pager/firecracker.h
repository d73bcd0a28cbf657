/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A pager for stock Firecrackers: their memory backend "Uffd"
 */
#include "base/err.h"

#include <stdint.h>

struct store_spec;

/* Processes at once that have connected and not said everything yet. */
#define FIRECRACKER_PENDING_MAX 64u

struct firecracker_config {
	const char *socket; /* backend_path of PUT /snapshot/load */
	const char *dir; /* the image */
	const struct store_spec *store; /* where its bytes are; NULL: in dir */
	const char *cache_dir; /* NULL: none */
	uint64_t cache_bytes;
};

/* Listens first, then opens the image, and serves until SIGTERM. Threads may
 * still be waiting for something then: end the process. */
int firecracker(const struct firecracker_config *config,
		struct err *e) must_check;
