/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Completing: a remote image gets its memory and its disk
 *
 *	memory.new, disk.new   sparse, filled frame by frame: from the layers
 *	                       of a pager what is there, the rest from the store
 *	verify                 both, against the manifest
 *	sync, memory.digests, rename to memory and disk, sync the directory
 *	remove `remote`        from here on it is a local image
 *
 * A crash leaves an image that is remote as before. What is renamed already is
 * verified and kept when it is tried again; what is not is begun anew. A failure
 * leaves that, and no *.new: half of a guest's memory is worth nothing, and a
 * full disk is why it mostly fails.
 *
 * The pager goes on meanwhile: its layers are only read, and may lose pages
 * (eviction is a hole punched into a memfd). So a frame is taken from there
 * only if all its pages are data before it is read and none is zero afterwards;
 * a frame's pages never are. Should the whole not verify although all frames
 * did, the layers are not asked again: everything is fetched.
 *
 * Invariants:
 *  1. memory and disk appear under their names complete, synced and verified.
 *  2. `remote` is removed last.
 *  3. *.new are gone when pack_complete() returns, whatever it returns.
 *  4. Nothing of a pager is written to, nor its files' names used.
 */
#include "image/pack.h"

#include "base/guard.h"
#include "base/io.h"
#include "image/chunk.h"
#include "image/file.h"
#include "image/frame.h"
#include "image/image.h"
#include "image/pack_fetch.h"
#include "image/pack_files.h"
#include "image/pack_source.h"
#include "image/verified.h"
#include "image/zero.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define COMPLETE_MODE 0600

struct complete_layer {
	const char *name;
	char *path, *new_path;
	uint64_t bytes; /* of the file */
	const char *sha256; /* in the manifest */
	int fd; /* of the new file, then of the complete one */
	int from; /* of a pager; -1: none; borrowed */
	uint64_t data, data_end; /* an extent of `from` */
	struct bitmap have; /* per frame: no need to fetch it */
	bool whole; /* was there, and was verified */
};

struct complete {
	const struct index *x;
	struct image_manifest m;
	const char *dir;
	struct complete_layer layer[INDEX_LAYER_COUNT];
	char *digests; /* of memory, chunk_list_make() */
	uint8_t *raw; /* a chunk's pages */
	bool copied;
	pack_progress_fn progress;
	void *arg;
	uint64_t done, total;
};

static const enum image_file layer_files[] = {
	[INDEX_MEMORY] = IMAGE_MEMORY,
	[INDEX_DISK] = IMAGE_DISK,
};
static_assert(nitems(layer_files) == INDEX_LAYER_COUNT, "a layer has no file");

static void complete_deinit(struct complete *c)
{
	for (unsigned l = 0; l < INDEX_LAYER_COUNT; l++) {
		fd_close(&c->layer[l].fd);
		bitmap_deinit(&c->layer[l].have);
		free(c->layer[l].path);
		free(c->layer[l].new_path);
	}
	free(c->digests);
	free(c->raw);
}

static int complete_init(struct complete *c, struct err *e)
{
	struct complete_layer *y;
	int r;

	c->raw = malloc(INDEX_CHUNK);
	if (!c->raw)
		return err_errno(e, ENOMEM, "pages");
	for (unsigned l = 0; l < INDEX_LAYER_COUNT; l++) {
		y = &c->layer[l];
		y->name = image_file_name(layer_files[l]);
		y->bytes = c->m.file[layer_files[l]].bytes;
		y->sha256 = c->m.file[layer_files[l]].sha256;
		y->path = io_path("%s/%s", c->dir, y->name);
		y->new_path = io_path("%s/%s.new", c->dir, y->name);
		r = bitmap_init(&y->have, index_frames(c->x, l));
		if (r < 0 || !y->path || !y->new_path)
			return err_errno(e, ENOMEM, "%s", y->name);
		c->total += index_data_bytes(c->x, l);
	}
	return 0;
}

/* ---- verify ---- */

/* Keeps memory's list. */
static int complete_digest(struct complete *c, enum index_layer l,
			   char hex[DIGEST_HEX], struct err *e)
{
	const struct bitmap zeromap = index_zeromap(c->x, INDEX_MEMORY);
	struct complete_layer *y = &c->layer[l];
	int r;

	if (l == INDEX_DISK) {
		r = chunk_file_digest(y->fd, y->bytes, hex, e);
		if (r < 0)
			err_prefix(e, "%s", y->name);
		return r;
	}
	free(take(c->digests));
	r = chunk_list_make(y->fd, y->bytes, &zeromap, &c->digests, e);
	if (r == 0)
		digest_of(c->digests, chunk_list_bytes(y->bytes), hex);
	return r;
}

static int complete_verify(struct complete *c, enum index_layer l,
			   struct err *e)
{
	char hex[DIGEST_HEX];
	int r = complete_digest(c, l, hex, e);

	if (r < 0)
		return r;
	if (strcmp(hex, c->layer[l].sha256) != 0)
		return err_set(e, EBADMSG,
			       "%s: digest differs from the manifest",
			       c->layer[l].name);
	return 0;
}

