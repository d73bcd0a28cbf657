/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What a kernel file says of itself
 */
#include <stddef.h>

/* The release ("6.1.0-56-cloud-amd64") of a bzImage or vmlinux into @out;
 * "unknown" when it cannot be told. */
void kernel_release(const char *path, char *out, size_t size);
