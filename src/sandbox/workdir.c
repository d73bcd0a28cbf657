/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making ready for a VMM
 *
 * The disk. Where the file system can share blocks (XFS, btrfs) the sandbox
 * gets a reflink of the template's disk, a plain raw file; elsewhere a qcow2
 * overlay over the template's disk, which stays read-only and is shared through
 * the page cache. The empty overlay was made once by the bake; copying its
 * 200 KB is cheaper than starting qemu-img.
 *
 * The plan. Data extents of the image are mapped from its memory file, zero runs
 * are anonymous. The number of extents is bounded by the kernel's limit of
 * mappings: a fragmented image gets coarser runs until it fits.
 *
 * Zero runs too short for an extent of their own are holes inside extents of
 * data. A guest that touches one makes the kernel read it, and with it what is
 * around: all data is in the page cache, so that brings holes only, 128 KiB of
 * zeros for a page. So they are asked for beforehand, them alone: of a template
 * with 62 MiB of data a guest made 96 MiB, and makes 64.
 *
 * Streamed. The memory is the layer's. Of its working set only what is here by
 * now is mapped ahead: the VMM would wait for the rest, also for what the guest
 * does not need this time. The disk is an overlay over what the pager serves, until the image has a
 * disk of its own here.
 */
#include "sandbox/workdir.h"

#include "base/guard.h"
#include "base/io.h"
#include "gmem/plan.h"
#include "image/image.h"
#include "image/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>

/* Gaps in the working set up to this many pages are populated with it: one
 * madvise costs as much as mapping that many cached pages. */
#define WORKDIR_POPULATE_GAP 16u
/* Short zero runs that are read before a guest can touch them: half a
 * microsecond each when they are there already, so that this is no more than a
 * two-hundredth of a create. Templates have some hundreds. */
#define WORKDIR_HOLES_MAX 1024u

int workdir_init(struct workdir *w, const char *root, const char *run,
		 const char *id, struct err *e)
{
	*w = (struct workdir)WORKDIR_NULL;
	w->dir = io_path("%s/sandboxes/%s", root, id);
	w->run = io_path("%s/sandboxes/%s", run, id);
	w->control_path = io_path("%s/sandboxes/%s/control", run, id);
	w->agent_path = io_path("%s/sandboxes/%s/agent", run, id);
	w->console_path = io_path("%s/sandboxes/%s/console", run, id);
	w->log_path = io_path("%s/sandboxes/%s/console.log", root, id);
	w->vmm_log_path = io_path("%s/sandboxes/%s/vmm.log", root, id);
	if (w->dir && w->run && w->control_path && w->agent_path &&
	    w->console_path && w->log_path && w->vmm_log_path)
		return 0;
	workdir_deinit(w);
	return err_errno(e, ENOMEM, "sandbox %s", id);
}

void workdir_close(struct workdir *w)
{
	fd_close(&w->disk.rw_fd);
	fd_close(&w->disk.ro_fd);
	if (w->layer_owned)
		fd_close(&w->layer_fd);
	w->layer_fd = -1;
	w->layer_owned = false;
	fd_close(&w->state_fd);
	fd_close(&w->control_fd);
	fd_close(&w->agent_fd);
	fd_close(&w->console_fd);
	fd_close(&w->vmm_log_fd);
}

void workdir_deinit(struct workdir *w)
{
	workdir_close(w);
	fd_close(&w->plan_fd);
	guard_freep(&w->dir);
	guard_freep(&w->run);
	guard_freep(&w->control_path);
	guard_freep(&w->agent_path);
	guard_freep(&w->console_path);
	guard_freep(&w->log_path);
	guard_freep(&w->vmm_log_path);
	w->dir = w->run = w->control_path = w->agent_path = NULL;
	w->console_path = w->log_path = w->vmm_log_path = NULL;
}

int workdir_make(struct workdir *w, struct err *e)
{
	int r = io_mkdirs(w->dir, 0700, e);

	if (r == 0)
		r = io_mkdirs(w->run, 0700, e);
	if (r == 0)
		r = io_listen_unix(w->control_path, 0600, &w->control_fd, e);
	if (r == 0)
		r = io_listen_unix(w->agent_path, 0600, &w->agent_fd, e);
	if (r == 0)
		r = io_listen_unix(w->console_path, 0600, &w->console_fd, e);
	if (r < 0)
		return r;
	w->vmm_log_fd = open(w->vmm_log_path,
			     O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (w->vmm_log_fd < 0)
		return err_errno(e, errno, "open %s", w->vmm_log_path);
	return 0;
}

/* ---- disk ---- */

static int workdir_open_new(const char *path, int *ret, struct err *e)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		return err_errno(e, errno, "create %s", path);
	*ret = fd;
	return 0;
}

