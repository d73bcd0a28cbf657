/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files here become a tree in a guest
 *
 * A walk in depth, directories before what is in them, one fd per level. What
 * is read is what is here and now: a file is sent in the size it had when it
 * was opened. When it shrinks meanwhile the copy fails, when it grows the rest
 * is not sent. What vanishes between being listed and being opened is left out.
 *
 * The kernel's own file systems do not know how long their files are: 0 bytes
 * (procfs) or a page (sysfs) is what they say. Files of such sizes are read
 * before they are announced, to PACK_AHEAD_MAX, and what was read counts.
 *
 * Links are sent as links, never followed (but see the header). Owners are not
 * sent: in the guest everything belongs to root, as after any copy by root.
 *
 * Flow. DATA waits for credit; ENTRY frames have none, so the queue is drained
 * in between, to PACK_QUEUE. The agent may refuse at any time (disk full), and
 * is heard whenever we wait.
 */
#include "cmd/pack.h"

#include "cmd/entry.h"
#include "cmd/stream.h"
#include "base/guard.h"
#include "base/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Bytes queued before we wait for the daemon to take some. */
#define PACK_QUEUE (4 * WIRE_PAYLOAD_MAX)
/* What sysfs says of all its texts. */
#define PACK_PAGE 4096u
/* Where no size is told this much is read, and a longer file refused. */
#define PACK_AHEAD_MAX (1u << 20)

struct pack {
	struct stream *stream;
	struct stream_result *result;
	const char *source; /* as given, for sentences */
	size_t top_len; /* of x.path, which the source is called there */
	unsigned depth;
	char shown[ERR_MSG_MAX];
	struct entry x; /* at hand; x.path grows and shrinks with the walk */
	struct buf ahead; /* all of the file at hand, or empty */
	uint8_t data[WIRE_PAYLOAD_MAX];
};

static int pack_tree(struct pack *p, int dir_fd, const char *name,
		     struct err *e);

/* ---- flow ---- */

/* Hear what the agent says. 0, PACK_OVER. */
static int pack_hear(struct pack *p, struct err *e)
{
	struct wire_frame f = { 0 };
	int r;

	while ((r = stream_next(p->stream, &f, e)) == 0) {
		if (f.type != WIRE_RESULT)
			continue;
		r = stream_result(p->stream, &f, p->result, e);
		return r < 0 ? r : PACK_OVER;
	}
	return r == STREAM_MORE ? 0 : r;
}

/* Wait until at least one byte of DATA may be sent and the queue is short. */
static int pack_wait(struct pack *p, struct err *e)
{
	struct stream *s = p->stream;
	int r;

	while (!s->credit[WIRE_STDIN] || buf_len(&s->out) > PACK_QUEUE) {
		r = stream_poll(s, e);
		if (r < 0)
			return r;
		r = pack_hear(p, e);
		if (r)
			return r;
	}
	return 0;
}

static int pack_entry(struct pack *p, struct err *e)
{
	int r = pack_wait(p, e);

	if (r)
		return r;
	entry_write(&p->x, stream_begin(p->stream, WIRE_ENTRY));
	return stream_send(p->stream, e);
}

/* ---- one thing ---- */

/* What is at hand, as a path here. */
static const char *pack_shown(struct pack *p)
{
	const char *below = p->x.path + p->top_len;
	size_t len = strlen(p->source);

	below += *below == '/';
	snprintf(p->shown, sizeof(p->shown), "%s%s%s", p->source,
		 *below && len && p->source[len - 1] != '/' ? "/" : "", below);
	return p->shown;
}

static int pack_fail(struct pack *p, const char *verb, int code, struct err *e)
{
	return err_errno(e, code, "%s %s", verb, pack_shown(p));
}

/* Find out how long a file is whose size may be wrong. */
static int pack_ahead(struct pack *p, int fd, struct err *e)
{
	size_t most = p->x.size ? (size_t)p->x.size : PACK_AHEAD_MAX, room;
	ssize_t n;

	if (p->x.size > PACK_PAGE)
		return 0;
	do {
		room = most - buf_len(&p->ahead);
		n = io_read_full(fd, p->data, min(room, sizeof(p->data)));
		if (n < 0)
			return pack_fail(p, "read", (int)-n, e);
		if (buf_add(&p->ahead, p->data, (size_t)n) < 0)
			return pack_fail(p, "read", ENOMEM, e);
	} while (n && buf_len(&p->ahead) < most);
	if (!p->x.size && n && io_read_full(fd, p->data, 1) > 0)
		return err_set(e, EFBIG,
			       "read %s: longer than 1 MiB, of a size not told",
			       pack_shown(p));
	p->x.size = buf_len(&p->ahead);
	return 0;
}

/* The next bytes of the file at hand, at most @len. */
static ssize_t pack_read(struct pack *p, int fd, size_t len)
{
	if (!buf_len(&p->ahead))
		return io_read_full(fd, p->data, len);
	len = min(len, buf_len(&p->ahead));
	memcpy(p->data, buf_data(&p->ahead), len);
	buf_consume(&p->ahead, len);
	return (ssize_t)len;
}

