/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pulling a template
 *
 *	(worker) REFERENCE, INDEX   two requests, verified
 *	(worker) REGISTER           ROOT/pull/<id>: an image without memory, disk
 *	(worker) FETCH              these too, when eager
 *	(loop)   publish, open      rename, row; then it is as any other
 *
 *	or, eager, and it is here as a streamed one of the same image:
 *	(worker) REFERENCE, FETCH   into its directory
 *	(loop)   release            it is opened again
 *
 * Invariants:
 *  1. What this host cannot run is refused before anything is published, and
 *     before the large part is fetched: the index holds the manifest.
 *  2. A pull that nobody waits for publishes nothing. What it made lies below
 *     ROOT/pull, which is emptied by the worker, or by the next start.
 *  3. Trust begins with the reference: it has the index's digest, the index
 *     has every other one. A damaged object is named.
 *
 * Publishing waits until the image was opened, so that the answer can say what
 * the template is; for one without its memory that is a matter of milliseconds.
 */
#include "template/pull.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/log.h"
#include "base/parse.h"
#include "image/image.h"
#include "image/pack.h"
#include "template/baked.h"
#include "template/template.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

struct pull {
	struct transfer t;
	char object[64]; /* the template's name in the store */
	bool eager, replace;
	struct err taken; /* code != 0: why the name cannot be had */
	struct template_hold hold; /* the streamed one of that name */
	bool in_place; /* it is completed */
	char *dir; /* ROOT/pull/<id>; NULL: nothing was made */
};

/* ---- the worker ---- */

/* An index in memory, as a file: what a kernel maps must not be changed by
 * others. */
static int pull_index_fd(const char *p, size_t len, int *ret, struct err *e)
{
	guard_fd int fd = memfd_create("byre-index", MFD_CLOEXEC);
	int r;

	if (fd < 0)
		return err_errno(e, errno, "memfd");
	r = io_write_full(fd, p, len);
	if (r < 0)
		return err_errno(e, -r, "keep the index");
	*ret = fd_take(&fd);
	return 0;
}

static int pull_index(struct pull *p, const struct reference *ref, int *ret_fd,
		      struct index **ret, struct err *e)
{
	char object[REFERENCE_OBJECT_MAX], a[16];
	guard_free char *bytes = NULL;
	guard_fd int fd = -1;
	int r;

	transfer_step(&p->t, "index", ref->index_bytes, "%s of image %s",
		      format_bytes(ref->index_bytes, a), ref->image);
	r = transfer_index(&p->t, ref, &bytes, e);
	if (r == 0)
		r = pull_index_fd(bytes, ref->index_bytes, &fd, e);
	if (r < 0)
		return r;
	r = index_open(fd, ret, e);
	if (r < 0) {
		reference_index_object(ref->image, object);
		return err_prefix(e, "%s in store %s", object, p->t.spec.name);
	}
	*ret_fd = fd_take(&fd);
	return transfer_progress(&p->t, ref->index_bytes, ref->index_bytes);
}

/* Can this host run it? */
static int pull_accept(struct pull *p, const struct index *x, struct err *e)
{
	guard_free struct image_manifest *m = calloc(1, sizeof(*m));
	guard_free char *text = NULL;
	size_t len = 0;
	int r;

	if (!m)
		return err_errno(e, ENOMEM, "read the manifest");
	r = index_blob(x, INDEX_BLOB_MANIFEST, &text, &len, e);
	if (r == 0)
		r = image_manifest_parse(text, len, m, e);
	if (r < 0)
		return err_prefix(e, "image %s", index_id(x));
	return templates_accept(p->t.config.templates, m, e);
}

static int pull_complete(struct pull *p, const struct index *x, const char *dir,
			 struct err *e)
{
	uint64_t data = index_data_bytes(x, INDEX_MEMORY) +
			index_data_bytes(x, INDEX_DISK);
	char a[16];

	transfer_step(&p->t, "fetch", data, "memory and disk, %s",
		      format_bytes(data, a));
	return pack_complete(x, dir, p->t.store, p->hold.memory_fd,
			     p->hold.disk_fd, transfer_progress, &p->t, e);
}

static int pull_new(struct pull *p, const struct reference *ref, struct err *e)
{
	struct index *x = NULL;
	guard_fd int fd = -1;
	uint8_t random[6];
	char hex[13];
	int r;

	r = pull_index(p, ref, &fd, &x, e);
	if (r == 0)
		r = pull_accept(p, x, e);
	if (r == 0) {
		io_random(random, sizeof(random));
		p->dir = io_path("%s/pull/%s", p->t.config.root,
				 format_hex(random, sizeof(random), hex));
		r = p->dir ? io_mkdirs(p->dir, 0700, e)
			   : err_errno(e, ENOMEM, "register");
	}
	if (r == 0)
		r = pack_register(x, fd, p->t.spec.name, p->dir, e);
	if (r == 0 && p->eager)
		r = pull_complete(p, x, p->dir, e);
	if (r == 0 && p->eager)
		r = baked_reserve(p->dir, e);
	index_free(x);
	return r;
}

