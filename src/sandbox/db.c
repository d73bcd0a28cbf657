/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SQLite, and nothing of SQL above it
 *
 * Statements are prepared once. Every function is one statement, so every
 * change is its own transaction. They run in the loop: with the write-ahead log
 * and no fsync a commit is some tens of microseconds, less than handing it to
 * a worker and back.
 *
 * The lock is for good (locking_mode=EXCLUSIVE): there is one daemon anyway, and
 * then the index of the log is in memory. As a mapped file it kills the daemon
 * with SIGBUS when the disk is full and its blocks are smaller than a page. To
 * look into a living database, copy byre.db and byre.db-wal.
 */
#include "sandbox/db.h"

#include "base/guard.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

/* Room for the log on disk. SQLite starts it anew at 1000 pages of 4 KiB
 * (wal_autocheckpoint), each with 24 bytes of its own. */
#define DB_LOG_RESERVE (5ll << 20)

enum db_statement {
	DB_TEMPLATE_PUT,
	DB_TEMPLATE_DELETE,
	DB_TEMPLATES,
	DB_SANDBOX_PUT,
	DB_SANDBOX_DELETE,
	DB_SANDBOXES,
	DB_BAKE_PUT,
	DB_BAKE_DELETE,
	DB_BAKES,
	DB_STORE_PUT,
	DB_STORE_DELETE,
	DB_STORES,
	DB_STATEMENT_COUNT,
};

static const char *const db_sql[] = {
	[DB_TEMPLATE_PUT] = "INSERT OR REPLACE INTO templates"
			    " (name, dir, created, manifest_sha256)"
			    " VALUES (?1, ?2, ?3, ?4)",
	[DB_TEMPLATE_DELETE] = "DELETE FROM templates WHERE name = ?1",
	[DB_TEMPLATES] = "SELECT name, dir, created, manifest_sha256"
			 " FROM templates ORDER BY name",
	[DB_SANDBOX_PUT] =
		"INSERT OR REPLACE INTO sandboxes (id, name, template, state,"
		" pid, start_ticks, slot, created_ns, ends_ns, memory_bytes,"
		" vcpus, net, cause, spawn_ns, load_ns, identity_ns, ready_ns,"
		" total_ns, layer, store, paused_because, image, zero_bytes)"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12,"
		" ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23)",
	[DB_SANDBOX_DELETE] = "DELETE FROM sandboxes WHERE id = ?1",
	[DB_SANDBOXES] =
		"SELECT id, name, template, state, pid, start_ticks, slot,"
		" created_ns, ends_ns, memory_bytes, vcpus, net, cause,"
		" spawn_ns, load_ns, identity_ns, ready_ns, total_ns, layer,"
		" store, paused_because, image, zero_bytes FROM sandboxes"
		" ORDER BY created_ns",
	[DB_BAKE_PUT] = "INSERT OR REPLACE INTO bakes (id) VALUES (?1)",
	[DB_BAKE_DELETE] = "DELETE FROM bakes WHERE id = ?1",
	[DB_BAKES] = "SELECT id FROM bakes",
	[DB_STORE_PUT] = "INSERT OR REPLACE INTO stores (name, url, endpoint,"
			 " region, credentials, ca)"
			 " VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
	[DB_STORE_DELETE] = "DELETE FROM stores WHERE name = ?1",
	[DB_STORES] = "SELECT name, url, endpoint, region, credentials, ca"
		      " FROM stores ORDER BY name",
};
_Static_assert(nitems(db_sql) == DB_STATEMENT_COUNT, "SQL for each");

/*
 * What makes a database of version i one of version i + 1. A new one takes all
 * of them, one that an older byre left takes the rest; one of a newer byre is
 * refused. A step that was released never changes: what comes goes into the
 * next. Each is applied with its version, all or nothing.
 */
