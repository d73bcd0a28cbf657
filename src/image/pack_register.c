/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registering: the directory of an image, from its index alone
 *
 * What is small is in the index: the manifest, the state, the overlay, both
 * bitmaps. They are written out as the files that they were, each compared with
 * the manifest; memory and disk are left to the pager, and later to
 * pack_complete(). After this the image can be opened (image/image.h, remote).
 *
 * Invariants:
 *  1. `remote` is the first file written, the manifest the last: a directory
 *     that can be opened is whole, and is never taken for a local image.
 *  2. A file is written only if its digest and length are the manifest's. The
 *     manifest is what the index holds, and passes image_manifest_check().
 *  3. The index in the directory is the one that was given, byte for byte.
 *
 * Who may name this index an image of that name, the caller knows: it has
 * compared the digest in the reference.
 */
#include "image/pack.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/parse.h"
#include "image/image.h"
#include "image/pack_files.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

/* As a bake leaves them. */
#define REGISTER_MODE 0600

static int register_write(const char *dir, const char *name, const void *p,
			  size_t len, mode_t mode, struct err *e)
{
	guard_free char *path = io_path("%s/%s", dir, name);

	if (!path)
		return err_errno(e, ENOMEM, "%s", name);
	return io_write_file(path, p, len, mode, e);
}

static int register_blob(const struct index *x, const char *dir,
			 enum index_blob_kind b, enum image_file f,
			 const struct image_manifest *m, struct err *e)
{
	guard_free char *p = NULL;
	char hex[DIGEST_HEX];
	size_t len = 0;
	int r;

	r = index_blob(x, b, &p, &len, e);
	if (r < 0)
		return r;
	digest_of(p, len, hex);
	if (len != m->file[f].bytes || strcmp(hex, m->file[f].sha256) != 0)
		return err_set(e, EBADMSG,
			       "index: %s: digest differs from the manifest",
			       image_file_name(f));
	return register_write(dir, image_file_name(f), p, len, REGISTER_MODE,
			      e);
}

static int register_bitmap(const struct bitmap *b, const char *dir,
			   enum image_file f, const struct image_manifest *m,
			   struct err *e)
{
	guard_free char *path = io_path("%s/%s", dir, image_file_name(f));
	guard_fd int fd = -1;
	char hex[DIGEST_HEX];
	int r;

	if (!path)
		return err_errno(e, ENOMEM, "%s", image_file_name(f));
	r = bitmap_write(b, path, e);
	if (r < 0)
		return r;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(e, errno, "open %s", path);
	r = digest_of_fd(fd, hex, e);
	if (r < 0)
		return r;
	if (strcmp(hex, m->file[f].sha256) != 0)
		return err_set(e, EBADMSG,
			       "index: %s: digest differs from the manifest",
			       image_file_name(f));
	return 0;
}

static int register_index(const struct index *x, int from, const char *dir,
			  struct err *e)
{
	guard_free char *path = io_path("%s/" IMAGE_INDEX_NAME, dir);
	struct index *copy = NULL;
	guard_fd int fd = -1;
	bool same;
	int r;

	if (!path)
		return err_errno(e, ENOMEM, "index");
	/* One that is there may be mapped: it is replaced, never cut. */
	if (unlink(path) < 0 && errno != ENOENT)
		return err_errno(e, errno, "remove %s", path);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return err_errno(e, errno, "create %s", path);
	if (lseek(from, 0, SEEK_SET) < 0)
		return err_errno(e, errno, "index: seek");
	r = io_copy_file(from, fd, e);
	if (r < 0) {
		err_prefix(e, "copy to %s", path);
		return r;
	}
	if (fsync(fd) < 0)
		return err_errno(e, errno, "sync %s", path);
	r = index_open(fd, &copy, e);
	if (r < 0)
		return r;
	same = !strcmp(index_id(copy), index_id(x));
	index_free(copy);
	return same ? 0 : err_set(e, EBADMSG, "index: replaced while copied");
}

static int register_files(const struct index *x, int index_fd,
			  const struct image_manifest *m, const char *dir,
			  struct err *e)
{
	const struct bitmap zeromap = index_zeromap(x, INDEX_MEMORY);
	const struct bitmap workingset = index_workingset(x);
	int r;

	r = register_index(x, index_fd, dir, e);
	if (r == 0)
		r = register_blob(x, dir, INDEX_BLOB_STATE, IMAGE_STATE, m, e);
	if (r == 0)
		r = register_blob(x, dir, INDEX_BLOB_OVERLAY, IMAGE_OVERLAY, m,
				  e);
	if (r == 0)
		r = register_bitmap(&zeromap, dir, IMAGE_ZEROMAP, m, e);
	if (r == 0)
		r = register_bitmap(&workingset, dir, IMAGE_WORKINGSET, m, e);
	return r;
}

int pack_manifest(const struct index *x, struct image_manifest *ret,
		  char **text, size_t *len, struct err *e)
{
	guard_free char *p = NULL;
	struct image_manifest m = { 0 };
	uint64_t disk;
	size_t n = 0;
	int r;

	r = index_blob(x, INDEX_BLOB_MANIFEST, &p, &n, e);
	if (r < 0)
		return r;
	r = image_manifest_parse(p, n, &m, e);
	if (r < 0) {
		err_prefix(e, "index: manifest");
		return r;
	}
	disk = m.file[IMAGE_DISK].bytes;
	if (m.memory_bytes != index_layer_bytes(x, INDEX_MEMORY) ||
	    (disk + INDEX_PAGE - 1) / INDEX_PAGE !=
		    index_layer_bytes(x, INDEX_DISK) / INDEX_PAGE)
		return err_set(e, EBADMSG,
			       "index: other sizes than in its manifest");
	*ret = m;
	if (text) {
		*text = take(p);
		*len = n;
	}
	return 0;
}

int pack_register(const struct index *x, int index_fd, const char *remote,
		  const char *dir, struct err *e)
{
	char line[IMAGE_REMOTE_MAX + 1];
	guard_free char *text = NULL;
	struct image_manifest m = { 0 };
	size_t len = 0;
	int n, r;

	if (!parse_name_ok(remote))
		return err_set(e, EINVAL, "not the name of a store");
	n = snprintf(line, sizeof(line), "%s\n", remote);
	must(n > 0 && n <= IMAGE_REMOTE_MAX);
	r = pack_manifest(x, &m, &text, &len, e);
	if (r < 0)
		return r;
	r = io_mkdirs(dir, 0700, e);
	if (r == 0)
		r = register_write(dir, IMAGE_REMOTE_NAME, line, (size_t)n,
				   0644, e);
	if (r == 0)
		r = register_files(x, index_fd, &m, dir, e);
	if (r == 0)
		r = register_write(dir, IMAGE_MANIFEST_NAME, text, len, 0444,
				   e);
	if (r < 0)
		err_prefix(e, "register %s", index_id(x));
	return r;
}
