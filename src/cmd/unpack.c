/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tree from a guest becomes files here, and nowhere else
 *
 * The guest is hostile: it chooses every path, kind, size and the order of it
 * all, and may send a link "a" and then a file "a/passwd". So
 *
 * 1. Every directory is opened from the top's fd with openat2(RESOLVE_BENEATH |
 *    RESOLVE_NO_SYMLINKS); where the kernel or a sandbox has no openat2, one
 *    name at a time with O_NOFOLLOW. entry_read() has refused "..", so both
 *    end below the top. Links that were here before are not followed either.
 * 2. Files and links are made under a name of ours, and renamed when their last
 *    byte, mode and time are there. rename() replaces a link, it does not
 *    follow it; and a file that was being written is never seen half.
 * 3. A file's DATA is exactly its SIZE. Anything else is refused: data without
 *    a file, an entry before the file is whole, an end before that.
 * 4. What exists wins where the two cannot be merged: a directory is not
 *    replaced by a file (EISDIR) nor anything by a directory (ENOTDIR).
 *    Existing directories keep their mode and time.
 * 5. Set-uid, set-gid and sticky bits are not taken over: on the guest's side
 *    they meant a user of the guest's, here root may be copying. Owners are
 *    not taken over for the same reason.
 * 6. Directories we make are 0700 until the walk has left them, then get their
 *    mode and time; writing into them would change the one and may be
 *    forbidden by the other. Those still open are a stack of prefixes of one
 *    path, as GET walks in depth. Who walks otherwise gets other times.
 * 7. Nothing grows with the number of entries. How much disk is filled is
 *    between the user and the guest.
 */
#include "cmd/unpack.h"

#include "base/guard.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define UNPACK_DIR_FLAGS (O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)
#define UNPACK_MODE_MASK 0777u

/* A name may be taken by what a killed copy left, or by another copy. */
#define UNPACK_TEMP_TRIES 100

/* How the entry is called in sentences. */
static const char *unpack_called(const struct unpack *u, const char *path)
{
	return *path ? path : *u->name ? u->name : ".";
}

void unpack_init(struct unpack *u, int dir_take, const char *name)
{
	*u = (struct unpack){
		.base_fd = dir_take,
		.top_fd = -1,
		.parent_fd = -1,
		.file_fd = -1,
	};
	must(strlen(name) < sizeof(u->name));
	strcpy(u->name, name);
}

void unpack_deinit(struct unpack *u)
{
	if (u->file_fd >= 0)
		unlinkat(u->file_dir_fd, u->temp, 0);
	fd_close(&u->file_fd);
	fd_close(&u->parent_fd);
	fd_close(&u->top_fd);
	fd_close(&u->base_fd);
}

static struct timespec unpack_time(uint64_t ns)
{
	return (struct timespec){ .tv_sec = (time_t)(ns / 1000000000),
				  .tv_nsec = (long)(ns % 1000000000) };
}

/* ---- finding directories ---- */

/* One name at a time; what openat2() does, for kernels that have none. */
static int unpack_walk(int top_fd, const char *path)
{
	guard_fd int fd = openat(top_fd, ".", UNPACK_DIR_FLAGS);
	char name[ENTRY_NAME_MAX];
	size_t len;
	int next;

	while (fd >= 0 && *path) {
		len = strcspn(path, "/");
		must(len && len < sizeof(name)); /* entry_path_ok() */
		memcpy(name, path, len);
		name[len] = '\0';
		next = openat(fd, name, UNPACK_DIR_FLAGS);
		if (next < 0)
			return -errno;
		fd_close(&fd);
		fd = next;
		path += len + (path[len] == '/');
	}
	return fd < 0 ? -errno : fd_take(&fd);
}

/* The directory @path below the top. */
static int unpack_open_dir(const struct unpack *u, const char *path)
{
	struct open_how how = {
		.flags = UNPACK_DIR_FLAGS,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
			   RESOLVE_NO_MAGICLINKS,
	};
	int fd;

	fd = (int)syscall(SYS_openat2, u->top_fd, *path ? path : ".", &how,
			  sizeof(how));
	if (fd >= 0)
		return fd;
	/* Older than 5.6, or a filter that does not know it. */
	if (errno == ENOSYS || errno == EPERM)
		return unpack_walk(u->top_fd, path);
	return -errno;
}