/* The index of what is here. */
static int pull_held(const struct pull *p, struct index **ret, struct err *e)
{
	guard_free char *path = io_path("%s/" IMAGE_INDEX_NAME, p->hold.dir);
	guard_fd int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

	if (fd < 0)
		return err_errno(e, path ? errno : ENOMEM, "open %s/index",
				 p->hold.dir);
	return index_open(fd, ret, e);
}

static int pull_choose(struct pull *p, const struct reference *ref,
		       struct err *e)
{
	struct index *x = NULL;
	struct err damaged = ERR_NULL;
	int r;

	if (p->hold.dir && pull_held(p, &x, &damaged) == 0 &&
	    strcmp(index_id(x), ref->image) == 0) {
		p->in_place = true;
		r = pull_complete(p, x, p->hold.dir, e);
	} else if (p->taken.code) {
		*e = p->taken;
		r = -e->code;
	} else {
		/* Frames of another image are of no use here. */
		fd_close(&p->hold.memory_fd);
		fd_close(&p->hold.disk_fd);
		r = pull_new(p, ref, e);
	}
	index_free(x);
	return r;
}

static int pull_run(struct transfer *t, struct err *e)
{
	struct pull *p = container_of(t, struct pull, t);
	struct reference ref = { 0 };
	int r = transfer_connect(t, e);

	if (r < 0)
		return r;
	transfer_step(t, "reference", 0, "%s in store %s", p->object,
		      t->spec.name);
	r = transfer_reference(t, p->object, &ref, e);
	if (r == STORE_MISS)
		r = err_set(e, ENOENT, "store %s has no template %s",
			    t->spec.name, p->object);
	if (r == 0)
		r = pull_choose(p, &ref, e);
	if (r < 0 && p->dir)
		err_drop(io_remove_tree(p->dir, NULL));
	return r;
}

/* ---- on the loop ---- */

static void pull_freed(struct transfer *t)
{
	struct pull *p = container_of(t, struct pull, t);

	transfer_deinit(t);
	free(p->dir);
	free(p);
}

static void pull_opened(void *arg, unused struct image *image,
			const struct err *e)
{
	struct pull *p = arg;

	p->t.e = *e;
	if (e->code)
		err_prefix(&p->t.e, "pull %s", p->t.name);
	else
		log_info("event=pull template=%s store=%s eager=%d", p->t.name,
			 p->t.spec.name, p->eager);
	transfer_tell(&p->t);
}

static void pull_tidy_run(struct worker_job *job)
{
	struct pull *p = container_of(job, struct pull, t.job);

	err_drop(io_remove_tree(p->dir, NULL));
}

static void pull_tidy_done(struct worker_job *job)
{
	transfer_tell(container_of(job, struct transfer, job));
}

static void pull_finish(struct transfer *t)
{
	struct pull *p = container_of(t, struct pull, t);
	struct templates *templates = t->config.templates;
	struct registry_templates lookup = templates_lookup_ops(templates);
	bool ok = t->e.code == 0;

	templates_release(templates, &p->hold, ok && p->in_place);
	if (ok && t->events && !p->in_place &&
	    templates_publish(templates, t->name, p->dir, p->replace, &t->e) <
		    0) {
		err_prefix(&t->e, "pull %s", t->name);
		ok = false;
	}
	if (ok && t->events)
		lookup.lookup(lookup.self, t->name, pull_opened, p);
	else if (p->dir)
		worker_submit(templates_slow(templates), &t->job, pull_tidy_run,
			      pull_tidy_done);
	else
		transfer_tell(t);
}

static const struct transfer_ops pull_ops = {
	.verb = "pull",
	.run = pull_run,
	.finish = pull_finish,
	.free = pull_freed,
};

/* May the name be had, or what has it be completed? */
static int pull_check(struct pull *p, struct err *e)
{
	struct templates *templates = p->t.config.templates;
	const char *name = p->t.name;
	int r = templates_replaceable(templates, name, p->replace, &p->taken);

	if (p->eager && templates_find(templates, name).remote)
		return templates_hold(templates, name, &p->hold, e);
	if (r < 0) {
		*e = p->taken;
		return err_prefix(e, "pull %s", name);
	}
	return 0;
}

int pull_start(const struct transfer_config *config,
	       const struct pull_options *o, const struct job_events *events,
	       void *arg, struct pull **ret, struct err *e)
{
	const char *name = o->name ? o->name : o->template;
	struct pull *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return err_errno(e, ENOMEM, "pull %s", name);
	p->hold = (struct template_hold)TEMPLATE_HOLD_NULL;
	p->eager = o->eager;
	p->replace = o->replace;
	snprintf(p->object, sizeof(p->object), "%s", o->template);
	r = transfer_init(&p->t, config, &pull_ops, name, o->store, events, arg,
			  e);
	if (r == 0)
		r = pull_check(p, e);
	if (r < 0) {
		pull_freed(&p->t);
		return r;
	}
	transfer_start(&p->t);
	*ret = p;
	return 0;
}

void pull_abandon(struct pull *p)
{
	transfer_abandon(&p->t);
}
