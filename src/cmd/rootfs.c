/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre rootfs build: make a root disk
 *
 * A thin front for rootfs_build(): options in, one progress line on a terminal
 * out. It needs no daemon, which is why it calls the template folder itself.
 */
#include "cmd/cmd.h"

#include "base/err.h"
#include "base/parse.h"
#include "template/rootfs.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ROOTFS_ARGS                                                          \
	"build OUT {--debian SUITE [--include PACKAGE,...] [--variant V] | " \
	"--busybox | --from DIR|TAR} [--size 4G]"

static int rootfs_usage(const char *why)
{
	fprintf(stderr, "byre rootfs: %s\nusage: byre rootfs " ROOTFS_ARGS "\n",
		why);
	return 2;
}

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
	if (r)
		fprintf(stderr, "byre rootfs: %s\n", e.msg);
	return r ? 1 : 0;
}

static int rootfs_main(int argc, char **argv)
{
	enum {
		DEBIAN = 256,
		INCLUDE,
		VARIANT,
		BUSYBOX,
		FROM,
		SIZE
	};
	static const struct option options[] = {
		{ "debian", required_argument, NULL, DEBIAN },
		{ "include", required_argument, NULL, INCLUDE },
		{ "variant", required_argument, NULL, VARIANT },
		{ "busybox", no_argument, NULL, BUSYBOX },
		{ "from", required_argument, NULL, FROM },
		{ "size", required_argument, NULL, SIZE },
		{ 0 },
	};
	struct rootfs_options o = { 0 };
	unsigned sources = 0;
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case DEBIAN:
			o.source = ROOTFS_DEBIAN;
			o.suite = optarg;
			sources++;
			break;
		case INCLUDE:
			o.include = optarg;
			break;
		case VARIANT:
			o.variant = optarg;
			break;
		case BUSYBOX:
			o.source = ROOTFS_BUSYBOX;
			sources++;
			break;
		case FROM:
			o.source = ROOTFS_FROM;
			o.from = optarg;
			sources++;
			break;
		case SIZE:
			if (parse_bytes(optarg, &o.size_bytes) ||
			    o.size_bytes < ROOTFS_SIZE_MIN ||
			    o.size_bytes > ROOTFS_SIZE_MAX ||
			    o.size_bytes % 4096)
				return rootfs_usage(
					"--size takes 8M to 8T, in pages");
			break;
		default:
			return rootfs_usage("unknown or incomplete option");
		}
	}
	if (optind == argc || strcmp(argv[optind], "build"))
		return rootfs_usage("the one thing it can do is build");
	if (optind + 2 != argc)
		return rootfs_usage("one OUT");
	if (sources != 1)
		return rootfs_usage("one of --debian, --busybox, --from");
	if (o.source != ROOTFS_DEBIAN && (o.include || o.variant))
		return rootfs_usage("--include and --variant need --debian");
	o.out = argv[optind + 1];
	return rootfs_run_build(&o);
}

const struct cmd cmd_rootfs = {
	.name = "rootfs",
	.args = ROOTFS_ARGS,
	.summary = "make a root disk",
	.run = rootfs_main,
};
