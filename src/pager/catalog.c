/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A look into a root's database from beside its daemon
 *
 * The daemon has the database for itself (locking_mode=EXCLUSIVE: there is not
 * even shared memory to coordinate with), and who only wants to know where a
 * template is should not need a daemon. So the two files are copied, and the
 * copy is read.
 *
 * Invariants:
 *  1. Nothing of the root is written to or locked.
 *  2. A copy counts only if neither file changed while it was made (size and
 *     change time); else it is made again. What a daemon writes at that very
 *     moment may be missing, as it would a moment earlier.
 *  3. The copy is in a directory that only we can read (stores name their
 *     credential files), and is removed.
 *
 * It reads the tables that sandbox/db.c makes; the columns used here have been
 * there since they were invented, and version by version none goes.
 */
#include "pager/catalog.h"

#include "base/guard.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CATALOG_TRIES 50
#define CATALOG_PAUSE_US 20000
/* The most that a row here has. */
#define CATALOG_COLUMNS 6

struct catalog_state {
	struct stat db, log;
};

static bool catalog_same_file(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
	       a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static int catalog_stat(const char *db, const char *log,
			struct catalog_state *ret)
{
	*ret = (struct catalog_state){ 0 };
	if (stat(db, &ret->db) < 0)
		return -errno;
	if (stat(log, &ret->log) < 0 && errno != ENOENT)
		return -errno;
	return 0;
}

static int catalog_copy_file(const char *from, const char *to)
{
	guard_fd int in = open(from, O_RDONLY | O_CLOEXEC), out = -1;

	if (in < 0)
		return -errno;
	out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	return out < 0 ? -errno : io_copy_file(in, out, NULL);
}

/* -EAGAIN: it changed meanwhile. */
static int catalog_copy_once(const char *root, const char *copy)
{
	guard_free char *db = io_path("%s/byre.db", root);
	guard_free char *log = io_path("%s/byre.db-wal", root);
	guard_free char *to = io_path("%s-wal", copy);
	struct catalog_state before = { 0 }, after = { 0 };
	int r;

	if (!db || !log || !to)
		return -ENOMEM;
	err_drop(unlink(to));
	r = catalog_stat(db, log, &before);
	if (r == 0)
		r = catalog_copy_file(db, copy);
	if (r == 0)
		r = catalog_copy_file(log, to);
	if (r == -ENOENT && before.log.st_ino == 0)
		r = 0; /* there is no log */
	if (r == 0)
		r = catalog_stat(db, log, &after);
	if (r < 0)
		return r;
	return catalog_same_file(&before.db, &after.db) &&
			       catalog_same_file(&before.log, &after.log)
		       ? 0
		       : -EAGAIN;
}

static int catalog_copy(const char *root, const char *copy, struct err *e)
{
	int r = -EAGAIN;

	for (int i = 0; r == -EAGAIN && i < CATALOG_TRIES; i++) {
		if (i)
			usleep(CATALOG_PAUSE_US);
		r = catalog_copy_once(root, copy);
	}
	return r < 0 ? err_errno(e, -r, "read %s/byre.db", root) : 0;
}

static void catalog_closep(sqlite3 **db)
{
	sqlite3_close(*db);
}

static void catalog_finalizep(sqlite3_stmt **s)
{
	sqlite3_finalize(*s);
}

/* The first row: fresh strings. -ENOENT without a sentence: there is none. */
static int catalog_row(const char *path, const char *sql, const char *name,
		       char *ret[CATALOG_COLUMNS], int columns, struct err *e)
{
	guard(catalog_closep) sqlite3 *db = NULL;
	guard(catalog_finalizep) sqlite3_stmt *s = NULL;
	const unsigned char *text;
	int code;

	if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) !=
		    SQLITE_OK ||
	    sqlite3_prepare_v2(db, sql, -1, &s, NULL) != SQLITE_OK ||
	    sqlite3_bind_text(s, 1, name, -1, SQLITE_STATIC) != SQLITE_OK)
		return err_set(e, EIO, "database: %s", sqlite3_errmsg(db));
	code = sqlite3_step(s);
	if (code == SQLITE_DONE)
		return -ENOENT;
	if (code != SQLITE_ROW)
		return err_set(e, EIO, "database: %s", sqlite3_errmsg(db));
	for (int i = 0; i < columns; i++) {
		text = sqlite3_column_text(s, i);
		ret[i] = strdup(text ? (const char *)text : "");
		if (!ret[i])
			return err_errno(e, ENOMEM, "database");
	}
	return 0;
}

static int catalog_ask(const char *root, const char *sql, const char *name,
		       char *ret[CATALOG_COLUMNS], int columns, struct err *e)
{
	char dir[] = "/tmp/byre-catalog-XXXXXX";
	guard_free char *copy = NULL;
	int r;

	if (!mkdtemp(dir))
		return err_errno(e, errno, "make a directory in /tmp");
	copy = io_path("%s/db", dir);
	r = copy ? catalog_copy(root, copy, e)
		 : err_errno(e, ENOMEM, "database");
	if (r == 0)
		r = catalog_row(copy, sql, name, ret, columns, e);
	err_drop(io_remove_tree(dir, NULL));
	return r;
}

static void catalog_free_row(char *row[CATALOG_COLUMNS])
{
	for (int i = 0; i < CATALOG_COLUMNS; i++)
		free(row[i]);
}

int catalog_template(const char *root, const char *name, char **ret,
		     struct err *e)
{
	char *row[CATALOG_COLUMNS] = { NULL };
	int r = catalog_ask(root, "SELECT dir FROM templates WHERE name = ?1",
			    name, row, 1, e);

	if (r == -ENOENT && (!e || !e->code))
		err_set(e, ENOENT, "there is no template %s in %s", name, root);
	if (r == 0) {
		*ret = io_path("%s/images/%s", root, row[0]);
		if (!*ret)
			r = err_errno(e, ENOMEM, "template %s", name);
	}
	catalog_free_row(row);
	return r;
}

/* False: longer than it can be. */
static bool catalog_text(char *out, size_t size, const char *from)
{
	return snprintf(out, size, "%s", from) < (int)size;
}

int catalog_store(const char *root, const char *name, struct store_spec *ret,
		  struct err *e)
{
	char *row[CATALOG_COLUMNS] = { NULL };
	struct store_spec s = { 0 };
	int r = catalog_ask(root,
			    "SELECT name, url, endpoint, region, credentials,"
			    " ca FROM stores WHERE name = ?1",
			    name, row, 6, e);

	if (r == -ENOENT && (!e || !e->code))
		err_set(e, ENOENT, "there is no store %s in %s", name, root);
	if (r == 0 &&
	    (!catalog_text(s.name, sizeof(s.name), row[0]) ||
	     !catalog_text(s.url, sizeof(s.url), row[1]) ||
	     !catalog_text(s.endpoint, sizeof(s.endpoint), row[2]) ||
	     !catalog_text(s.region, sizeof(s.region), row[3]) ||
	     !catalog_text(s.credentials, sizeof(s.credentials), row[4]) ||
	     !catalog_text(s.ca, sizeof(s.ca), row[5])))
		r = err_set(e, EBADMSG, "store %s: a text is too long", name);
	if (r == 0)
		*ret = s;
	catalog_free_row(row);
	return r;
}
