/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receiving a tree
 *
 * The host sends ENTRY frames, directories before what is in them, and behind
 * the ENTRY of a file exactly its SIZE in DATA. A file grows under a temporary
 * name in the directory it belongs to and is renamed when its last byte and its
 * attributes are there: whoever looks sees the old file or the new one.
 *
 * What exists wins where the two cannot be merged: a directory is never
 * replaced by a file (EISDIR) nor anything else by a directory (ENOTDIR). An
 * existing directory keeps its attributes, as with cp -r; one made by us gets
 * its mode and time when the walk has left it, since writing into it would
 * change the one and might be forbidden by the other. Those still to come are
 * kept on a stack, whose paths are prefixes of one another; below its depth
 * directories keep the time of their last change and a mode of 0700 is never
 * left behind: they get theirs at once.
 *
 * The first error ends the stream with RESULT. What the host had sent by then
 * is ignored like anything else for a stream that does not exist.
 *
 * 1. At most one file is being received; its descriptor is the only one not
 *    for a directory.
 * 2. Writing blocks the agent for as long as the guest's disk does. The disk is
 *    a file of the host's, behind the guest's page cache.
 */
#include "agent/agent.h"
#include "agent/place.h"
#include "agent/put.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Directories waiting for their time: as deep as GET sends them. */
#define PUT_DEPTH_MAX 64

struct put_meta {
	bool has_mode, has_uid, has_gid, has_mtime;
	mode_t mode;
	uid_t uid;
	gid_t gid;
	uint64_t mtime_ns;
};

struct put_level {
	size_t path_len;
	struct put_meta meta;
};

struct put {
	struct place base; /* PATH */
	int top_fd; /* PATH itself, once it is known as a directory */
	int parent_fd; /* directory of the last entry, "" for the top */
	char parent[PLACE_PATH_MAX];
	/* the entry at hand; in messages too */
	char path[PLACE_PATH_MAX];
	char link[PLACE_PATH_MAX];
	struct put_meta meta;
	/* the file being received */
	int file_fd;
	int file_dir_fd; /* borrowed: base.dir_fd or parent_fd */
	char file_name[PLACE_NAME_MAX];
	char temp[32];
	unsigned temps;
	uint64_t left_bytes;
	/* flow control */
	uint32_t outstanding, consumed;
	/* directories not finished */
	unsigned depth;
	char deepest[PLACE_PATH_MAX];
	struct put_level levels[PUT_DEPTH_MAX];
};

/* ---- attributes ---- */

/* Owner first: changing it takes set-id bits away. */
static int put_apply(int fd, const struct put_meta *m)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT } };

	if ((m->has_uid || m->has_gid) &&
	    fchown(fd, m->has_uid ? m->uid : (uid_t)-1,
		   m->has_gid ? m->gid : (gid_t)-1) < 0 &&
	    !(errno == EPERM && geteuid() != 0))
		return -errno;
	if (m->has_mode && fchmod(fd, m->mode) < 0)
		return -errno;
	times[1].tv_sec = (time_t)(m->mtime_ns / 1000000000);
	times[1].tv_nsec = (long)(m->mtime_ns % 1000000000);
	if (m->has_mtime && futimens(fd, times) < 0)
		return -errno;
	return 0;
}

