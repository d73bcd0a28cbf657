/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre cp: files between here and a sandbox, as docker cp has it
 *
 *	SRC is      DST is          the copy is
 *	file        nothing         DST (an error when DST ends in a slash)
 *	file        a file          DST, replaced
 *	file        a directory     DST/name
 *	directory   nothing         DST, made
 *	directory   a file          an error
 *	directory   a directory     DST/name; with SRC/. what is in it, in DST
 *
 * The same table decides for both directions (struct cp_plan). What exists at
 * the other end is told by the agent: STARTED carries the kind of a PUT's
 * target, the first ENTRY of a GET that of its source.
 *
 * A link is copied as a link; "link/" and "link/." mean what it leads to. DST
 * is followed. Paths in a sandbox start at its root.
 *
 * What comes from a guest is hostile: unpack.c.
 */
#include "cmd/cmd.h"
#include "cmd/interrupt.h"
#include "cmd/opt.h"
#include "cmd/pack.h"
#include "cmd/stream.h"
#include "cmd/unpack.h"
#include "base/guard.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* One of the two arguments. */
struct cp_side {
	const char *arg; /* as given */
	char id[64]; /* "": here */
	char path[PATH_MAX];
};

enum cp_kind {
	CP_NOTHING,
	CP_FILE, /* or a link */
	CP_DIR,
	CP_KIND_COUNT,
};

/* What becomes of it. */
struct cp_plan {
	bool contents; /* only what is in the directory */
	char name[ENTRY_NAME_MAX]; /* below DST; "": DST itself */
};

/* ---- the arguments ---- */

/* "ID:PATH", unless it starts like a path or has a slash before the colon. */
static int cp_side(const char *arg, struct cp_side *ret)
{
	const char *colon = strchr(arg, ':'), *slash = strchr(arg, '/');
	const char *path = arg;

	*ret = (struct cp_side){ .arg = arg };
	if (colon && *arg != '.' && colon > arg && !(slash && slash < colon)) {
		if ((size_t)(colon - arg) >= sizeof(ret->id))
			return -ENAMETOOLONG;
		memcpy(ret->id, arg, (size_t)(colon - arg));
		path = colon + 1;
	}
	if (!*path)
		return -EINVAL;
	if (snprintf(ret->path, sizeof(ret->path), "%s%s",
		     *ret->id && *path != '/' ? "/" : "",
		     path) >= (int)sizeof(ret->path))
		return -ENAMETOOLONG;
	return 0;
}

static bool cp_ends_in_slash(const char *path)
{
	size_t len = strlen(path);

	return len && path[len - 1] == '/';
}

/* "dir/." and "." name what is in a directory. */
static bool cp_means_contents(const char *path)
{
	size_t len = strlen(path);

	return !strcmp(path, ".") ||
	       (len >= 2 && !strcmp(path + len - 2, "/."));
}

/* The last name of a path; "" for the root. */
static int cp_base(const char *path, char out[ENTRY_NAME_MAX])
{
	size_t end = strlen(path), start;

	while (end && path[end - 1] == '/')
		end--;
	for (start = end; start && path[start - 1] != '/';)
		start--;
	if (end - start >= ENTRY_NAME_MAX)
		return -ENAMETOOLONG;
	memcpy(out, path + start, end - start);
	out[end - start] = '\0';
	return 0;
}

/* The name a copy gets in a directory: the source's own. */
static int cp_name(const struct cp_side *src, char out[ENTRY_NAME_MAX],
		   struct err *e)
{
	char real[PATH_MAX];
	int r;

	r = cp_base(src->path, out);
	/* ".." has a name, too: known here, in a guest it is not. */
	if (r == 0 && !strcmp(out, "..") && !*src->id &&
	    realpath(src->path, real))
		r = cp_base(real, out);
	if (r == 0 && !strcmp(out, ".."))
		r = -EINVAL;
	return r < 0 ? err_errno(e, -r, "take its name") : 0;
}

/* The table at the top of this file. */
static int cp_plan(const struct cp_side *src, enum cp_kind src_kind,
		   const struct cp_side *dst, enum cp_kind dst_kind,
		   struct cp_plan *ret, struct err *e)
{
	int r;

	*ret = (struct cp_plan){ 0 };
	if (dst_kind == CP_FILE &&
	    (src_kind == CP_DIR || cp_ends_in_slash(dst->path)))
		return err_set(e, ENOTDIR, "%s is not a directory", dst->path);
	if (dst_kind == CP_NOTHING && src_kind == CP_FILE &&
	    cp_ends_in_slash(dst->path))
		return err_set(e, ENOENT, "there is no directory %s",
			       dst->path);
	if (dst_kind != CP_DIR)
		return 0;
	r = cp_name(src, ret->name, e);
	if (r < 0)
		return r;
	/* The root has no name. */
	ret->contents = src_kind == CP_DIR &&
			(cp_means_contents(src->path) || !*ret->name);
	if (ret->contents)
		*ret->name = '\0';
	return 0;
}