/* The overlay, and an fd of the disk below it. */
static int workdir_overlay(struct workdir *w, struct image *image,
			   const struct workdir_layer *layer, const char *path,
			   struct err *e)
{
	guard_free char *disk = NULL;
	int r = io_copy_file(image_fd(image, IMAGE_OVERLAY), w->disk.rw_fd, e);

	if (r < 0)
		return err_prefix(e, "disk overlay %s", path);
	if (layer && image_fd(image, IMAGE_DISK) < 0) {
		w->disk.kind = VMM_DISK_OVERLAY_NBD;
		w->disk.nbd_dir_fd = layer->nbd_dir_fd;
		w->disk.nbd_name = layer->nbd_name;
		return 0;
	}
	w->disk.kind = VMM_DISK_OVERLAY;
	/* An fd of its own: VMMs must not share a file position. */
	disk = io_path("%s/%s", image_dir(image), image_file_name(IMAGE_DISK));
	if (!disk)
		return err_errno(e, ENOMEM, "disk");
	w->disk.ro_fd = open(disk, O_RDONLY | O_CLOEXEC);
	if (w->disk.ro_fd < 0)
		return err_errno(e, errno, "open %s", disk);
	return 0;
}

static int workdir_disk(struct workdir *w, struct image *image,
			const struct workdir_layer *layer, struct err *e)
{
	guard_free char *path = io_path("%s/disk", w->dir);
	int disk = image_fd(image, IMAGE_DISK);
	int r;

	if (!path)
		return err_errno(e, ENOMEM, "disk");
	r = workdir_open_new(path, &w->disk.rw_fd, e);
	if (r < 0)
		return r;
	if (disk >= 0 && ioctl(w->disk.rw_fd, FICLONE, disk) == 0) {
		w->disk.kind = VMM_DISK_RAW;
		return 0;
	}
	return workdir_overlay(w, image, layer, path, e);
}

/* ---- memory ---- */

static int workdir_count(unused uint64_t start, unused uint64_t len,
			 unused bool is_zero, void *arg)
{
	size_t *n = arg;

	return ++*n > PLAN_EXTENTS_MAX ? -E2BIG : 0;
}

uint64_t workdir_zero_run(const struct bitmap *zeromap)
{
	uint64_t pages = PLAN_ZERO_RUN_MIN / PLAN_PAGE;
	size_t n = 0;

	while (image_extents(zeromap, pages, workdir_count, &n) < 0) {
		pages *= 2;
		n = 0;
	}
	return pages;
}

static int workdir_extent(uint64_t start, uint64_t len, bool is_zero, void *arg)
{
	return plan_add(arg, is_zero ? PLAN_ZERO : PLAN_LAYER, len,
			is_zero ? 0 : start);
}

/* What is too scattered to be told can fault. */
static int workdir_populate_some(struct plan *plan, uint64_t start,
				 uint64_t len)
{
	int r = plan_populate(plan, start, len);

	return r == -E2BIG ? 0 : r;
}

/* All of it; of a layer that is being filled, what is there. */
static int workdir_populate_run(struct plan *plan,
				const struct workdir_layer *layer,
				uint64_t start, uint64_t len)
{
	off_t end = (off_t)(start + len), at = (off_t)start;

	if (!layer)
		return workdir_populate_some(plan, start, len);
	while (at < end) {
		off_t data = lseek(layer->fd, at, SEEK_DATA);
		int r;

		if (data < 0 || data >= end)
			return 0;
		at = lseek(layer->fd, data, SEEK_HOLE);
		if (at < 0)
			return -errno;
		r = workdir_populate_some(plan, (uint64_t)data,
					  (uint64_t)(min(at, end) - data));
		if (r < 0)
			return r;
	}
	return 0;
}

static int workdir_populate(struct plan *plan,
			    const struct workdir_layer *layer,
			    const struct bitmap *ws)
{
	uint64_t start = 0, len = 0;

	for (uint64_t i = 0, run; i < ws->n; i += run) {
		int r;

		run = bitmap_run(ws, i);
		if (!bitmap_get(ws, i))
			continue;
		if (len && i - (start + len) <= WORKDIR_POPULATE_GAP) {
			len = i + run - start;
			continue;
		}
		r = len ? workdir_populate_run(plan, layer, start * IMAGE_PAGE,
					       len * IMAGE_PAGE)
			: 0;
		if (r < 0)
			return r;
		start = i;
		len = run;
	}
	return len ? workdir_populate_run(plan, layer, start * IMAGE_PAGE,
					  len * IMAGE_PAGE)
		   : 0;
}

struct workdir_holes {
	int fd;
	unsigned n;
};