static int put_apply_link(int dir_fd, const char *name,
			  const struct put_meta *m)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT } };

	if ((m->has_uid || m->has_gid) &&
	    fchownat(dir_fd, name, m->has_uid ? m->uid : (uid_t)-1,
		     m->has_gid ? m->gid : (gid_t)-1,
		     AT_SYMLINK_NOFOLLOW) < 0 &&
	    !(errno == EPERM && geteuid() != 0))
		return -errno;
	times[1].tv_sec = (time_t)(m->mtime_ns / 1000000000);
	times[1].tv_nsec = (long)(m->mtime_ns % 1000000000);
	if (m->has_mtime &&
	    utimensat(dir_fd, name, times, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return 0;
}

/* ---- ending ---- */

static void put_close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void put_end(struct agent *a, struct stream *s)
{
	struct put *p = s->put;

	if (p->file_fd >= 0)
		unlinkat(p->file_dir_fd, p->temp, 0);
	put_close_fd(&p->file_fd);
	put_close_fd(&p->parent_fd);
	put_close_fd(&p->top_fd);
	place_close(&p->base);
	free(p);
	s->put = NULL;
	agent_release(a, s);
}

void put_abandon(struct agent *a, struct stream *s)
{
	put_end(a, s);
}

static void put_refuse(struct agent *a, struct stream *s, const struct err *e)
{
	agent_refuse(a, s->id, e);
	put_end(a, s);
}

/* ---- directories ---- */

/* The walk leaves directories that @path is not in: finish them. */
static int put_leave(struct put *p, const char *path, struct err *e)
{
	struct put_level *l;
	int dir_fd, fd, r;

	while (p->depth) {
		l = &p->levels[p->depth - 1];
		if (path && (l->path_len == 0 ||
			     (!strncmp(path, p->deepest, l->path_len) &&
			      path[l->path_len] == '/')))
			return 0;
		p->depth--;
		p->deepest[l->path_len] = 0;
		dir_fd = place_walk(p->top_fd, p->deepest, l->path_len);
		if (dir_fd < 0)
			return err_errno(e, -dir_fd, "%s", p->deepest);
		fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		r = fd < 0 ? -errno : put_apply(fd, &l->meta);
		put_close_fd(&fd);
		close(dir_fd);
		if (r < 0)
			return err_errno(e, -r, "%s", p->deepest);
	}
	return 0;
}

static int put_dir(struct put *p, int dir_fd, const char *name, struct err *e)
{
	struct put_level *l;
	struct stat st;
	int fd, r;

	if (mkdirat(dir_fd, name, 0700) < 0) {
		r = errno;
		if (r != EEXIST ||
		    fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			return err_errno(e, r, "%s", p->path);
		if (!S_ISDIR(st.st_mode))
			return err_errno(e, ENOTDIR, "%s", p->path);
		return 0;
	}
	if (p->depth < PUT_DEPTH_MAX) {
		l = &p->levels[p->depth++];
		l->path_len = strlen(p->path);
		l->meta = p->meta;
		strcpy(p->deepest, p->path);
		if (l->path_len == 0 && p->top_fd < 0) {
			p->top_fd = openat(dir_fd, name,
					   O_PATH | O_DIRECTORY | O_CLOEXEC |
						   O_NOFOLLOW);
			if (p->top_fd < 0)
				return err_errno(e, errno, "%s", p->path);
		}
		return 0;
	}
	fd = openat(dir_fd, name,
		    O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	r = fd < 0 ? -errno : put_apply(fd, &p->meta);
	put_close_fd(&fd);
	return r < 0 ? err_errno(e, -r, "%s", p->path) : 0;
}

/* Where the entry at hand goes: a directory (borrowed) and a name. */
static int put_locate(struct put *p, int *ret_dir_fd, const char **ret_name,
		      struct err *e)
{
	char *slash;
	size_t len;
	int fd;

	if (!p->path[0]) {
		*ret_dir_fd = p->base.dir_fd;
		*ret_name = p->base.name;
		return 0;
	}
	if (p->top_fd < 0) {
		p->top_fd =
			openat(p->base.dir_fd, p->base.name,
			       O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		if (p->top_fd < 0)
			return err_errno(e, errno, "%s", p->base.name);
	}
	slash = strrchr(p->path, '/');
	len = slash ? (size_t)(slash - p->path) : 0;
	*ret_name = slash ? slash + 1 : p->path;
	if (!**ret_name || !strcmp(*ret_name, ".") ||
	    !strcmp(*ret_name, "..") || (slash && len == 0))
		return err_errno(e, EINVAL, "%s", p->path);
	if (strlen(*ret_name) >= sizeof(p->file_name))
		return err_errno(e, ENAMETOOLONG, "%.64s...", *ret_name);
	if (p->parent_fd < 0 || strlen(p->parent) != len ||
	    memcmp(p->parent, p->path, len)) {
		fd = place_walk(p->top_fd, p->path, len);
		if (fd < 0)
			return err_errno(e, -fd, "%s", p->path);
		put_close_fd(&p->parent_fd);
		p->parent_fd = fd;
		memcpy(p->parent, p->path, len);
		p->parent[len] = 0;
	}
	*ret_dir_fd = p->parent_fd;
	return 0;
}

/* ---- files and links ---- */

static void put_next_temp(struct put *p, uint32_t id)
{
	snprintf(p->temp, sizeof(p->temp), ".byre-put-%u-%u", id, p->temps++);
}

/* A name may be taken by what a killed host left; these tries are more than
 * it could have left. */
#define PUT_TEMP_TRIES 100

static int put_check_target(struct put *p, int dir_fd, const char *name,
			    struct err *e)
{
	struct stat st;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    S_ISDIR(st.st_mode))
		return err_errno(e, EISDIR, "%s",
				 p->path[0] ? p->path : p->base.name);
	return 0;
}

static int put_link(struct put *p, uint32_t id, int dir_fd, const char *name,
		    struct err *e)
{
	int i, r;

	r = put_check_target(p, dir_fd, name, e);
	if (r < 0)
		return r;
	for (i = 0; i < PUT_TEMP_TRIES; i++) {
		put_next_temp(p, id);
		r = symlinkat(p->link, dir_fd, p->temp) < 0 ? -errno : 0;
		if (r != -EEXIST)
			break;
	}
	if (r < 0)
		return err_errno(e, -r, "%s", p->path);
	r = put_apply_link(dir_fd, p->temp, &p->meta);
	if (r == 0 && renameat(dir_fd, p->temp, dir_fd, name) < 0)
		r = -errno;
	if (r < 0) {
		unlinkat(dir_fd, p->temp, 0);
		return err_errno(e, -r, "%s", p->path);
	}
	return 0;
}

/* All bytes are there. */
static int put_file_done(struct put *p, struct err *e)
{
	int r;

	r = put_apply(p->file_fd, &p->meta);
	/* close() can report what a write could not (quota, network). */
	if (close(p->file_fd) < 0 && r == 0)
		r = -errno;
	p->file_fd = -1;
	if (r == 0 &&
	    renameat(p->file_dir_fd, p->temp, p->file_dir_fd, p->file_name) < 0)
		r = -errno;
	if (r < 0) {
		unlinkat(p->file_dir_fd, p->temp, 0);
		return err_errno(e, -r, "%s",
				 p->path[0] ? p->path : p->base.name);
	}
	return 0;
}

static int put_file(struct put *p, uint32_t id, int dir_fd, const char *name,
		    struct err *e)
{
	int i, r;

	r = put_check_target(p, dir_fd, name, e);
	if (r < 0)
		return r;
	for (i = 0; i < PUT_TEMP_TRIES; i++) {
		put_next_temp(p, id);
		p->file_fd = openat(dir_fd, p->temp,
				    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC |
					    O_NOFOLLOW,
				    0600);
		r = p->file_fd < 0 ? -errno : 0;
		if (r != -EEXIST)
			break;
	}
	if (r < 0)
		return err_errno(e, -r, "%s",
				 p->path[0] ? p->path : p->base.name);
	p->file_dir_fd = dir_fd;
	strcpy(p->file_name, name);
	return p->left_bytes ? 0 : put_file_done(p, e);
}

/* ---- frames ---- */

static int put_find(const struct wire_frame *f, uint16_t key, uint64_t most,
		    bool *ret_has, uint64_t *ret)
{
	uint64_t v = 0;
	int r;

	r = wire_find_u64(f, key, &v);
	*ret_has = r == 0;
	if (r == 0)
		*ret = v;
	if (r == -ENOENT)
		return 0;
	return r == 0 && v > most ? -ERANGE : r;
}

static int put_read_meta(const struct wire_frame *f, struct put_meta *m)
{
	uint64_t mode = 0, uid = 0, gid = 0;
	int r;

	r = put_find(f, WIRE_K_MODE, 07777, &m->has_mode, &mode);
	if (r == 0)
		r = put_find(f, WIRE_K_UID, UINT32_MAX - 1, &m->has_uid, &uid);
	if (r == 0)
		r = put_find(f, WIRE_K_GID, UINT32_MAX - 1, &m->has_gid, &gid);
	if (r == 0)
		r = put_find(f, WIRE_K_MTIME, UINT64_MAX, &m->has_mtime,
			     &m->mtime_ns);
	m->mode = (mode_t)mode;
	m->uid = (uid_t)uid;
	m->gid = (gid_t)gid;
	return r;
}

static int put_entry(struct put *p, uint32_t id, const struct wire_frame *f,
		     struct err *e)
{
	const char *name = "";
	uint64_t kind = 0;
	bool has_size;
	int dir_fd = -1, r;

	if (p->file_fd >= 0)
		return err_set(e, EPROTO, "%s: next entry came too early",
			       p->path);
	p->meta = (struct put_meta){ 0 };
	p->left_bytes = 0;
	r = wire_find_str(f, WIRE_K_PATH, p->path, sizeof(p->path));
	if (r == 0)
		r = wire_find_u64(f, WIRE_K_KIND, &kind);
	if (r == 0)
		r = put_read_meta(f, &p->meta);
	if (r == 0 && kind == WIRE_KIND_LINK)
		r = wire_find_str(f, WIRE_K_LINK, p->link, sizeof(p->link));
	if (r == 0)
		r = put_find(f, WIRE_K_SIZE, INT64_MAX, &has_size,
			     &p->left_bytes);
	if (r < 0)
		return err_errno(e, -r, "put: malformed entry");

	r = put_leave(p, p->path, e);
	if (r == 0)
		r = put_locate(p, &dir_fd, &name, e);
	if (r < 0)
		return r;
	switch (kind) {
	case WIRE_KIND_FILE:
		return put_file(p, id, dir_fd, name, e);
	case WIRE_KIND_DIR:
		return put_dir(p, dir_fd, name, e);
	case WIRE_KIND_LINK:
		return put_link(p, id, dir_fd, name, e);
	default:
		return err_set(e, EPROTO, "put: unknown kind of entry");
	}
}

static int put_data(struct put *p, const struct wire_frame *f, struct err *e)
{
	size_t done;
	ssize_t n;

	if (f->len > WIRE_WINDOW - p->outstanding)
		return err_set(e, EPROTO, "put: more data than credit");
	if (p->file_fd < 0 || f->len > p->left_bytes)
		return err_set(e, EPROTO, "%s: more data than its size",
			       p->path);
	for (done = 0; done < f->len; done += (size_t)n) {
		n = write(p->file_fd, f->payload + done, f->len - done);
		if (n < 0 && errno == EINTR)
			n = 0;
		else if (n <= 0)
			return err_errno(e, n < 0 ? errno : ENOSPC, "%s",
					 p->path[0] ? p->path : p->base.name);
	}
	p->left_bytes -= f->len;
	p->outstanding += f->len;
	p->consumed += f->len;
	return p->left_bytes ? 0 : put_file_done(p, e);
}

static void put_finish(struct agent *a, struct stream *s)
{
	struct put *p = s->put;
	struct err e = ERR_NULL;
	struct wire_out o;
	int r;

	r = p->file_fd >= 0
		    ? err_set(&e, EPROTO, "%s: file ends too early", p->path)
		    : put_leave(p, NULL, &e);
	if (r < 0) {
		put_refuse(a, s, &e);
		return;
	}
	port_begin(&a->port, &o, 32, WIRE_RESULT, 0, s->id);
	wire_put_u64(&o, WIRE_K_CODE, 0);
	port_end(&a->port, &o);
	put_end(a, s);
}

void put_frame(struct agent *a, struct stream *s, const struct wire_frame *f)
{
	struct put *p = s->put;
	struct err e = ERR_NULL;
	int r = 0;

	switch (f->type) {
	case WIRE_ENTRY:
		r = put_entry(p, s->id, f, &e);
		break;
	case WIRE_DATA:
		r = put_data(p, f, &e);
		if (r == 0)
			agent_credit(a, s->id, WIRE_STDIN, &p->consumed,
				     &p->outstanding);
		break;
	case WIRE_EOF:
		put_finish(a, s);
		return;
	case WIRE_CLOSE:
		r = err_errno(&e, ECANCELED, "put");
		break;
	default:
		break;
	}
	if (r < 0)
		put_refuse(a, s, &e);
}

/* The kind of what exists at PATH. */
static bool put_kind(const struct place *base, uint64_t *ret)
{
	struct stat st;

	if (fstatat(base->dir_fd, base->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return false;
	*ret = S_ISDIR(st.st_mode)   ? WIRE_KIND_DIR
	       : S_ISLNK(st.st_mode) ? WIRE_KIND_LINK
				     : WIRE_KIND_FILE;
	return true;
}

void put_start(struct agent *a, struct stream *s, const struct wire_frame *f)
{
	struct place base = PLACE_NULL;
	char path[PLACE_PATH_MAX];
	struct err e = ERR_NULL;
	struct wire_out o;
	uint64_t kind = 0;
	int r;

	r = wire_find_str(f, WIRE_K_PATH, path, sizeof(path));
	if (r < 0)
		r = err_errno(&e, -r, "put: path");
	else
		r = place_open(a->ops->root_fd, path, true, &base, &e);
	if (r == 0) {
		s->put = calloc(1, sizeof(*s->put));
		if (!s->put)
			r = err_errno(&e, ENOMEM, "put");
	}
	if (!s->put) {
		place_close(&base);
		agent_refuse(a, s->id, &e);
		agent_release(a, s);
		return;
	}
	s->put->base = base;
	s->put->top_fd = s->put->parent_fd = s->put->file_fd = -1;
	port_begin(&a->port, &o, 32, WIRE_STARTED, 0, s->id);
	if (put_kind(&base, &kind))
		wire_put_u64(&o, WIRE_K_KIND, kind);
	port_end(&a->port, &o);
}