/* What an earlier attempt left under its last name. Anything else there is
 * replaced later. */
static void complete_look(struct complete *c, enum index_layer l)
{
	struct complete_layer *y = &c->layer[l];
	struct stat st = { 0 };

	y->fd = open(y->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (y->fd >= 0 && fstat(y->fd, &st) == 0 && S_ISREG(st.st_mode) &&
	    (uint64_t)st.st_size == y->bytes &&
	    complete_verify(c, l, NULL) == 0)
		y->whole = true;
	else
		fd_close(&y->fd);
}

/* ---- fill ---- */

static int complete_create(struct complete *c, enum index_layer l,
			   struct err *e)
{
	struct complete_layer *y = &c->layer[l];

	fd_close(&y->fd);
	y->fd = open(y->new_path,
		     O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
		     COMPLETE_MODE);
	if (y->fd < 0)
		return err_errno(e, errno, "create %s", y->new_path);
	if (ftruncate(y->fd, (off_t)y->bytes) < 0)
		return err_errno(e, errno, "%s: set its length", y->new_path);
	memset(y->have.bits, 0, bitmap_bytes(y->have.n));
	return 0;
}

/* Are these bytes of the pager's layer data? */
static bool complete_is_data(struct complete_layer *y, uint64_t start,
			     uint64_t end)
{
	off_t hole;

	if (start >= y->data && end <= y->data_end)
		return true;
	/* At a hole the answer is @start itself. */
	hole = lseek(y->from, (off_t)start, SEEK_HOLE);
	if (hole < 0 || (uint64_t)hole < end)
		return false;
	y->data = start;
	y->data_end = (uint64_t)hole;
	return true;
}

static bool complete_all_data(struct complete_layer *y, uint32_t i,
			      const struct pack_bits *b)
{
	const struct bitmap view = { .bits = (uint8_t *)(uintptr_t)b->bits,
				     .n = b->n };
	uint64_t first = (uint64_t)(i / 2) * INDEX_CHUNK, page, run;

	/* What was seen for another frame may be gone. */
	y->data = y->data_end = 0;
	for (page = 0; page < view.n; page += run) {
		run = bitmap_run(&view, page);
		if (bitmap_get(&view, page) &&
		    !complete_is_data(y, first + page * INDEX_PAGE,
				      first + (page + run) * INDEX_PAGE))
			return false;
	}
	return true;
}

/* Frame @i from the pager's layer, if all of it is there. */
static int complete_copy(struct complete *c, enum index_layer l, uint32_t i,
			 struct err *e)
{
	const struct bitmap zero = index_zeromap(c->x, l);
	const struct bitmap hot = index_hotmap(c->x, l);
	struct complete_layer *y = &c->layer[l];
	struct pack_bits z, h, b;
	uint32_t n;
	int r;

	z = pack_bits_of(&zero, i / 2);
	h = pack_bits_of(&hot, i / 2);
	b = pack_bits_frame(&z, &h, i % 2);
	n = pack_bits_count(&b);
	if (!complete_all_data(y, i, &b))
		return 0;
	r = pack_read(y->from, index_layer_bytes(c->x, l), i / 2, &b, c->raw,
		      NULL);
	if (r < 0)
		return 0;
	for (uint32_t p = 0; p < n; p++)
		if (zero_page(c->raw + (size_t)p * INDEX_PAGE))
			return 0;
	r = frame_place(c->x, l, i, c->raw, y->fd);
	if (r < 0)
		return err_errno(e, -r, "write %s", y->new_path);
	bitmap_set(&y->have, i);
	c->copied = true;
	c->done += (uint64_t)n * INDEX_PAGE;
	if (c->progress && c->progress(c->arg, c->done, c->total))
		return err_set(e, ECANCELED, "cancelled");
	return 0;
}

static int complete_copy_layer(struct complete *c, enum index_layer l,
			       struct err *e)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < index_frames(c->x, l); i++)
		if (index_frame(c->x, l, i)->pages)
			r = complete_copy(c, l, i, e);
	return r;
}

static bool complete_want(void *arg, enum index_layer l, uint32_t i)
{
	const struct complete *c = arg;

	return !c->layer[l].whole && !bitmap_get(&c->layer[l].have, i);
}

static int complete_frame(void *arg, enum index_layer l, uint32_t i,
			  const void *raw, struct err *e)
{
	const struct complete *c = arg;
	int r = frame_place(c->x, l, i, raw, c->layer[l].fd);

	return r < 0 ? err_errno(e, -r, "write %s", c->layer[l].new_path) : 0;
}

