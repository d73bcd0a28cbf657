/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * How much of a file is in the page cache
 */
#include "base/err.h"

#include <stdint.h>

/* Bytes of a file that are in the page cache (cachestat, else mincore), in
 * whole pages: a file's tail counts as one. */
int file_resident(int fd, uint64_t *ret_bytes, struct err *e) must_check;

/* The second way alone; @fd must be open for reading. */
int file_resident_mincore(int fd, uint64_t *ret_bytes,
			  struct err *e) must_check;
