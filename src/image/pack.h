/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Between an image directory and its stored form
 *
 * Packing is deterministic: the same directory and parent give the same bytes
 * and the same id, which is what makes an upload resumable. Blocking; for a
 * worker. @progress counts bytes of pages; it may be NULL; it is called from any
 * thread, one call at a time; a result other than 0 ends it (-ECANCELED).
 */
#include "base/err.h"
#include "image/index.h"

#include <stdint.h>

struct image;
struct store;

typedef int (*pack_progress_fn)(void *arg, uint64_t done, uint64_t total);

/* Beside IMAGE_INDEX_NAME. */
#define PACK_NAME "pack"

/*
 * @dir (made if need be) becomes DIR/index and DIR/pack; the index comes last.
 * Chunks that are equal to the parent's (NULL: none) keep its hot map, and
 * their frames stay where they are: the index points there. *ret_shared: stored
 * bytes that were not stored again. -ENODATA: the image is remote.
 */
int pack_make(struct image *image, const struct index *parent, const char *dir,
	      pack_progress_fn progress, void *arg, uint64_t *ret_shared,
	      struct err *e) must_check;

/* The directory of a pulled image from its index alone: manifest.json, state,
 * overlay, zeromap, workingset, index; what is missing (memory, disk) is
 * marked by the file `remote` (image/image.h). Every file is verified, the
 * manifest comes last. @remote: a store's name (parse_name_ok). */
int pack_register(const struct index *x, int index_fd, const char *remote,
		  const char *dir, struct err *e) must_check;

/*
 * The files that pack_register() left out, from the store, in coalesced ranges
 * over several connections: makes memory, disk and memory.digests, verifies
 * them against the manifest, and removes `remote` last. Frames already in
 * @memory_fd or @disk_fd (-1: none; layers of a pager) are copied from there
 * when their pages are all present as data; @store may be NULL when that is all
 * (-ENODATA when it is not). An image without `remote` is left
 * alone: 0. After a failure or a crash it is called again; its own files are
 * memory.new and disk.new, which only a crash leaves behind.
 */
int pack_complete(const struct index *x, const char *dir, struct store *store,
		  int memory_fd, int disk_fd, pack_progress_fn progress,
		  void *arg, struct err *e) must_check;

/* Remove what a crash left. Nobody may be completing the image. */
void pack_complete_tidy(const char *dir);

/* Fetch and verify every frame, writing nothing. */
int pack_verify(const struct index *x, struct store *store,
		pack_progress_fn progress, void *arg, struct err *e) must_check;
