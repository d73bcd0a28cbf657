/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A template whose every page has come by itself becomes files: not while
 * somebody holds it, and not where there is no room, but then
 *
 * The pager is a real one: this program, started as "byre pager".
 */
#include "template/object.h"

#include "base/worker.h"
#include "pager/client.h"
#include "pager/serve.h"
#include "pager/test_image.h"
#include "vmm/driver.h"

#include <errno.h>
#include <sys/pidfd.h>

#define MEMORY (14u << 20)
#define DISK (9u << 20)
#define PATIENCE_NS (20 * NS_PER_SEC)
/* Between tries. */
#define AGAIN_NS (20 * NS_PER_MS)

static char top[200];
static struct loop loop;
static struct templates *templates;
static struct pager *pager;
static struct err e;

static int be_pager(int argc, char **argv)
{
	struct serve_config config = { 0 };

	for (int i = 2; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--control-fd"))
			config.control_fd = atoi(argv[i + 1]);
		else if (!strcmp(argv[i], "--stats-fd"))
			config.stats_fd = atoi(argv[i + 1]);
		else if (!strcmp(argv[i], "--root"))
			config.root = argv[i + 1];
		else if (!strcmp(argv[i], "--run"))
			config.run = argv[i + 1];
	}
	if (serve_daemon(&config, &e) < 0)
		fprintf(stderr, "%s\n", e.msg);
	_exit(e.code != 0);
}

static void turn_until(bool (*done)(const void *arg), const void *arg)
{
	uint64_t end_ns = clock_mono_ns() + PATIENCE_NS;

	while (!done(arg)) {
		check(clock_mono_ns() < end_ns);
		sample_ok(loop_turn(&loop, 5, &e), &e);
	}
}

static bool has(const char *dir, const char *name)
{
	guard_free char *path = sample_file(dir, name);

	return access(path, F_OK) == 0;
}

static void on_whole(unused void *arg, struct pager_layer *l)
{
	templates_whole(templates, l);
}

/* ---- what is waited for ---- */

static bool is_whole(const void *layer)
{
	return pager_layer_whole(layer);
}

static bool has_failed_twice(const void *p)
{
	return ((const struct template *)p)->again_ns >= 2 * AGAIN_NS;
}

static bool is_local(const void *p)
{
	const struct template *t = p;

	return !t->remote[0] && t->image && !t->opening;
}

static bool is_idle(const void *p)
{
	return !((const struct template *)p)->opening;
}

/* ---- the story ---- */

static struct template *up(const char *root, const char *run,
			   struct vmm_host *host, struct worker *w,
			   struct db *db)
{
	const struct pager_config config = { .loop = &loop,
					     .root = root,
					     .run = run,
					     .program = "/proc/self/exe",
					     .whole = on_whole };
	struct template *p;

	sample_ok(templates_new(&loop, w, host, db, root, &templates, &e), &e);
	sample_ok(pager_new(&config, &pager, &e), &e);
	templates_set_pager(templates, pager);
	templates->again_ns = AGAIN_NS;
	p = template_find(templates, "one");
	check(p && p->remote[0] && !has(p->path, "memory.new"));
	turn_until(is_idle, p);
	return p;
}

static void down(void)
{
	guard_fd int pidfd = pidfd_open(pager_pid(pager), 0);
	siginfo_t si;

	templates_set_pager(templates, NULL);
	templates = templates_free(templates);
	pager = pager_free(pager);
	/* It has no guests: it ends by itself. */
	check(pidfd >= 0 && waitid(P_PIDFD, (id_t)pidfd, &si, WEXITED) == 0);
}

static void story(struct template *p, const struct store_spec *store)
{
	struct template_hold hold = TEMPLATE_HOLD_NULL;
	struct rlimit old, tight;
	struct pager_layer *l = NULL;

	sample_ok(pager_layer_open(pager, p->path, store, &l, &e), &e);
	sample_ok(templates_hold(templates, "one", &hold, &e), &e);
	check(pager_layer_prefetch(l, true) == 0);
	turn_until(is_whole, l);
	check(p->remote[0] && !has(p->path, "memory"));
	/* Released unfinished: it is begun, and fails, and again. */
	check(getrlimit(RLIMIT_FSIZE, &old) == 0);
	tight = old;
	tight.rlim_cur = MEMORY / 2;
	check(setrlimit(RLIMIT_FSIZE, &tight) == 0);
	templates_release(templates, &hold, false);
	turn_until(has_failed_twice, p);
	check(p->remote[0] && !has(p->path, "memory"));
	/* There is room again. */
	check(setrlimit(RLIMIT_FSIZE, &old) == 0);
	turn_until(is_local, p);
	check(has(p->path, "memory") && has(p->path, "disk"));
	check(!has(p->path, "memory.new") && !has(p->path, "remote"));
	check(!p->problem[0] && !p->again.loop);
	pager_layer_unref(l);
}

/* A host that the sample image was baked on. */
static struct vmm_host *sample_host(void)
{
	static struct vmm_host host = {
		.ops = &qemu_ops,
		.facts.flavor = { .driver = "qemu",
				  .version = "7.2.9",
				  .accel = "tcg" },
	};

	return &host;
}

/* A pulled image, and in it what a daemon left that was killed in completing
 * it. */
static void sample_pulled(const char *dir, struct store_spec *store)
{
	guard_free char *whole = sample_file(top, "whole");
	guard_free char *left = sample_file(dir, "memory.new");

	snprintf(store->url, sizeof(store->url), "%s/store", top);
	sample_ok(io_mkdirs(dir, 0700, &e), &e);
	sample_image(whole, MEMORY, DISK);
	sample_push(whole, store->url, dir);
	sample_ok(io_write_file(left, "half", 4, 0600, &e), &e);
}

int main(int argc, char **argv)
{
	struct db_template row = { .name = "one", .dir = "imone" };
	struct store_spec store = { .name = SAMPLE_STORE };
	guard_free char *root = NULL, *run = NULL, *image = NULL;
	struct worker *w = NULL;
	struct db *db = NULL;

	if (argc > 2 && !strcmp(argv[1], "pager"))
		return be_pager(argc, argv);
	test_dir(top, sizeof(top));
	signal(SIGXFSZ, SIG_IGN);
	root = sample_file(top, "root");
	run = sample_file(top, "run");
	image = sample_file(root, "images/imone");
	sample_ok(io_mkdirs(run, 0700, &e), &e);
	sample_pulled(image, &store);
	sample_ok(loop_init(&loop, &e), &e);
	sample_ok(worker_new(&loop, 1, &w, &e), &e);
	sample_ok(db_open(root, &db, &e), &e);
	sample_ok(db_template_put(db, &row, &e), &e);
	story(up(root, run, sample_host(), w, db), &store);
	down();
	worker_free(w);
	db_close(db);
	loop_deinit(&loop);
	sample_ok(io_remove_tree(top, &e), &e);
	return 0;
}