static const char *const db_steps[] = {
	"CREATE TABLE IF NOT EXISTS templates ("
	" name TEXT PRIMARY KEY, dir TEXT NOT NULL, created TEXT NOT NULL);"
	"CREATE TABLE IF NOT EXISTS sandboxes ("
	" id TEXT PRIMARY KEY, name TEXT NOT NULL, template TEXT NOT NULL,"
	" state INT NOT NULL, pid INT, start_ticks INT, slot INT,"
	" created_ns INT, ends_ns INT, memory_bytes INT, vcpus INT, net INT,"
	" cause TEXT NOT NULL, spawn_ns INT, load_ns INT, identity_ns INT,"
	" ready_ns INT, total_ns INT);"
	"CREATE TABLE IF NOT EXISTS bakes (id TEXT PRIMARY KEY);",
	/* 2: templates come from stores */
	"CREATE TABLE stores ("
	" name TEXT PRIMARY KEY, url TEXT NOT NULL, endpoint TEXT NOT NULL,"
	" region TEXT NOT NULL, credentials TEXT NOT NULL, ca TEXT NOT NULL);",
	/* 3: sandboxes run from layers that are still being streamed */
	("ALTER TABLE sandboxes ADD COLUMN layer TEXT NOT NULL DEFAULT '';"
	 "ALTER TABLE sandboxes ADD COLUMN store TEXT NOT NULL DEFAULT '';"),
	/* 4: a VMM stops its guest by itself */
	"ALTER TABLE sandboxes ADD COLUMN paused_because TEXT NOT NULL"
	" DEFAULT '';",
	/* 5: a manifest is known by its digest */
	"ALTER TABLE templates ADD COLUMN manifest_sha256 TEXT NOT NULL"
	" DEFAULT '';",
	/* 6: templates are replaced, and sandboxes still map the old image */
	("ALTER TABLE sandboxes ADD COLUMN image TEXT NOT NULL DEFAULT '';"
	 "ALTER TABLE sandboxes ADD COLUMN zero_bytes INT NOT NULL DEFAULT 0;"),
};
#define DB_VERSION ((int)nitems(db_steps))

struct db {
	sqlite3 *sql;
	sqlite3_stmt *statement[DB_STATEMENT_COUNT];
	int lock_fd;
};

static int db_error(struct db *db, const char *what, struct err *e)
{
	int code = sqlite3_errcode(db->sql);
	int r = EIO;

	if (code == SQLITE_FULL)
		r = ENOSPC;
	else if (code == SQLITE_CANTOPEN)
		r = ENOENT;
	else if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB)
		r = EBADMSG;
	return err_set(e, r, "database: %s: %s", what, sqlite3_errmsg(db->sql));
}

/* One daemon per root. */
static int db_lock(struct db *db, const char *root, struct err *e)
{
	guard_free char *path = io_path("%s/lock", root);
	char pid[32] = "";

	if (!path)
		return err_errno(e, ENOMEM, "lock %s", root);
	db->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (db->lock_fd < 0)
		return err_errno(e, errno, "open %s", path);
	if (flock(db->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		err_drop((int)pread(db->lock_fd, pid, sizeof(pid) - 1, 0));
		return err_set(e, EBUSY,
			       "%s is in use by another daemon (pid %d)", root,
			       atoi(pid));
	}
	/* Over the old one, always as long: a full disk can take it. It is
	 * for the sentence above only, so it may fail. */
	snprintf(pid, sizeof(pid), "%-15d", getpid());
	err_drop((int)pwrite(db->lock_fd, pid, strlen(pid), 0));
	return 0;
}

static int db_int(void *ret, unused int n, char **values, unused char **names)
{
	*(int *)ret = values[0] ? atoi(values[0]) : 0;
	return 0;
}

/* Bring a database of version @have to ours. */
static int db_migrate(struct db *db, int have, struct err *e)
{
	for (; have < DB_VERSION; have++) {
		guard_free char *sql =
			io_path("BEGIN;%sPRAGMA user_version=%d;COMMIT;",
				db_steps[have], have + 1);

		if (!sql)
			return err_errno(e, ENOMEM, "database");
		if (sqlite3_exec(db->sql, sql, NULL, NULL, NULL) != SQLITE_OK)
			return db_error(db, "create tables", e);
	}
	return 0;
}

static int db_prepare(struct db *db, struct err *e)
{
	int r, have = 0, persist = 1;

	sqlite3_busy_timeout(db->sql, 2000);
	/* The log stays when we end, and with it its room on the disk. */
	sqlite3_file_control(db->sql, "main", SQLITE_FCNTL_PERSIST_WAL,
			     &persist);
	if (sqlite3_exec(db->sql,
			 "PRAGMA locking_mode=EXCLUSIVE;"
			 "PRAGMA journal_mode=WAL;"
			 "PRAGMA synchronous=NORMAL;",
			 NULL, NULL, NULL) != SQLITE_OK ||
	    sqlite3_exec(db->sql, "PRAGMA user_version", db_int, &have, NULL) !=
		    SQLITE_OK)
		return db_error(db, "open", e);
	if (have < 0 || have > DB_VERSION)
		return err_set(e, ENOTSUP,
			       "database: version %d, this byre knows %d", have,
			       DB_VERSION);
	r = db_migrate(db, have, e);
	if (r < 0)
		return r;
	for (int i = 0; i < DB_STATEMENT_COUNT; i++)
		if (sqlite3_prepare_v3(db->sql, db_sql[i], -1,
				       SQLITE_PREPARE_PERSISTENT,
				       &db->statement[i], NULL) != SQLITE_OK)
			return db_error(db, db_sql[i], e);
	return 0;
}

/*
 * Deleting a row must work on a full disk: it is how room is made. The log is
 * the only file a small change grows, so its blocks are taken now, beyond its
 * end. A file system that cannot do that, or is full already, has to take
 * what comes.
 */
static void db_reserve(const char *path)
{
	guard_free char *log = io_path("%s-wal", path);
	guard_fd int fd = log ? open(log, O_RDWR | O_CLOEXEC) : -1;

	if (fd >= 0)
		err_drop(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, DB_LOG_RESERVE));
}

