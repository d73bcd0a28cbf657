/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files, directories, sockets: the few calls that everybody needs
 *
 * Invariants:
 *  1. Every fd made here is close-on-exec from birth.
 *  2. A file is replaced whole or not at all: temporary beside it, fsync,
 *     rename, fsync of the directory. A failed attempt leaves no temporary; a
 *     crash may leave one, which no reader ever looks at.
 *  3. Removing a tree walks by directory fds and never follows a link, so
 *     that a guest's disk or an unpacked image cannot point us elsewhere.
 *  4. A copy ends with the size that the source had when the copy began, with
 *     its holes, or fails: a source that shrinks under us is an error.
 *
 * These calls block. The loop calls them only for small local files; the rest
 * goes through a worker.
 */
#include "base/io.h"

#include "base/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* First room for a file whose size is not known, like /proc's: one page. */
#define IO_READ_MIN 4096

/* Copy buffer: the share of the system call is lost, and it fits the L2. */
#define IO_COPY_BYTES ((size_t)256 << 10)

/* One fd per level while removing a tree; the usual soft limit is 1024 and the
 * daemon has other uses for them. */
#define IO_TREE_DEPTH_MAX 256

/* Passes over a directory that somebody refills while we empty it. */
#define IO_TREE_PASSES 3

ssize_t io_read_full(int fd, void *p, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = read(fd, (char *)p + done, len - done);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int io_write_full(int fd, const void *p, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = write(fd, (const char *)p + done, len - done);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		done += (size_t)n;
	}
	return 0;
}

ssize_t io_pread_full(int fd, void *p, size_t len, uint64_t offset)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, (char *)p + done, len - done,
				  (off_t)(offset + done));

		if (n < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int io_pwrite_full(int fd, const void *p, size_t len, uint64_t offset)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pwrite(fd, (const char *)p + done, len - done,
				   (off_t)(offset + done));

		if (n < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		done += (size_t)n;
	}
	return 0;
}

/* Until the end of the file, whatever its size claims to be: /proc says 0.
 * Returns the length, or -EFBIG. */
static ssize_t io_read_all(int fd, size_t max, size_t size, char **ret)
{
	guard_free char *mem = NULL;
	size_t len = 0;

	size = min(max(size, (size_t)IO_READ_MIN), max);
	for (;;) {
		/* One byte for the terminator, and one that must stay
		 * unread: getting it means that the file is larger. */
		char *more = realloc(mem, size + 2);
		ssize_t n;

		if (!more)
			return -ENOMEM;
		mem = more;
		n = io_read_full(fd, mem + len, size + 1 - len);
		if (n < 0)
			return n;
		len += (size_t)n;
		if (len <= size)
			break;
		if (size == max)
			return -EFBIG;
		size = size > max / 2 ? max : size * 2;
	}
	mem[len] = '\0';
	*ret = take(mem);
	return (ssize_t)len;
}

int io_read_file(const char *path, size_t max, char **ret, size_t *ret_len,
		 struct err *e)
{
	guard_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st = { 0 };
	ssize_t len;

	if (fd < 0)
		return err_errno(e, errno, "open %s", path);
	if (fstat(fd, &st) < 0)
		return err_errno(e, errno, "stat %s", path);
	max = min(max, (size_t)SSIZE_MAX - 2);
	if (S_ISREG(st.st_mode) && (uint64_t)st.st_size > max)
		len = -EFBIG;
	else
		len = io_read_all(fd, max, (size_t)st.st_size, ret);
	if (len == -EFBIG)
		return err_set(e, EFBIG, "read %s: more than %zu bytes", path,
			       max);
	if (len < 0)
		return err_errno(e, (int)-len, "read %s", path);
	if (ret_len)
		*ret_len = (size_t)len;
	return 0;
}

/* The directory that holds @path; NULL when out of memory. */
static char *io_parent(const char *path)
{
	size_t len = strlen(path);

	while (len > 1 && path[len - 1] == '/')
		len--;
	while (len > 0 && path[len - 1] != '/')
		len--;
	if (!len)
		return strdup(".");
	while (len > 1 && path[len - 1] == '/')
		len--;
	return strndup(path, len);
}

