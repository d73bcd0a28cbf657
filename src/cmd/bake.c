/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre bake: boot once, warm, snapshot
 *
 * The daemon does it and tells how it goes (job.c). What warm commands say is
 * shown when the bake fails, or as it comes with -v.
 *
 * Paths are made absolute here: the daemon's working directory is not ours.
 */
#include "cmd/cmd.h"
#include "cmd/job.h"
#include "cmd/opt.h"
#include "base/guard.h"

#include <errno.h>
#include <stdlib.h>

struct bake {
	const char *rootfs, *kernel, *initrd, *cmdline;
	uint64_t memory_bytes, vcpus, timeout_ns;
	struct opt_list warm;
	const char *share, *net;
	bool replace, verbose, json;
};

static const struct opt bake_opts[] = {
	{ 'r', "rootfs", "FILE", "the root disk (byre rootfs build makes one)",
	  OPT_TEXT(struct bake, rootfs) },
	{ 'm', "memory", "SIZE", "memory of each guest (default 2G)",
	  OPT_BYTES(struct bake, memory_bytes) },
	{ 0, "vcpus", "N", "vCPUs of each guest (default 1)",
	  OPT_POSITIVE(struct bake, vcpus) },
	{ 'w', "warm", "CMD", "a shell command to run before; may be repeated",
	  OPT_LIST(struct bake, warm) },
	{ 0, "timeout", "D", "for the boot and each warm command (default 2m)",
	  OPT_DURATION(struct bake, timeout_ns) },
	{ 0, "replace", NULL, "replace a template of that name",
	  OPT_FLAG(struct bake, replace) },
	{ 0, "share", "template|none",
	  "whether guests share pages (default) or not",
	  OPT_CHOICE(struct bake, share) },
	{ 0, "net", "user|none",
	  "network while it is baked: the host's, or none (default)",
	  OPT_CHOICE(struct bake, net) },
	{ 0, "kernel", "FILE",
	  "another kernel than the one byre was built with",
	  OPT_TEXT(struct bake, kernel) },
	{ 0, "initrd", "FILE", "another initramfs; it must hold byre-agent",
	  OPT_TEXT(struct bake, initrd) },
	{ 0, "cmdline", "TEXT", "more for the kernel's command line",
	  OPT_TEXT(struct bake, cmdline) },
	{ 'v', "verbose", NULL, "show what the warm commands say",
	  OPT_FLAG(struct bake, verbose) },
	{ 0, "json", NULL, "print the template, not only its name",
	  OPT_FLAG(struct bake, json) },
	OPT_END,
};

/* ---- the request ---- */

static int bake_path(json_t *body, const char *key, const char *path,
		     struct err *e)
{
	guard_free char *real = path ? realpath(path, NULL) : NULL;

	if (path && !real)
		return err_errno(e, errno, "find %s %s", key, path);
	return job_set_text(body, key, real, e);
}

static int bake_number(json_t *body, const char *key, uint64_t n, struct err *e)
{
	return n ? job_set(body, key, json_integer((json_int_t)n), e) : 0;
}

static int bake_warm(json_t *body, const struct opt_list *warm, struct err *e)
{
	json_t *all = json_array();

	json_object_set_new(body, "warm", all);
	for (size_t i = 0; i < warm->n; i++)
		if (json_array_append_new(all, json_string(warm->v[i])) < 0)
			return err_set(e, EINVAL, "--warm: not text in UTF-8");
	return 0;
}

static int bake_body(json_t *body, const char *name, const struct bake *x,
		     struct err *e)
{
	int r;

	r = job_set_text(body, "name", name, e);
	if (r == 0)
		r = bake_path(body, "rootfs", x->rootfs, e);
	if (r == 0)
		r = bake_path(body, "kernel", x->kernel, e);
	if (r == 0)
		r = bake_path(body, "initrd", x->initrd, e);
	if (r == 0)
		r = job_set_text(body, "cmdline", x->cmdline, e);
	if (r == 0)
		r = bake_number(body, "memory_bytes", x->memory_bytes, e);
	if (r == 0)
		r = bake_number(body, "vcpus", x->vcpus, e);
	if (r == 0)
		r = bake_number(body, "timeout_ns", x->timeout_ns, e);
	if (r == 0)
		r = job_set_text(body, "share", x->share, e);
	if (r == 0)
		r = job_set_text(body, "net", x->net, e);
	if (r == 0 && x->replace)
		r = job_set(body, "replace", json_true(), e);
	if (r == 0 && x->warm.n)
		r = bake_warm(body, &x->warm, e);
	return r;
}

static int bake_main(int argc, char **argv)
{
	struct bake x = { 0 };
	const struct opt_use use = { .cmd = &cmd_bake,
				     .groups = { { bake_opts, &x } },
				     .min_args = 1,
				     .max_args = 1 };
	struct job job = { .verb = "bake", .path = "/v1/templates" };
	json_auto_t *body = json_object();
	struct err e = ERR_NULL;
	int n = 0, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	if (!x.rootfs)
		return cmd_usage(&cmd_bake, "--rootfs is missing");
	r = bake_body(body, argv[1], &x, &e);
	job.verbose = x.verbose;
	return r < 0 ? cmd_fail(&e) : job_template(&job, body, x.json);
}

const struct cmd cmd_bake = {
	.name = "bake",
	.args = "[OPTION]... --rootfs FILE NAME",
	.summary = "Make a template: boot once, warm, snapshot.",
	.run = bake_main,
};