int db_open(const char *root, struct db **ret, struct err *e)
{
	guard_free char *path = io_path("%s/byre.db", root);
	struct db *db = calloc(1, sizeof(*db));
	int r;

	if (!db || !path) {
		free(db);
		return err_errno(e, ENOMEM, "database");
	}
	db->lock_fd = -1;
	r = db_lock(db, root, e);
	if (r == 0 &&
	    sqlite3_open_v2(path, &db->sql,
			    SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE |
				    SQLITE_OPEN_NOMUTEX,
			    NULL) != SQLITE_OK)
		r = db_error(db, path, e);
	if (r == 0)
		r = db_prepare(db, e);
	if (r == 0)
		db_reserve(path);
	if (r < 0) {
		db_close(db);
		return r;
	}
	*ret = db;
	return 0;
}

struct db *db_close(struct db *db)
{
	if (!db)
		return NULL;
	for (int i = 0; i < DB_STATEMENT_COUNT; i++)
		sqlite3_finalize(db->statement[i]);
	sqlite3_close(db->sql);
	fd_close(&db->lock_fd);
	free(db);
	return NULL;
}

int db_sync(struct db *db, struct err *e)
{
	if (sqlite3_wal_checkpoint_v2(db->sql, NULL, SQLITE_CHECKPOINT_FULL,
				      NULL, NULL) != SQLITE_OK)
		return db_error(db, "sync", e);
	return 0;
}

/* ---- statements ---- */

static void db_text(sqlite3_stmt *s, int i, const char *text)
{
	sqlite3_bind_text(s, i, text, -1, SQLITE_STATIC);
}

static void db_u64(sqlite3_stmt *s, int i, uint64_t v)
{
	sqlite3_bind_int64(s, i, (sqlite3_int64)v);
}

static int db_run(struct db *db, enum db_statement which, const char *what,
		  struct err *e)
{
	sqlite3_stmt *s = db->statement[which];
	int code = sqlite3_step(s);
	int r = code == SQLITE_DONE ? 0 : db_error(db, what, e);

	sqlite3_reset(s);
	sqlite3_clear_bindings(s);
	return r;
}

static void db_column(sqlite3_stmt *s, int i, char *out, size_t size)
{
	const unsigned char *text = sqlite3_column_text(s, i);

	snprintf(out, size, "%s", text ? (const char *)text : "");
}

