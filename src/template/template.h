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
struct templates;

int templates_new(struct loop *loop, struct worker *worker,
		  struct vmm_host *host, struct db *db, const char *root,
		  struct templates **ret, struct err *e) must_check;
struct templates *templates_free(struct templates *t);

/* For struct registry_config. */
struct registry_templates templates_lookup_ops(struct templates *t);

struct template_info {
	const char *name;
	const char *created; /* RFC 3339 */
	const struct image_manifest *manifest; /* NULL while not readable */
	uint64_t resident_bytes; /* of its memory, in the page cache */
	const char *problem; /* why it cannot be used; NULL: nothing known */
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
