/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An image, open and verified
 *
 * Opening goes from the cheap to the dear: manifest, sizes of all files,
 * digests of those not known yet, bitmaps. A file is hashed through the very
 * fd that is handed out later, and its identity (image/file.h) must be the same
 * before and after.
 *
 * Invariants:
 *  1. An image that exists has all its files open, and each had the manifest's
 *     digest when it had the identity kept here.
 *  2. memory.digests is needed only to verify memory, and only trusted when its
 *     own digest is memory's entry of the manifest.
 *  3. Paths are used to open and to compare, never to read: a directory that is
 *     replaced under us is noticed by image_unchanged() and hurts nobody who
 *     holds the old one.
 *  4. Everything in it is constant from image_open() on but the count.
 *  5. A remote image has no memory, no disk and no memory.digests, whatever its
 *     directory has meanwhile: it is what it was when it was opened. It has an
 *     index that can be opened and is of the layers in the manifest.
 *
 * Verification is what the files hold on their way in; it is not a guard
 * against a disk that goes bad later, nor against root.
 */
#include "image/image.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/parse.h"
#include "image/chunk.h"
#include "image/file.h"
#include "image/index.h"
#include "image/verified.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

struct image {
	unsigned refs;
	char *dir;
	struct image_manifest manifest;
	char manifest_sha256[DIGEST_HEX];
	struct file_id manifest_id;
	int fd[IMAGE_FILE_COUNT];
	struct file_id id[IMAGE_FILE_COUNT];
	struct bitmap zeromap;
	struct bitmap workingset;
	char remote[IMAGE_REMOTE_MAX]; /* "": all is here */
	struct file_id index_id; /* of a remote one */
};

/* Not here, and not looked for? */
static bool image_misses(const struct image *i, enum image_file f)
{
	return *i->remote && (f == IMAGE_MEMORY || f == IMAGE_DISK);
}

static struct image *image_new(const char *dir)
{
	struct image *i = calloc(1, sizeof(*i));

	if (!i)
		return NULL;
	i->refs = 1;
	for (unsigned f = 0; f < IMAGE_FILE_COUNT; f++)
		i->fd[f] = -1;
	i->dir = strdup(dir);
	return i->dir ? i : image_unref(i);
}

struct image *image_ref(struct image *i)
{
	must(i->refs > 0);
	i->refs++;
	return i;
}

struct image *image_unref(struct image *i)
{
	if (!i)
		return NULL;
	must(i->refs > 0);
	if (--i->refs > 0)
		return NULL;
	for (unsigned f = 0; f < IMAGE_FILE_COUNT; f++)
		fd_close(&i->fd[f]);
	bitmap_deinit(&i->zeromap);
	bitmap_deinit(&i->workingset);
	free(i->dir);
	free(i);
	return NULL;
}

static void image_unrefp(struct image **i)
{
	image_unref(*i);
}

static int image_manifest_text(int dirfd, struct file_id *id, char **ret,
			       char sha256[DIGEST_HEX], struct err *e)
{
	guard_fd int fd = -1;
	int r;

	r = file_open(dirfd, IMAGE_MANIFEST_NAME, &fd, id, e);
	if (r == 0)
		r = file_read(fd, IMAGE_MANIFEST_NAME, id, IMAGE_MANIFEST_MAX,
			      ret, e);
	if (r == 0)
		digest_of(*ret, (size_t)id->bytes, sha256);
	return r;
}

/* Its digest comes first: a bit that was turned may well be another manifest. */
static int image_read_manifest(struct image *i, int dirfd, const char *known,
			       struct err *e)
{
	guard_free char *text = NULL;
	int r;

	r = image_manifest_text(dirfd, &i->manifest_id, &text,
				i->manifest_sha256, e);
	if (r < 0)
		return r;
	if (known && strcmp(known, i->manifest_sha256) != 0)
		return err_set(e, EBADMSG,
			       "%s: its digest is not the recorded one",
			       IMAGE_MANIFEST_NAME);
	r = image_manifest_parse(text, (size_t)i->manifest_id.bytes,
				 &i->manifest, e);
	if (r < 0) {
		err_prefix(e, "%s", IMAGE_MANIFEST_NAME);
		return r;
	}
	return 0;
}