static int complete_fill(struct complete *c, struct store *store, struct err *e)
{
	struct pack_fetch f = { .x = c->x,
				.store = store,
				.want = complete_want,
				.frame = complete_frame,
				.arg = c,
				.progress = c->progress,
				.progress_arg = c->arg,
				.total = c->total };
	int r = 0;

	c->done = 0;
	for (unsigned l = 0; r == 0 && l < INDEX_LAYER_COUNT; l++) {
		if (c->layer[l].whole) {
			c->done += index_data_bytes(c->x, l);
			continue;
		}
		r = complete_create(c, l, e);
		if (r == 0 && c->layer[l].from >= 0)
			r = complete_copy_layer(c, l, e);
	}
	f.done = c->done;
	return r < 0 ? r : pack_fetch(&f, e);
}

/* Cut the odd tail, bring it to the disk, verify. */
static int complete_check(struct complete *c, struct err *e)
{
	struct complete_layer *y;
	int r = 0;

	for (unsigned l = 0; r == 0 && l < INDEX_LAYER_COUNT; l++) {
		y = &c->layer[l];
		if (y->whole)
			continue;
		if (ftruncate(y->fd, (off_t)y->bytes) < 0)
			return err_errno(e, errno, "%s: cut", y->new_path);
		if (fsync(y->fd) < 0)
			return err_errno(e, errno, "sync %s", y->new_path);
		r = complete_verify(c, l, e);
	}
	return r;
}

/* ---- publish ---- */

static int complete_rename(struct complete *c, struct err *e)
{
	struct complete_layer *y;

	for (unsigned l = 0; l < INDEX_LAYER_COUNT; l++) {
		y = &c->layer[l];
		if (!y->whole && rename(y->new_path, y->path) < 0)
			return err_errno(e, errno, "rename %s", y->new_path);
	}
	return io_sync_parent(c->layer[0].path, e);
}

static int complete_publish(struct complete *c, const char *remote,
			    struct err *e)
{
	guard_free char *list = io_path("%s/" IMAGE_DIGESTS_NAME, c->dir);
	struct stat st = { 0 };
	struct file_id id;
	int r;

	if (!list)
		return err_errno(e, ENOMEM, "%s", IMAGE_DIGESTS_NAME);
	r = io_write_file(list, c->digests, chunk_list_bytes(c->m.memory_bytes),
			  0444, e);
	if (r == 0)
		r = complete_rename(c, e);
	if (r < 0)
		return r;
	if (unlink(remote) < 0)
		return err_errno(e, errno, "remove %s", remote);
	r = io_sync_parent(remote, e);
	if (r < 0)
		return r;
	/* Opening it hashes nothing: renaming changed what the files are known
	 * by, not what is in them. */
	for (unsigned l = 0; l < INDEX_LAYER_COUNT; l++) {
		if (fstat(c->layer[l].fd, &st) < 0)
			continue;
		id = file_id_of(&st);
		verified_add(&id, c->layer[l].sha256);
	}
	return 0;
}

static int complete_run(struct complete *c, const char *remote,
			struct store *store, struct err *e)
{
	int r = complete_init(c, e);

	if (r < 0)
		return r;
	for (unsigned l = 0; l < INDEX_LAYER_COUNT; l++)
		complete_look(c, l);
	r = complete_fill(c, store, e);
	if (r == 0)
		r = complete_check(c, e);
	if (r == -EBADMSG && c->copied && store) {
		c->layer[INDEX_MEMORY].from = c->layer[INDEX_DISK].from = -1;
		r = complete_fill(c, store, e);
		if (r == 0)
			r = complete_check(c, e);
	}
	return r < 0 ? r : complete_publish(c, remote, e);
}

/* 1: it is to be completed. */
static int complete_begin(const struct complete *c, char **ret_remote,
			  struct err *e)
{
	guard_free char *remote = io_path("%s/" IMAGE_REMOTE_NAME, c->dir);

	if (!remote)
		return err_errno(e, ENOMEM, "paths");
	if (access(remote, F_OK) < 0)
		return errno == ENOENT ? 0 : err_errno(e, errno, "%s", remote);
	*ret_remote = take(remote);
	return 1;
}

void pack_complete_tidy(const char *dir)
{
	for (unsigned l = 0; l < INDEX_LAYER_COUNT; l++) {
		guard_free char *path = io_path(
			"%s/%s.new", dir, image_file_name(layer_files[l]));

		if (path)
			err_drop(unlink(path));
	}
}

int pack_complete(const struct index *x, const char *dir, struct store *store,
		  int memory_fd, int disk_fd, pack_progress_fn progress,
		  void *arg, struct err *e)
{
	guard(complete_deinit) struct complete c = {
		.x = x,
		.dir = dir,
		.layer = { [INDEX_MEMORY] = { .fd = -1, .from = memory_fd },
			   [INDEX_DISK] = { .fd = -1, .from = disk_fd } },
		.progress = progress,
		.arg = arg,
	};
	guard_free char *remote = NULL;
	int r = pack_manifest(x, &c.m, NULL, NULL, e);

	if (r == 0)
		r = complete_begin(&c, &remote, e);
	if (r == 1) {
		must(remote);
		r = complete_run(&c, remote, store, e);
		pack_complete_tidy(dir);
	}
	if (r < 0)
		err_prefix(e, "image %s", dir);
	return r;
}
