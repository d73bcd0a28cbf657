/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre bake: boot once, warm, snapshot
 *
 * The daemon does it and tells, line by line of JSON: steps, output of the warm
 * commands, at the end the template or an error. Hanging up gives the bake up,
 * so Ctrl-C needs nothing from us. What warm commands say is shown when the
 * bake fails, or as it comes with -v.
 *
 * Paths are made absolute here: the daemon's working directory is not ours.
 */
#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/opt.h"
#include "cmd/print.h"
#include "cmd/progress.h"
#include "base/clock.h"
#include "base/guard.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One line: the daemon cuts output at 8 KiB, which JSON may make 48. */
#define BAKE_LINE_MAX (256u << 10)
/* The clock of the progress line. */
#define BAKE_TICK_MS 250

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
	  OPT_NUMBER(struct bake, vcpus) },
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

static int bake_set(json_t *body, const char *key, json_t *value, struct err *e)
{
	if (json_object_set_new(body, key, value) < 0)
		return err_set(e, EINVAL, "--%s: not text in UTF-8", key);
	return 0;
}

static int bake_text(json_t *body, const char *key, const char *text,
		     struct err *e)
{
	return text ? bake_set(body, key, json_string(text), e) : 0;
}

static int bake_path(json_t *body, const char *key, const char *path,
		     struct err *e)
{
	guard_free char *real = path ? realpath(path, NULL) : NULL;

	if (path && !real)
		return err_errno(e, errno, "find %s %s", key, path);
	return bake_text(body, key, real, e);
}

static int bake_number(json_t *body, const char *key, uint64_t n, struct err *e)
{
	return n ? bake_set(body, key, json_integer((json_int_t)n), e) : 0;
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

	r = bake_text(body, "name", name, e);
	if (r == 0)
		r = bake_path(body, "rootfs", x->rootfs, e);
	if (r == 0)
		r = bake_path(body, "kernel", x->kernel, e);
	if (r == 0)
		r = bake_path(body, "initrd", x->initrd, e);
	if (r == 0)
		r = bake_text(body, "cmdline", x->cmdline, e);
	if (r == 0)
		r = bake_number(body, "memory_bytes", x->memory_bytes, e);
	if (r == 0)
		r = bake_number(body, "vcpus", x->vcpus, e);
	if (r == 0)
		r = bake_number(body, "timeout_ns", x->timeout_ns, e);
	if (r == 0)
		r = bake_text(body, "share", x->share, e);
	if (r == 0)
		r = bake_text(body, "net", x->net, e);
	if (r == 0 && x->replace)
		r = bake_set(body, "replace", json_true(), e);
	if (r == 0 && x->warm.n)
		r = bake_warm(body, &x->warm, e);
	return r;
}

/* ---- the answer ---- */

enum {
	BAKE_DONE = 1, /* the template has come */
};

static int bake_line(struct progress *p, json_t *line, json_t **ret,
		     struct err *e)
{
	json_t *output = json_object_get(line, "output");
	json_t *done = json_object_get(line, "template");

	if (json_object_get(line, "error"))
		return err_set(e, client_errno(print_text(line, "errno")), "%s",
			       print_text(line, "error"));
	if (done) {
		*ret = json_incref(done);
		return BAKE_DONE;
	}
	if (output)
		progress_output(p, json_string_value(output),
				json_string_length(output));
	else if (json_object_get(line, "step"))
		progress_step(
			p, print_text(line, "step"), print_text(line, "detail"),
			(unsigned)print_number(line, "done"),
			(unsigned)print_number(line, "total"), clock_mono_ns());
	return 0;
}

/* The whole lines in @b. */
static int bake_lines(struct progress *p, struct buf *b, json_t **ret,
		      struct err *e)
{
	const char *text, *end;
	json_t *line;
	int r;

	for (;;) {
		text = (const char *)buf_data(b);
		end = buf_len(b) ? memchr(text, '\n', buf_len(b)) : NULL;
		if (!end)
			return 0;
		line = json_loadb(text, (size_t)(end - text), 0, NULL);
		if (!line)
			return err_set(e, EBADMSG,
				       "bake: the daemon makes no sense");
		r = bake_line(p, line, ret, e);
		json_decref(line);
		if (r)
			return r;
		buf_consume(b, (size_t)(end - text) + 1);
	}
}

static int bake_read(struct client *c, struct progress *p, struct buf *b,
		     json_t **ret, struct err *e)
{
	const uint8_t *at = NULL;
	size_t n = 0;
	int r;

	for (;;) {
		r = client_read(c, BAKE_TICK_MS, &at, &n, e);
		if (r < 0)
			return r;
		progress_tick(p, clock_mono_ns());
		if (r == CLIENT_TIMEOUT)
			continue;
		if (r == CLIENT_END)
			return err_set(e, ECONNRESET,
				       "bake: the daemon went away");
		r = buf_add(b, at, n);
		if (r < 0)
			return err_errno(e, -r, "bake: a line of the answer");
		r = bake_lines(p, b, ret, e);
		if (r)
			return r;
	}
}

static int bake_follow(const json_t *body, bool verbose, json_t **ret,
		       struct err *e)
{
	guard(client_deinit) struct client c = CLIENT_NULL;
	guard(progress_deinit) struct progress p;
	guard(buf_deinit) struct buf b = BUF_NULL(BAKE_LINE_MAX);
	int r;

	progress_init(&p, verbose, clock_mono_ns());
	r = client_open(&c, "POST", "/v1/templates", body, e);
	if (r == 0)
		r = bake_read(&c, &p, &b, ret, e);
	if (r < 0)
		progress_failed(&p);
	return r < 0 ? r : 0;
}

static int bake_main(int argc, char **argv)
{
	struct bake x = { 0 };
	const struct opt_use use = { .cmd = &cmd_bake,
				     .groups = { { bake_opts, &x } },
				     .min_args = 1,
				     .max_args = 1 };
	json_auto_t *body = json_object(), *template = NULL;
	struct err e = ERR_NULL;
	int n = 0, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	if (!x.rootfs)
		return cmd_usage(&cmd_bake, "--rootfs is missing");
	r = bake_body(body, argv[1], &x, &e);
	if (r == 0)
		r = bake_follow(body, x.verbose, &template, &e);
	if (r < 0)
		return cmd_fail(&e);
	if (x.json)
		print_json(template);
	else
		puts(print_text(template, "name"));
	return cmd_end(CMD_OK);
}

const struct cmd cmd_bake = {
	.name = "bake",
	.args = "[OPTION]... --rootfs FILE NAME",
	.summary = "Make a template: boot once, warm, snapshot.",
	.run = bake_main,
};
