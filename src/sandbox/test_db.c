/* SPDX-License-Identifier: Apache-2.0 */
/* What goes into the database comes out of it, also for the next daemon. */
#include "sandbox/test_db.h"

#include "base/guard.h"

#include <errno.h>
#include <fcntl.h>

/* ---- rows ---- */

struct rows {
	unsigned n;
	struct db_sandbox sandbox[4];
	struct db_template template[4];
	char bake[4][64];
	int answer;
};

static int keep_sandbox(const struct db_sandbox *s, void *arg)
{
	struct rows *r = arg;

	check(r->n < 4);
	r->sandbox[r->n++] = *s;
	return r->answer;
}

static int keep_template(const struct db_template *t, void *arg)
{
	struct rows *r = arg;

	check(r->n < 4);
	r->template[r->n++] = *t;
	return r->answer;
}

static int keep_bake(const char *id, void *arg)
{
	struct rows *r = arg;

	check(r->n < 4);
	snprintf(r->bake[r->n++], sizeof(r->bake[0]), "%s", id);
	return r->answer;
}

static void same_sandbox(const struct db_sandbox *a, const struct db_sandbox *b)
{
	check_str(a->id, b->id);
	check_str(a->name, b->name);
	check_str(a->template, b->template);
	check_str(a->cause, b->cause);
	check_str(a->layer, b->layer);
	check_str(a->store, b->store);
	check_str(a->paused_because, b->paused_because);
	check_str(a->image, b->image);
	check(a->zero_bytes == b->zero_bytes);
	check(a->state == b->state && a->proc.pid == b->proc.pid);
	check(a->proc.start_ticks == b->proc.start_ticks);
	check(a->slot == b->slot && a->vcpus == b->vcpus && a->net == b->net);
	check(a->created_ns == b->created_ns && a->ends_ns == b->ends_ns);
	check(a->memory_bytes == b->memory_bytes);
	check(!memcmp(&a->timings, &b->timings, sizeof(a->timings)));
}

static void test_sandboxes(void)
{
	/* The largest of everything, and what SQL might trip over. */
	struct db_sandbox big = {
		.id = "sb0123456789ab",
		.name = "'; DROP TABLE sandboxes; --",
		.template = "t",
		.state = SANDBOX_FAILED,
		.proc = { .pid = 4194303, .start_ticks = ~0ull },
		.slot = ~0u,
		.created_ns = 2,
		.ends_ns = ~0ull,
		.memory_bytes = 1ull << 63,
		.vcpus = 288,
		.net = true,
		.layer = "im0123456789ab",
		.store = "far",
		.paused_because = "the disk's full",
		.image = "im9876543210ab",
		.zero_bytes = 1ull << 62,
		.timings = { 1, 2, 3, 4, ~0ull },
	};
	struct db_sandbox small = { .id = "a", .created_ns = 1 };
	struct rows r = { 0 };
	struct err e = ERR_NULL;
	struct db *db;

	fresh();
	memset(big.cause, 'c', sizeof(big.cause) - 1);
	memset(big.template, 't', sizeof(big.template) - 1);
	db = open_db();
	check(db_sandboxes(db, keep_sandbox, &r, &e) == 0 && r.n == 0);
	check(db_sandbox_put(db, &big, &e) == 0);
	check(db_sandbox_put(db, &small, &e) == 0);
	check(db_sandboxes(db, keep_sandbox, &r, &e) == 0 && r.n == 2);
	/* Oldest first. */
	same_sandbox(&r.sandbox[0], &small);
	same_sandbox(&r.sandbox[1], &big);
	/* Again: replaced. */
	small.state = SANDBOX_PAUSED;
	snprintf(small.cause, sizeof(small.cause), "what for");
	check(db_sandbox_put(db, &small, &e) == 0);
	r = (struct rows){ 0 };
	check(db_sandboxes(db, keep_sandbox, &r, &e) == 0 && r.n == 2);
	same_sandbox(&r.sandbox[0], &small);
	/* A result of the callback ends it; the next read works. */
	r = (struct rows){ .answer = -E2BIG };
	check(db_sandboxes(db, keep_sandbox, &r, &e) == -E2BIG && r.n == 1);
	r = (struct rows){ 0 };
	check(db_sandboxes(db, keep_sandbox, &r, &e) == 0 && r.n == 2);
	/* The next daemon has them. */
	db_close(db);
	db = open_db();
	r = (struct rows){ 0 };
	check(db_sandboxes(db, keep_sandbox, &r, &e) == 0 && r.n == 2);
	same_sandbox(&r.sandbox[1], &big);
	check(db_sandbox_delete(db, big.id, &e) == 0);
	check(db_sandbox_delete(db, big.id, &e) == 0);
	check(db_sandbox_delete(db, "' OR 1=1", &e) == 0);
	r = (struct rows){ 0 };
	check(db_sandboxes(db, keep_sandbox, &r, &e) == 0 && r.n == 1);
	db_close(db);
	check(db_close(NULL) == NULL);
}

