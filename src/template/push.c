/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pushing a template
 *
 *	COMPARE  what does the store hold under this name, or the parent's?
 *	   |  \-- the same manifest, and every pack is there: done, nothing sent
 *	   |  forced: no matter what it holds, which is not even looked at
 *	PACK     ROOT/push/<image>-<parent>/{index,pack}, made aside and renamed
 *	   |  \-- is there already: of a push that did not end
 *	UPLOAD   the pack, then the index
 *	PUBLISH  the reference: from here on others see it
 *
 * Packing is deterministic (image/pack.h), so a directory that is complete is
 * as good as a new one, and an upload of it goes on where its note says.
 *
 * Invariants:
 *  1. The reference is written last, so whoever reads it finds everything.
 *  2. A parent is used only if all packs it leads to are there with the size
 *     they should have: what it shares is not sent, and nobody could mend it.
 *     A parent that was not asked for by name and does not qualify is passed
 *     over. So pushing again mends a store that lacks an object, or has one that
 *     is cut, or an index that is damaged.
 *     A pack with a flipped bit has its size, and is not read here: who was
 *     told of it (byre image verify --store) forces the push. Nothing in the
 *     store counts then; without a parent that was named nothing is shared, so
 *     the image is whole whatever else is damaged there.
 *  3. One push of an image at a time, in all processes: a lock file beside the
 *     directories. Under it, directories of other parents are leavings.
 *  4. The directory goes when the reference is written; whatever else happens,
 *     it stays, until its image goes (push_sweep).
 *
 * The image is borrowed from the loop with a reference of ours; its files do
 * not change, and nothing here writes into its directory.
 */
#include "template/push.h"

#include "base/clock.h"
#include "base/digest.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/log.h"
#include "base/parse.h"
#include "image/image.h"
#include "image/pack.h"
#include "template/template.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

struct push {
	struct transfer t;
	char parent[64]; /* asked for; "": the same name */
	bool force;
	struct image *image;
	struct push_result result;
};

/* What the store holds under a name. */
struct push_held {
	char *bytes;
	struct index *index; /* NULL: nothing usable */
	struct reference ref;
};

static void push_held_deinit(struct push_held *h)
{
	index_free(h->index);
	free(h->bytes);
	*h = (struct push_held){ 0 };
}

/* ---- COMPARE ---- */

/* Is every pack there that @x leads to? Outcome STORE_MISS: no. */
static int push_packs_there(struct push *p, const struct index *x,
			    struct err *e)
{
	for (uint32_t i = 0; i < index_sources(x); i++) {
		const struct index_source *s = index_source(x, i);
		char object[REFERENCE_OBJECT_MAX];
		uint64_t bytes = 0;
		int r;

		reference_pack_object(s->id, object);
		r = store_head(p->t.conn, object, &bytes,
			       clock_mono_ns() + TRANSFER_OBJECT_NS, e);
		if (r < 0)
			return r;
		if (r == STORE_MISS || bytes != s->pack_bytes) {
			err_set(e, ENOENT, "%s in store %s is %s", object,
				p->t.spec.name,
				r == STORE_MISS ? "missing" : "cut");
			return STORE_MISS;
		}
	}
	return 0;
}

/* The store's index under @name; STORE_MISS when there is none. Damage is an
 * error here, which the caller may pass over. */
static int push_fetch(struct push *p, const char *name, struct push_held *ret,
		      struct err *e)
{
	guard(push_held_deinit) struct push_held h = { 0 };
	char object[REFERENCE_OBJECT_MAX];
	int r;

	r = transfer_reference(&p->t, name, &h.ref, e);
	if (r == 0)
		r = transfer_index(&p->t, &h.ref, &h.bytes, e);
	if (r != 0)
		return r;
	r = index_parse(h.bytes, h.ref.index_bytes, &h.index, e);
	if (r < 0) {
		reference_index_object(h.ref.image, object);
		return err_prefix(e, "%s in store %s", object, p->t.spec.name);
	}
	r = push_packs_there(p, h.index, e);
	if (r != 0)
		return r < 0 ? r : -ENOENT;
	*ret = h;
	h = (struct push_held){ 0 };
	return 0;
}

/* Damaged or incomplete, as opposed to a store that does not answer. */
static bool push_unusable(int r)
{
	return r == -EBADMSG || r == -EINVAL || r == -ENOENT || r == -E2BIG ||
	       r == -EFBIG;
}

