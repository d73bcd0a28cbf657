/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sealing: a directory of files becomes an image
 *
 * The order is the meaning: every file is synced, then hashed, then looked at
 * once more; memory.digests is written; the manifest is written last, as a
 * whole and synced with the directory (io_write_file). A crash in between
 * leaves a directory without a manifest, or with a whole one.
 *
 * Invariants:
 *  1. What is sealed can be opened: the manifest passes the check that opening
 *     makes, and the zero map is compared with memory. A zero map that is wrong
 *     would give guests zeros for data, long after the bake.
 *  2. The caller's manifest is written once, at the end.
 *  3. A file that was hashed here counts as verified, if it still has the
 *     identity it had before: the first restore after a bake hashes nothing.
 *
 * It does not make the files, rename the directory, or change their modes.
 */
#include "image/image.h"

#include "base/guard.h"
#include "base/io.h"
#include "image/chunk.h"
#include "image/file.h"
#include "image/verified.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

/* Others may look; nobody is meant to write any more. */
#define SEAL_MODE 0444

struct seal {
	const char *dir;
	int dirfd;
	struct image_manifest m;
	struct bitmap zeromap;
};

#define SEAL_NULL                                   \
	{                                           \
		.dirfd = -1, .zeromap = BITMAP_NULL \
	}

static void seal_deinit(struct seal *s)
{
	fd_close(&s->dirfd);
	bitmap_deinit(&s->zeromap);
}

static int seal_bitmap(const struct seal *s, enum image_file f,
		       struct bitmap *ret, struct err *e)
{
	const char *name = image_file_name(f);
	guard_fd int fd = -1;
	struct file_id id;
	int r;

	r = file_open(s->dirfd, name, &fd, &id, e);
	if (r < 0)
		return r;
	r = bitmap_read_fd(fd, s->m.memory_bytes / IMAGE_PAGE, ret, e);
	if (r < 0)
		err_prefix(e, "%s", name);
	return r;
}

/* Keeps the zero map, which sealing memory needs. */
static int seal_bitmaps(struct seal *s, struct err *e)
{
	guard(bitmap_deinit) struct bitmap workingset = BITMAP_NULL;
	int r;

	r = seal_bitmap(s, IMAGE_ZEROMAP, &s->zeromap, e);
	if (r < 0)
		return r;
	r = seal_bitmap(s, IMAGE_WORKINGSET, &workingset, e);
	if (r < 0)
		return r;
	s->m.zero_bytes = bitmap_count(&s->zeromap) * IMAGE_PAGE;
	s->m.workingset_bytes = bitmap_count(&workingset) * IMAGE_PAGE;
	return 0;
}

static int seal_write(const struct seal *s, const char *name, const void *p,
		      size_t len, struct err *e)
{
	guard_free char *path = io_path("%s/%s", s->dir, name);

	if (!path)
		return err_errno(e, ENOMEM, "%s", name);
	return io_write_file(path, p, len, SEAL_MODE, e);
}

/* Memory's digest is that of the list of its chunks'. */
static int seal_memory(const struct seal *s, int fd, char hex[DIGEST_HEX],
		       struct err *e)
{
	size_t len = chunk_list_bytes(s->m.memory_bytes);
	guard_free char *list = NULL;
	int r;

	r = chunk_list_make(fd, s->m.memory_bytes, &s->zeromap, &list, e);
	if (r < 0)
		return r;
	digest_of(list, len, hex);
	return seal_write(s, IMAGE_DIGESTS_NAME, list, len, e);
}

static int seal_digest(const struct seal *s, enum image_file f, int fd,
		       uint64_t bytes, char hex[DIGEST_HEX], struct err *e)
{
	int r;

	if (f == IMAGE_MEMORY)
		return seal_memory(s, fd, hex, e);
	r = f == IMAGE_DISK ? chunk_file_digest(fd, bytes, hex, e)
			    : digest_of_fd(fd, hex, e);
	if (r < 0)
		err_prefix(e, "%s", image_file_name(f));
	return r;
}

static int seal_file(struct seal *s, enum image_file f, struct err *e)
{
	struct image_file_info *info = &s->m.file[f];
	const char *name = image_file_name(f);
	guard_fd int fd = -1;
	struct file_id id;
	int r;

	r = file_open(s->dirfd, name, &fd, &id, e);
	if (r < 0)
		return r;
	if (f == IMAGE_MEMORY && id.bytes != s->m.memory_bytes)
		return err_set(e, EINVAL,
			       "%s: %" PRIu64 " bytes, the guest has %" PRIu64,
			       name, id.bytes, s->m.memory_bytes);
	if (fsync(fd) < 0)
		return err_errno(e, errno, "%s: sync", name);
	r = seal_digest(s, f, fd, id.bytes, info->sha256, e);
	if (r < 0)
		return r;
	r = file_check(fd, name, &id, e);
	if (r < 0)
		return r;
	info->bytes = id.bytes;
	verified_add(&id, info->sha256);
	return 0;
}

static int seal_manifest(const struct seal *s, struct err *e)
{
	guard_free char *text = NULL;
	int r;

	r = image_manifest_check(&s->m, e);
	if (r < 0) {
		err_prefix(e, "%s", IMAGE_MANIFEST_NAME);
		return r;
	}
	r = image_manifest_print(&s->m, &text);
	if (r < 0)
		return err_errno(e, -r, "%s", IMAGE_MANIFEST_NAME);
	return seal_write(s, IMAGE_MANIFEST_NAME, text, strlen(text), e);
}

static int seal_run(struct seal *s, struct err *e)
{
	uint64_t bytes = s->m.memory_bytes;
	int r;

	/* The rest of the manifest waits for the files; this is needed now. */
	if (!bytes || bytes % IMAGE_PAGE || bytes > IMAGE_MEMORY_MAX)
		return err_set(e, EINVAL, "%" PRIu64 " bytes of memory", bytes);
	s->dirfd = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dirfd < 0)
		return err_errno(e, errno, "open");
	r = seal_bitmaps(s, e);
	if (r < 0)
		return r;
	for (unsigned f = 0; f < IMAGE_FILE_COUNT; f++) {
		r = seal_file(s, f, e);
		if (r < 0)
			return r;
	}
	r = seal_manifest(s, e);
	if (r < 0)
		return r;
	if (fsync(s->dirfd) < 0)
		return err_errno(e, errno, "sync");
	return 0;
}

int image_seal(const char *dir, struct image_manifest *m, struct err *e)
{
	guard(seal_deinit) struct seal s = SEAL_NULL;
	int r;

	s.dir = dir;
	s.m = *m;
	r = seal_run(&s, e);
	if (r < 0) {
		err_prefix(e, "image %s", dir);
		return r;
	}
	*m = s.m;
	return 0;
}