/* Where an entry goes: a directory (borrowed) and a name in it. */
static int unpack_locate(struct unpack *u, const char *path, int *ret_dir,
			 const char **ret_name, struct err *e)
{
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : 0;
	char parent[ENTRY_PATH_MAX];
	int fd;

	*ret_name = slash ? slash + 1 : path;
	if (u->parent_fd < 0 || strlen(u->parent) != len ||
	    memcmp(u->parent, path, len)) {
		memcpy(parent, path, len);
		parent[len] = '\0';
		fd = unpack_open_dir(u, parent);
		if (fd < 0)
			return err_errno(e, -fd, "open the directory of %s",
					 path);
		fd_close(&u->parent_fd);
		u->parent_fd = fd;
		strcpy(u->parent, parent);
	}
	*ret_dir = u->parent_fd;
	return 0;
}

/* ---- directories ---- */

/* Mode and time of the directory on top of the stack. */
static int unpack_finish(struct unpack *u, struct err *e)
{
	const struct unpack_level *l = &u->levels[--u->depth];
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT },
				     unpack_time(l->mtime_ns) };
	guard_fd int dir = -1;
	guard_fd int fd = -1;

	u->deepest[l->path_len] = '\0';
	dir = unpack_open_dir(u, u->deepest);
	if (dir >= 0)
		fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(e, dir < 0 ? -dir : errno, "open %s",
				 unpack_called(u, u->deepest));
	if (fchmod(fd, l->mode & UNPACK_MODE_MASK) < 0 ||
	    futimens(fd, times) < 0)
		return err_errno(e, errno, "set mode and time of %s",
				 unpack_called(u, u->deepest));
	return 0;
}

/* Is @path inside (or) the directory on top of the stack? */
static bool unpack_inside(const struct unpack *u, const char *path)
{
	size_t len = u->levels[u->depth - 1].path_len;

	return !len || (!strncmp(path, u->deepest, len) && path[len] == '/');
}

/* Finish the directories that @path (NULL: the end) is not in. */
static int unpack_leave(struct unpack *u, const char *path, struct err *e)
{
	int r = 0;

	while (r == 0 && u->depth && !(path && unpack_inside(u, path)))
		r = unpack_finish(u, e);
	return r;
}

static int unpack_push(struct unpack *u, const struct entry *x, struct err *e)
{
	if (u->depth == UNPACK_DEPTH_MAX)
		return err_set(e, EBADMSG, "%.200s: too deep", x->path);
	u->levels[u->depth++] = (struct unpack_level){
		.path_len = strlen(x->path),
		.mode = x->mode,
		.mtime_ns = x->mtime_ns,
	};
	strcpy(u->deepest, x->path);
	return 0;
}

/* Make a directory, or find one that exists. */
static int unpack_dir(struct unpack *u, const struct entry *x, int dir,
		      const char *name, struct err *e)
{
	struct stat st = { 0 };

	if (mkdirat(dir, name, 0700) == 0)
		return unpack_push(u, x, e);
	if (errno != EEXIST)
		return err_errno(e, errno, "make directory %s",
				 unpack_called(u, x->path));
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
	    !S_ISDIR(st.st_mode))
		return err_errno(e, ENOTDIR, "make directory %s",
				 unpack_called(u, x->path));
	return 0;
}

/* ---- files and links ---- */

static int unpack_not_dir(const struct unpack *u, const struct entry *x,
			  int dir, const char *name, struct err *e)
{
	struct stat st = { 0 };

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    S_ISDIR(st.st_mode))
		return err_errno(e, EISDIR, "replace %s",
				 unpack_called(u, x->path));
	return 0;
}

static void unpack_next_temp(struct unpack *u)
{
	snprintf(u->temp, sizeof(u->temp), ".byre-cp-%d-%u", (int)getpid(),
		 u->temps++);
}

static int unpack_link(struct unpack *u, const struct entry *x, int dir,
		       const char *name, struct err *e)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT },
				     unpack_time(x->mtime_ns) };
	int r = -EEXIST;

	for (int i = 0; i < UNPACK_TEMP_TRIES && r == -EEXIST; i++) {
		unpack_next_temp(u);
		r = symlinkat(x->link, dir, u->temp) < 0 ? -errno : 0;
	}
	if (r < 0)
		return err_errno(e, -r, "make link %s",
				 unpack_called(u, x->path));
	if (utimensat(dir, u->temp, times, AT_SYMLINK_NOFOLLOW) == 0 &&
	    renameat(dir, u->temp, dir, name) == 0)
		return 0;
	r = errno;
	unlinkat(dir, u->temp, 0);
	return err_errno(e, r, "make link %s", unpack_called(u, x->path));
}

