/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One entry of a tree under way between host and guest
 *
 * Entries from a guest are hostile until entry_read() has passed them: paths
 * stay below what was named, numbers are in range. What an honest path may do
 * in combination with others (a file below a link) is for unpack.c to see.
 */
#include "cmd/entry.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

bool entry_path_ok(const char *path)
{
	size_t len;

	if (!*path)
		return true;
	for (;; path += len + 1) {
		len = strcspn(path, "/");
		if (!len || len >= ENTRY_NAME_MAX ||
		    (len == 1 && path[0] == '.') ||
		    (len == 2 && path[0] == '.' && path[1] == '.'))
			return false;
		if (!path[len])
			return true;
	}
}

/* Optional numbers are 0. */
static int entry_number(const struct wire_frame *f, uint16_t key, uint64_t most,
			uint64_t *ret)
{
	uint64_t n = 0;
	int r = wire_find_u64(f, key, &n);

	if (r == -ENOENT)
		r = 0;
	if (r == 0 && n > most)
		r = -ERANGE;
	if (r == 0)
		*ret = n;
	return r;
}

int entry_read(const struct wire_frame *f, struct entry *ret, struct err *e)
{
	uint64_t kind = 0, mode = 0;
	struct entry *x = ret;
	int r;

	*x = (struct entry){ 0 };
	r = wire_find_str(f, WIRE_K_PATH, x->path, sizeof(x->path));
	if (r == 0)
		r = wire_find_u64(f, WIRE_K_KIND, &kind);
	if (r == 0)
		r = entry_number(f, WIRE_K_MODE, 07777, &mode);
	if (r == 0)
		r = entry_number(f, WIRE_K_MTIME, INT64_MAX, &x->mtime_ns);
	if (r == 0 && kind == WIRE_KIND_FILE)
		r = entry_number(f, WIRE_K_SIZE, INT64_MAX, &x->size);
	if (r == 0 && kind == WIRE_KIND_LINK)
		r = wire_find_str(f, WIRE_K_LINK, x->link, sizeof(x->link));
	if (r < 0 || kind >= WIRE_KIND_COUNT)
		return err_set(e, EBADMSG, "a malformed entry");
	if (!entry_path_ok(x->path))
		return err_set(e, EBADMSG, "%.200s: not a path below it",
			       x->path);
	x->kind = (enum wire_kind)kind;
	x->mode = (uint32_t)mode;
	return 0;
}

void entry_write(const struct entry *x, struct wire_out *o)
{
	wire_put_str(o, WIRE_K_PATH, x->path);
	wire_put_u64(o, WIRE_K_KIND, x->kind);
	wire_put_u64(o, WIRE_K_MODE, x->mode);
	wire_put_u64(o, WIRE_K_MTIME, x->mtime_ns);
	if (x->kind == WIRE_KIND_FILE)
		wire_put_u64(o, WIRE_K_SIZE, x->size);
	if (x->kind == WIRE_KIND_LINK)
		wire_put_str(o, WIRE_K_LINK, x->link);
}

bool entry_stat(struct entry *x, const struct stat *st)
{
	if (S_ISREG(st->st_mode))
		x->kind = WIRE_KIND_FILE;
	else if (S_ISDIR(st->st_mode))
		x->kind = WIRE_KIND_DIR;
	else if (S_ISLNK(st->st_mode))
		x->kind = WIRE_KIND_LINK;
	else
		return false;
	x->mode = st->st_mode & 07777;
	/* The wire knows no time before 1970. */
	x->mtime_ns = st->st_mtim.tv_sec < 0
			      ? 0
			      : (uint64_t)st->st_mtim.tv_sec * 1000000000 +
					(uint64_t)st->st_mtim.tv_nsec;
	x->size = S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0;
	return true;
}
