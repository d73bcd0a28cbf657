/* SPDX-License-Identifier: Apache-2.0 */
/* Stores: kept over daemons, in a database of this version or the one before. */
#include "sandbox/stores.h"

#include "sandbox/test_db.h"

#include <errno.h>

static struct stores *open_stores(struct db *db)
{
	struct stores *s = NULL;
	struct err e = ERR_NULL;

	if (stores_new(db, &s, &e) < 0)
		fprintf(stderr, "%s\n", e.msg);
	check(s);
	return s;
}

static struct store_spec spec(const char *name, const char *url)
{
	struct store_spec s = { 0 };

	snprintf(s.name, sizeof(s.name), "%s", name);
	snprintf(s.url, sizeof(s.url), "%s", url);
	return s;
}

static void test_kept(void)
{
	struct store_spec lab = spec("lab", "s3://bucket/prefix");
	struct store_spec dir = spec("dir", "/srv/'; DROP TABLE stores; --");
	const struct store_spec *found;
	struct err e = ERR_NULL;
	struct stores *s;
	struct db *db;

	fresh();
	snprintf(lab.endpoint, sizeof(lab.endpoint), "http://127.0.0.1:9000");
	snprintf(lab.region, sizeof(lab.region), "eu-north-1");
	snprintf(lab.credentials, sizeof(lab.credentials), "/etc/keys");
	snprintf(lab.ca, sizeof(lab.ca), "/etc/ca.pem");
	db = open_db();
	s = open_stores(db);
	check(stores_count(s) == 0 && !stores_find(s, "lab"));
	check(stores_add(s, &lab, &e) == 0);
	found = stores_find(s, "lab");
	check(stores_add(s, &dir, &e) == 0);
	/* What was found stays where it is. */
	check(found == stores_find(s, "lab"));
	stores_free(s);
	db_close(db);

	db = open_db();
	s = open_stores(db);
	check(stores_count(s) == 2);
	check(!memcmp(stores_get(s, 0), &dir, sizeof(dir)));
	check(!memcmp(stores_get(s, 1), &lab, sizeof(lab)));
	check(stores_find(s, "lab") == stores_get(s, 1));
	check(stores_remove(s, "dir", &e) == 0);
	check(stores_remove(s, "dir", &e) == -ENOENT);
	check(strstr(e.msg, "dir"));
	check(stores_count(s) == 1 && !stores_find(s, "dir"));
	stores_free(s);
	s = open_stores(db);
	check(stores_count(s) == 1 && stores_find(s, "lab"));
	stores_free(s);
	db_close(db);
	check(stores_free(NULL) == NULL);
}

static void test_refused(void)
{
	struct store_spec a = spec("a", "/srv/a"), bad = spec("../x", "/srv");
	struct store_spec ftp = spec("b", "ftp://example.org/");
	struct err e = ERR_NULL;
	struct stores *s;
	struct db *db;
	char name[16];

	fresh();
	db = open_db();
	s = open_stores(db);
	check(stores_add(s, &a, &e) == 0);
	check(stores_add(s, &a, &e) == -EEXIST);
	check(strstr(e.msg, "add store a"));
	check(stores_add(s, &bad, &e) == -EINVAL);
	check(stores_add(s, &ftp, &e) == -EINVAL);
	check(stores_count(s) == 1);
	for (unsigned i = 1; i < STORES_MAX; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		a = spec(name, "/srv/a");
		check(stores_add(s, &a, &e) == 0);
	}
	a = spec("one-more", "/srv/a");
	check(stores_add(s, &a, &e) == -ENOSPC);
	stores_free(s);
	db_close(db);
	db = open_db();
	s = open_stores(db);
	check(stores_count(s) == STORES_MAX);
	for (unsigned i = 1; i < STORES_MAX; i++)
		check(strcmp(stores_get(s, i - 1)->name,
			     stores_get(s, i)->name) < 0);
	stores_free(s);
	db_close(db);
	/* A row that somebody bent. */
	sql("UPDATE stores SET url = 'gopher://x' WHERE name = 's7'");
	db = open_db();
	s = NULL;
	check(stores_new(db, &s, &e) == -EINVAL && !s);
	check(strstr(e.msg, "s7"));
	db_close(db);
}

static int count_template(const struct db_template *t, void *arg)
{
	check_str(t->name, "base");
	++*(unsigned *)arg;
	return 0;
}

/* The tables of the first version, as it made them. */
static void test_former_version(void)
{
	struct store_spec a = spec("a", "/srv/a");
	struct err e = ERR_NULL;
	struct stores *s;
	struct db *db;
	unsigned n = 0;

	fresh();
	sql("CREATE TABLE templates ("
	    " name TEXT PRIMARY KEY, dir TEXT NOT NULL, created TEXT NOT NULL);"
	    "CREATE TABLE sandboxes ("
	    " id TEXT PRIMARY KEY, name TEXT NOT NULL, template TEXT NOT NULL,"
	    " state INT NOT NULL, pid INT, start_ticks INT, slot INT,"
	    " created_ns INT, ends_ns INT, memory_bytes INT, vcpus INT, net"
	    " INT, cause TEXT NOT NULL, spawn_ns INT, load_ns INT, identity_ns"
	    " INT, ready_ns INT, total_ns INT);"
	    "CREATE TABLE bakes (id TEXT PRIMARY KEY);"
	    "INSERT INTO templates VALUES ('base', 'im1', 'then');"
	    "PRAGMA user_version=1;");
	db = open_db();
	check(db_templates(db, count_template, &n, &e) == 0 && n == 1);
	s = open_stores(db);
	check(stores_count(s) == 0);
	check(stores_add(s, &a, &e) == 0);
	stores_free(s);
	db_close(db);
	/* And once more, now that it is of this version. */
	db = open_db();
	s = open_stores(db);
	check(stores_count(s) == 1);
	stores_free(s);
	db_close(db);
}

int main(void)
{
	struct err e = ERR_NULL;

	test_dir(root, sizeof(root));
	test_kept();
	test_refused();
	test_former_version();
	check(io_remove_tree(root, &e) == 0);
	return 0;
}