static int push_parent(struct push *p, struct push_held *ret, struct err *e)
{
	const char *name = p->parent[0] ? p->parent : p->t.name;
	int r = push_fetch(p, name, ret, e);

	if (r == 0)
		return 0;
	if (!p->parent[0] && (r == STORE_MISS || push_unusable(r))) {
		if (r < 0)
			log_warn("template=%s store=%s passed_over=\"%s\"",
				 p->t.name, p->t.spec.name, e->msg);
		*e = (struct err)ERR_NULL;
		return 0;
	}
	if (r == STORE_MISS)
		return err_set(e, ENOENT,
			       "store %s has no template %s to be "
			       "its parent",
			       p->t.spec.name, name);
	return r;
}

/* Is what the store holds this very image? The manifest has the digest of all
 * of it. */
static int push_same(struct push *p, const struct index *x, bool *ret,
		     struct err *e)
{
	guard_free char *path =
		io_path("%s/" IMAGE_MANIFEST_NAME, image_dir(p->image));
	guard_free char *mine = NULL, *theirs = NULL;
	size_t n_mine = 0, n_theirs = 0;
	int r;

	if (!path)
		return err_errno(e, ENOMEM, "compare manifests");
	r = io_read_file(path, IMAGE_MANIFEST_MAX, &mine, &n_mine, e);
	if (r == 0)
		r = index_blob(x, INDEX_BLOB_MANIFEST, &theirs, &n_theirs, e);
	if (r == 0)
		*ret = n_mine == n_theirs && !memcmp(mine, theirs, n_mine);
	return r;
}

/* ---- PACK ---- */

static const char *push_image_name(const struct push *p)
{
	const char *dir = image_dir(p->image), *slash = strrchr(dir, '/');

	return slash ? slash + 1 : dir;
}

static int push_lock(struct push *p, int *ret, struct err *e)
{
	guard_free char *path = io_path("%s/push/%s.lock", p->t.config.root,
					push_image_name(p));
	guard_fd int fd = -1;
	int r;

	if (!path)
		return err_errno(e, ENOMEM, "lock");
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_errno(e, errno, "open %s", path);
	r = flock(fd, LOCK_EX | LOCK_NB);
	if (r < 0)
		return err_set(e, EBUSY, "it is being pushed already");
	*ret = fd_take(&fd);
	return 0;
}

/* Remove directories of this image but @keep (NULL: all): of other parents, or
 * half made. Best effort; what stays is swept later. */
static void push_tidy(const struct push *p, const char *keep)
{
	guard_free char *top = io_path("%s/push", p->t.config.root);
	const char *name = push_image_name(p);
	guard_dir DIR *d = top ? opendir(top) : NULL;
	struct dirent *de;

	while (d && (de = readdir(d))) {
		size_t n = strlen(name);
		guard_free char *path = io_path("%s/%s", top, de->d_name);

		if (strncmp(de->d_name, name, n) || de->d_name[n] != '-')
			continue;
		if (path && (!keep || strcmp(path, keep)))
			err_drop(io_remove_tree(path, NULL));
	}
}

static int push_make(struct push *p, const struct index *parent,
		     const char *dir, struct err *e)
{
	guard_free char *making = io_path("%s.making", dir);
	uint64_t shared = 0;
	int r;

	if (!making)
		return err_errno(e, ENOMEM, "pack");
	transfer_step(&p->t, "pack", 0, "%s%s", parent ? "upon " : "",
		      parent ? index_id(parent) : "");
	r = io_mkdirs(making, 0700, e);
	if (r == 0)
		r = pack_make(p->image, parent, making, transfer_progress,
			      &p->t, &shared, e);
	if (r == 0 && rename(making, dir) < 0)
		r = err_errno(e, errno, "rename %s to %s", making, dir);
	if (r == 0)
		return io_sync_parent(dir, e);
	err_drop(io_remove_tree(making, NULL));
	return r;
}

/* Its index, if @dir is a finished pack. */
static struct index *push_open(const char *dir)
{
	guard_free char *path = io_path("%s/index", dir);
	guard_fd int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	struct index *x = NULL;
	struct err e = ERR_NULL;

	if (fd < 0 || index_open(fd, &x, &e) < 0)
		return NULL;
	return x;
}

/* @dir is complete afterwards. */
static int push_pack(struct push *p, const struct index *parent,
		     const char *dir, struct err *e)
{
	struct index *x = push_open(dir);
	int r = 0;

	push_tidy(p, x ? dir : NULL);
	if (!x) {
		r = push_make(p, parent, dir, e);
		x = r == 0 ? push_open(dir) : NULL;
		if (r == 0 && !x)
			r = err_set(e, EBADMSG, "%s/index cannot be read", dir);
	}
	if (r < 0)
		return r;
	snprintf(p->result.image, sizeof(p->result.image), "%s", index_id(x));
	for (unsigned l = 0; l < INDEX_LAYER_COUNT; l++)
		for (uint32_t i = 0; i < index_frames(x, l); i++)
			if (index_frame(x, l, i)->source)
				p->result.shared_bytes +=
					index_frame(x, l, i)->stored;
	index_free(x);
	return 0;
}

