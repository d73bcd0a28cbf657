/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Which files this process has verified
 *
 * One table for the whole process, behind a mutex: images are opened by
 * several workers. It is bounded; forgetting costs a second verification.
 */
#include <stdbool.h>

struct file_id;

/* Files remembered: six per image, some 170 images, 120 KiB. */
#define VERIFIED_MAX 1024u

/* Was this content found to have digest @sha256? */
bool verified_has(const struct file_id *id, const char *sha256);
void verified_add(const struct file_id *id, const char *sha256);
