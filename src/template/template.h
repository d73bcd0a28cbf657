/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The templates of this host: names to images
 *
 * The database says which names exist and where; images are opened (and
 * verified) once, in a worker, on first use, and kept open. A template that was
 * baked by another VMM or accelerator, or whose files were damaged, stays in
 * the list and says why it cannot be used.
 */
#include "base/err.h"
#include "sandbox/sandbox.h"

#include <stdbool.h>
#include <stdint.h>

struct db;
struct image;
struct image_manifest;
struct pager;
struct pager_layer;
struct templates;

int templates_new(struct loop *loop, struct worker *worker,
		  struct vmm_host *host, struct db *db, const char *root,
		  struct templates **ret, struct err *e) must_check;
struct templates *templates_free(struct templates *t);

/* Who fills images that are streamed. Set once, before the loop runs; NULL
 * (again) before the pager goes. */
void templates_set_pager(struct templates *t, struct pager *p);
/* Every frame of the layer is here (struct pager_config, whole): a worker turns
 * it into plain files; from then on the image is opened as a local one and the
 * pager forgets it. What fails is logged and tried again later; until then it
 * stays as it is, streamed. */
void templates_whole(struct templates *t, struct pager_layer *l);

/* For struct registry_config. */
struct registry_templates templates_lookup_ops(struct templates *t);

struct template_info {
	const char *name;
	const char *created; /* RFC 3339 */
	const struct image_manifest *manifest; /* NULL while not readable */
	/* of its memory: in the page cache, and in the layer of a streamed one
	 */
	uint64_t resident_bytes;
	const char *problem; /* why it cannot be used; NULL: nothing known */
	const char *dir; /* of its image, a path */
	const char *remote; /* store it streams from; NULL: all is here */
	/* Memory that is not zero: here (of which streamed: came through the
	 * pager), and still in the store only. */
	uint64_t present_bytes, streamed_bytes, remote_bytes;
};

size_t templates_count(const struct templates *t);
struct template_info templates_info(struct templates *t, size_t i);

/* Forget the name, then delete the files. -EBUSY with the number of sandboxes
 * that use it, -ENOENT. */
int templates_remove(struct templates *t, struct registry *r, const char *name,
		     struct err *e) must_check;

/* The bake publishes here: @dir (complete, sealed) becomes template @name; an
 * older one of that name is replaced when @replace, else -EEXIST. */
int templates_publish(struct templates *t, const char *name, const char *dir,
		      bool replace, struct err *e) must_check;
bool templates_has(const struct templates *t, const char *name);
/* Is the image in this directory (its name) a template's? One that was replaced
 * is not. */
bool templates_has_image(const struct templates *t, const char *dir);
struct template_info templates_find(struct templates *t,
				    const char *name); /* name NULL: none */
/* Could something new get this name? -EEXIST, or -EBUSY when the template it
 * would replace is being streamed by guests, who need its files. */
int templates_replaceable(const struct templates *t, const char *name,
			  bool replace, struct err *e) must_check;
/* Would this host's VMM load it? -ENOTSUP...; the sentence says what differs.
 * Any thread may ask. */
int templates_accept(const struct templates *t, const struct image_manifest *m,
		     struct err *e) must_check;
/* A template that needs the store; NULL: none does. */
const char *templates_user_of(const struct templates *t, const char *store);
/* Threads for what takes minutes, so that creates need not wait for it. */
struct worker *templates_slow(struct templates *t);

/*
 * Completing a streamed image in place: its directory is the holder's to add
 * files to until templates_release(). One holder at a time (-EBUSY); -ENOENT,
 * -ENOTSUP when it is not streamed.
 */
struct template_hold {
	char *dir; /* a path; NULL: nothing is held */
	int memory_fd, disk_fd; /* of its layer, our own; -1: none */
};

#define TEMPLATE_HOLD_NULL                     \
	{                                      \
		.memory_fd = -1, .disk_fd = -1 \
	}

int templates_hold(struct templates *t, const char *name,
		   struct template_hold *ret, struct err *e) must_check;
/* @whole: memory and disk are files now. Idempotent. */
void templates_release(struct templates *t, struct template_hold *h,
		       bool whole);
