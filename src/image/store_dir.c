/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory as a store
 *
 * Objects are regular files below the directory. It may be a mount of a file
 * server; nothing here but rename and fsync is asked of it.
 *
 *	put     temporary, fsync, rename, fsync of the directory
 *	upload  the same, with a temporary whose name is in the note, and an
 *	        fdatasync per STORE_PART
 *
 * Invariants:
 *  1. Under an object's name there is nothing or the whole object.
 *  2. An interrupted upload goes on at a multiple of STORE_PART below which
 *     every byte was synced: a part begins only when the one before it is on
 *     the disk. What a crash may have torn is written again.
 *  3. Names cannot leave the directory: store_object_ok(). Links inside it are
 *     followed; who may write there may do worse.
 *
 * No failure is worth another try: a disk has made its own. The one thing this
 * kind cannot do is to keep a deadline inside a system call: a disk, or a file
 * server mounted hard, that hangs holds the thread until it answers, and
 * store_conn_cancel() is noticed after that.
 */
#include "image/store_ops.h"

#include "base/guard.h"
#include "base/io.h"
#include "image/store_note.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

/* Others may read a store: what is secret does not go into images. */
#define DIR_MODE 0755
#define DIR_FILE_MODE 0644
/* A copy's piece: between two of them progress is told and cancelling seen. */
#define DIR_COPY_BYTES ((size_t)1 << 20)

static_assert(STORE_PART % DIR_COPY_BYTES == 0, "pieces make parts");

struct store_dir {
	struct store store;
	const char *root; /* inside the spec */
};

static const char *dir_root(const char *url)
{
	return strncmp(url, "dir://", 6) ? url : url + 6;
}

static int dir_check(const struct store_spec *spec, struct err *e)
{
	const char *root = dir_root(spec->url);

	if (root[0] != '/')
		return err_set(
			e, EINVAL,
			"a directory is dir:///PATH, with three slashes");
	if (spec->ca[0])
		return err_set(e, EINVAL, "a directory has no use for a ca");
	return 0;
}

static int dir_open(struct store *s, struct err *e)
{
	struct store_dir *d = container_of(s, struct store_dir, store);
	struct stat st = { 0 };

	d->root = dir_root(s->spec.url);
	if (stat(d->root, &st) < 0)
		return err_errno(e, errno, "%s", d->root);
	if (!S_ISDIR(st.st_mode))
		return err_errno(e, ENOTDIR, "%s", d->root);
	return 0;
}

static void dir_close(unused struct store *s)
{
}

static int dir_connect(unused struct store_conn *c, unused struct err *e)
{
	return 0;
}

static void dir_disconnect(unused struct store_conn *c)
{
}

static char *dir_path(const struct store_conn *c, const char *object)
{
	return io_path("%s/%s",
		       container_of(c->store, struct store_dir, store)->root,
		       object);
}

/* STORE_MISS, or an fd and its size. */
static int dir_find(const struct store_conn *c, const char *object, int *ret_fd,
		    uint64_t *ret_bytes, struct err *e)
{
	guard_free char *path = dir_path(c, object);
	guard_fd int fd = -1;
	struct stat st = { 0 };

	store_add(c->store, STORE_REQUESTS, 1);
	if (!path)
		return err_errno(e, ENOMEM, "open");
	/* What is no file must not make us wait. */
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return STORE_MISS;
	if (fd < 0)
		return err_errno(e, errno, "open %s", path);
	if (fstat(fd, &st) < 0)
		return err_errno(e, errno, "stat %s", path);
	if (!S_ISREG(st.st_mode))
		return err_set(e, EBADMSG, "%s is not a file", path);
	*ret_fd = fd_take(&fd);
	*ret_bytes = (uint64_t)st.st_size;
	return 0;
}

static int dir_read(const struct store_conn *c, int fd, void *p, size_t len,
		    uint64_t offset, struct err *e)
{
	ssize_t n = io_pread_full(fd, p, len, offset);

	if (n < 0)
		return err_errno(e, (int)-n, "read %zu bytes at %" PRIu64, len,
				 offset);
	store_add(c->store, STORE_BYTES, (uint64_t)n);
	if ((size_t)n < len)
		return err_set(e, EBADMSG,
			       "the object ends at %" PRIu64
			       ", inside the range that was asked for",
			       offset + (uint64_t)n);
	return 0;
}

