/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sending a tree
 *
 * A walk in depth, directories before their contents, with one descriptor for
 * each level and one buffer of directory entries for all: a level that is come
 * back to seeks to where it was. Only as much is read as the host gave credit
 * for, so a walk may take as long as the host likes and see the tree change.
 * What vanishes between being listed and being opened is left out. A file is
 * sent in the size it had when opened: what grows is cut, what shrinks ends the
 * walk with an error, for its ENTRY promised more. Where the size is not to be
 * believed it is found out first (ahead.c).
 *
 * Files, directories and links are sent. Devices, sockets and pipes are not
 * contents, and skipped.
 */
#include "agent/agent.h"
#include "agent/ahead.h"
#include "agent/get.h"
#include "agent/place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One descriptor each; trees of software stay below 30. */
#define GET_DEPTH_MAX 64
/* Entries per turn, so that other streams have theirs. */
#define GET_ENTRIES_PER_TURN 16
/* Two paths, nine fields. */
#define GET_ENTRY_BYTES (2 * PLACE_PATH_MAX + 9 * 16)

struct get_level {
	int fd;
	size_t path_len; /* of the directory */
	off_t next; /* where to read on, when the buffer was used by others */
};

struct get {
	struct place base; /* until the first entry is sent */
	unsigned depth;
	struct get_level levels[GET_DEPTH_MAX];
	size_t path_len;
	char path[PLACE_PATH_MAX]; /* of the entry at hand, below PATH */
	char link[PLACE_PATH_MAX];
	/* the file being sent */
	int file_fd;
	struct ahead ahead;
	uint64_t left_bytes;
	uint32_t credit_bytes;
	/* entries of the deepest level */
	size_t at, have;
	_Alignas(struct dirent64) char entries[4096];
};

/* ---- ending ---- */

static void get_end(struct agent *a, struct stream *s)
{
	struct get *g = s->get;

	while (g->depth)
		close(g->levels[--g->depth].fd);
	if (g->file_fd >= 0)
		close(g->file_fd);
	ahead_drop(&g->ahead);
	place_close(&g->base);
	free(g);
	s->get = NULL;
	agent_release(a, s);
}

void get_abandon(struct agent *a, struct stream *s)
{
	get_end(a, s);
}

static void get_refuse(struct agent *a, struct stream *s, const struct err *e)
{
	agent_refuse(a, s->id, e);
	get_end(a, s);
}

/* Why @path ("": what was asked for, whose name the host knows) cannot be sent;
 * @why: what strerror() does not know. */
static int get_fail(const char *path, int error, const char *why, struct err *e)
{
	if (!why)
		why = error == EFBIG ? "longer than 1 MiB, of a size not told"
				     : strerror(error);
	return err_set(e, error, "%s%s%s", path, *path ? ": " : "", why);
}

/* ---- one entry ---- */

enum {
	GET_SKIPPED = 1, /* nothing that could be sent */
};

static void get_announce(struct agent *a, const struct stream *s,
			 const struct stat *st, enum wire_kind kind)
{
	const struct get *g = s->get;
	struct wire_out o;

	port_begin(&a->port, &o, GET_ENTRY_BYTES, WIRE_ENTRY, 0, s->id);
	wire_put(&o, WIRE_K_PATH, g->path, g->path_len);
	wire_put_u64(&o, WIRE_K_KIND, kind);
	wire_put_u64(&o, WIRE_K_MODE, st->st_mode & 07777);
	wire_put_u64(&o, WIRE_K_UID, st->st_uid);
	wire_put_u64(&o, WIRE_K_GID, st->st_gid);
	/* Before 1970 there is nothing that the wire could carry. */
	wire_put_u64(&o, WIRE_K_MTIME,
		     st->st_mtim.tv_sec < 0
			     ? 0
			     : (uint64_t)st->st_mtim.tv_sec * 1000000000 +
				       (uint64_t)st->st_mtim.tv_nsec);
	if (kind == WIRE_KIND_FILE)
		wire_put_u64(&o, WIRE_K_SIZE, (uint64_t)st->st_size);
	if (kind == WIRE_KIND_LINK)
		wire_put_str(&o, WIRE_K_LINK, g->link);
	port_end(&a->port, &o);
}