static uint64_t db_column_u64(sqlite3_stmt *s, int i)
{
	return (uint64_t)sqlite3_column_int64(s, i);
}

struct db_each {
	db_template_fn template;
	db_sandbox_fn sandbox;
	db_bake_fn bake;
	db_store_fn store;
};

/* Every row of a SELECT. */
static int db_rows(struct db *db, enum db_statement which,
		   const struct db_each *each,
		   int (*row)(sqlite3_stmt *, const struct db_each *, void *),
		   void *arg, struct err *e)
{
	sqlite3_stmt *s = db->statement[which];
	int code, r = 0;

	while ((code = sqlite3_step(s)) == SQLITE_ROW) {
		r = row(s, each, arg);
		if (r < 0)
			break;
	}
	if (r == 0 && code != SQLITE_DONE)
		r = db_error(db, "read", e);
	sqlite3_reset(s);
	return r;
}

int db_template_put(struct db *db, const struct db_template *t, struct err *e)
{
	sqlite3_stmt *s = db->statement[DB_TEMPLATE_PUT];

	db_text(s, 1, t->name);
	db_text(s, 2, t->dir);
	db_text(s, 3, t->created);
	db_text(s, 4, t->manifest_sha256);
	return db_run(db, DB_TEMPLATE_PUT, "record a template", e);
}

int db_template_delete(struct db *db, const char *name, struct err *e)
{
	db_text(db->statement[DB_TEMPLATE_DELETE], 1, name);
	return db_run(db, DB_TEMPLATE_DELETE, "forget a template", e);
}

static int db_template_row(sqlite3_stmt *s, const struct db_each *each,
			   void *arg)
{
	struct db_template t;

	db_column(s, 0, t.name, sizeof(t.name));
	db_column(s, 1, t.dir, sizeof(t.dir));
	db_column(s, 2, t.created, sizeof(t.created));
	db_column(s, 3, t.manifest_sha256, sizeof(t.manifest_sha256));
	return each->template(&t, arg);
}

int db_templates(struct db *db, db_template_fn fn, void *arg, struct err *e)
{
	struct db_each each = { .template = fn };

	return db_rows(db, DB_TEMPLATES, &each, db_template_row, arg, e);
}

int db_sandbox_put(struct db *db, const struct db_sandbox *b, struct err *e)
{
	sqlite3_stmt *s = db->statement[DB_SANDBOX_PUT];

	db_text(s, 1, b->id);
	db_text(s, 2, b->name);
	db_text(s, 3, b->template);
	sqlite3_bind_int(s, 4, (int)b->state);
	sqlite3_bind_int(s, 5, b->proc.pid);
	db_u64(s, 6, b->proc.start_ticks);
	db_u64(s, 7, b->slot);
	db_u64(s, 8, b->created_ns);
	db_u64(s, 9, b->ends_ns);
	db_u64(s, 10, b->memory_bytes);
	db_u64(s, 11, b->vcpus);
	sqlite3_bind_int(s, 12, b->net);
	db_text(s, 13, b->cause);
	db_u64(s, 14, b->timings.spawn_ns);
	db_u64(s, 15, b->timings.load_ns);
	db_u64(s, 16, b->timings.identity_ns);
	db_u64(s, 17, b->timings.ready_ns);
	db_u64(s, 18, b->timings.total_ns);
	db_text(s, 19, b->layer);
	db_text(s, 20, b->store);
	db_text(s, 21, b->paused_because);
	db_text(s, 22, b->image);
	db_u64(s, 23, b->zero_bytes);
	return db_run(db, DB_SANDBOX_PUT, "record a sandbox", e);
}

int db_sandbox_delete(struct db *db, const char *id, struct err *e)
{
	db_text(db->statement[DB_SANDBOX_DELETE], 1, id);
	return db_run(db, DB_SANDBOX_DELETE, "forget a sandbox", e);
}

