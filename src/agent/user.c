/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /etc/passwd and /etc/group, read by hand
 *
 * A static glibc has no name service switch, and loading one would be slow
 * anyway. The two files are read line by line through a small buffer; lines
 * longer than that (a group with hundreds of members) are used as far as they
 * fit. The meaning of a user specification follows "docker exec --user": an
 * explicit group replaces the supplementary groups, a bare uid needs no entry.
 *
 * What it is not: a cache. Commands under another user are rare enough, and the
 * guest may edit the files between any two of them.
 */
#include "agent/user.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* name:passwd:uid:gid:gecos:home:shell */
#define USER_FIELDS 7

struct user_file {
	int fd;
	size_t start, end;
	char mem[4096];
};

static int user_file_open(struct user_file *f, const char *etc,
			  const char *name, struct err *e)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/%s", etc, name);
	f->start = f->end = 0;
	f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	/* An image from scratch has neither file; that is no error yet. */
	if (f->fd < 0 && errno != ENOENT)
		return err_errno(e, errno, "open %s", path);
	return 0;
}

/* The next line, terminated, in place; NULL at the end. */
static char *user_file_line(struct user_file *f)
{
	char *line, *end;
	ssize_t n = 0;

	for (;;) {
		line = f->mem + f->start;
		end = memchr(line, '\n', f->end - f->start);
		if (end) {
			*end = 0;
			f->start = (size_t)(end - f->mem) + 1;
			return line;
		}
		memmove(f->mem, line, f->end - f->start);
		f->end -= f->start;
		f->start = 0;
		/* One byte stays free for the terminator. */
		if (f->fd >= 0 && f->end < sizeof(f->mem) - 1)
			n = read(f->fd, f->mem + f->end,
				 sizeof(f->mem) - 1 - f->end);
		else
			n = 0;
		if (n > 0) {
			f->end += (size_t)n;
			continue;
		}
		if (f->end == 0)
			return NULL;
		f->mem[f->end] = 0;
		f->end = 0;
		return f->mem;
	}
}

static void user_file_close(struct user_file *f)
{
	if (f->fd >= 0)
		close(f->fd);
	f->fd = -1;
}

/* Cut at colons. */
static int user_fields(char *line, char *fields[USER_FIELDS])
{
	int n = 0;

	while (n < USER_FIELDS && (fields[n] = strsep(&line, ":")))
		n++;
	return n;
}

static bool user_number(const char *s, uint32_t *ret)
{
	unsigned long v;
	char *end;

	if (*s < '0' || *s > '9')
		return false;
	errno = 0;
	v = strtoul(s, &end, 10);
	/* The kernel's "leave it alone" value is no uid. */
	if (errno || *end || v >= UINT32_MAX)
		return false;
	*ret = (uint32_t)v;
	return true;
}

void user_root(struct user *u)
{
	u->uid = 0;
	u->gid = 0;
	u->n_groups = 0;
	strcpy(u->name, "root");
	strcpy(u->home, "/root");
}

/* passwd: by name, else by number. */
static int user_find_passwd(const char *etc, const char *who, struct user *u,
			    struct err *e)
{
	char *v[USER_FIELDS], *line;
	uint32_t number = 0, uid, gid;
	bool is_number, found = false;
	struct user_file f;
	int r;

	is_number = user_number(who, &number);
	r = user_file_open(&f, etc, "passwd", e);
	if (r < 0)
		return r;
	while (!found && (line = user_file_line(&f))) {
		if (user_fields(line, v) < 6 || !user_number(v[2], &uid) ||
		    !user_number(v[3], &gid))
			continue;
		if (strcmp(v[0], who) && !(is_number && uid == number))
			continue;
		found = true;
		u->uid = uid;
		u->gid = gid;
		snprintf(u->name, sizeof(u->name), "%s", v[0]);
		snprintf(u->home, sizeof(u->home), "%s", v[5]);
	}
	user_file_close(&f);
	if (found)
		return 0;
	if (!is_number)
		return err_set(e, ENOENT, "user %s: not in %s/passwd", who,
			       etc);
	u->uid = number;
	u->gid = 0;
	snprintf(u->name, sizeof(u->name), "%u", number);
	strcpy(u->home, "/");
	return 0;
}

/* Is @name in a comma-separated list? */
static bool user_listed(char *list, const char *name)
{
	char *item;

	while ((item = strsep(&list, ",")))
		if (!strcmp(item, name))
			return true;
	return false;
}

/* group: @who alone when given, else all groups that list the user. */
static int user_find_groups(const char *etc, const char *who, struct user *u,
			    struct err *e)
{
	char *v[USER_FIELDS], *line;
	uint32_t number = 0, gid;
	bool is_number, found = false;
	struct user_file f;
	int r;

	is_number = who && user_number(who, &number);
	u->n_groups = 0;
	r = user_file_open(&f, etc, "group", e);
	if (r < 0)
		return r;
	while (!found && (line = user_file_line(&f))) {
		v[3] = NULL;
		if (user_fields(line, v) < 3 || !user_number(v[2], &gid))
			continue;
		if (who) {
			found = !strcmp(v[0], who);
			if (found)
				u->gid = gid;
		} else if (v[3] && user_listed(v[3], u->name) &&
			   gid != u->gid && u->n_groups < USER_GROUPS_MAX) {
			u->groups[u->n_groups++] = gid;
		}
	}
	user_file_close(&f);
	if (!who || found)
		return 0;
	if (!is_number)
		return err_set(e, ENOENT, "group %s: not in %s/group", who,
			       etc);
	u->gid = number;
	return 0;
}

int user_find(const char *etc, const char *spec, struct user *ret,
	      struct err *e)
{
	char who[256], *group;
	int r;

	if (strlen(spec) >= sizeof(who))
		return err_set(e, EINVAL, "user: name too long");
	strcpy(who, spec);
	group = strchr(who, ':');
	if (group)
		*group++ = 0;
	if (!who[0] || (group && !group[0]))
		return err_set(e, EINVAL, "user %s: not user or user:group",
			       spec);
	r = user_find_passwd(etc, who, ret, e);
	if (r < 0)
		return r;
	return user_find_groups(etc, group, ret, e);
}