static int pack_data(struct pack *p, int fd, struct err *e)
{
	uint64_t left = p->x.size, n;
	ssize_t got;
	int r;

	while (left) {
		r = pack_wait(p, e);
		if (r)
			return r;
		n = min(p->stream->credit[WIRE_STDIN], sizeof(p->data));
		got = pack_read(p, fd, (size_t)min(n, left));
		if (got < 0)
			return pack_fail(p, "read", (int)-got, e);
		if (got == 0)
			return err_set(e, EIO, "read %s: it shrank meanwhile",
				       pack_shown(p));
		r = stream_data(p->stream, WIRE_STDIN, p->data, (size_t)got, e);
		if (r < 0)
			return r;
		left -= (uint64_t)got;
	}
	return 0;
}

static int pack_file(struct pack *p, int dir_fd, const char *name,
		     struct err *e)
{
	guard_fd int fd = -1;
	struct stat st;
	int r;

	/* Non-blocking, should it have become a pipe. */
	fd = openat(dir_fd, name,
		    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return pack_fail(p, "open", errno, e);
	if (!S_ISREG(st.st_mode) || !entry_stat(&p->x, &st))
		return pack_fail(p, "open", EINVAL, e);
	buf_init(&p->ahead, PACK_AHEAD_MAX);
	r = pack_ahead(p, fd, e);
	if (r == 0)
		r = pack_entry(p, e);
	if (r == 0)
		r = pack_data(p, fd, e);
	buf_deinit(&p->ahead);
	return r;
}

static int pack_link(struct pack *p, int dir_fd, const char *name,
		     struct err *e)
{
	ssize_t n = readlinkat(dir_fd, name, p->x.link, sizeof(p->x.link) - 1);

	if (n < 0)
		return pack_fail(p, "read link", errno, e);
	p->x.link[n] = '\0';
	return pack_entry(p, e);
}

/* Append a name to the path at hand. */
static bool pack_path_add(struct pack *p, size_t len, const char *name)
{
	size_t room = sizeof(p->x.path) - len;
	int n;

	n = snprintf(p->x.path + len, room, "%s%s", len ? "/" : "", name);
	return n >= 0 && (size_t)n < room;
}

/* What is in a directory, whose fd is taken. */
static int pack_list(struct pack *p, int dir_take, struct err *e)
{
	guard_dir DIR *d = fdopendir(dir_take);
	size_t len = strlen(p->x.path);
	const struct dirent *x;
	int r;

	if (!d) {
		close(dir_take);
		return pack_fail(p, "list", ENOMEM, e);
	}
	for (;;) {
		errno = 0;
		x = readdir(d);
		if (!x)
			return errno ? pack_fail(p, "list", errno, e) : 0;
		if (!strcmp(x->d_name, ".") || !strcmp(x->d_name, ".."))
			continue;
		if (!pack_path_add(p, len, x->d_name))
			return pack_fail(p, "list", ENAMETOOLONG, e);
		r = pack_tree(p, dirfd(d), x->d_name, e);
		p->x.path[len] = '\0';
		/* Not there any more? Then it was not worth copying. */
		if (r && r != -ENOENT)
			return r;
	}
}

/* @entry: the directory itself is sent too. */
static int pack_dir(struct pack *p, int dir_fd, const char *name, bool entry,
		    struct err *e)
{
	guard_fd int fd = -1;
	struct stat st;
	int r = 0;

	if (p->depth == PACK_DEPTH_MAX)
		return pack_fail(p, "enter", ELOOP, e);
	fd = openat(dir_fd, name,
		    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return pack_fail(p, "open", errno, e);
	must(entry_stat(&p->x, &st));
	if (entry)
		r = pack_entry(p, e);
	if (r)
		return r;
	p->depth++;
	r = pack_list(p, fd_take(&fd), e);
	p->depth--;
	return r;
}

/* One thing and all below it; p->x.path says what it is called there. */
static int pack_tree(struct pack *p, int dir_fd, const char *name,
		     struct err *e)
{
	struct stat st;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return pack_fail(p, "read", errno, e);
	if (!entry_stat(&p->x, &st)) {
		fprintf(stderr, "byre: skip %s: a device, socket or pipe\n",
			pack_shown(p));
		return 0;
	}
	switch (p->x.kind) {
	case WIRE_KIND_FILE:
		return pack_file(p, dir_fd, name, e);
	case WIRE_KIND_DIR:
		return pack_dir(p, dir_fd, name, true, e);
	case WIRE_KIND_LINK:
		return pack_link(p, dir_fd, name, e);
	case WIRE_KIND_COUNT:
		break;
	}
	must(!"a kind of entry");
	return -EINVAL;
}

int pack_send(struct stream *s, const char *path, const char *top,
	      bool contents, struct stream_result *ret, struct err *e)
{
	guard_free struct pack *p = calloc(1, sizeof(*p));
	struct stat st;

	if (!p)
		return err_errno(e, ENOMEM, "read %s", path);
	p->stream = s;
	p->result = ret;
	p->source = path;
	must(strlen(top) < sizeof(p->x.path));
	strcpy(p->x.path, top);
	p->top_len = strlen(top);
	if (contents)
		return pack_dir(p, AT_FDCWD, path, false, e);
	/* A device that was named is an error, not something to skip. */
	if (lstat(path, &st) == 0 && !entry_stat(&p->x, &st))
		return err_set(e, EINVAL,
			       "read %s: neither file, directory nor link",
			       path);
	return pack_tree(p, AT_FDCWD, path, e);
}