/* Not there any more, or replaced by something else: no error of ours. */
static bool get_vanished(int error)
{
	return error == ENOENT || error == ELOOP || error == ENOTDIR;
}

static int get_send_file(struct agent *a, struct stream *s, int dir_fd,
			 const char *name)
{
	struct get *g = s->get;
	uint64_t size;
	struct stat st;
	int fd, r;

	/* Non-blocking, should it have become a pipe. */
	fd = openat(dir_fd, name,
		    O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		close(fd);
		return GET_SKIPPED;
	}
	size = (uint64_t)st.st_size;
	r = ahead_read(&g->ahead, fd, &size);
	if (r < 0) {
		close(fd);
		return r;
	}
	st.st_size = (off_t)size;
	get_announce(a, s, &st, WIRE_KIND_FILE);
	g->file_fd = fd;
	g->left_bytes = size;
	return 0;
}

static int get_send_dir(struct agent *a, struct stream *s, int dir_fd,
			const char *name)
{
	struct get *g = s->get;
	struct stat st;
	int fd;

	if (g->depth == GET_DEPTH_MAX)
		return -ENAMETOOLONG;
	fd = openat(dir_fd, name,
		    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0) {
		close(fd);
		return GET_SKIPPED;
	}
	get_announce(a, s, &st, WIRE_KIND_DIR);
	g->levels[g->depth++] = (struct get_level){
		.fd = fd,
		.path_len = g->path_len,
	};
	g->at = g->have = 0;
	return 0;
}

static int get_send_link(struct agent *a, struct stream *s, int dir_fd,
			 const char *name, const struct stat *st)
{
	struct get *g = s->get;
	ssize_t n;

	n = readlinkat(dir_fd, name, g->link, sizeof(g->link) - 1);
	if (n < 0)
		return errno == EINVAL ? GET_SKIPPED : -errno;
	g->link[n] = 0;
	get_announce(a, s, st, WIRE_KIND_LINK);
	return 0;
}

/* g->path names it already. 0, GET_SKIPPED, -errno. */
static int get_send(struct agent *a, struct stream *s, int dir_fd,
		    const char *name)
{
	struct stat st;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (S_ISREG(st.st_mode))
		return get_send_file(a, s, dir_fd, name);
	if (S_ISDIR(st.st_mode))
		return get_send_dir(a, s, dir_fd, name);
	if (S_ISLNK(st.st_mode))
		return get_send_link(a, s, dir_fd, name, &st);
	return GET_SKIPPED;
}

/* ---- the walk ---- */

/* The next entry of the deepest directory: 1, 0 at its end, -errno. */
static int get_read_dir(struct get *g, struct get_level *l,
			const struct dirent64 **ret)
{
	const struct dirent64 *d;
	ssize_t n;

	if (g->at == g->have) {
		if (l->next && lseek(l->fd, l->next, SEEK_SET) < 0)
			return -errno;
		n = getdents64(l->fd, g->entries, sizeof(g->entries));
		if (n <= 0)
			return n < 0 ? -errno : 0;
		g->at = 0;
		g->have = (size_t)n;
	}
	d = (const void *)(g->entries + g->at);
	g->at += d->d_reclen;
	l->next = d->d_off;
	*ret = d;
	return 1;
}

/* Append "/name" (or "name" at the top). */
static bool get_path_add(struct get *g, size_t base, const char *name)
{
	size_t len = strlen(name), slash = base ? 1 : 0;

	if (base + slash + len >= sizeof(g->path))
		return false;
	if (slash)
		g->path[base] = '/';
	memcpy(g->path + base + slash, name, len + 1);
	g->path_len = base + slash + len;
	return true;
}

/* One step of the walk: 1 there is more, 0 it ended, -errno. */
static int get_step(struct agent *a, struct stream *s, struct err *e)
{
	struct get *g = s->get;
	const struct dirent64 *d = NULL;
	struct get_level *l;
	int r;

	if (g->depth == 0)
		return 0;
	l = &g->levels[g->depth - 1];
	r = get_read_dir(g, l, &d);
	if (r < 0) {
		g->path[l->path_len] = 0;
		return err_errno(e, -r, "%s", g->path);
	}
	if (!d) {
		close(l->fd);
		g->depth--;
		g->at = g->have = 0;
		return 1;
	}
	if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, ".."))
		return 1;
	if (!get_path_add(g, l->path_len, d->d_name))
		return err_errno(e, ENAMETOOLONG, "%.64s...", g->path);
	r = get_send(a, s, l->fd, d->d_name);
	if (r < 0 && !get_vanished(-r))
		return get_fail(g->path, -r, NULL, e);
	return 1;
}

