/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing: an image becomes an index and a pack
 *
 * The pack is written from its front to its end, in four passes: the disk's hot
 * frames, memory's hot ones, memory's cold ones, the disk's cold ones. Hot of
 * memory is the working set; of the disk its first page, which every VMM reads
 * to look for a partition table before its guest runs. In a pass PACK_THREADS threads take the chunks in order,
 * read and compress them side by side, and wait for their turn to write:
 *
 *	take    the next chunk        \
 *	work    read, compress         > any order
 *	commit  append, note the frame   in the order of the chunks
 *
 * so what comes out depends on the image and its parent alone.
 *
 * A chunk may be the parent's. Whether it is cannot be seen from digests of
 * pages, which nobody keeps; it is packed as the parent's was (with the
 * parent's hot map), and if both frames have the parent's lengths and digests,
 * they are the parent's. Then the chunk keeps the parent's hot map and points
 * to where the parent's frames are, which may be the pack of the parent's
 * parent: an index names packs, and no chain of images is ever walked.
 *
 * Invariants:
 *  1. The same image and parent give the same bytes (and id), with the same
 *     release of libzstd. Another release stores what it could have shared, and
 *     nothing else goes wrong.
 *  2. Source 0 is the image's own pack; the others are in the order in which
 *     chunks needed them. The parent's last source (of INDEX_SOURCES_MAX) is
 *     not shared: there is always room for the own one.
 *  3. The index is written when the pack is on disk. No index: no pack.
 *  4. A worker writes to the writer's maps and frames only at commit, under the
 *     lock, and reads its own chunk's only.
 */
#include "image/pack.h"

#include "base/guard.h"
#include "base/io.h"
#include "image/frame.h"
#include "image/image.h"
#include "image/index_write.h"
#include "image/pack_source.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>

/* Compression bounds it; more than two would take a host's cores from its
 * guests. */
#define PACK_THREADS 2

/* What became of a chunk in a pass. */
enum maker_outcome {
	MAKER_NOTHING,
	MAKER_SHARED,
	MAKER_STORED,
	MAKER_OUTCOME_COUNT,
};

struct maker_layer {
	int fd; /* borrowed */
	uint64_t bytes; /* of the file */
	uint32_t chunks, parent_chunks;
	struct bitmap parent_zero, parent_hot; /* views */
	uint8_t *shared; /* per chunk */
};

struct maker {
	struct index_writer w;
	const struct index *parent; /* may be NULL */
	struct maker_layer layer[INDEX_LAYER_COUNT];
	int pack; /* fd */
	pack_progress_fn progress;
	void *arg;
	uint64_t done, total;
	uint64_t shared_bytes;
	uint16_t source_of[INDEX_SOURCES_MAX]; /* parent's to ours; 0: none */
	/* the pass */
	enum index_layer l;
	bool cold;
	pthread_mutex_t lock; /* over everything below, and commits */
	pthread_cond_t moved;
	uint32_t next, turn;
	int r;
	struct err err;
};

/* One thread's. */
struct maker_work {
	struct frame_coder *coder;
	uint8_t *raw; /* a chunk's pages */
	uint32_t chunk;
	struct pack_bits zero, hot;
	enum maker_outcome outcome;
	uint32_t pages; /* of this pass' frame, or of both when shared */
	const void *stored;
	struct index_frame frame; /* without offset */
	struct err err;
};

static void maker_deinit(struct maker *m)
{
	index_writer_deinit(&m->w);
	for (unsigned l = 0; l < INDEX_LAYER_COUNT; l++)
		free(m->layer[l].shared);
	fd_close(&m->pack);
	pthread_cond_destroy(&m->moved);
	pthread_mutex_destroy(&m->lock);
}

static void maker_work_deinit(struct maker_work *k)
{
	frame_coder_free(k->coder);
	free(k->raw);
}

/* ---- one chunk ---- */