/* All bytes are there: mode, time, name. */
static int unpack_file_end(struct unpack *u, struct err *e)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT },
				     unpack_time(u->file.mtime_ns) };
	int fd = fd_take(&u->file_fd), r = 0;

	if (fchmod(fd, u->file.mode & UNPACK_MODE_MASK) < 0 ||
	    futimens(fd, times) < 0)
		r = errno;
	/* close() can say what a write could not (quota, network). */
	if (close(fd) < 0 && !r)
		r = errno;
	if (!r &&
	    renameat(u->file_dir_fd, u->temp, u->file_dir_fd, u->file_name) < 0)
		r = errno;
	if (!r)
		return 0;
	unlinkat(u->file_dir_fd, u->temp, 0);
	return err_errno(e, r, "write %s", unpack_called(u, u->file.path));
}

static int unpack_file(struct unpack *u, const struct entry *x, int dir,
		       const char *name, struct err *e)
{
	int r = -EEXIST;

	for (int i = 0; i < UNPACK_TEMP_TRIES && r == -EEXIST; i++) {
		unpack_next_temp(u);
		u->file_fd = openat(dir, u->temp,
				    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW |
					    O_CLOEXEC,
				    0600);
		r = u->file_fd < 0 ? -errno : 0;
	}
	if (r < 0)
		return err_errno(e, -r, "write %s", unpack_called(u, x->path));
	u->file_dir_fd = dir;
	strcpy(u->file_name, name);
	u->file = *x;
	u->left = x->size;
	return u->left ? 0 : unpack_file_end(u, e);
}

int unpack_data(struct unpack *u, const void *p, size_t len, struct err *e)
{
	int r;

	if (u->file_fd < 0 || len > u->left)
		return err_set(e, EBADMSG, "%.200s: more data than its size",
			       unpack_called(u, u->file.path));
	r = io_write_full(u->file_fd, p, len);
	if (r < 0)
		return err_errno(e, -r, "write %s",
				 unpack_called(u, u->file.path));
	u->left -= len;
	return u->left || !len ? 0 : unpack_file_end(u, e);
}

/* ---- entries ---- */

static int unpack_make(struct unpack *u, const struct entry *x, int dir,
		       const char *name, struct err *e)
{
	int r;

	if (x->kind == WIRE_KIND_DIR)
		return unpack_dir(u, x, dir, name, e);
	r = unpack_not_dir(u, x, dir, name, e);
	if (r < 0)
		return r;
	if (x->kind == WIRE_KIND_LINK)
		return unpack_link(u, x, dir, name, e);
	return unpack_file(u, x, dir, name, e);
}

/* The first entry: what was named itself. */
static int unpack_top(struct unpack *u, const struct entry *x, struct err *e)
{
	int r;

	if (*x->path)
		return err_set(e, EBADMSG, "%.200s: in nothing", x->path);
	if (!*u->name && x->kind != WIRE_KIND_DIR)
		return err_set(e, ENOTDIR, "the copy's source: %s",
			       strerror(ENOTDIR));
	r = *u->name ? unpack_make(u, x, u->base_fd, u->name, e) : 0;
	if (r < 0 || x->kind != WIRE_KIND_DIR)
		return r;
	u->top_fd =
		openat(u->base_fd, *u->name ? u->name : ".", UNPACK_DIR_FLAGS);
	if (u->top_fd < 0)
		return err_errno(e, errno, "open %s", unpack_called(u, ""));
	return 0;
}

int unpack_entry(struct unpack *u, const struct entry *x, struct err *e)
{
	const char *name = NULL;
	int dir = -1, r;

	if (u->file_fd >= 0)
		return err_set(e, EBADMSG, "%.200s: less data than its size",
			       unpack_called(u, u->file.path));
	if (!u->started) {
		u->started = true;
		return unpack_top(u, x, e);
	}
	if (u->top_fd < 0 || !*x->path)
		return err_set(e, EBADMSG, "%.200s: in no directory", x->path);
	r = unpack_leave(u, x->path, e);
	if (r == 0)
		r = unpack_locate(u, x->path, &dir, &name, e);
	return r ? r : unpack_make(u, x, dir, name, e);
}

int unpack_end(struct unpack *u, struct err *e)
{
	if (!u->started)
		return err_set(e, EBADMSG, "nothing came");
	if (u->file_fd >= 0)
		return err_set(e, EBADMSG, "%.200s: less data than its size",
			       unpack_called(u, u->file.path));
	return unpack_leave(u, NULL, e);
}
