/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre pager: serve page faults
 *
 * One program, two callers. The daemon starts it with a socket and a file of
 * counts; that is between the two. A person starts it for a stock Firecracker
 * that is to be restored from an image of ours.
 *
 * It ends the process rather than tidying up: threads may be waiting for a
 * store, and their memory goes with the process.
 */
#include "cmd/cmd.h"
#include "cmd/opt.h"

#include "base/err.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/log.h"
#include "image/image.h"
#include "pager/catalog.h"
#include "pager/firecracker.h"
#include "pager/serve.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGER_ROOT "/var/lib/byre"
/* "local", a name of a store, and a newline. */
#define PAGER_REMOTE_MAX 128

struct pager_options {
	const char *firecracker;
	const char *image;
	const char *root;
	const char *run;
	uint64_t cache_bytes;
	uint64_t control_fd;
	uint64_t stats_fd;
	bool verbose;
};

static const struct opt pager_opts[] = {
	{ 0, "firecracker", "SOCKET", "serve Firecrackers that connect here",
	  OPT_TEXT(struct pager_options, firecracker) },
	{ 0, "image", "NAME", "their memory: a template, or an image's path",
	  OPT_TEXT(struct pager_options, image) },
	{ 0, "root", "DIR", "where the daemon has its state",
	  OPT_TEXT(struct pager_options, root) },
	{ 0, "cache-bytes", "N", "keep that much of what is fetched (0)",
	  OPT_NUMBER(struct pager_options, cache_bytes) },
	{ 0, "run", "DIR", "the daemon's: sockets",
	  OPT_TEXT(struct pager_options, run) },
	{ 0, "control-fd", "N", "the daemon's: its socket",
	  OPT_NUMBER(struct pager_options, control_fd) },
	{ 0, "stats-fd", "N", "the daemon's: its counts",
	  OPT_NUMBER(struct pager_options, stats_fd) },
	{ 'v', "verbose", NULL, "log more",
	  OPT_FLAG(struct pager_options, verbose) },
	OPT_END,
};

static int pager_daemon(const struct pager_options *o, struct err *e)
{
	struct serve_config config = {
		.root = o->root,
		.run = o->run,
		.cache_bytes = o->cache_bytes,
		.control_fd = (int)o->control_fd,
		.stats_fd = (int)o->stats_fd,
	};

	return serve_daemon(&config, e);
}

static const char *pager_root(const struct pager_options *o)
{
	const char *root = o->root ? o->root : getenv("BYRE_ROOT");

	return root && *root ? root : PAGER_ROOT;
}

/* Fresh. A name with a slash is a directory, and so is what is one. */
static int pager_image_dir(const struct pager_options *o, char **ret,
			   struct err *e)
{
	if (!strchr(o->image, '/'))
		return catalog_template(pager_root(o), o->image, ret, e);
	*ret = strdup(o->image);
	return *ret ? 0 : err_errno(e, ENOMEM, "pager");
}

/* The store of a remote image; @ret->url empty: it is all here. */
static int pager_store(const struct pager_options *o, const char *dir,
		       struct store_spec *ret, struct err *e)
{
	guard_free char *path = io_path("%s/" IMAGE_REMOTE_NAME, dir);
	guard_free char *name = NULL;

	if (!path)
		return err_errno(e, ENOMEM, "pager");
	if (access(path, F_OK) < 0 && errno == ENOENT)
		return 0;
	err_drop(io_read_file(path, PAGER_REMOTE_MAX, &name, NULL, e));
	if (!name)
		return -e->code;
	name[strcspn(name, "\n")] = '\0';
	return catalog_store(pager_root(o), name, ret, e);
}

static int pager_firecracker(const struct pager_options *o, struct err *e)
{
	guard_free char *dir = NULL;
	guard_free char *cache = io_path("%s/cache", pager_root(o));
	struct store_spec store = { 0 };
	struct firecracker_config config = { .socket = o->firecracker,
					     .cache_bytes = o->cache_bytes };
	int r = cache ? pager_image_dir(o, &dir, e)
		      : err_errno(e, ENOMEM, "pager");

	if (r == 0)
		r = pager_store(o, dir, &store, e);
	if (r < 0)
		return r;
	config.dir = dir;
	config.store = *store.url ? &store : NULL;
	config.cache_dir = o->cache_bytes ? cache : NULL;
	return firecracker(&config, e);
}

static int pager_judge(const struct pager_options *o)
{
	if (o->firecracker) {
		if (!o->image)
			return cmd_usage(&cmd_pager, "--image is missing");
		if (o->control_fd || o->stats_fd || o->run)
			return cmd_usage(&cmd_pager,
					 "--firecracker needs no daemon");
		return CMD_OK;
	}
	if (!o->control_fd)
		return cmd_usage(&cmd_pager, "--firecracker is missing");
	if (!o->stats_fd || !o->root || !o->run || o->image)
		return cmd_usage(&cmd_pager,
				 "--control-fd goes with --stats-fd, --root and"
				 " --run");
	if (o->control_fd > INT_MAX || o->stats_fd > INT_MAX)
		return cmd_usage(&cmd_pager, "there is no such fd");
	return CMD_OK;
}

static int pager_run(int argc, char **argv)
{
	struct pager_options o = { 0 };
	struct opt_use use = {
		.cmd = &cmd_pager,
		.groups = { { pager_opts, &o } },
	};
	struct err e = ERR_NULL;
	int n, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r != 0)
		return opt_status(r);
	r = pager_judge(&o);
	if (r != CMD_OK)
		return r;
	if (o.verbose)
		log_set_level(LOG_LEVEL_DEBUG);
	r = o.firecracker ? pager_firecracker(&o, &e) : pager_daemon(&o, &e);
	if (r < 0) {
		err_prefix(&e, "pager");
		_exit(cmd_fail(&e));
	}
	_exit(CMD_OK);
}

const struct cmd cmd_pager = {
	.name = "pager",
	.args = "--firecracker SOCKET --image NAME [--root DIR]",
	.summary = "Serve the page faults of Firecracker, or of a daemon.",
	.run = pager_run,
};