static int maker_encode(struct maker_work *k, const uint8_t *raw,
			uint32_t pages)
{
	int r = frame_encode(k->coder, raw, pages, &k->stored, &k->frame.stored,
			     k->frame.sha256);

	k->frame.pages = (uint16_t)pages;
	return r < 0 ? err_errno(&k->err, -r, "compress") : 0;
}

static bool maker_frame_same(const struct index_frame *a,
			     const struct index_frame *b)
{
	return a->stored == b->stored && a->pages == b->pages &&
	       !memcmp(a->sha256, b->sha256, sizeof(a->sha256));
}

/* Might it be the parent's chunk, as far as the maps know? */
static bool maker_comparable(const struct maker *m, const struct maker_work *k,
			     struct pack_bits *ret_hot)
{
	const struct maker_layer *y = &m->layer[m->l];
	struct pack_bits zero;

	if (k->chunk >= y->parent_chunks)
		return false;
	zero = pack_bits_of(&y->parent_zero, k->chunk);
	if (!pack_bits_same(&zero, &k->zero))
		return false;
	for (uint32_t i = 2 * k->chunk; i < 2 * k->chunk + 2; i++)
		if (index_frame(m->parent, m->l, i)->source >=
		    INDEX_SOURCES_MAX - 1)
			return false;
	*ret_hot = pack_bits_of(&y->parent_hot, k->chunk);
	return true;
}

/* Is a chunk that has data the parent's? 1: it is. */
static int maker_compare(const struct maker *m, struct maker_work *k)
{
	const struct maker_layer *y = &m->layer[m->l];
	const struct index_frame *f;
	struct pack_bits hot, b;
	int r;

	if (!maker_comparable(m, k, &hot))
		return 0;
	for (unsigned cold = 0; cold < 2; cold++) {
		f = index_frame(m->parent, m->l, 2 * k->chunk + cold);
		if (!f->pages)
			continue;
		b = pack_bits_frame(&k->zero, &hot, cold);
		r = pack_read(y->fd, y->bytes, k->chunk, &b, k->raw, &k->err);
		if (r == 0)
			r = maker_encode(k, k->raw, f->pages);
		if (r < 0)
			return r;
		if (!maker_frame_same(&k->frame, f))
			return 0;
	}
	k->hot = hot;
	return 1;
}

static int maker_chunk(const struct maker *m, struct maker_work *k)
{
	const struct maker_layer *y = &m->layer[m->l];
	uint32_t data, hot;
	struct pack_bits b;
	int r;

	k->outcome = MAKER_NOTHING;
	k->frame = (struct index_frame){ 0 };
	k->zero = pack_bits_of(&m->w.zeromap[m->l], k->chunk);
	k->hot = pack_bits_of(&m->w.hotmap[m->l], k->chunk);
	data = k->zero.n - pack_bits_count(&k->zero);
	if (!data || y->shared[k->chunk])
		return 0;
	if (!m->cold) {
		r = maker_compare(m, k);
		if (r < 0)
			return r;
		if (r > 0) {
			k->outcome = MAKER_SHARED;
			k->pages = data;
			return 0;
		}
	}
	hot = pack_bits_count(&k->hot);
	k->pages = m->cold ? data - hot : hot;
	if (!k->pages)
		return 0;
	b = pack_bits_frame(&k->zero, &k->hot, m->cold);
	r = pack_read(y->fd, y->bytes, k->chunk, &b, k->raw, &k->err);
	if (r == 0)
		r = maker_encode(k, k->raw, k->pages);
	k->outcome = MAKER_STORED;
	return r;
}

/* ---- commit: in order, under the lock ---- */

static uint16_t maker_source(struct maker *m, uint16_t parents)
{
	uint16_t *s = &m->source_of[parents];

	if (!*s) {
		must(m->w.n_sources < INDEX_SOURCES_MAX);
		*s = (uint16_t)m->w.n_sources++;
		m->w.source[*s] = *index_source(m->parent, parents);
	}
	return *s;
}