static int db_sandbox_row(sqlite3_stmt *s, const struct db_each *each,
			  void *arg)
{
	struct db_sandbox b = { 0 };
	int state = sqlite3_column_int(s, 3);

	db_column(s, 0, b.id, sizeof(b.id));
	db_column(s, 1, b.name, sizeof(b.name));
	db_column(s, 2, b.template, sizeof(b.template));
	if (state < 0 || state >= SANDBOX_STATE_COUNT)
		state = SANDBOX_FAILED;
	b.state = (enum sandbox_state)state;
	b.proc.pid = sqlite3_column_int(s, 4);
	b.proc.start_ticks = db_column_u64(s, 5);
	b.slot = (uint32_t)db_column_u64(s, 6);
	b.created_ns = db_column_u64(s, 7);
	b.ends_ns = db_column_u64(s, 8);
	b.memory_bytes = db_column_u64(s, 9);
	b.vcpus = (uint32_t)db_column_u64(s, 10);
	b.net = sqlite3_column_int(s, 11) != 0;
	db_column(s, 12, b.cause, sizeof(b.cause));
	b.timings.spawn_ns = db_column_u64(s, 13);
	b.timings.load_ns = db_column_u64(s, 14);
	b.timings.identity_ns = db_column_u64(s, 15);
	b.timings.ready_ns = db_column_u64(s, 16);
	b.timings.total_ns = db_column_u64(s, 17);
	db_column(s, 18, b.layer, sizeof(b.layer));
	db_column(s, 19, b.store, sizeof(b.store));
	db_column(s, 20, b.paused_because, sizeof(b.paused_because));
	db_column(s, 21, b.image, sizeof(b.image));
	b.zero_bytes = db_column_u64(s, 22);
	return each->sandbox(&b, arg);
}

int db_sandboxes(struct db *db, db_sandbox_fn fn, void *arg, struct err *e)
{
	struct db_each each = { .sandbox = fn };

	return db_rows(db, DB_SANDBOXES, &each, db_sandbox_row, arg, e);
}

int db_bake_put(struct db *db, const char *id, struct err *e)
{
	db_text(db->statement[DB_BAKE_PUT], 1, id);
	return db_run(db, DB_BAKE_PUT, "record a bake", e);
}

int db_bake_delete(struct db *db, const char *id, struct err *e)
{
	db_text(db->statement[DB_BAKE_DELETE], 1, id);
	return db_run(db, DB_BAKE_DELETE, "forget a bake", e);
}

static int db_bake_row(sqlite3_stmt *s, const struct db_each *each, void *arg)
{
	char id[64];

	db_column(s, 0, id, sizeof(id));
	return each->bake(id, arg);
}

int db_bakes(struct db *db, db_bake_fn fn, void *arg, struct err *e)
{
	struct db_each each = { .bake = fn };

	return db_rows(db, DB_BAKES, &each, db_bake_row, arg, e);
}

int db_store_put(struct db *db, const struct store_spec *spec, struct err *e)
{
	sqlite3_stmt *s = db->statement[DB_STORE_PUT];

	db_text(s, 1, spec->name);
	db_text(s, 2, spec->url);
	db_text(s, 3, spec->endpoint);
	db_text(s, 4, spec->region);
	db_text(s, 5, spec->credentials);
	db_text(s, 6, spec->ca);
	return db_run(db, DB_STORE_PUT, "record a store", e);
}

int db_store_delete(struct db *db, const char *name, struct err *e)
{
	db_text(db->statement[DB_STORE_DELETE], 1, name);
	return db_run(db, DB_STORE_DELETE, "forget a store", e);
}

static int db_store_row(sqlite3_stmt *s, const struct db_each *each, void *arg)
{
	struct store_spec spec = { 0 };

	db_column(s, 0, spec.name, sizeof(spec.name));
	db_column(s, 1, spec.url, sizeof(spec.url));
	db_column(s, 2, spec.endpoint, sizeof(spec.endpoint));
	db_column(s, 3, spec.region, sizeof(spec.region));
	db_column(s, 4, spec.credentials, sizeof(spec.credentials));
	db_column(s, 5, spec.ca, sizeof(spec.ca));
	return each->store(&spec, arg);
}

int db_stores(struct db *db, db_store_fn fn, void *arg, struct err *e)
{
	struct db_each each = { .store = fn };

	return db_rows(db, DB_STORES, &each, db_store_row, arg, e);
}
