/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre serve: the daemon
 *
 * The start-up sequence is in one function, serve_up(), in the order in which
 * things depend on each other; serve_down() is its reverse. In between there is
 * the loop. SIGTERM and SIGINT end the daemon; sandboxes go on, and the next
 * daemon adopts them.
 */
#include "cmd/cmd.h"
#include "cmd/installed.h"
#include "cmd/opt.h"

#include "api/api.h"
#include "base/err.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/parse.h"
#include "base/worker.h"
#include "pager/client.h"
#include "sandbox/db.h"
#include "sandbox/sandbox.h"
#include "sandbox/stores.h"
#include "template/bake.h"
#include "template/template.h"
#include "vmm/vmm.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* Two cores' worth of hashing and copying, and two that may wait for a disk. */
#define SERVE_WORKERS 4
#define SERVE_ROOT "/var/lib/byre"
#define SERVE_RUN "/run/byre"
/* Frames of streamed images, kept on disk: some ten templates with what they
 * have in common. */
#define SERVE_CACHE_BYTES (10ull << 30)

struct serve_options {
	const char *root;
	const char *run;
	const char *guest;
	uint64_t cache_bytes; /* 0: not given */
	bool verbose;
};

static const struct opt serve_opts[] = {
	{ 0, "root", "DIR", "state: database, images, disks, logs",
	  OPT_TEXT(struct serve_options, root) },
	{ 0, "run", "DIR", "runtime: sockets",
	  OPT_TEXT(struct serve_options, run) },
	{ 0, "guest", "DIR", "default kernel and initrd for bakes",
	  OPT_TEXT(struct serve_options, guest) },
	{ 0, "cache-size", "SIZE",
	  "disk for what was streamed, in DIR/cache; 10G",
	  OPT_BYTES(struct serve_options, cache_bytes) },
	{ 'v', "verbose", NULL, "log more",
	  OPT_FLAG(struct serve_options, verbose) },
	OPT_END,
};

struct serve {
	char *root, *run, *guest;
	uint64_t cache_bytes;
	struct loop loop;
	bool loop_up;
	struct worker *worker;
	struct vmm_host *host;
	struct db *db;
	struct stores *stores;
	struct pager *pager;
	struct templates *templates;
	struct registry *registry;
	struct bake_config bake;
	struct api *api;
	int signal_fd;
	struct loop_fd signals;
};

static void serve_signal(struct loop_fd *f, unused uint32_t events)
{
	struct serve *s = container_of(f, struct serve, signals);
	struct signalfd_siginfo info = { 0 };

	if (read(f->fd, &info, sizeof(info)) != sizeof(info))
		return;
	log_info("event=stop signal=%u", info.ssi_signo);
	loop_stop(&s->loop);
}

static int serve_signals(struct serve *s, struct err *e)
{
	sigset_t set;
	int r;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->signal_fd < 0)
		return err_errno(e, errno, "signalfd");
	r = loop_fd_add(&s->loop, &s->signals, s->signal_fd, EPOLLIN,
			serve_signal);
	return r < 0 ? err_errno(e, -r, "watch signals") : 0;
}

/* A sandbox holds some ten fds here. */
static void serve_limits(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0)
		return;
	l.rlim_cur = l.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &l) < 0)
		log_warn("event=limits error=\"%s\"", strerror(errno));
}

/* The option, else the environment, else the default; absolute. */
static char *serve_dir(const char *option, const char *env,
		       const char *fallback)
{
	const char *given = option ? option : getenv(env);
	guard_free char *cwd = NULL;

	if (!given || !*given)
		given = fallback;
	if (*given == '/')
		return strdup(given);
	cwd = getcwd(NULL, 0);
	return cwd ? io_path("%s/%s", cwd, given) : NULL;
}

static char *serve_guest_dir(const char *option)
{
	if (option || getenv("BYRE_GUEST"))
		return serve_dir(option, "BYRE_GUEST", "");
	return installed_path("guest");
}

/* The option, else BYRE_CACHE_SIZE, else the default. */
static int serve_cache_size(struct serve *s, const struct serve_options *o,
			    struct err *e)
{
	const char *env = getenv("BYRE_CACHE_SIZE");

	s->cache_bytes = SERVE_CACHE_BYTES;
	if (o->cache_bytes)
		s->cache_bytes = o->cache_bytes;
	else if (env && *env && parse_bytes(env, &s->cache_bytes) < 0)
		return err_set(e, EINVAL, "BYRE_CACHE_SIZE: \"%s\" is no size",
			       env);
	return 0;
}

static int serve_dirs(struct serve *s, const struct serve_options *o,
		      struct err *e)
{
	int r;

	s->root = serve_dir(o->root, "BYRE_ROOT", SERVE_ROOT);
	s->run = serve_dir(o->run, "BYRE_RUN", SERVE_RUN);
	s->guest = serve_guest_dir(o->guest);
	if (!s->root || !s->run || !s->guest)
		return err_errno(e, ENOMEM, "serve");
	/* Guests' memory and disks: nobody else's business. */
	r = io_mkdirs(s->root, 0700, e);
	return r < 0 ? r : io_mkdirs(s->run, 0700, e);
}