static void maker_share(struct maker *m, const struct maker_work *k)
{
	struct bitmap *hot = &m->w.hotmap[m->l];
	struct index_frame *f;

	memcpy(hot->bits + (size_t)k->chunk * sizeof(k->hot.bits), k->hot.bits,
	       bitmap_bytes(k->hot.n));
	for (uint32_t i = 2 * k->chunk; i < 2 * k->chunk + 2; i++) {
		f = &m->w.frames[m->l][i];
		*f = *index_frame(m->parent, m->l, i);
		if (!f->pages)
			continue;
		f->source = maker_source(m, f->source);
		m->shared_bytes += f->stored;
	}
	m->layer[m->l].shared[k->chunk] = 1;
}

static int maker_store(struct maker *m, struct maker_work *k)
{
	uint64_t *end = &m->w.source[0].pack_bytes;
	int r = io_pwrite_full(m->pack, k->stored, k->frame.stored, *end);

	if (r < 0)
		return err_errno(&k->err, -r, "write the pack");
	k->frame.offset = *end;
	m->w.frames[m->l][2 * k->chunk + m->cold] = k->frame;
	*end += k->frame.stored;
	return 0;
}

static int maker_commit(struct maker *m, struct maker_work *k)
{
	int r = 0;

	if (k->outcome == MAKER_NOTHING)
		return 0;
	if (k->outcome == MAKER_SHARED)
		maker_share(m, k);
	else
		r = maker_store(m, k);
	m->done += (uint64_t)k->pages * INDEX_PAGE;
	if (r == 0 && m->progress && m->progress(m->arg, m->done, m->total))
		r = err_set(&k->err, ECANCELED, "cancelled");
	return r;
}

/* ---- a pass ---- */

/* The first error is the one that is told. The lock is held. */
static void maker_failed(struct maker *m, int r, const struct err *e)
{
	if (m->r == 0) {
		m->r = r;
		m->err = *e;
	}
	pthread_cond_broadcast(&m->moved);
}

static bool maker_take(struct maker *m, uint32_t *ret)
{
	bool ok;

	must(!pthread_mutex_lock(&m->lock));
	ok = m->r == 0 && m->next < m->layer[m->l].chunks;
	if (ok)
		*ret = m->next++;
	must(!pthread_mutex_unlock(&m->lock));
	return ok;
}

static void maker_finish(struct maker *m, struct maker_work *k, int r)
{
	must(!pthread_mutex_lock(&m->lock));
	while (r == 0 && m->r == 0 && m->turn != k->chunk)
		must(!pthread_cond_wait(&m->moved, &m->lock));
	if (r == 0 && m->r == 0)
		r = maker_commit(m, k);
	m->turn++;
	if (r < 0)
		maker_failed(m, r, &k->err);
	else
		pthread_cond_broadcast(&m->moved);
	must(!pthread_mutex_unlock(&m->lock));
}

static void *maker_thread(void *arg)
{
	guard(maker_work_deinit) struct maker_work k = { 0 };
	struct maker *m = arg;
	int r = frame_coder_new(&k.coder);

	k.raw = malloc(INDEX_CHUNK);
	if (r < 0 || !k.raw) {
		err_errno(&k.err, ENOMEM, "compress");
		must(!pthread_mutex_lock(&m->lock));
		maker_failed(m, -ENOMEM, &k.err);
		must(!pthread_mutex_unlock(&m->lock));
		return NULL;
	}
	while (maker_take(m, &k.chunk))
		maker_finish(m, &k, maker_chunk(m, &k));
	return NULL;
}