static void test_templates_and_bakes(void)
{
	struct db_template t = { "base", "im1", "2026-01-01T00:00:00Z", "" };
	struct db_template u = { "alpha", "im2", "2026-01-02T00:00:00Z", "" };
	struct rows r = { 0 };
	struct err e = ERR_NULL;
	struct db *db;

	fresh();
	db = open_db();
	check(db_template_put(db, &t, &e) == 0);
	check(db_template_put(db, &u, &e) == 0);
	memset(t.manifest_sha256, 'a', sizeof(t.manifest_sha256) - 1);
	snprintf(t.dir, sizeof(t.dir), "im3");
	check(db_template_put(db, &t, &e) == 0);
	check(db_sync(db, &e) == 0);
	check(db_templates(db, keep_template, &r, &e) == 0 && r.n == 2);
	check_str(r.template[0].name, "alpha");
	check_str(r.template[1].dir, "im3");
	check_str(r.template[1].created, t.created);
	check_str(r.template[1].manifest_sha256, t.manifest_sha256);
	check_str(r.template[0].manifest_sha256, "");
	check(db_template_delete(db, "base", &e) == 0);
	check(db_template_delete(db, "base", &e) == 0);
	r = (struct rows){ .answer = -ENOMEM };
	check(db_templates(db, keep_template, &r, &e) == -ENOMEM && r.n == 1);

	check(db_bake_put(db, "bk1", &e) == 0);
	check(db_bake_put(db, "bk1", &e) == 0);
	check(db_bake_put(db, "bk2", &e) == 0);
	check(db_bake_delete(db, "bk2", &e) == 0);
	r = (struct rows){ 0 };
	check(db_bakes(db, keep_bake, &r, &e) == 0 && r.n == 1);
	check_str(r.bake[0], "bk1");
	db_close(db);
}

/* ---- one daemon; killed; other versions; rubbish ---- */

static void test_lock(void)
{
	struct err e = ERR_NULL;
	struct db *db, *second = NULL;
	char pid[16];

	fresh();
	db = open_db();
	snprintf(pid, sizeof(pid), "%d)", getpid());
	check(db_open(root, &second, &e) == -EBUSY && !second);
	check(strstr(e.msg, root) && strstr(e.msg, pid));
	db_close(db);
	db = open_db();
	db_close(db);
	/* Left by somebody with a longer pid. */
	{
		char path[300];
		guard_fd int fd = -1;

		snprintf(path, sizeof(path), "%s/lock", root);
		fd = open(path, O_WRONLY | O_CLOEXEC);
		check(fd >= 0 && write(fd, "99999999999999", 14) == 14);
	}
	db = open_db();
	e = (struct err)ERR_NULL;
	check(db_open(root, &second, &e) == -EBUSY && strstr(e.msg, pid));
	db_close(db);
}

