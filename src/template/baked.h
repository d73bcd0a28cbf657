/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The files of an image in the making
 *
 * @dir is the directory that will be the image (image/image.h). All of this
 * blocks and is done in a worker.
 */
#include "base/digest.h"

#include <stdint.h>

/* A disk image file into a new one, sharing blocks where possible. */
int baked_copy(const char *from, const char *to, struct err *e) must_check;
int baked_digest(const char *path, char hex[DIGEST_HEX],
		 struct err *e) must_check;
/* The empty qcow2 overlay that sandboxes copy. */
int baked_overlay(const char *dir, struct err *e) must_check;
/* Find the zero pages of @memory_fd, make holes of them, write the map. */
int baked_zeromap(const char *dir, int memory_fd, uint64_t bytes,
		  struct err *e) must_check;
/* Of the image in @dir, room for the holes that its guests will map, where that
 * takes room: on a tmpfs (image_reserve()). Not for one whose memory is not
 * here, or cannot be read; that, opening it tells. Before it is sealed, or
 * opened: the file may count as changed. */
int baked_reserve(const char *dir, struct err *e) must_check;
/* Drop what the page cache holds of those holes: the bake's own guest left it
 * there. Best effort. */
void baked_drop_holes(const char *dir, int memory_fd, uint64_t bytes);