static int maker_pass(struct maker *m, enum index_layer l, bool cold)
{
	pthread_t thread[PACK_THREADS];
	unsigned n = 0;

	m->l = l;
	m->cold = cold;
	m->next = m->turn = 0;
	while (n < PACK_THREADS &&
	       !pthread_create(&thread[n], NULL, maker_thread, m))
		n++;
	/* Without threads it is slower, nothing else. */
	if (!n)
		maker_thread(m);
	while (n)
		must(!pthread_join(thread[--n], NULL));
	if (m->r < 0)
		err_prefix(&m->err, "%s", index_layer_name(l));
	return m->r;
}

/* ---- all of it ---- */

static int maker_blob(struct maker *m, enum index_blob_kind b, int fd,
		      uint64_t bytes, struct err *e)
{
	guard_free char *p = NULL;
	ssize_t n;

	if (bytes > INDEX_BLOB_MAX)
		return err_set(e, EFBIG, "%" PRIu64 " bytes, at most %u fit",
			       bytes, INDEX_BLOB_MAX);
	p = malloc((size_t)bytes + 1);
	if (!p)
		return err_errno(e, ENOMEM, "read");
	n = io_pread_full(fd, p, (size_t)bytes + 1, 0);
	if (n < 0)
		return err_errno(e, (int)-n, "read");
	if ((uint64_t)n != bytes)
		return err_set(e, EBADMSG, "changed while read");
	return index_writer_blob(&m->w, b, p, (size_t)bytes, e);
}

static int maker_blobs(struct maker *m, const struct image *image,
		       struct err *e)
{
	static const struct {
		enum index_blob_kind blob;
		enum image_file file;
	} files[] = {
		{ INDEX_BLOB_STATE, IMAGE_STATE },
		{ INDEX_BLOB_OVERLAY, IMAGE_OVERLAY },
	};
	const struct image_manifest *manifest = image_manifest(image);
	guard_free char *text = NULL;
	int r;

	r = image_manifest_print(manifest, &text);
	if (r < 0)
		return err_errno(e, -r, "manifest");
	r = index_writer_blob(&m->w, INDEX_BLOB_MANIFEST, text, strlen(text),
			      e);
	for (size_t i = 0; r == 0 && i < nitems(files); i++) {
		r = maker_blob(m, files[i].blob, image_fd(image, files[i].file),
			       manifest->file[files[i].file].bytes, e);
		if (r < 0)
			err_prefix(e, "%s", image_file_name(files[i].file));
	}
	return r;
}

static int maker_layer_init(struct maker *m, enum index_layer l, int fd,
			    uint64_t bytes)
{
	struct maker_layer *y = &m->layer[l];

	y->fd = fd;
	y->bytes = bytes;
	y->chunks = index_writer_frames(&m->w, l) / 2;
	y->shared = calloc(max(y->chunks, 1u), 1);
	if (m->parent) {
		y->parent_chunks = index_frames(m->parent, l) / 2;
		y->parent_zero = index_zeromap(m->parent, l);
		y->parent_hot = index_hotmap(m->parent, l);
	}
	return y->shared ? 0 : -ENOMEM;
}

/* What is zero is not hot. */
static int maker_maps(struct maker *m, const struct image *image, struct err *e)
{
	const struct bitmap *zero = image_zeromap(image);
	const struct bitmap *set = image_workingset(image);
	struct bitmap *disk = &m->w.zeromap[INDEX_DISK];
	uint8_t *hot = m->w.hotmap[INDEX_MEMORY].bits;
	uint64_t data;
	int r;

	memcpy(m->w.zeromap[INDEX_MEMORY].bits, zero->bits,
	       bitmap_bytes(zero->n));
	memcpy(m->w.workingset.bits, set->bits, bitmap_bytes(set->n));
	for (uint64_t i = 0; i < bitmap_bytes(set->n); i++)
		hot[i] = (uint8_t)(set->bits[i] & ~zero->bits[i]);
	r = pack_find_zero(m->layer[INDEX_DISK].fd, m->layer[INDEX_DISK].bytes,
			   disk, e);
	if (r < 0) {
		err_prefix(e, "disk");
		return r;
	}
	if (disk->n && !bitmap_get(disk, 0))
		bitmap_set(&m->w.hotmap[INDEX_DISK], 0);
	data = zero->n - bitmap_count(zero) + disk->n - bitmap_count(disk);
	m->total = data * INDEX_PAGE;
	return 0;
}