/* kill -9 in the middle of many changes: all that was answered is there. */
static void test_killed(void)
{
	struct rows r = { 0 };
	struct err e = ERR_NULL;
	struct db *db;
	int fds[2], status;
	char last = 0;
	pid_t pid;

	fresh();
	check(pipe2(fds, O_CLOEXEC) == 0);
	pid = fork();
	check(pid >= 0);
	if (pid == 0) {
		struct db_sandbox s = { .id = "sb" };

		db = open_db();
		for (char i = 1; i < 100; i++) {
			s.slot = (uint32_t)i;
			check(db_sandbox_put(db, &s, &e) == 0);
			check(write(fds[1], &i, 1) == 1);
		}
		for (;;)
			pause();
	}
	close(fds[1]);
	while (last < 60)
		check(read(fds[0], &last, 1) == 1);
	kill(pid, SIGKILL);
	check(waitpid(pid, &status, 0) == pid);
	while (read(fds[0], &last, 1) == 1)
		;
	close(fds[0]);
	db = open_db();
	check(db_sandboxes(db, keep_sandbox, &r, &e) == 0 && r.n == 1);
	check(r.sandbox[0].slot >= (uint32_t)last);
	db_close(db);
}

/* What the first version left, with a sandbox and a template in it. */
static void test_first_version(void)
{
	static const char first[] =
		"CREATE TABLE templates (name TEXT PRIMARY KEY,"
		" dir TEXT NOT NULL, created TEXT NOT NULL);"
		"CREATE TABLE sandboxes (id TEXT PRIMARY KEY,"
		" name TEXT NOT NULL, template TEXT NOT NULL,"
		" state INT NOT NULL, pid INT, start_ticks INT, slot INT,"
		" created_ns INT, ends_ns INT, memory_bytes INT, vcpus INT,"
		" net INT, cause TEXT NOT NULL, spawn_ns INT, load_ns INT,"
		" identity_ns INT, ready_ns INT, total_ns INT);"
		"CREATE TABLE bakes (id TEXT PRIMARY KEY);"
		"INSERT INTO sandboxes VALUES ('sb1', 'one', 'base', 1, 77, 78,"
		" 79, 80, 0, 81, 1, 0, '', 1, 2, 3, 4, 10);"
		"INSERT INTO templates VALUES ('base', 'im1', 'then');"
		"PRAGMA user_version=1;";
	struct err e = ERR_NULL;
	struct db_sandbox row;
	struct db *db;

	fresh();
	sql(first);
	for (unsigned i = 0; i < 2; i++) {
		struct rows r = { 0 };

		db = open_db();
		check(db_sandboxes(db, keep_sandbox, &r, &e) == 0 && r.n == 1);
		row = r.sandbox[0];
		check_str(row.id, "sb1");
		check(row.proc.pid == 77 && row.timings.total_ns == 10);
		check_str(row.layer, "");
		check_str(row.store, "");
		check_str(row.paused_because, "");
		check(!row.image[0] && row.zero_bytes == 0);
		check(db_sandbox_put(db, &row, &e) == 0);
		r.n = 0;
		check(db_templates(db, keep_template, &r, &e) == 0 && r.n == 1);
		check_str(r.template[0].dir, "im1");
		check_str(r.template[0].manifest_sha256, "");
		db_close(db);
	}
}

static void test_other_version(void)
{
	struct err e = ERR_NULL;
	struct db *db = open_db();

	db_close(db);
	sql("PRAGMA user_version=999");
	db = NULL;
	check(db_open(root, &db, &e) == -ENOTSUP && !db);
	check(strstr(e.msg, "999"));
}

static void test_rubbish(void)
{
	struct err e = ERR_NULL;
	struct db *db = NULL;
	char path[300];
	char junk[8192];
	FILE *f;

	fresh();
	snprintf(path, sizeof(path), "%s/byre.db", root);
	memset(junk, 'j', sizeof(junk));
	f = fopen(path, "w");
	check(f && fwrite(junk, sizeof(junk), 1, f) == 1 && fclose(f) == 0);
	check(db_open(root, &db, &e) == -EBADMSG && !db);
	check(*e.msg);
	/* Nowhere. */
	e = (struct err)ERR_NULL;
	check(db_open("/no/such/dir", &db, &e) == -ENOENT);
	check(strstr(e.msg, "/no/such/dir"));
}

int main(void)
{
	struct err e = ERR_NULL;

	test_dir(root, sizeof(root));
	test_sandboxes();
	test_templates_and_bakes();
	test_lock();
	test_killed();
	test_first_version();
	test_other_version();
	test_rubbish();
	check(io_remove_tree(root, &e) == 0);
	return 0;
}
