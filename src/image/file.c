/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One file of an image, and how to know it again
 *
 * A file that was verified is recognised by device, inode number, size and
 * change time. The kernel moves the change time whenever content or metadata
 * change, and no call sets it; renaming the directory above does not touch it.
 * Linking, renaming or chmod of the file itself does, and costs a second
 * verification.
 *
 * How fine the change time is matters: from Linux 6.13 a time that was asked
 * for is never given to a later change as well (multigrain timestamps: ext4,
 * xfs, btrfs, tmpfs). Before that, a write within the same timer tick (up to
 * 10 ms) as the last change before it goes unseen.
 *
 * Files are opened without following a link and without waiting (a FIFO would
 * hang the worker), and must be plain.
 */
#include "image/file.h"

#include "base/guard.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

struct file_id file_id_of(const struct stat *st)
{
	return (struct file_id){ .dev = st->st_dev,
				 .ino = st->st_ino,
				 .bytes = (uint64_t)st->st_size,
				 .ctim = st->st_ctim };
}

bool file_id_same(const struct file_id *a, const struct file_id *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->bytes == b->bytes &&
	       a->ctim.tv_sec == b->ctim.tv_sec &&
	       a->ctim.tv_nsec == b->ctim.tv_nsec;
}

int file_open(int dirfd, const char *name, int *ret_fd, struct file_id *ret_id,
	      struct err *e)
{
	guard_fd int fd = openat(
		dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st = { 0 };

	if (fd < 0)
		return err_errno(e, errno, "%s: open", name);
	if (fstat(fd, &st) < 0)
		return err_errno(e, errno, "%s: stat", name);
	if (!S_ISREG(st.st_mode))
		return err_set(e, EBADMSG, "%s: not a plain file", name);
	*ret_id = file_id_of(&st);
	*ret_fd = fd_take(&fd);
	return 0;
}

static int file_compare(const struct stat *st, const char *name,
			const struct file_id *id, struct err *e)
{
	struct file_id now = file_id_of(st);

	if (now.dev != id->dev || now.ino != id->ino)
		return err_set(e, ESTALE, "%s: replaced by another file", name);
	if (now.bytes != id->bytes)
		return err_set(e, ESTALE,
			       "%s: changed from %" PRIu64 " to %" PRIu64
			       " bytes",
			       name, id->bytes, now.bytes);
	if (!file_id_same(&now, id))
		return err_set(e, ESTALE, "%s: changed since it was verified",
			       name);
	return 0;
}

int file_check(int fd, const char *name, const struct file_id *id,
	       struct err *e)
{
	struct stat st = { 0 };

	if (fstat(fd, &st) < 0)
		return err_errno(e, errno, "%s: stat", name);
	return file_compare(&st, name, id, e);
}

int file_check_at(int dirfd, const char *name, const struct file_id *id,
		  struct err *e)
{
	struct stat st = { 0 };

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_errno(e, errno, "%s: stat", name);
	return file_compare(&st, name, id, e);
}

int file_read(int fd, const char *name, const struct file_id *id, size_t max,
	      char **ret, struct err *e)
{
	guard_free char *p = NULL;
	ssize_t n;

	if (id->bytes > max)
		return err_set(e, EFBIG,
			       "%s: %" PRIu64 " bytes, at most %zu are read",
			       name, id->bytes, max);
	p = malloc((size_t)id->bytes + 1);
	if (!p)
		return err_errno(e, ENOMEM, "%s: read", name);
	n = io_pread_full(fd, p, (size_t)id->bytes, 0);
	if (n < 0)
		return err_errno(e, (int)-n, "%s: read", name);
	if ((uint64_t)n != id->bytes)
		return err_set(e, ESTALE, "%s: ends at %zd while read", name,
			       n);
	p[n] = '\0';
	*ret = take(p);
	return 0;
}
