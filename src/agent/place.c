/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Places: a directory held open and a name in it
 *
 * PUT and GET name their target by an absolute path, which is looked up as the
 * guest would, links and all. Everything below it comes in relative paths that
 * are walked one name at a time, never through a link and never upward: a tree
 * that brings a link and then a file "below" it must not write elsewhere than
 * it says.
 */
#include "agent/place.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PLACE_DIR_FLAGS (O_PATH | O_DIRECTORY | O_CLOEXEC)

static bool place_name_ok(const char *name, size_t len)
{
	return len > 0 && len < PLACE_NAME_MAX &&
	       !(name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')));
}

int place_walk(int dir_fd, const char *path, size_t len)
{
	char name[PLACE_NAME_MAX];
	const char *end = path + len, *slash;
	int fd, next, r = 0;
	size_t n;

	if (len == 0) {
		fd = openat(dir_fd, ".", PLACE_DIR_FLAGS);
		return fd < 0 ? -errno : fd;
	}
	for (fd = dir_fd; r == 0; path = slash + 1) {
		slash = memchr(path, '/', (size_t)(end - path));
		if (!slash)
			slash = end;
		n = (size_t)(slash - path);
		next = -1;
		if (place_name_ok(path, n)) {
			memcpy(name, path, n);
			name[n] = 0;
			next = openat(fd, name, PLACE_DIR_FLAGS | O_NOFOLLOW);
			r = next < 0 ? -errno : 0;
		} else {
			r = -EINVAL;
		}
		if (fd != dir_fd)
			close(fd);
		fd = next;
		if (slash == end)
			break;
	}
	return r < 0 ? r : fd;
}

/* The path a link at the end of @path leads to, in @mem; @path itself if there
 * is none or it leads nowhere. */
static const char *place_follow(const char *path, char mem[PATH_MAX])
{
	struct stat st;

	if (lstat(path, &st) < 0 || !S_ISLNK(st.st_mode))
		return path;
	return realpath(path, mem) ? mem : path;
}

int place_open(int root_fd, const char *path, bool follow, struct place *ret,
	       struct err *e)
{
	char mem[PATH_MAX], dir[PLACE_PATH_MAX];
	size_t len, start;
	int fd;

	if (path[0] != '/')
		return err_set(e, EINVAL, "%s: not an absolute path", path);
	if (strlen(path) >= sizeof(dir))
		return err_errno(e, ENAMETOOLONG, "%.64s...", path);
	strcpy(dir, path);
	for (len = strlen(dir); len > 1 && dir[len - 1] == '/';)
		dir[--len] = 0;
	if (follow && root_fd == AT_FDCWD) {
		path = place_follow(dir, mem);
		if (path != dir)
			strcpy(dir, path);
		len = strlen(dir);
	}
	for (start = len; dir[start - 1] != '/';)
		start--;
	if (len - start >= sizeof(ret->name))
		return err_errno(e, ENAMETOOLONG, "%.64s...", path);
	strcpy(ret->name, len == start ? "." : dir + start);
	dir[start] = 0;

	if (root_fd == AT_FDCWD) {
		fd = open(dir, PLACE_DIR_FLAGS);
		fd = fd < 0 ? -errno : fd;
	} else if (strcmp(ret->name, ".") &&
		   !place_name_ok(ret->name, strlen(ret->name))) {
		fd = -EINVAL;
	} else {
		/* Neither the first nor the last slash. */
		fd = place_walk(root_fd, dir + 1, start > 1 ? start - 2 : 0);
	}
	if (fd < 0)
		return err_errno(e, -fd, "%s", dir);
	ret->dir_fd = fd;
	return 0;
}

void place_close(struct place *p)
{
	if (p->dir_fd >= 0)
		close(p->dir_fd);
	p->dir_fd = -1;
}