/* ---- into a sandbox ---- */

static int cp_here_kind(const struct cp_side *x, enum cp_kind *ret,
			struct err *e)
{
	struct stat st = { 0 };

	if (lstat(x->path, &st) < 0)
		return err_errno(e, errno, "read %s", x->path);
	*ret = S_ISDIR(st.st_mode) ? CP_DIR : CP_FILE;
	return 0;
}

/* The agent's last word on a copy. */
static int cp_result(const struct stream_result *x, struct err *e)
{
	if (x->has_code && !x->code)
		return 0;
	return err_set(e, x->error, "%s", x->message);
}

/* Wait for STARTED, which says what is there. */
static int cp_put_started(struct stream *s, enum cp_kind *ret, struct err *e)
{
	struct stream_result result = { 0 };
	struct wire_frame f = { 0 };
	uint64_t kind = 0;
	int r;

	do {
		r = stream_wait(s, &f, e);
		if (r < 0)
			return r;
	} while (f.type != WIRE_STARTED && f.type != WIRE_RESULT);
	if (f.type == WIRE_RESULT) {
		r = stream_result(s, &f, &result, e);
		return r < 0 ? r : cp_result(&result, e);
	}
	r = wire_find_u64(&f, WIRE_K_KIND, &kind);
	*ret = r < 0 ? CP_NOTHING : kind == WIRE_KIND_DIR ? CP_DIR : CP_FILE;
	return 0;
}

/* Everything is sent: let the agent finish. */
static int cp_put_end(struct stream *s, struct stream_result *result,
		      struct err *e)
{
	struct wire_frame f = { 0 };
	int r;

	r = stream_eof(s, WIRE_STDIN, e);
	while (r == 0) {
		r = stream_wait(s, &f, e);
		if (r == 0 && f.type == WIRE_RESULT)
			return stream_result(s, &f, result, e);
	}
	return r;
}

static int cp_put(struct stream *s, const struct cp_side *src,
		  const struct cp_side *dst, struct err *e)
{
	struct stream_result result = { 0 };
	enum cp_kind here = CP_NOTHING, there = CP_NOTHING;
	struct cp_plan plan = { 0 };
	int r;

	r = cp_here_kind(src, &here, e);
	if (r < 0)
		return r;
	wire_put_str(stream_begin_open(s, WIRE_PUT), WIRE_K_PATH, dst->path);
	r = stream_send(s, e);
	if (r == 0)
		r = cp_put_started(s, &there, e);
	if (r == 0)
		r = cp_plan(src, here, dst, there, &plan, e);
	if (r < 0)
		return r;
	r = pack_send(s, src->path, plan.name, plan.contents, &result, e);
	if (r == 0)
		r = cp_put_end(s, &result, e);
	if (r < 0)
		return r;
	return cp_result(&result, e);
}

/* ---- out of a sandbox ---- */