int io_sync_parent(const char *path, struct err *e)
{
	guard_free char *parent = io_parent(path);
	guard_fd int fd = -1;

	if (!parent)
		return err_errno(e, ENOMEM, "sync the directory of %s", path);
	fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(e, errno, "open %s", parent);
	if (fsync(fd) < 0)
		return err_errno(e, errno, "sync %s", parent);
	return 0;
}

static int io_write_temp(const char *temp, const void *p, size_t len,
			 mode_t mode, struct err *e)
{
	guard_fd int fd = -1;
	int r;

	/* 0600 first: content meant for few must not be readable by others
	 * before fchmod, which the umask does not bend, says so. */
	fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_errno(e, errno, "create %s", temp);
	r = io_write_full(fd, p, len);
	if (r == 0 && fchmod(fd, mode) < 0)
		r = -errno;
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r < 0) {
		unlink(temp);
		return err_errno(e, -r, "write %s", temp);
	}
	return 0;
}

int io_write_file(const char *path, const void *p, size_t len, mode_t mode,
		  struct err *e)
{
	guard_free char *temp = NULL;
	uint64_t suffix;
	int r;

	io_random(&suffix, sizeof(suffix));
	temp = io_path("%s.%016" PRIx64 ".tmp", path, suffix);
	if (!temp)
		return err_errno(e, ENOMEM, "write %s", path);
	r = io_write_temp(temp, p, len, mode, e);
	if (r < 0)
		return r;
	if (rename(temp, path) < 0) {
		r = errno;
		unlink(temp);
		return err_errno(e, r, "rename %s to %s", temp, path);
	}
	return io_sync_parent(path, e);
}

/* A directory that is there counts, whatever mkdir says about it: on a
 * read-only or foreign file system that need not be EEXIST. */
static int io_mkdir(const char *path, mode_t mode)
{
	struct stat st = { 0 };
	int r;

	if (mkdir(path, mode) == 0)
		return 0;
	r = -errno;
	if (stat(path, &st) < 0)
		return r;
	return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

int io_mkdirs(const char *path, mode_t mode, struct err *e)
{
	guard_free char *part = strdup(path);
	int r;

	if (!part)
		return err_errno(e, ENOMEM, "make directory %s", path);
	for (char *s = part; *s; s++) {
		if (*s != '/' || s == part || s[-1] == '/')
			continue;
		*s = '\0';
		/* As mkdir -p: parents must let us in. */
		r = io_mkdir(part, mode | 0300);
		if (r < 0)
			return err_errno(e, -r, "make directory %s", part);
		*s = '/';
	}
	r = io_mkdir(part, mode);
	if (r < 0)
		return err_errno(e, -r, "make directory %s", part);
	return 0;
}

static int io_remove_at(int dir_fd, const char *name, unsigned depth,
			const char *path, struct err *e);

static int io_remove_entries(DIR *dir, unsigned depth, const char *path,
			     struct err *e)
{
	struct dirent *d;
	int r;

	for (;;) {
		errno = 0;
		d = readdir(dir);
		if (!d) {
			r = errno;
			if (r)
				return err_errno(e, r, "list below %s", path);
			return 0;
		}
		if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, ".."))
			continue;
		r = io_remove_at(dirfd(dir), d->d_name, depth, path, e);
		if (r < 0)
			return r;
	}
}

static int io_remove_dir_at(int dir_fd, const char *name, unsigned depth,
			    const char *path, struct err *e)
{
	guard_fd int fd = -1;
	guard_dir DIR *dir = NULL;
	int r = 0;

	if (depth == IO_TREE_DEPTH_MAX)
		return err_errno(e, ELOOP, "remove %s in %s", name, path);
	fd = openat(dir_fd, name,
		    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return err_errno(e, errno, "open %s in %s", name, path);
	dir = fdopendir(fd);
	if (!dir)
		return err_errno(e, errno, "open %s in %s", name, path);
	fd_take(&fd); /* the DIR closes it */
	for (int pass = 0; pass < IO_TREE_PASSES; pass++) {
		r = io_remove_entries(dir, depth + 1, path, e);
		if (r < 0)
			return r;
		if (unlinkat(dir_fd, name, AT_REMOVEDIR) == 0 ||
		    errno == ENOENT)
			return 0;
		r = errno;
		if (r != ENOTEMPTY && r != EEXIST)
			break;
		rewinddir(dir);
	}
	return err_errno(e, r, "remove %s in %s", name, path);
}

static int io_remove_at(int dir_fd, const char *name, unsigned depth,
			const char *path, struct err *e)
{
	struct stat st = { 0 };

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		if (errno == ENOENT)
			return 0;
		return err_errno(e, errno, "stat %s in %s", name, path);
	}
	if (S_ISDIR(st.st_mode))
		return io_remove_dir_at(dir_fd, name, depth, path, e);
	if (unlinkat(dir_fd, name, 0) < 0 && errno != ENOENT)
		return err_errno(e, errno, "remove %s in %s", name, path);
	return 0;
}

