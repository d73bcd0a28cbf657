/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A database to try things on
 */
#include "base/io.h"
#include "base/test.h"
#include "sandbox/db.h"

#include <sqlite3.h>
#include <sys/stat.h>

static char root[256];

static inline struct db *open_db(void)
{
	struct db *db = NULL;
	struct err e = ERR_NULL;

	if (db_open(root, &db, &e) < 0)
		fprintf(stderr, "%s\n", e.msg);
	check(db);
	return db;
}

/* Run SQL in a database that nobody has open. */
static inline void sql(const char *text)
{
	char path[300];
	sqlite3 *db;

	snprintf(path, sizeof(path), "%s/byre.db", root);
	check(sqlite3_open(path, &db) == SQLITE_OK);
	if (sqlite3_exec(db, text, NULL, NULL, NULL) != SQLITE_OK)
		fprintf(stderr, "%s\n", sqlite3_errmsg(db));
	check(sqlite3_errcode(db) == SQLITE_OK);
	sqlite3_close(db);
}

static inline void fresh(void)
{
	struct err e = ERR_NULL;

	check(io_remove_tree(root, &e) == 0);
	check(mkdir(root, 0700) == 0);
}