static int dir_get(struct store_conn *c, struct store_call *call, struct err *e)
{
	guard_fd int fd = -1;
	uint64_t bytes = 0;
	int r = dir_find(c, call->object, &fd, &bytes, e);

	if (r != 0)
		return r;
	return dir_read(c, fd, call->into, call->len, call->offset, e);
}

static int dir_get_all(struct store_conn *c, struct store_call *call,
		       struct err *e)
{
	guard_free char *all = NULL;
	guard_fd int fd = -1;
	uint64_t bytes = 0;
	int r = dir_find(c, call->object, &fd, &bytes, e);

	if (r != 0)
		return r;
	if (bytes > call->len)
		return err_set(e, E2BIG, "more than %zu bytes", call->len);
	all = malloc(bytes + 1);
	if (!all)
		return err_errno(e, ENOMEM, "%" PRIu64 " bytes", bytes);
	r = dir_read(c, fd, all, bytes, 0, e);
	if (r < 0)
		return r;
	all[bytes] = '\0';
	call->all = take(all);
	call->all_len = bytes;
	return 0;
}

static int dir_head(struct store_conn *c, struct store_call *call,
		    struct err *e)
{
	guard_fd int fd = -1;

	return dir_find(c, call->object, &fd, &call->bytes, e);
}

/* The directories above an object. */
static int dir_parents(const char *path, struct err *e)
{
	guard_free char *parent =
		strndup(path, (size_t)(strrchr(path, '/') - path));

	if (!parent)
		return err_errno(e, ENOMEM, "make directories");
	return io_mkdirs(parent, DIR_MODE, e);
}

static int dir_put(struct store_conn *c, struct store_call *call, struct err *e)
{
	guard_free char *path = dir_path(c, call->object);
	int r;

	store_add(c->store, STORE_REQUESTS, 1);
	if (!path)
		return err_errno(e, ENOMEM, "write");
	r = dir_parents(path, e);
	if (r < 0)
		return r;
	return io_write_file(path, call->from, call->len, DIR_FILE_MODE, e);
}

/* ---- upload ---- */

/* What an interrupted upload wrote beside @object, by the note's handle. */
static char *dir_partial(const struct store_conn *c, const char *object,
			 const char *handle)
{
	guard_free char *path = dir_path(c, object);

	return path ? io_path("%s.%s", path, handle) : NULL;
}

/* The half of another upload, which will never be finished. */
static void dir_discard(const struct store_conn *c, const struct store_note *n)
{
	guard_free char *old = NULL;

	if (!store_note_ours(n, c->store))
		return;
	old = dir_partial(c, n->object, n->handle);
	if (old)
		unlink(old);
}

/* The note of this upload: the one that is there, or a new one. */
static int dir_note(const struct store_conn *c, const struct store_upload *u,
		    struct store_note *ret, struct err *e)
{
	uint64_t suffix;
	int r = store_note_load(u->note, ret, e);

	if (r < 0)
		return r;
	if (r == 0 && store_note_fits(ret, c->store, u))
		return 0;
	if (r == 0)
		dir_discard(c, ret);
	io_random(&suffix, sizeof(suffix));
	store_note_init(ret, c->store, u);
	snprintf(ret->handle, sizeof(ret->handle), "%016" PRIx64 ".part",
		 suffix);
	return store_note_save(u->note, ret, e);
}

/* Where to go on: see invariant 2. */
static int dir_resume(int fd, uint64_t bytes, uint64_t *ret, struct err *e)
{
	struct stat st = { 0 };
	uint64_t have;

	if (fstat(fd, &st) < 0)
		return err_errno(e, errno, "stat what was uploaded before");
	have = (uint64_t)st.st_size;
	*ret = have && have <= bytes ? (have - 1) / STORE_PART * STORE_PART : 0;
	if (ftruncate(fd, (off_t)*ret) < 0)
		return err_errno(e, errno, "cut what was uploaded before");
	return 0;
}

