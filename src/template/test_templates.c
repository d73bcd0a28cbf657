/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Templates: a manifest that is not the published one is refused, also when
 * only the name of it is known
 */
#include "template/template.h"

#include "base/clock.h"
#include "base/loop.h"
#include "base/log.h"
#include "base/worker.h"
#include "pager/test_image.h"
#include "sandbox/db.h"
#include "vmm/vmm.h"

#define MEMORY (8ull << 20)

/* ---- fakes: who uses a template, and which states this host can load ---- */

size_t registry_uses(unused const struct registry *r,
		     unused const char *template)
{
	return 0;
}

int vmm_host_accepts(unused const struct vmm_host *h,
		     unused const struct vmm_flavor *f, unused struct err *e)
{
	return 0;
}

/* ---- stage ---- */

static char root[128];
static struct loop loop;
static struct worker *worker;
static struct db *db;
static struct templates *templates;

static void start(void)
{
	struct err e = ERR_NULL;

	sample_ok(loop_init(&loop, &e), &e);
	sample_ok(worker_new(&loop, 1, &worker, &e), &e);
	sample_ok(db_open(root, &db, &e), &e);
	sample_ok(templates_new(&loop, worker, NULL, db, root, &templates, &e),
		  &e);
}

static void stop(void)
{
	worker = worker_free(
		worker); /* as the daemon does: its jobs end first */
	templates = templates_free(templates);
	db = db_close(db);
	loop_deinit(&loop);
}

struct answer {
	bool come;
	struct err e;
};

static void found(void *arg, struct image *image, const struct err *e)
{
	struct answer *a = arg;

	check(!image == !!e->code);
	a->come = true;
	a->e = *e;
}

/* "": it can be had. */
static const char *look_up(const char *name)
{
	struct registry_templates ops = templates_lookup_ops(templates);
	uint64_t until_ns = clock_mono_ns() + 10 * NS_PER_SEC;
	static struct answer a;
	struct err e = ERR_NULL;

	a = (struct answer){ 0 };
	ops.lookup(ops.self, name, found, &a);
	while (!a.come && clock_mono_ns() < until_ns)
		check(loop_turn(&loop, 10, &e) == 0);
	check(a.come);
	return a.e.msg;
}

static void refused(const char *name, const char *part)
{
	const char *msg = look_up(name);

	if (!strstr(msg, part)) {
		fprintf(stderr, "\"%s\" has no \"%s\"\n", msg, part);
		exit(1);
	}
	check(strstr(templates_find(templates, name).problem, part));
}

static void publish(const char *name)
{
	char dir[200];
	struct err e = ERR_NULL;

	snprintf(dir, sizeof(dir), "%s/new", root);
	sample_image(dir, MEMORY, 1 << 20);
	sample_ok(templates_publish(templates, name, dir, true, &e), &e);
}

static int keep_row(const struct db_template *t, void *arg)
{
	*(struct db_template *)arg = *t;
	return 0;
}

static struct db_template row(void)
{
	struct db_template t = { 0 };
	struct err e = ERR_NULL;

	sample_ok(db_templates(db, keep_row, &t, &e), &e);
	return t;
}

/* As a byre that knew no digests left it. */
static void forget_digest(void)
{
	struct db_template t;
	struct err e = ERR_NULL;

	sample_ok(db_open(root, &db, &e), &e);
	t = row();
	t.manifest_sha256[0] = '\0';
	sample_ok(db_template_put(db, &t, &e), &e);
	db = db_close(db);
}

/* In its manifest, the first @from becomes @to, which is as long. */
static void change(const char *from, const char *to)
{
	struct db_template t = row();
	guard_free char *path =
		io_path("%s/images/%s/" IMAGE_MANIFEST_NAME, root, t.dir);
	guard_free char *text = NULL;
	char *at;
	struct err e = ERR_NULL;

	sample_ok(io_read_file(path, IMAGE_MANIFEST_MAX, &text, NULL, &e), &e);
	at = strstr(text, from);
	check(at && strlen(from) == strlen(to));
	memcpy(at, to, strlen(to));
	sample_ok(io_write_file(path, text, strlen(text), 0444, &e), &e);
}

/* ---- stories ---- */

static const char *const lies[][2] = {
	{ "\"vcpus\": 1", "\"vcpus\": 3" },
	{ "\"share\": false", "\"share\":  true" },
	{ "\"name\": \"sample\"", "\"name\": \"simple\"" },
	{ "\"boot_ms\": 0", "\"boot_ms\": 8" },
	{ "\"format\": 1", "\"format\": 3" },
	{ "{", "[" },
};

static void test_digest(void)
{
	static const char why[] = "manifest.json: its digest is not the "
				  "recorded one";

	start();
	publish("sample");
	check(strlen(row().manifest_sha256) == DIGEST_HEX - 1);
	check_str(look_up("sample"), "");
	for (size_t i = 0; i < nitems(lies); i++) {
		change(lies[i][0], lies[i][1]);
		refused("sample", why);
		/* The next daemon's eyes are as good. */
		stop();
		start();
		refused("sample", why);
		check(!templates_find(templates, "sample").manifest);
		change(lies[i][1], lies[i][0]);
		check_str(look_up("sample"), "");
		check(!templates_find(templates, "sample").problem);
	}
	stop();
}

static void test_old_row(void)
{
	char first[DIGEST_HEX];

	start();
	memcpy(first, row().manifest_sha256, sizeof(first));
	change("sample", "simple");
	stop();
	forget_digest();
	start();
	refused("sample", "manifest.json: it is the one of template simple");
	check_str(row().manifest_sha256, "");
	change("simple", "sample");
	check_str(look_up("sample"), "");
	check_str(row().manifest_sha256, first);
	change("\"vcpus\": 1", "\"vcpus\": 3");
	refused("sample", "its digest is not the recorded one");
	change("\"vcpus\": 3", "\"vcpus\": 1");
	stop();
}

/* One that was pulled under another name. */
static void test_pulled(void)
{
	guard_free char *path = NULL;
	struct err e = ERR_NULL;

	start();
	sample_ok(db_template_delete(db, "sample", &e), &e);
	publish("other");
	path = io_path("%s/images/%s/" IMAGE_INDEX_NAME, root, row().dir);
	check_str(look_up("other"), "");
	sample_ok(io_write_file(path, "x", 1, 0444, &e), &e);
	stop();
	forget_digest();
	start();
	check_str(look_up("other"), "");
	check(strlen(row().manifest_sha256) == DIGEST_HEX - 1);
	stop();
}

int main(void)
{
	struct err e = ERR_NULL;

	log_set_level(LOG_LEVEL_ERROR);
	test_dir(root, sizeof(root));
	test_digest();
	test_old_row();
	test_pulled();
	sample_ok(io_remove_tree(root, &e), &e);
	return 0;
}