/* Open the directory of @path, which need not exist, and take its name. */
static int cp_open_parent(const char *path, int *ret_fd,
			  char name[ENTRY_NAME_MAX], struct err *e)
{
	char dir[PATH_MAX];
	size_t len = strlen(path);
	int fd, r;

	r = cp_base(path, name);
	if (r < 0)
		return err_errno(e, -r, "write %s", path);
	while (len && path[len - 1] == '/')
		len--;
	len -= strlen(name);
	snprintf(dir, sizeof(dir), "%.*s", (int)len, path);
	fd = open(*dir ? dir : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(e, errno, "open %s", *dir ? dir : ".");
	*ret_fd = fd;
	return 0;
}

/* What is at DST, and its path behind all links. */
static int cp_target(const struct cp_side *dst, char real[PATH_MAX],
		     enum cp_kind *ret, struct err *e)
{
	struct stat st;

	*ret = CP_NOTHING;
	if (!realpath(dst->path, real) && errno == ENOENT)
		return 0;
	if (stat(dst->path, &st) < 0)
		return err_errno(e, errno, "look at %s", dst->path);
	if (S_ISDIR(st.st_mode))
		*ret = CP_DIR;
	else if (S_ISREG(st.st_mode))
		*ret = CP_FILE;
	else
		return err_set(e, EINVAL, "%s is neither file nor directory",
			       dst->path);
	return 0;
}

/* Where to unpack, now that the first entry is known. */
static int cp_unpack_init(struct unpack *u, const struct cp_side *src,
			  enum cp_kind src_kind, const struct cp_side *dst,
			  struct err *e)
{
	char real[PATH_MAX], name[ENTRY_NAME_MAX];
	enum cp_kind dst_kind = CP_NOTHING;
	struct cp_plan plan = { 0 };
	int fd = -1, r;

	r = cp_target(dst, real, &dst_kind, e);
	if (r == 0)
		r = cp_plan(src, src_kind, dst, dst_kind, &plan, e);
	if (r < 0)
		return r;
	if (dst_kind == CP_DIR) {
		fd = open(real, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0)
			return err_errno(e, errno, "open %s", real);
		unpack_init(u, fd, plan.name);
		return 0;
	}
	r = cp_open_parent(dst_kind == CP_FILE ? real : dst->path, &fd, name,
			   e);
	if (r < 0)
		return r;
	unpack_init(u, fd, name);
	return 0;
}

/* One frame of a GET. 0: more to come. CP_DONE. */
enum {
	CP_DONE = 1,
};

static int cp_get_frame(struct stream *s, const struct wire_frame *f,
			struct unpack *u, struct entry *x, struct err *e)
{
	struct stream_result result = { 0 };
	int r = 0;

	if (f->type == WIRE_ENTRY) {
		r = entry_read(f, x, e);
		return r < 0 ? r : unpack_entry(u, x, e);
	}
	if (f->type == WIRE_DATA) {
		r = unpack_data(u, f->payload, f->len, e);
		return r < 0 ? r : stream_credit(s, f->channel, f->len, e);
	}
	if (f->type != WIRE_RESULT)
		return 0;
	r = stream_result(s, f, &result, e);
	if (r == 0)
		r = cp_result(&result, e);
	if (r == 0)
		r = unpack_end(u, e);
	return r < 0 ? r : CP_DONE;
}

static int cp_get_tree(struct stream *s, struct unpack *u, struct entry *x,
		       struct err *e)
{
	struct wire_frame f = { 0 };
	int r;

	r = unpack_entry(u, x, e);
	while (r == 0) {
		r = stream_wait(s, &f, e);
		if (r == 0)
			r = cp_get_frame(s, &f, u, x, e);
	}
	return r < 0 ? r : 0;
}

/* The first frame tells what it is. */
static int cp_get_first(struct stream *s, struct entry *x, struct err *e)
{
	struct stream_result result = { 0 };
	struct wire_frame f = { 0 };
	int r;

	r = stream_wait(s, &f, e);
	if (r < 0)
		return r;
	if (f.type == WIRE_ENTRY)
		return entry_read(&f, x, e);
	if (f.type != WIRE_RESULT)
		return err_set(e, EPROTO, "the agent makes no sense");
	r = stream_result(s, &f, &result, e);
	if (r == 0)
		r = cp_result(&result, e);
	return r < 0 ? r : err_set(e, EPROTO, "nothing came");
}

static int cp_get(struct stream *s, const struct cp_side *src,
		  const struct cp_side *dst, struct err *e)
{
	guard_free struct unpack *u = calloc(1, sizeof(*u));
	guard_free struct entry *x = calloc(1, sizeof(*x));
	int r;

	if (!u || !x)
		return err_errno(e, ENOMEM, "receive it");
	wire_put_str(stream_begin_open(s, WIRE_GET), WIRE_K_PATH, src->path);
	r = stream_send(s, e);
	if (r == 0)
		r = cp_get_first(s, x, e);
	if (r == 0)
		r = cp_unpack_init(u, src,
				   x->kind == WIRE_KIND_DIR ? CP_DIR : CP_FILE,
				   dst, e);
	if (r < 0)
		return r;
	r = cp_get_tree(s, u, x, e);
	unpack_deinit(u);
	return r;
}

/* ---- the verb ---- */

static int cp_copy(const struct cp_side *src, const struct cp_side *dst,
		   struct err *e)
{
	guard(stream_deinit) struct stream s = STREAM_NULL;
	int r;

	r = stream_connect(&s, *src->id ? src->id : dst->id, e);
	if (r == 0)
		r = *src->id ? cp_get(&s, src, dst, e)
			     : cp_put(&s, src, dst, e);
	return r < 0 ? err_prefix(e, "copy %s to %s", src->arg, dst->arg) : 0;
}

static int cp_main(int argc, char **argv)
{
	static const struct opt none[] = { OPT_END };
	const struct opt_use use = { .cmd = &cmd_cp,
				     .groups = { { none, NULL } },
				     .min_args = 2,
				     .max_args = 2 };
	struct cp_side src, dst;
	struct err e = ERR_NULL;
	int n = 0, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	if (cp_side(argv[1], &src) < 0 || cp_side(argv[2], &dst) < 0)
		return cmd_usage(&cmd_cp, "not a path");
	if (!*src.id == !*dst.id)
		return cmd_usage(
			&cmd_cp,
			"one of the two must be in a sandbox (ID:PATH)");
	interrupt_hold();
	r = cp_copy(&src, &dst, &e);
	if (r == 0)
		return CMD_OK;
	return interrupt_come() ? 128 + interrupt_come() : cmd_fail(&e);
}

const struct cmd cmd_cp = {
	.name = "cp",
	.args = "SRC ID:DST | ID:SRC DST",
	.summary = "Copy files and directories into a sandbox, or out of one.",
	.run = cp_main,
};