static int maker_init(struct maker *m, const struct image *image, struct err *e)
{
	const struct image_manifest *manifest = image_manifest(image);
	uint64_t memory = manifest->memory_bytes;
	uint64_t disk = manifest->file[IMAGE_DISK].bytes;
	const uint64_t bytes[INDEX_LAYER_COUNT] = {
		[INDEX_MEMORY] = memory,
		[INDEX_DISK] = (disk + INDEX_PAGE - 1) & ~(INDEX_PAGE - 1ull),
	};
	int r;

	r = index_writer_init(&m->w, bytes, e);
	if (r < 0)
		return r;
	r = maker_layer_init(m, INDEX_MEMORY, image_fd(image, IMAGE_MEMORY),
			     memory);
	if (r == 0)
		r = maker_layer_init(m, INDEX_DISK, image_fd(image, IMAGE_DISK),
				     disk);
	if (r < 0)
		return err_errno(e, -r, "pack");
	r = maker_maps(m, image, e);
	return r < 0 ? r : maker_blobs(m, image, e);
}

static int maker_pack(struct maker *m, struct err *e)
{
	static const struct {
		enum index_layer layer;
		bool cold;
	} passes[] = { { INDEX_DISK, false },
		       { INDEX_MEMORY, false },
		       { INDEX_MEMORY, true },
		       { INDEX_DISK, true } };
	int r = 0;

	for (size_t i = 0; r == 0 && i < nitems(passes); i++)
		r = maker_pass(m, passes[i].layer, passes[i].cold);
	if (r < 0) {
		*e = m->err;
		return r;
	}
	if (fsync(m->pack) < 0)
		return err_errno(e, errno, "sync the pack");
	return 0;
}

static int maker_run(struct maker *m, const struct image *image,
		     const char *dir, struct err *e)
{
	guard_free char *index = io_path("%s/" IMAGE_INDEX_NAME, dir);
	guard_free char *pack = io_path("%s/" PACK_NAME, dir);
	guard_free void *p = NULL;
	size_t len = 0;
	int r;

	if (!index || !pack)
		return err_errno(e, ENOMEM, "paths");
	if (image_remote(image))
		return err_set(e, ENODATA, "its bytes are in store %s",
			       image_remote(image));
	r = io_mkdirs(dir, 0700, e);
	if (r < 0)
		return r;
	if (unlink(index) < 0 && errno != ENOENT)
		return err_errno(e, errno, "remove %s", index);
	r = maker_init(m, image, e);
	if (r < 0)
		return r;
	m->pack = open(pack,
		       O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
		       0600);
	if (m->pack < 0)
		return err_errno(e, errno, "create %s", pack);
	r = maker_pack(m, e);
	if (r == 0)
		r = index_writer_print(&m->w, &p, &len, e);
	return r < 0 ? r : io_write_file(index, p, len, 0644, e);
}

int pack_make(struct image *image, const struct index *parent, const char *dir,
	      pack_progress_fn progress, void *arg, uint64_t *ret_shared,
	      struct err *e)
{
	guard(maker_deinit) struct maker m = {
		.w = INDEX_WRITER_NULL,
		.parent = parent,
		.pack = -1,
		.progress = progress,
		.arg = arg,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.moved = PTHREAD_COND_INITIALIZER,
	};
	struct err why = ERR_NULL;
	int r = maker_run(&m, image, dir, &why);

	if (r < 0) {
		err_prefix(&why, "pack %s", image_dir(image));
		if (e)
			*e = why;
		return r;
	}
	*ret_shared = m.shared_bytes;
	return 0;
}