/* The name of the store: a line. No such file: all is here. */
static int image_read_remote(struct image *i, int dirfd, struct err *e)
{
	guard_free char *text = NULL;
	guard_fd int fd = -1;
	struct stat st = { 0 };
	struct file_id id;
	size_t len;
	int r;

	if (fstatat(dirfd, IMAGE_REMOTE_NAME, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		if (errno == ENOENT)
			return 0;
		return err_errno(e, errno, "%s: stat", IMAGE_REMOTE_NAME);
	}
	r = file_open(dirfd, IMAGE_REMOTE_NAME, &fd, &id, e);
	if (r < 0)
		return r;
	r = file_read(fd, IMAGE_REMOTE_NAME, &id, IMAGE_REMOTE_MAX, &text, e);
	if (r < 0)
		return r;
	len = strcspn(text, "\n");
	if (len + 1 != id.bytes || len >= sizeof(i->remote))
		return err_set(e, EBADMSG, "%s: not one line",
			       IMAGE_REMOTE_NAME);
	text[len] = '\0';
	if (!parse_name_ok(text))
		return err_set(e, EBADMSG, "%s: not a name", IMAGE_REMOTE_NAME);
	memcpy(i->remote, text, len + 1);
	return 0;
}

/* Whole pages: an index does not know a disk's odd tail. */
static uint64_t image_pages(const struct image *i, enum image_file f)
{
	return (i->manifest.file[f].bytes + IMAGE_PAGE - 1) / IMAGE_PAGE;
}

static int image_check_index(struct image *i, int dirfd, struct err *e)
{
	struct index *x = NULL;
	guard_fd int fd = -1;
	bool same;
	int r;

	r = file_open(dirfd, IMAGE_INDEX_NAME, &fd, &i->index_id, e);
	if (r < 0)
		return r;
	r = index_open(fd, &x, e);
	if (r < 0)
		return r;
	same = index_zeromap(x, INDEX_MEMORY).n ==
		       image_pages(i, IMAGE_MEMORY) &&
	       index_zeromap(x, INDEX_DISK).n == image_pages(i, IMAGE_DISK);
	index_free(x);
	if (!same)
		return err_set(e, EBADMSG,
			       "%s: other sizes than in the manifest",
			       IMAGE_INDEX_NAME);
	return file_check(fd, IMAGE_INDEX_NAME, &i->index_id, e);
}

static int image_open_files(struct image *i, int dirfd, struct err *e)
{
	uint64_t bytes;
	int r;

	for (unsigned f = 0; f < IMAGE_FILE_COUNT; f++) {
		if (image_misses(i, f))
			continue;
		r = file_open(dirfd, image_file_name(f), &i->fd[f], &i->id[f],
			      e);
		if (r < 0)
			return r;
		bytes = i->manifest.file[f].bytes;
		if (i->id[f].bytes != bytes)
			return err_set(e, EBADMSG,
				       "%s: %" PRIu64
				       " bytes, the manifest says %" PRIu64,
				       image_file_name(f), i->id[f].bytes,
				       bytes);
	}
	return 0;
}

static int image_verify_memory(const struct image *i, int dirfd, struct err *e)
{
	uint64_t bytes = i->manifest.memory_bytes;
	size_t len = chunk_list_bytes(bytes);
	guard_free char *list = NULL;
	guard_fd int fd = -1;
	char hex[DIGEST_HEX];
	struct file_id id;
	int r;

	r = file_open(dirfd, IMAGE_DIGESTS_NAME, &fd, &id, e);
	if (r < 0)
		return r;
	if (id.bytes != len)
		return err_set(e, EBADMSG,
			       "%s: %" PRIu64
			       " bytes, that much memory needs %zu",
			       IMAGE_DIGESTS_NAME, id.bytes, len);
	r = file_read(fd, IMAGE_DIGESTS_NAME, &id, len, &list, e);
	if (r < 0)
		return r;
	digest_of(list, len, hex);
	if (strcmp(hex, i->manifest.file[IMAGE_MEMORY].sha256) != 0)
		return err_set(e, EBADMSG,
			       "%s: digest differs from the manifest",
			       IMAGE_DIGESTS_NAME);
	return chunk_list_verify(i->fd[IMAGE_MEMORY], bytes, list, e);
}

static int image_verify_plain(const struct image *i, enum image_file f,
			      struct err *e)
{
	char hex[DIGEST_HEX];
	int r;

	r = f == IMAGE_DISK
		    ? chunk_file_digest(i->fd[f], i->manifest.file[f].bytes,
					hex, e)
		    : digest_of_fd(i->fd[f], hex, e);
	if (r < 0) {
		err_prefix(e, "%s", image_file_name(f));
		return r;
	}
	if (strcmp(hex, i->manifest.file[f].sha256) != 0)
		return err_set(e, EBADMSG,
			       "%s: digest differs from the manifest",
			       image_file_name(f));
	return 0;
}

static int image_verify(const struct image *i, int dirfd, struct err *e)
{
	const char *sha256;
	int r;

	for (unsigned f = 0; f < IMAGE_FILE_COUNT; f++) {
		sha256 = i->manifest.file[f].sha256;
		if (image_misses(i, f) || verified_has(&i->id[f], sha256))
			continue;
		if (f == IMAGE_MEMORY)
			r = image_verify_memory(i, dirfd, e);
		else
			r = image_verify_plain(i, f, e);
		if (r < 0)
			return r;
		r = file_check(i->fd[f], image_file_name(f), &i->id[f], e);
		if (r < 0)
			return r;
		verified_add(&i->id[f], sha256);
	}
	return 0;
}

/* @bytes: what the manifest says is marked. */
static int image_read_bitmap(const struct image *i, enum image_file f,
			     uint64_t bytes, struct bitmap *ret, struct err *e)
{
	uint64_t pages = i->manifest.memory_bytes / IMAGE_PAGE, marked;
	int r;

	r = bitmap_read_fd(i->fd[f], pages, ret, e);
	if (r < 0) {
		err_prefix(e, "%s", image_file_name(f));
		return r;
	}
	marked = bitmap_count(ret) * IMAGE_PAGE;
	if (marked != bytes)
		return err_set(e, EBADMSG,
			       "%s: marks %" PRIu64
			       " bytes, the manifest says %" PRIu64,
			       image_file_name(f), marked, bytes);
	return 0;
}

static int image_load(struct image *i, const char *known, struct err *e)
{
	guard_fd int dirfd = open(i->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	const struct image_manifest *m = &i->manifest;
	int r;

	if (dirfd < 0)
		return err_errno(e, errno, "open");
	r = image_read_manifest(i, dirfd, known, e);
	if (r < 0)
		return r;
	r = image_read_remote(i, dirfd, e);
	if (r < 0)
		return r;
	if (*i->remote) {
		r = image_check_index(i, dirfd, e);
		if (r < 0)
			return r;
	}
	r = image_open_files(i, dirfd, e);
	if (r < 0)
		return r;
	r = image_verify(i, dirfd, e);
	if (r < 0)
		return r;
	r = image_read_bitmap(i, IMAGE_ZEROMAP, m->zero_bytes, &i->zeromap, e);
	if (r < 0)
		return r;
	return image_read_bitmap(i, IMAGE_WORKINGSET, m->workingset_bytes,
				 &i->workingset, e);
}

int image_open(const char *dir, struct image **ret, struct err *e)
{
	return image_open_known(dir, NULL, ret, e);
}

int image_open_known(const char *dir, const char *manifest_sha256,
		     struct image **ret, struct err *e)
{
	guard(image_unrefp) struct image *i = image_new(dir);
	int r;

	if (!i)
		return err_errno(e, ENOMEM, "image %s", dir);
	r = image_load(i, manifest_sha256, e);
	if (r < 0) {
		err_prefix(e, "image %s", dir);
		return r;
	}
	*ret = take(i);
	return 0;
}

int image_manifest_digest(const char *dir, char hex[DIGEST_HEX], struct err *e)
{
	guard_fd int dirfd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	guard_free char *text = NULL;
	struct file_id id;
	int r;

	if (dirfd < 0)
		return err_errno(e, errno, "open %s", dir);
	r = image_manifest_text(dirfd, &id, &text, hex, e);
	if (r < 0)
		err_prefix(e, "image %s", dir);
	return r;
}

static int image_compare(const struct image *i, struct err *e)
{
	guard_fd int dirfd = open(i->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int r;

	if (dirfd < 0)
		return err_errno(e, errno, "open");
	r = file_check_at(dirfd, IMAGE_MANIFEST_NAME, &i->manifest_id, e);
	if (r < 0)
		return r;
	if (*i->remote) {
		r = file_check_at(dirfd, IMAGE_INDEX_NAME, &i->index_id, e);
		if (r < 0)
			return r;
	}
	for (unsigned f = 0; f < IMAGE_FILE_COUNT; f++) {
		if (image_misses(i, f))
			continue;
		r = file_check_at(dirfd, image_file_name(f), &i->id[f], e);
		if (r < 0)
			return r;
	}
	return 0;
}

int image_unchanged(const struct image *i, struct err *e)
{
	int r = image_compare(i, e);

	if (r < 0)
		err_prefix(e, "image %s", i->dir);
	return r;
}

const char *image_remote(const struct image *i)
{
	return *i->remote ? i->remote : NULL;
}

const struct image_manifest *image_manifest(const struct image *i)
{
	return &i->manifest;
}

const char *image_manifest_sha256(const struct image *i)
{
	return i->manifest_sha256;
}

const char *image_dir(const struct image *i)
{
	return i->dir;
}

int image_fd(const struct image *i, enum image_file f)
{
	must((unsigned)f < IMAGE_FILE_COUNT);
	return i->fd[f];
}

const struct bitmap *image_zeromap(const struct image *i)
{
	return &i->zeromap;
}

const struct bitmap *image_workingset(const struct image *i)
{
	return &i->workingset;
}
