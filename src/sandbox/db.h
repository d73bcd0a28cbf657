/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The database: what must outlive the daemon
 *
 * SQLite in BYRE_ROOT/byre.db, write-ahead log. A row is the last thing written
 * when something comes to be and the first thing removed when it goes, so files
 * without a row are leavings. One daemon at a time: db_open takes a lock.
 *
 * Commits do not wait for the disk (synchronous=NORMAL): killing the daemon
 * loses nothing, a power cut may lose the last rows - of sandboxes that died
 * with the power. db_sync() waits; publishing a template calls it.
 */
#include "base/digest.h"
#include "base/err.h"
#include "sandbox/sandbox.h"
#include "base/proc.h"
#include "image/store.h"

struct db;

/* -EBUSY when another daemon holds it, with its pid in the sentence. */
int db_open(const char *root, struct db **ret, struct err *e) must_check;
struct db *db_close(struct db *db);
int db_sync(struct db *db, struct err *e) must_check;

/* ---- templates ---- */

struct db_template {
	char name[64];
	char dir[64]; /* below BYRE_ROOT/images */
	char created[32];
	char manifest_sha256[DIGEST_HEX]; /* "": of before it was recorded */
};

typedef int (*db_template_fn)(const struct db_template *t, void *arg);

int db_template_put(struct db *db, const struct db_template *t,
		    struct err *e) must_check;
int db_template_delete(struct db *db, const char *name,
		       struct err *e) must_check;
/* A negative result of @fn ends it and is returned. */
int db_templates(struct db *db, db_template_fn fn, void *arg,
		 struct err *e) must_check;

/* ---- sandboxes ---- */

struct db_sandbox {
	char id[SANDBOX_ID_MAX];
	char name[64];
	char template[64];
	enum sandbox_state state;
	struct proc_id proc;
	uint32_t slot;
	uint64_t created_ns;
	uint64_t ends_ns;
	uint64_t memory_bytes;
	uint32_t vcpus;
	bool net;
	/* Streamed: the image's directory below BYRE_ROOT/images, and the store
	 * it comes from. "": the image was all here. */
	char layer[64];
	char store[STORE_NAME_MAX];
	/* Otherwise: the directory of the image whose memory it maps, and how
	 * much of that is zero. "": it has a copy of its own. */
	char image[64];
	uint64_t zero_bytes;
	char cause[SANDBOX_CAUSE_MAX];
	/* Why its VMM stopped it; "": it did not, or it was resumed. */
	char paused_because[SANDBOX_CAUSE_MAX];
	struct sandbox_timings timings;
};

typedef int (*db_sandbox_fn)(const struct db_sandbox *s, void *arg);

/* Insert or replace. */
int db_sandbox_put(struct db *db, const struct db_sandbox *s,
		   struct err *e) must_check;
int db_sandbox_delete(struct db *db, const char *id, struct err *e) must_check;
int db_sandboxes(struct db *db, db_sandbox_fn fn, void *arg,
		 struct err *e) must_check;

/* ---- bakes under way: ids of VMMs that nobody adopts ---- */

typedef int (*db_bake_fn)(const char *id, void *arg);

int db_bake_put(struct db *db, const char *id, struct err *e) must_check;
int db_bake_delete(struct db *db, const char *id, struct err *e) must_check;
int db_bakes(struct db *db, db_bake_fn fn, void *arg, struct err *e) must_check;

/* ---- stores (sandbox/stores.h) ---- */

typedef int (*db_store_fn)(const struct store_spec *spec, void *arg);

int db_store_put(struct db *db, const struct store_spec *spec,
		 struct err *e) must_check;
int db_store_delete(struct db *db, const char *name, struct err *e) must_check;
/* In order of their names. */
int db_stores(struct db *db, db_store_fn fn, void *arg,
	      struct err *e) must_check;