static int dir_tell(const struct store_conn *c, const struct store_upload *u,
		    uint64_t done, struct err *e)
{
	if (u->progress && u->progress(u->arg, done, u->bytes))
		return err_set(e, ECANCELED, "cancelled");
	return store_conn_check(c, e);
}

static int dir_copy_piece(const struct store_upload *u, int to, void *p,
			  uint64_t at, size_t len, struct err *e)
{
	ssize_t n = io_pread_full(u->fd, p, len, at);
	int r;

	if (n < 0)
		return err_errno(e, (int)-n, "read the file to upload");
	if ((size_t)n < len)
		return err_set(e, EBADMSG,
			       "the file to upload is shorter than it was");
	r = io_pwrite_full(to, p, len, at);
	if (r < 0)
		return err_errno(e, -r, "write");
	at += len;
	if ((at % STORE_PART == 0 || at == u->bytes) && fdatasync(to) < 0)
		return err_errno(e, errno, "sync");
	return 0;
}

static int dir_copy(const struct store_conn *c, const struct store_upload *u,
		    int to, struct err *e)
{
	guard_free void *p = malloc(DIR_COPY_BYTES);
	uint64_t at = 0;
	int r;

	if (!p)
		return err_errno(e, ENOMEM, "copy");
	r = dir_resume(to, u->bytes, &at, e);
	while (r == 0 && at < u->bytes) {
		size_t len = min((uint64_t)DIR_COPY_BYTES, u->bytes - at);

		r = dir_copy_piece(u, to, p, at, len, e);
		if (r < 0)
			break;
		at += len;
		r = dir_tell(c, u, at, e);
	}
	return r;
}

static int dir_upload_partial(const struct store_conn *c,
			      const struct store_upload *u, const char *partial,
			      const char *path, struct err *e)
{
	guard_fd int fd =
		open(partial, O_RDWR | O_CREAT | O_CLOEXEC, DIR_FILE_MODE);
	int r;

	if (fd < 0)
		return err_errno(e, errno, "open %s", partial);
	r = dir_copy(c, u, fd, e);
	if (r < 0)
		return r;
	if (fchmod(fd, DIR_FILE_MODE) < 0 || fsync(fd) < 0)
		return err_errno(e, errno, "sync %s", partial);
	if (rename(partial, path) < 0)
		return err_errno(e, errno, "rename %s to %s", partial, path);
	return io_sync_parent(path, e);
}

static int dir_upload_new(const struct store_conn *c,
			  const struct store_upload *u, struct err *e)
{
	guard_free char *path = dir_path(c, u->object);
	guard_free char *partial = NULL;
	struct store_note note;
	int r;

	if (!path)
		return err_errno(e, ENOMEM, "upload");
	r = dir_parents(path, e);
	if (r < 0)
		return r;
	r = dir_note(c, u, &note, e);
	if (r < 0)
		return r;
	partial = dir_partial(c, u->object, note.handle);
	if (!partial)
		return err_errno(e, ENOMEM, "upload");
	return dir_upload_partial(c, u, partial, path, e);
}

static int dir_upload(struct store_conn *c, const struct store_upload *u,
		      struct err *e)
{
	struct store_call found = { .object = u->object };
	int r = store_conn_check(c, e);

	if (r == 0)
		r = u->replace ? STORE_MISS : dir_head(c, &found, e);
	if (r < 0)
		return r;
	if (r == STORE_MISS || found.bytes != u->bytes)
		r = dir_upload_new(c, u, e);
	else if (u->progress)
		u->progress(u->arg, u->bytes, u->bytes);
	if (r == 0)
		store_note_remove(u->note);
	return r;
}

const struct store_ops store_dir_ops = {
	.store_bytes = sizeof(struct store_dir),
	.conn_bytes = sizeof(struct store_conn),
	.check = dir_check,
	.open = dir_open,
	.close = dir_close,
	.connect = dir_connect,
	.disconnect = dir_disconnect,
	.get = dir_get,
	.get_all = dir_get_all,
	.head = dir_head,
	.put = dir_put,
	.upload = dir_upload,
};