int io_remove_tree(const char *path, struct err *e)
{
	guard_free char *parent = io_parent(path);
	guard_free char *name = NULL;
	guard_fd int fd = -1;
	size_t end = strlen(path), start;

	while (end > 0 && path[end - 1] == '/')
		end--;
	start = end;
	while (start > 0 && path[start - 1] != '/')
		start--;
	name = strndup(path + start, end - start);
	if (!parent || !name)
		return err_errno(e, ENOMEM, "remove %s", path);
	if (!*name || !strcmp(name, ".") || !strcmp(name, ".."))
		return err_errno(e, EINVAL, "remove %s", path);
	fd = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		if (errno == ENOENT)
			return 0;
		return err_errno(e, errno, "open %s", parent);
	}
	return io_remove_at(fd, name, 0, parent, e);
}

/* By hand; *mem is made when first needed. */
static int io_copy_bytes(int from, int to, uint64_t offset, uint64_t end,
			 char **mem)
{
	if (!*mem)
		*mem = malloc(IO_COPY_BYTES);
	if (!*mem)
		return -ENOMEM;
	while (offset < end) {
		size_t want = (size_t)min(end - offset, IO_COPY_BYTES);
		ssize_t n = io_pread_full(from, *mem, want, offset);
		int r;

		if (n < 0)
			return (int)n;
		r = io_pwrite_full(to, *mem, (size_t)n, offset);
		if (r < 0)
			return r;
		if ((size_t)n < want)
			return -ESTALE; /* it shrank */
		offset += want;
	}
	return 0;
}

/* One run of data. Whatever copy_file_range cannot do (another kind of file
 * system, an old kernel, /proc, where it copies nothing) is left to reading
 * and writing, which also finds out the true reason when nothing works. */
