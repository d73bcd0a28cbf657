/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Zero pages and holes of a memory file
 *
 * image_find_zero() itself is in image/image.h.
 */
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* @page: IMAGE_PAGE bytes, aligned to 8. */
bool zero_page(const void *page);

/*
 * The first data of @fd in [@pos, @bytes), as whole pages: everything before
 * *ret_start is a hole. At the end both results are @bytes. @pos is a multiple
 * of IMAGE_PAGE, as @bytes is. A file system without holes has data all over.
 * Moves the fd's position.
 */
int zero_next_data(int fd, uint64_t pos, uint64_t bytes, uint64_t *ret_start,
		   uint64_t *ret_end, struct err *e) must_check;
