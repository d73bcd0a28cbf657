/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Shared memory that is there page by page
 *
 * A page that nobody wrote must be missing: the pager finds out what it has by
 * looking for holes, and guests wait for what is not there. Where the host gives
 * shared memory huge pages (transparent_hugepage/shmem_enabled), one page
 * written makes two megabytes present, and zeros of what was never fetched.
 */
#include "base/err.h"

#include <stdint.h>

/* A memfd of @bytes (more than none), all holes; sealable, close-on-exec.
 * -ENOTSUP: see memfd_check_pages(). */
int memfd_new(const char *name, uint64_t bytes, int *ret,
	      struct err *e) must_check;

/* Is what is written to @fd (of shared memory, empty, more than a page long)
 * there page by page? -ENOTSUP, with a sentence that says what to do. Leaves it
 * empty. */
int memfd_check_pages(int fd, struct err *e) must_check;