/* ---- UPLOAD, PUBLISH ---- */

static int push_upload_pack(struct push *p, const char *dir, struct err *e)
{
	guard_free char *path = io_path("%s/pack", dir);
	guard_free char *note = io_path("%s/note-%s", dir, p->t.spec.name);
	char object[REFERENCE_OBJECT_MAX], a[16], b[16];
	guard_fd int fd = -1;
	struct stat st;

	if (!path || !note)
		return err_errno(e, ENOMEM, "upload");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(e, errno, "open %s", path);
	p->result.pack_bytes = (uint64_t)st.st_size;
	reference_pack_object(p->result.image, object);
	transfer_step(&p->t, "upload", p->result.pack_bytes,
		      "%s, %s shared with %s",
		      format_bytes(p->result.pack_bytes, a),
		      format_bytes(p->result.shared_bytes, b),
		      p->result.parent[0] ? p->result.parent : "nothing");
	return (p->force ? store_replace : store_upload)(
		p->t.conn, object, fd, p->result.pack_bytes, note,
		transfer_progress, &p->t, e);
}

/* The index, and what the reference says of it. Whole: it replaces one that was
 * damaged, where an upload would see its name and size. */
static int push_upload_index(struct push *p, const char *dir,
			     struct reference *ref, struct err *e)
{
	guard_free char *path = io_path("%s/index", dir);
	char object[REFERENCE_OBJECT_MAX];
	guard_free char *bytes = NULL;
	size_t len = 0;
	int r;

	if (!path)
		return err_errno(e, ENOMEM, "upload");
	r = io_read_file(path, INDEX_BYTES_MAX, &bytes, &len, e);
	if (r < 0)
		return r;
	reference_index_object(p->result.image, object);
	r = store_put(p->t.conn, object, bytes, len,
		      clock_mono_ns() + TRANSFER_OBJECT_NS +
			      len * TRANSFER_NS_PER_BYTE,
		      e);
	ref->index_bytes = p->result.index_bytes = len;
	digest_of(bytes, len, ref->index_sha256);
	return r;
}

static int push_publish(struct push *p, struct reference *ref, struct err *e)
{
	char object[REFERENCE_OBJECT_MAX];
	guard_free char *text = NULL;
	int r;

	snprintf(ref->image, sizeof(ref->image), "%s", p->result.image);
	snprintf(ref->created, sizeof(ref->created), "%s",
		 image_manifest(p->image)->created);
	ref->pack_bytes = p->result.pack_bytes;
	r = reference_print(ref, &text);
	if (r < 0)
		return err_errno(e, -r, "print the reference");
	reference_object(p->t.name, object);
	transfer_step(&p->t, "publish", 0, "%s", object);
	return store_put(p->t.conn, object, text, strlen(text),
			 clock_mono_ns() + TRANSFER_OBJECT_NS, e);
}

static int push_send(struct push *p, const struct index *parent, struct err *e)
{
	guard_free char *dir = io_path("%s/push/%s-%s", p->t.config.root,
				       push_image_name(p),
				       parent ? index_id(parent) : "none");
	struct reference ref = { 0 };
	int r;

	if (!dir)
		return err_errno(e, ENOMEM, "pack");
	if (parent)
		snprintf(p->result.parent, sizeof(p->result.parent), "%s",
			 index_id(parent));
	r = push_pack(p, parent, dir, e);
	if (r == 0)
		r = push_upload_pack(p, dir, e);
	if (r == 0)
		r = push_upload_index(p, dir, &ref, e);
	if (r == 0)
		r = push_publish(p, &ref, e);
	if (r < 0)
		return r;
	p->result.sent = true;
	push_tidy(p, NULL);
	return 0;
}

/* Nothing to send. Under another name the reference may still be missing. */
static int push_known(struct push *p, struct push_held *h, struct err *e)
{
	snprintf(p->result.image, sizeof(p->result.image), "%s", h->ref.image);
	p->result.index_bytes = h->ref.index_bytes;
	p->result.pack_bytes = h->ref.pack_bytes;
	if (p->parent[0] && strcmp(p->parent, p->t.name)) {
		p->result.sent = true;
		return push_publish(p, &h->ref, e);
	}
	transfer_step(&p->t, "known", 0, "store %s has it already",
		      p->t.spec.name);
	return 0;
}