static int io_copy_run(int from, int to, uint64_t offset, uint64_t end,
		       char **mem)
{
	while (offset < end && !*mem) {
		off_t in = (off_t)offset, out = (off_t)offset;
		ssize_t n = copy_file_range(
			from, &in, to, &out,
			(size_t)min(end - offset, (uint64_t)SSIZE_MAX), 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		offset += (uint64_t)n;
	}
	return offset < end ? io_copy_bytes(from, to, offset, end, mem) : 0;
}

static int io_copy_runs(int from, int to, uint64_t size)
{
	guard_free char *mem = NULL;
	uint64_t offset = 0;

	while (offset < size) {
		off_t data = lseek(from, (off_t)offset, SEEK_DATA), hole;
		int r;

		if (data < 0 && errno == ENXIO)
			return 0; /* nothing but a hole is left */
		hole = data < 0 ? -1 : lseek(from, data, SEEK_HOLE);
		if (hole < 0) {
			/* No holes here, or none that can be seen. */
			data = (off_t)offset;
			hole = (off_t)size;
		}
		if ((uint64_t)data >= size)
			return 0;
		r = io_copy_run(from, to, (uint64_t)data,
				min((uint64_t)hole, size), &mem);
		if (r < 0)
			return r;
		offset = (uint64_t)hole;
	}
	return 0;
}

int io_copy_file(int from, int to, struct err *e)
{
	struct stat st = { 0 }, st_to = { 0 };
	int r;

	if (fstat(from, &st) < 0 || fstat(to, &st_to) < 0)
		return err_errno(e, errno, "stat");
	if (st.st_dev == st_to.st_dev && st.st_ino == st_to.st_ino)
		return err_set(e, EINVAL, "copy a file onto itself");
	/* Old bytes would shine through the holes. */
	if (ftruncate(to, 0) < 0)
		return err_errno(e, errno, "truncate");
	if (ioctl(to, FICLONE, from) < 0) {
		r = io_copy_runs(from, to, (uint64_t)st.st_size);
		if (r == -ESTALE)
			return err_set(e, ESTALE,
				       "the source shrank while copied");
		if (r < 0)
			return err_errno(e, -r, "copy");
	}
	if (ftruncate(to, st.st_size) < 0)
		return err_errno(e, errno, "set the size of the copy");
	return 0;
}

/* A path of any length as a socket address. A long one is reached through its
 * directory; *ret_fd keeps that open while the address is used. */
static int io_unix_addr(const char *path, struct sockaddr_un *addr, int *ret_fd)
{
	guard_free char *parent = NULL;
	guard_fd int fd = -1;
	const char *name = strrchr(path, '/');
	int n;

	*addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (!*path)
		return -ENOENT; /* would be an abstract name */
	if (strlen(path) < sizeof(addr->sun_path)) {
		memcpy(addr->sun_path, path, strlen(path));
		return 0;
	}
	if (!name)
		return -ENAMETOOLONG;
	parent = io_parent(path);
	if (!parent)
		return -ENOMEM;
	fd = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = snprintf(addr->sun_path, sizeof(addr->sun_path),
		     "/proc/self/fd/%d/%s", fd, name + 1);
	if (n < 0 || (size_t)n >= sizeof(addr->sun_path))
		return -ENAMETOOLONG;
	*ret_fd = fd_take(&fd);
	return 0;
}

/* Only what is a socket is ours to remove. */
static int io_unlink_socket(const char *path)
{
	struct stat st = { 0 };

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	if (unlink(path) < 0 && errno != ENOENT)
		return -errno;
	return 0;
}

int io_listen_unix(const char *path, mode_t mode, int *ret_fd, struct err *e)
{
	guard_fd int dir_fd = -1, fd = -1;
	struct sockaddr_un addr;
	int r;

	r = io_unix_addr(path, &addr, &dir_fd);
	if (r == 0)
		r = io_unlink_socket(path);
	if (r < 0)
		return err_errno(e, -r, "listen on %s", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_errno(e, errno, "make a socket for %s", path);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return err_errno(e, errno, "bind %s", path);
	/* Nobody can connect before listen(), so there is no moment at which
	 * the umask's idea of the mode counts. */
	if (chmod(addr.sun_path, mode) < 0 || listen(fd, SOMAXCONN) < 0) {
		r = errno;
		unlink(addr.sun_path);
		return err_errno(e, r, "listen on %s", path);
	}
	*ret_fd = fd_take(&fd);
	return 0;
}

int io_connect_unix(const char *path, bool nonblock, int *ret_fd, struct err *e)
{
	guard_fd int dir_fd = -1, fd = -1;
	struct sockaddr_un addr;
	int r;

	r = io_unix_addr(path, &addr, &dir_fd);
	if (r < 0)
		return err_errno(e, -r, "connect to %s", path);
	fd = socket(AF_UNIX,
		    SOCK_STREAM | SOCK_CLOEXEC | (nonblock ? SOCK_NONBLOCK : 0),
		    0);
	if (fd < 0)
		return err_errno(e, errno, "make a socket for %s", path);
	do {
		r = connect(fd, (struct sockaddr *)&addr, sizeof(addr));
	} while (r < 0 && errno == EINTR);
	if (r < 0)
		return err_errno(e, errno, "connect to %s", path);
	*ret_fd = fd_take(&fd);
	return 0;
}

int io_set_nonblock(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return -errno;
	flags = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
	return fcntl(fd, F_SETFL, flags) < 0 ? -errno : 0;
}

char *io_path(const char *fmt, ...)
{
	char *s = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	return n < 0 ? NULL : s;
}

void io_random(void *p, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = getrandom((char *)p + done, len - done, 0);

		if (n < 0) {
			must(errno == EINTR);
			continue;
		}
		done += (size_t)n;
	}
}
