/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stores this host knows
 *
 * A table in memory, sorted by name, and the same in the database: asked at
 * every pull, push and start of a streamed sandbox, changed a few times in a
 * host's life.
 *
 * Invariants:
 *  1. A change is in the database before it is in memory; one that the
 *     database refuses has not happened.
 *  2. What is here passed store_check(), also what the database held: a row
 *     that somebody bent by hand is refused when the daemon starts, by name,
 *     and not when a guest waits for a page.
 *  3. Entries do not move while they live: a spec that was found stays valid
 *     until its store is removed.
 *
 * It opens no store: whether a URL leads anywhere is for those who use it.
 */
#include "sandbox/stores.h"

#include "base/guard.h"
#include "base/parse.h"
#include "sandbox/db.h"

#include <errno.h>
#include <string.h>

struct stores {
	struct db *db;
	struct store_spec *entry[STORES_MAX];
	size_t n;
};

/* Where @name is, or would be. */
static size_t stores_place(const struct stores *s, const char *name)
{
	size_t i = 0;

	while (i < s->n && strcmp(s->entry[i]->name, name) < 0)
		i++;
	return i;
}

static bool stores_is(const struct stores *s, size_t i, const char *name)
{
	return i < s->n && strcmp(s->entry[i]->name, name) == 0;
}

static int stores_check(const struct stores *s, const struct store_spec *spec,
			struct err *e)
{
	if (!parse_name_ok(spec->name))
		return err_set(e, EINVAL, "store: this is not a name");
	if (s->n == STORES_MAX)
		return err_set(e, ENOSPC, "store %s: there are %d already",
			       spec->name, STORES_MAX);
	return store_check(spec, e);
}

/* In memory alone. */
static int stores_insert(struct stores *s, const struct store_spec *spec)
{
	size_t i = stores_place(s, spec->name);
	struct store_spec *mine = malloc(sizeof(*mine));

	if (!mine)
		return -ENOMEM;
	*mine = *spec;
	memmove(&s->entry[i + 1], &s->entry[i],
		(s->n - i) * sizeof(s->entry[0]));
	s->entry[i] = mine;
	s->n++;
	return 0;
}

static void stores_delete(struct stores *s, size_t i)
{
	free(s->entry[i]);
	s->n--;
	memmove(&s->entry[i], &s->entry[i + 1],
		(s->n - i) * sizeof(s->entry[0]));
}

struct stores_load {
	struct stores *s;
	struct err e;
};

static int stores_load_row(const struct store_spec *spec, void *arg)
{
	struct stores_load *l = arg;
	int r = stores_check(l->s, spec, &l->e);

	if (r == 0 && stores_insert(l->s, spec) < 0)
		r = err_errno(&l->e, ENOMEM, "store %s", spec->name);
	return r;
}

int stores_new(struct db *db, struct stores **ret, struct err *e)
{
	struct stores_load l = { .s = calloc(1, sizeof(struct stores)) };
	int r;

	if (!l.s)
		return err_errno(e, ENOMEM, "stores");
	l.s->db = db;
	r = db_stores(db, stores_load_row, &l, e);
	if (r < 0) {
		if (l.e.code && e)
			*e = l.e;
		stores_free(l.s);
		return r;
	}
	*ret = l.s;
	return 0;
}

struct stores *stores_free(struct stores *s)
{
	if (!s)
		return NULL;
	while (s->n)
		stores_delete(s, s->n - 1);
	free(s);
	return NULL;
}

size_t stores_count(const struct stores *s)
{
	return s->n;
}

const struct store_spec *stores_get(const struct stores *s, size_t i)
{
	must(i < s->n);
	return s->entry[i];
}

const struct store_spec *stores_find(const struct stores *s, const char *name)
{
	size_t i = stores_place(s, name);

	return stores_is(s, i, name) ? s->entry[i] : NULL;
}

int stores_add(struct stores *s, const struct store_spec *spec, struct err *e)
{
	int r;

	if (stores_find(s, spec->name))
		return err_set(e, EEXIST,
			       "add store %s: there is one of that name",
			       spec->name);
	r = stores_check(s, spec, e);
	if (r < 0)
		return r;
	r = db_store_put(s->db, spec, e);
	if (r < 0)
		return r;
	if (stores_insert(s, spec) < 0) {
		err_drop(db_store_delete(s->db, spec->name, NULL));
		return err_errno(e, ENOMEM, "add store %s", spec->name);
	}
	return 0;
}

int stores_remove(struct stores *s, const char *name, struct err *e)
{
	size_t i = stores_place(s, name);
	int r;

	if (!stores_is(s, i, name))
		return err_set(e, ENOENT, "remove store %s: no such store",
			       name);
	r = db_store_delete(s->db, name, e);
	if (r == 0)
		stores_delete(s, i);
	return r;
}