/* What to build upon, into @h; *same: it is this very image. */
static int push_compare(struct push *p, struct push_held *h, bool *same,
			struct err *e)
{
	int r;

	if (p->force && !p->parent[0])
		return 0;
	transfer_step(&p->t, "compare", 0, "with what store %s has",
		      p->t.spec.name);
	r = push_parent(p, h, e);
	if (r == 0 && h->index)
		r = push_same(p, h->index, same, e);
	return r;
}

static int push_run(struct transfer *t, struct err *e)
{
	struct push *p = container_of(t, struct push, t);
	guard(push_held_deinit) struct push_held h = { 0 };
	guard_free char *top = io_path("%s/push", t->config.root);
	guard_fd int lock_fd = -1;
	bool same = false;
	int r;

	if (!top)
		return err_errno(e, ENOMEM, "pack");
	r = io_mkdirs(top, 0700, e);
	if (r == 0)
		r = push_lock(p, &lock_fd, e);
	if (r == 0)
		r = transfer_connect(t, e);
	if (r < 0)
		return r;
	r = push_compare(p, &h, &same, e);
	if (r < 0)
		return r;
	if (same && !p->force)
		return push_known(p, &h, e);
	/* Upon itself there would be nothing to send. */
	return push_send(p, same ? NULL : h.index, e);
}

/* ---- on the loop ---- */

static void push_finish(struct transfer *t)
{
	struct push *p = container_of(t, struct push, t);

	p->image = image_unref(p->image);
	if (!t->e.code)
		log_info("event=push template=%s store=%s image=%s sent=%d",
			 t->name, t->spec.name, p->result.image,
			 p->result.sent);
	transfer_tell(t);
}

static void push_free(struct transfer *t)
{
	struct push *p = container_of(t, struct push, t);

	transfer_deinit(t);
	image_unref(p->image);
	free(p);
}

static const struct transfer_ops push_ops = {
	.verb = "push",
	.run = push_run,
	.finish = push_finish,
	.free = push_free,
};

static void push_found(void *arg, struct image *image, const struct err *e)
{
	struct push *p = arg;
	struct transfer *t = &p->t;

	/* Given up while the image was verified. */
	if (!t->events) {
		transfer_tell(t);
		return;
	}
	if (e->code) {
		t->e = *e;
		err_prefix(&t->e, "push %s", t->name);
	} else if (image_remote(image)) {
		err_set(&t->e, ENOTSUP,
			"push %s: not all of it is here, it streams from "
			"store %s (byre pull --eager completes it)",
			t->name, image_remote(image));
	} else {
		p->image = image_ref(image);
	}
	transfer_start(t);
}

int push_start(const struct transfer_config *config,
	       const struct push_options *o, const struct job_events *events,
	       void *arg, struct push **ret, struct err *e)
{
	struct registry_templates lookup =
		templates_lookup_ops(config->templates);
	struct push *p;
	int r;

	if (!templates_has(config->templates, o->template))
		return err_set(e, ENOENT, "push %s: no such template",
			       o->template);
	p = calloc(1, sizeof(*p));
	if (!p)
		return err_errno(e, ENOMEM, "push %s", o->template);
	r = transfer_init(&p->t, config, &push_ops, o->template, o->store,
			  events, arg, e);
	if (r < 0) {
		free(p);
		return r;
	}
	snprintf(p->parent, sizeof(p->parent), "%s",
		 o->parent ? o->parent : "");
	p->force = o->force;
	*ret = p;
	lookup.lookup(lookup.self, o->template, push_found, p);
	return 0;
}

const struct push_result *push_result(const struct push *p)
{
	return &p->result;
}

void push_abandon(struct push *p)
{
	transfer_abandon(&p->t);
}

void push_sweep(const char *root, bool (*known)(void *arg, const char *dir),
		void *arg)
{
	guard_free char *top = io_path("%s/push", root);
	guard_dir DIR *d = top ? opendir(top) : NULL;
	struct dirent *de;

	while (d && (de = readdir(d))) {
		guard_free char *path = io_path("%s/%s", top, de->d_name);
		char name[64];

		snprintf(name, sizeof(name), "%.*s",
			 (int)strcspn(de->d_name, "-."), de->d_name);
		if (de->d_name[0] == '.' || !path)
			continue;
		if (known(arg, name) && !strstr(de->d_name, ".making"))
			continue;
		log_info("event=sweep path=%s", path);
		err_drop(io_remove_tree(path, NULL));
	}
}