static int workdir_read_hole(uint64_t start, uint64_t len, void *arg)
{
	struct workdir_holes *h = arg;

	posix_fadvise(h->fd, (off_t)start, (off_t)len, POSIX_FADV_WILLNEED);
	return ++h->n == WORKDIR_HOLES_MAX;
}

static void workdir_read_holes(int fd, const struct bitmap *zeromap,
			       uint64_t zero_run)
{
	struct workdir_holes h = { .fd = fd };

	err_drop(image_holes(zeromap, zero_run, workdir_read_hole, &h));
}

static int workdir_plan(struct workdir *w, struct image *image,
			const struct workdir_layer *layer, struct err *e)
{
	const struct bitmap *zeromap = image_zeromap(image);
	uint64_t zero_run = workdir_zero_run(zeromap);
	struct plan *plan = NULL;
	int r;

	r = plan_new(PLAN_PRIVATE, image_manifest(image)->memory_bytes, &plan,
		     e);
	if (r < 0)
		return r;
	if (layer)
		plan_set_streamed(plan);
	else if (w->exact)
		plan_set_exact(plan);
	r = image_extents(zeromap, zero_run, workdir_extent, plan);
	if (r == 0)
		r = workdir_populate(plan, layer, image_workingset(image));
	if (r < 0)
		err_errno(e, -r, "memory plan");
	else
		r = plan_finish(plan, &w->plan_fd, e);
	plan_free(plan);
	if (r == 0 && !layer)
		workdir_read_holes(w->layer_fd, zeromap, zero_run);
	return r;
}

/* A template that is not shared: a copy of its memory for this guest alone. */
static int workdir_memory(struct workdir *w, struct image *image,
			  const struct workdir_layer *layer, struct err *e)
{
	const struct bitmap *zeromap = image_zeromap(image);
	guard_free char *path = NULL;
	int r;

	if (layer) {
		w->layer_fd = layer->fd;
		return 0;
	}
	if (image_manifest(image)->share) {
		w->layer_fd = image_fd(image, IMAGE_MEMORY);
		return 0;
	}
	path = io_path("%s/memory", w->dir);
	if (!path)
		return err_errno(e, ENOMEM, "memory");
	r = workdir_open_new(path, &w->layer_fd, e);
	if (r < 0)
		return r;
	w->layer_owned = true;
	r = io_copy_file(image_fd(image, IMAGE_MEMORY), w->layer_fd, e);
	if (r == 0)
		r = image_reserve(w->layer_fd, zeromap,
				  workdir_zero_run(zeromap), e);
	return r < 0 ? err_prefix(e, "private copy of the memory %s", path) : 0;
}

/* An fd of its own, with a file position of its own. */
static int workdir_state(struct workdir *w, struct image *image, struct err *e)
{
	guard_free char *path = io_path("%s/%s", image_dir(image),
					image_file_name(IMAGE_STATE));

	if (!path)
		return err_errno(e, ENOMEM, "device state");
	w->state_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (w->state_fd < 0)
		return err_errno(e, errno, "open %s", path);
	return 0;
}

int workdir_make_restore(struct workdir *w, struct image *image,
			 const struct workdir_layer *layer, struct err *e)
{
	/* One that is being filled may become whole meanwhile: that is a
	 * change, but none that matters here. */
	int r = layer ? 0 : image_unchanged(image, e);

	if (r == 0)
		r = workdir_make(w, e);
	if (r == 0)
		r = workdir_disk(w, image, layer, e);
	if (r == 0)
		r = workdir_memory(w, image, layer, e);
	if (r == 0)
		r = workdir_plan(w, image, layer, e);
	if (r == 0)
		r = workdir_state(w, image, e);
	return r;
}

int workdir_remove_disk(const struct workdir *w, struct err *e)
{
	static const char *const files[] = { "disk", "memory" };

	for (size_t i = 0; i < nitems(files); i++) {
		guard_free char *path = io_path("%s/%s", w->dir, files[i]);

		if (!path)
			return err_errno(e, ENOMEM, "remove a disk");
		if (unlink(path) < 0 && errno != ENOENT)
			return err_errno(e, errno, "remove %s", path);
	}
	return io_remove_tree(w->run, e);
}

int workdir_remove(const struct workdir *w, struct err *e)
{
	int r = io_remove_tree(w->run, e);

	return r < 0 ? r : io_remove_tree(w->dir, e);
}

void workdir_spec(const struct workdir *w, struct vmm_spec *spec)
{
	spec->plan_fd = w->plan_fd;
	spec->layer_fd = w->layer_fd;
	spec->disk = w->disk;
	spec->control_fd = w->control_fd;
	spec->control_path = w->control_path;
	spec->agent_fd = w->agent_fd;
	spec->console_fd = w->console_fd;
	spec->log_fd = w->vmm_log_fd;
	spec->state_fd = w->state_fd;
}
