/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Between an image directory and its stored form
 *
 * Packing is deterministic: the same directory and parent give the same bytes
 * and the same id, which is what makes an upload resumable. Blocking; for a
 * worker. @progress may be NULL; a result other than 0 ends it (-ECANCELED).
 */
#include "base/err.h"
#include "image/index.h"

#include <stdint.h>

struct image;
struct store_conn;

typedef int (*pack_progress_fn)(void *arg, uint64_t done, uint64_t total);

/* @dir becomes DIR/index and DIR/pack. Frames that are equal to the parent's
 * (NULL: none) stay where they are: the index points there. A chunk that is
 * equal keeps the parent's hot map. *ret_shared: bytes not stored again. */
int pack_make(struct image *image, const struct index *parent, const char *dir,
	      pack_progress_fn progress, void *arg, uint64_t *ret_shared,
	      struct err *e) must_check;

/* The directory of a pulled image from its index alone: manifest.json, state,
 * overlay, zeromap, workingset, index; what is missing (memory, disk) is
 * marked by the file `remote` (image/image.h). Every file is verified. */
int pack_register(const struct index *x, int index_fd, const char *remote,
		  const char *dir, struct err *e) must_check;

/*
 * The files that pack_register() left out, from the store, coalesced ranges,
 * two threads decoding: writes memory, disk and memory.digests, verifies them
 * against the manifest, and removes `remote` last. Frames already in @memory_fd
 * or @disk_fd (-1: none; layers of a pager) are copied from there when their
 * pages are all present as data.
 */
int pack_complete(const struct index *x, const char *dir,
		  struct store_conn *conn, int memory_fd, int disk_fd,
		  pack_progress_fn progress, void *arg,
		  struct err *e) must_check;

/* Fetch and verify every frame, writing nothing. */
int pack_verify(const struct index *x, struct store_conn *conn,
		pack_progress_fn progress, void *arg, struct err *e) must_check;