static void serve_whole(void *arg, struct pager_layer *l)
{
	struct serve *s = arg;

	if (s->templates)
		templates_whole(s->templates, l);
}

static int serve_up_pager(struct serve *s, struct err *e)
{
	struct pager_config config = {
		.loop = &s->loop,
		.root = s->root,
		.run = s->run,
		.cache_bytes = s->cache_bytes,
		.whole = serve_whole,
		.arg = s,
	};
	int r = stores_new(s->db, &s->stores, e);

	return r < 0 ? r : pager_new(&config, &s->pager, e);
}

static int serve_up_store(struct serve *s, struct err *e)
{
	struct registry_config config = {
		.root = s->root,
		.run = s->run,
		.loop = &s->loop,
		.worker = s->worker,
		.host = s->host,
		.db = s->db,
		.stores = s->stores,
		.pager = s->pager,
	};
	int r = templates_new(&s->loop, s->worker, s->host, s->db, s->root,
			      &s->templates, e);

	if (r < 0)
		return r;
	templates_set_pager(s->templates, s->pager);
	config.templates = templates_lookup_ops(s->templates);
	r = registry_new(&config, &s->registry, e);
	if (r == 0)
		r = registry_adopt(s->registry, e);
	return r;
}

static int serve_up_api(struct serve *s, struct err *e)
{
	struct api_config config = {
		.root = s->root,
		.run = s->run,
		.proc_root = "/proc",
		.loop = &s->loop,
		.worker = s->worker,
		.host = s->host,
		.registry = s->registry,
		.templates = s->templates,
		.stores = s->stores,
		.pager = s->pager,
		.bake = &s->bake,
	};

	s->bake = (struct bake_config){
		.root = s->root,
		.run = s->run,
		.loop = &s->loop,
		.worker = s->worker,
		.host = s->host,
		.templates = s->templates,
		.db = s->db,
		.guest_dir = s->guest,
	};
	return api_new(&config, &s->api, e);
}

static int serve_up(struct serve *s, const struct serve_options *o,
		    struct err *e)
{
	const struct vmm_host_facts *f;
	int r = serve_dirs(s, o, e);

	if (r == 0)
		r = serve_cache_size(s, o, e);
	if (r == 0)
		r = db_open(s->root, &s->db, e);
	if (r == 0)
		r = loop_init(&s->loop, e);
	s->loop_up = r == 0;
	if (r == 0)
		r = serve_signals(s, e);
	if (r == 0)
		r = worker_new(&s->loop, SERVE_WORKERS, &s->worker, e);
	if (r == 0)
		r = vmm_host_new(&s->loop, getenv("BYRE_ACCEL"), &s->host, e);
	if (r == 0)
		r = serve_up_pager(s, e);
	if (r == 0)
		r = serve_up_store(s, e);
	if (r == 0)
		r = serve_up_api(s, e);
	if (r < 0)
		return r;
	f = vmm_host_facts(s->host);
	log_info("event=serving socket=%s/api.sock root=%s driver=%s "
		 "version=%s accel=%s sandboxes=%zu templates=%zu",
		 s->run, s->root, f->flavor.driver, f->flavor.version,
		 f->flavor.accel, registry_count(s->registry),
		 templates_count(s->templates));
	return 0;
}

static void serve_down(struct serve *s)
{
	api_free(s->api);
	/* Guests that are let go are not to be forgotten by the pager. */
	pager_leave(s->pager);
	worker_free(s->worker); /* its last jobs still find everything */
	registry_free(s->registry);
	if (s->templates)
		templates_set_pager(s->templates, NULL);
	templates_free(s->templates);
	pager_free(s->pager);
	stores_free(s->stores);
	vmm_host_free(s->host);
	loop_fd_del(&s->signals);
	fd_close(&s->signal_fd);
	if (s->loop_up)
		loop_deinit(&s->loop);
	db_close(s->db);
	free(s->root);
	free(s->run);
	free(s->guest);
}

static int serve_run(int argc, char **argv)
{
	struct serve_options o = { 0 };
	struct opt_use use = {
		.cmd = &cmd_serve,
		.groups = { { serve_opts, &o } },
	};
	struct serve s = { .signal_fd = -1, .signals = LOOP_FD_NULL };
	struct err e = ERR_NULL;
	int n, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r != 0)
		return opt_status(r);
	if (o.verbose)
		log_set_level(LOG_LEVEL_DEBUG);
	serve_limits();
	r = serve_up(&s, &o, &e);
	if (r == 0)
		r = loop_run(&s.loop, &e);
	serve_down(&s);
	if (r < 0) {
		err_prefix(&e, "serve");
		return cmd_fail(&e);
	}
	return CMD_OK;
}

const struct cmd cmd_serve = {
	.name = "serve",
	.args = "[--root DIR] [--run DIR]",
	.summary = "Run the daemon: one per root directory.",
	.run = serve_run,
};