/* DATA of the file at hand; true: come again. */
static bool get_file_pump(struct agent *a, struct stream *s)
{
	struct get *g = s->get;
	struct err e = ERR_NULL;
	uint8_t *mem;
	ssize_t n;
	size_t len;

	if (g->left_bytes == 0) {
		close(g->file_fd);
		g->file_fd = -1;
		ahead_drop(&g->ahead);
		return true;
	}
	len = min(g->credit_bytes, PORT_CHUNK);
	if (len > g->left_bytes)
		len = (size_t)g->left_bytes;
	if (len == 0 || !port_has_data_room(&a->port, len))
		return false;
	mem = port_data(&a->port, len);
	if (g->ahead.bytes)
		n = (ssize_t)ahead_take(&g->ahead, mem, len);
	else
		n = read(g->file_fd, mem, len);
	if (n <= 0) {
		get_fail(g->path, n < 0 ? errno : EIO,
			 n < 0 ? NULL : "it shrank meanwhile", &e);
		get_refuse(a, s, &e);
		return false;
	}
	port_data_commit(&a->port, WIRE_STDIN, s->id, (size_t)n);
	g->left_bytes -= (size_t)n;
	g->credit_bytes -= (uint32_t)n;
	return true;
}

bool get_pump(struct agent *a, struct stream *s)
{
	struct get *g = s->get;
	struct err e = ERR_NULL;
	struct wire_out o;
	int i, r = 1;

	if (g->file_fd >= 0)
		return get_file_pump(a, s);
	for (i = 0; i < GET_ENTRIES_PER_TURN && r > 0 && g->file_fd < 0; i++) {
		if (!port_has_data_room(&a->port, GET_ENTRY_BYTES))
			return false;
		r = get_step(a, s, &e);
	}
	if (r > 0)
		return true;
	if (r < 0) {
		get_refuse(a, s, &e);
		return false;
	}
	port_begin(&a->port, &o, 32, WIRE_RESULT, 0, s->id);
	wire_put_u64(&o, WIRE_K_CODE, 0);
	port_end(&a->port, &o);
	get_end(a, s);
	return false;
}

void get_frame(struct agent *a, struct stream *s, const struct wire_frame *f)
{
	struct err e = ERR_NULL;

	if (f->type == WIRE_CREDIT && f->channel == WIRE_STDIN) {
		agent_credited(f, &s->get->credit_bytes);
	} else if (f->type == WIRE_CLOSE) {
		err_errno(&e, ECANCELED, "get");
		get_refuse(a, s, &e);
	}
}

void get_start(struct agent *a, struct stream *s, const struct wire_frame *f)
{
	struct place base = PLACE_NULL;
	char path[PLACE_PATH_MAX];
	struct err e = ERR_NULL;
	size_t len;
	int r;

	r = wire_find_str(f, WIRE_K_PATH, path, sizeof(path));
	if (r < 0) {
		r = err_errno(&e, -r, "get: path");
	} else {
		/* "link/" asks for what the link leads to. */
		len = strlen(path);
		r = place_open(a->ops->root_fd, path,
			       len > 1 && path[len - 1] == '/', &base, &e);
	}
	if (r == 0) {
		s->get = calloc(1, sizeof(*s->get));
		if (!s->get)
			r = err_errno(&e, ENOMEM, "get");
	}
	if (!s->get) {
		place_close(&base);
		agent_refuse(a, s->id, &e);
		agent_release(a, s);
		return;
	}
	s->get->base = base;
	s->get->file_fd = -1;
	s->get->credit_bytes = WIRE_WINDOW;
	r = get_send(a, s, base.dir_fd, base.name);
	if (r == 0)
		return;
	if (r < 0)
		get_fail(path, -r, NULL, &e);
	else
		err_set(&e, EINVAL, "%s: neither file, directory nor link",
			path);
	get_refuse(a, s, &e);
}
