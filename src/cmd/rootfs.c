/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre rootfs build: make a root disk
 *
 * A thin front for rootfs_build(): options in, one progress line on a terminal
 * out. It needs no daemon, which is why it calls the template folder itself.
 */
#include "cmd/cmd.h"
#include "cmd/opt.h"
#include "base/err.h"
#include "base/parse.h"
#include "template/rootfs.h"

#include <stdio.h>
#include <unistd.h>

struct rootfs {
	const char *debian, *include, *variant, *from;
	uint64_t size_bytes;
	bool busybox;
};

static const struct opt rootfs_opts[] = {
	{ 0, "debian", "SUITE", "from Debian packages (bookworm)",
	  OPT_TEXT(struct rootfs, debian) },
	{ 0, "include", "P,...", "these packages too",
	  OPT_TEXT(struct rootfs, include) },
	{ 0, "variant", "V", "what mmdebstrap starts from (default essential)",
	  OPT_TEXT(struct rootfs, variant) },
	{ 0, "busybox", NULL, "this host's static busybox, and nothing else",
	  OPT_FLAG(struct rootfs, busybox) },
	{ 0, "from", "DIR|TAR", "a directory, or what tar can unpack",
	  OPT_TEXT(struct rootfs, from) },
	{ 0, "size", "SIZE", "of the file system, which is sparse (default 4G)",
	  OPT_BYTES(struct rootfs, size_bytes) },
	OPT_END,
};

static const struct cmd rootfs_build_cmd;

/* One line, rewritten in place and erased at the end. */
static void rootfs_show(void *arg, const char *step, uint64_t elapsed_ns)
{
	char text[16];

	(void)arg;
	fprintf(stderr, "\rbyre rootfs: %s (%s)\033[K", step,
		format_duration_ns(elapsed_ns, text));
}

static int rootfs_run_build(struct rootfs_options *o)
{
	struct err e = ERR_NULL;
	bool tty = isatty(STDERR_FILENO);
	const char *caveat = rootfs_caveat(o);
	int r;

	if (caveat)
		fprintf(stderr, "byre rootfs: %s\n", caveat);
	if (tty)
		o->progress = rootfs_show;
	r = rootfs_build(o, &e);
	if (tty)
		fprintf(stderr, "\r\033[K");
	return r ? cmd_fail(&e) : CMD_OK;
}

/* What does not go together; NULL: all is well. */
static const char *rootfs_wrong(const struct rootfs *x)
{
	if (!!x->debian + x->busybox + !!x->from != 1)
		return "one of --debian, --busybox, --from is needed";
	if (!x->debian && (x->include || x->variant))
		return "--include and --variant need --debian";
	if (x->size_bytes &&
	    (x->size_bytes < ROOTFS_SIZE_MIN ||
	     x->size_bytes > ROOTFS_SIZE_MAX || x->size_bytes % 4096))
		return "--size takes 8M to 8T, in pages of 4K";
	return NULL;
}

static int rootfs_build_main(int argc, char **argv)
{
	struct rootfs x = { 0 };
	const struct opt_use use = { .cmd = &rootfs_build_cmd,
				     .groups = { { rootfs_opts, &x } },
				     .min_args = 1,
				     .max_args = 1 };
	struct rootfs_options o = { 0 };
	const char *wrong;
	int n = 0, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	wrong = rootfs_wrong(&x);
	if (wrong)
		return cmd_usage(&rootfs_build_cmd, "%s", wrong);
	o.out = argv[1];
	o.source = x.debian    ? ROOTFS_DEBIAN
		   : x.busybox ? ROOTFS_BUSYBOX
			       : ROOTFS_FROM;
	o.suite = x.debian;
	o.include = x.include;
	o.variant = x.variant;
	o.from = x.from;
	o.size_bytes = x.size_bytes;
	return rootfs_run_build(&o);
}

static const struct cmd rootfs_build_cmd = {
	.name = "rootfs build",
	.args = "OUT {--debian SUITE | --busybox | --from DIR|TAR} [OPTION]...",
	.summary = "Make a root disk for byre bake.",
	.run = rootfs_build_main,
};

static int rootfs_main(int argc, char **argv)
{
	static const struct cmd *const subs[] = { &rootfs_build_cmd, NULL };

	return cmd_dispatch(&cmd_rootfs, subs, argc, argv);
}

const struct cmd cmd_rootfs = {
	.name = "rootfs",
	.args = "build OUT {--debian SUITE | --busybox | --from DIR|TAR} [OPTION]...",
	.summary = "Make a root disk.",
	.run = rootfs_main,
};
