/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names to images
 *
 * Images live in ROOT/images/<random>/; the database maps names to them, so
 * replacing a template is one row, and a directory without a row is a leaving
 * of a bake that was killed.
 *
 *	CLOSED --lookup--> OPENING --verified--> OPEN
 *	   ^                  |                    |
 *	   +----- problem ----+------ changed -----+
 *
 * CLOSED: nothing known, or a problem (shown in the list; the next lookup tries
 * again). OPENING: a worker verifies; lookups wait. OPEN: the image is held and
 * handed out; every handing out checks that no file has changed since.
 *
 * The manifest has the digest of every file of its image, the row that of the
 * manifest: so every bit of a template is known. A row of before that was so
 * takes the digest of what can be opened first; until then only the name tells
 * a false manifest, and of a pulled image not even that.
 */
#include "template/template.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/worker.h"
#include "image/pack.h"
#include "ledger/resident.h"
#include "pager/client.h"
#include "template/baked.h"
#include "template/object.h"
#include "template/push.h"
#include "vmm/vmm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct template_waiter {
	struct list link;
	registry_image_fn found;
	void *arg;
};

struct template *template_find(const struct templates *t, const char *name)
{
	for (size_t i = 0; i < t->n; i++)
		if (!strcmp(t->entry[i]->row.name, name))
			return t->entry[i];
	return NULL;
}

struct template *template_find_dir(const struct templates *t, const char *dir)
{
	const char *slash = strrchr(dir, '/');

	for (size_t i = 0; i < t->n; i++)
		if (!strcmp(t->entry[i]->row.dir, slash ? slash + 1 : dir))
			return t->entry[i];
	return NULL;
}

static struct template *template_add(struct templates *t,
				     const struct db_template *row)
{
	struct template *p;

	if (t->n == TEMPLATES_MAX)
		return NULL;
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->path = io_path("%s/%s", t->dir, row->dir);
	if (!p->path) {
		free(p);
		return NULL;
	}
	p->owner = t;
	p->row = *row;
	list_init(&p->waiters);
	template_read_remote(p);
	t->entry[t->n++] = p;
	return p;
}

static void template_close(struct template *p)
{
	p->image = image_unref(p->image);
	guard_freep(&p->manifest);
	p->manifest = NULL;
}

static void template_free(struct template *p)
{
	template_close(p);
	template_wane_end(p);
	free(p->path);
	free(p);
}

static void template_drop(struct templates *t, struct template *p)
{
	loop_timer_del(&p->again);
	for (size_t i = 0; i < t->n; i++) {
		if (t->entry[i] != p)
			continue;
		memmove(&t->entry[i], &t->entry[i + 1],
			(t->n - i - 1) * sizeof(t->entry[0]));
		t->n--;
		break;
	}
	if (p->opening)
		p->removed = true; /* the job's end frees it */
	else
		template_free(p);
}

/* ---- opening ---- */

struct template_job {
	struct worker_job job;
	struct template *p;
	char *dir;
	struct db_template row; /* as it was when the job was made */
	struct image *image;
	struct err e;
};

/* Nobody wrote the manifest's digest down. A bake puts the template's name into
 * it; a pull takes what comes, and may have been told another name. */
static int template_check_name(const struct template_job *j, struct err *e)
{
	const char *name = image_manifest(j->image)->name;
	guard_free char *index = io_path("%s/" IMAGE_INDEX_NAME, j->dir);

	if (!index)
		return err_errno(e, ENOMEM, "image %s", j->dir);
	if (!strcmp(name, j->row.name) || access(index, F_OK) == 0)
		return 0;
	return err_set(e, EBADMSG, "image %s: %s: it is the one of template %s",
		       j->dir, IMAGE_MANIFEST_NAME, name);
}

static void template_open_run(struct worker_job *job)
{
	struct template_job *j = container_of(job, struct template_job, job);

	const char *known = j->row.manifest_sha256;

	/* A bake has done that; who copied a root, or completed what was being
	 * streamed, has not. */
	if (baked_reserve(j->dir, &j->e) < 0) {
		err_prefix(&j->e, "image %s", j->dir);
		return;
	}
	if (image_open_known(j->dir, *known ? known : NULL, &j->image, &j->e) ==
		    0 &&
	    !*known && template_check_name(j, &j->e) < 0)
		j->image = image_unref(j->image);
}

int templates_accept(const struct templates *t, const struct image_manifest *m,
		     struct err *e)
{
	struct vmm_flavor f = { 0 };

	snprintf(f.driver, sizeof(f.driver), "%s", m->driver);
	snprintf(f.version, sizeof(f.version), "%s", m->version);
	snprintf(f.accel, sizeof(f.accel), "%s", m->accel);
	snprintf(f.cpu, sizeof(f.cpu), "%s", m->cpu);
	snprintf(f.machine, sizeof(f.machine), "%s", m->machine);
	return vmm_host_accepts(t->host, &f, e);
}

static void template_tell(struct template *p, const struct err *e)
{
	struct image *image = e->code ? NULL : image_ref(p->image);
	struct list mine;

	list_init(&mine);
	while (!list_empty(&p->waiters)) {
		struct list *first = p->waiters.next;

		list_del(first);
		list_add_tail(&mine, first);
	}
	while (!list_empty(&mine)) {
		struct template_waiter *w =
			list_entry(mine.next, struct template_waiter, link);

		list_del(&w->link);
		w->found(w->arg, image, e);
		free(w);
	}
	image_unref(image);
}

static void template_keep_manifest(struct template *p,
				   const struct image_manifest *m)
{
	guard_freep(&p->manifest);
	p->manifest = malloc(sizeof(*m));
	if (p->manifest)
		*p->manifest = *m;
}

/* The first time that it opens. */
static void template_record_manifest(struct template *p,
				     const struct image *image)
{
	struct db_template row = p->row;
	struct err e = ERR_NULL;

	if (*row.manifest_sha256)
		return;
	snprintf(row.manifest_sha256, sizeof(row.manifest_sha256), "%s",
		 image_manifest_sha256(image));
	if (db_template_put(p->owner->db, &row, &e) < 0)
		log_error("template=%s error=\"%s\"", row.name, e.msg);
	else
		p->row = row;
}

static void template_opened(struct template *p, const struct image *image)
{
	const char *remote = image_remote(image);

	snprintf(p->remote, sizeof(p->remote), "%s", remote ? remote : "");
	if (!remote)
		template_forget(p);
}

static void template_open_done(struct worker_job *job)
{
	struct template_job *j = container_of(job, struct template_job, job);
	struct template *p = j->p;
	struct err e = j->e;

	p->opening = false;
	p->problem[0] = '\0';
	if (e.code == 0) {
		template_keep_manifest(p, image_manifest(j->image));
		err_drop(templates_accept(p->owner, image_manifest(j->image),
					  &e));
	}
	p->image = image_unref(p->image);
	if (e.code == 0)
		p->image = image_ref(j->image);
	else
		snprintf(p->problem, sizeof(p->problem), "%s", e.msg);
	if (j->image && !p->removed)
		template_opened(p, j->image);
	if (e.code == 0 && !p->removed)
		template_record_manifest(p, j->image);
	if (e.code)
		err_prefix(&e, "template %s", p->row.name);
	template_tell(p, &e);
	if (p->removed)
		template_free(p);
	image_unref(j->image);
	free(j->dir);
	free(j);
}

int template_open(struct template *p)
{
	struct template_job *j;

	if (p->opening)
		return 0;
	j = calloc(1, sizeof(*j));
	if (!j)
		return -ENOMEM;
	j->p = p;
	j->row = p->row;
	j->dir = strdup(p->path);
	if (!j->dir) {
		free(j);
		return -ENOMEM;
	}
	p->opening = true;
	worker_submit(p->owner->worker, &j->job, template_open_run,
		      template_open_done);
	return 0;
}

static void template_lookup(void *self, const char *name,
			    registry_image_fn found, void *arg)
{
	struct templates *t = self;
	struct template *p = template_find(t, name);
	struct template_waiter *w;
	struct err e = ERR_NULL;

	if (!p) {
		err_set(&e, ENOENT, "template %s does not exist", name);
		found(arg, NULL, &e);
		return;
	}
	if (p->image && image_unchanged(p->image, &e) == 0) {
		found(arg, p->image, &e);
		return;
	}
	/* Not open, or changed: verify (again). */
	p->image = image_unref(p->image);
	e = (struct err)ERR_NULL;
	w = calloc(1, sizeof(*w));
	if (!w || template_open(p) < 0) {
		free(w);
		err_errno(&e, ENOMEM, "template %s", name);
		found(arg, NULL, &e);
		return;
	}
	w->found = found;
	w->arg = arg;
	list_add_tail(&p->waiters, &w->link);
}

struct registry_templates templates_lookup_ops(struct templates *t)
{
	return (struct registry_templates){ .lookup = template_lookup,
					    .self = t };
}

/* ---- the list ---- */

size_t templates_count(const struct templates *t)
{
	return t->n;
}

bool templates_has(const struct templates *t, const char *name)
{
	return template_find(t, name) != NULL;
}

bool templates_has_image(const struct templates *t, const char *dir)
{
	return template_find_dir(t, dir) != NULL;
}

static struct template_info template_info(const struct template *p)
{
	struct template_info info = {
		.name = p->row.name,
		.created = p->row.created,
		.manifest = p->manifest,
		.problem = p->problem[0] ? p->problem : NULL,
		.dir = p->path,
	};

	if (p->image && image_fd(p->image, IMAGE_MEMORY) >= 0)
		err_drop(file_resident(image_fd(p->image, IMAGE_MEMORY),
				       &info.resident_bytes, NULL));
	template_info_remote(p, &info);
	return info;
}

struct template_info templates_info(struct templates *t, size_t i)
{
	return template_info(t->entry[i]);
}

struct template_info templates_find(struct templates *t, const char *name)
{
	const struct template *p = template_find(t, name);

	return p ? template_info(p) : (struct template_info){ 0 };
}

/* ---- removing and publishing ---- */

struct template_cleanup {
	struct worker_job job;
	char *path;
	struct err e;
};

static void template_cleanup_run(struct worker_job *job)
{
	struct template_cleanup *c =
		container_of(job, struct template_cleanup, job);

	err_drop(io_remove_tree(c->path, &c->e));
}

static void template_cleanup_done(struct worker_job *job)
{
	struct template_cleanup *c =
		container_of(job, struct template_cleanup, job);

	if (c->e.code)
		log_error("event=cleanup error=\"%s\"", c->e.msg);
	free(c->path);
	free(c);
}

/* What cannot be deleted now is deleted by the next start. */
static void template_delete_files(struct templates *t, const char *dir)
{
	struct template_cleanup *c = calloc(1, sizeof(*c));

	if (c)
		c->path = io_path("%s/%s", t->dir, dir);
	if (!c || !c->path) {
		free(c);
		return;
	}
	worker_submit(t->worker, &c->job, template_cleanup_run,
		      template_cleanup_done);
}

int templates_remove(struct templates *t, struct registry *r, const char *name,
		     struct err *e)
{
	struct template *p = template_find(t, name);
	size_t uses = registry_uses(r, name);
	int ret;

	if (!p)
		return err_set(e, ENOENT,
			       "remove template %s: it does not exist", name);
	if (uses)
		return err_set(e, EBUSY,
			       "remove template %s: %zu sandboxes use it", name,
			       uses);
	ret = db_template_delete(t->db, name, e);
	if (ret < 0)
		return ret;
	log_info("event=template-removed template=%s", name);
	template_forget(p);
	template_delete_files(t, p->row.dir);
	template_drop(t, p);
	return 0;
}

int templates_replaceable(const struct templates *t, const char *name,
			  bool replace, struct err *e)
{
	const struct template *p = template_find(t, name);
	struct pager_layer *l = p ? template_layer(p) : NULL;

	if (p && !replace)
		return err_set(e, EEXIST,
			       "template %s exists (--replace replaces it)",
			       name);
	if (l && pager_layer_guests(l))
		return err_set(e, EBUSY,
			       "template %s: %u sandboxes stream from the one "
			       "to be replaced (byre pull --eager ends that)",
			       name, pager_layer_guests(l));
	return 0;
}

/* Of the image in @dir, with a directory that nobody has. */
static int template_new_row(const char *name, const char *dir,
			    struct db_template *ret, struct err *e)
{
	uint8_t random[6];
	char hex[13];

	io_random(random, sizeof(random));
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	snprintf(ret->dir, sizeof(ret->dir), "im%s",
		 format_hex(random, sizeof(random), hex));
	clock_rfc3339(clock_real_ns(), ret->created);
	return image_manifest_digest(dir, ret->manifest_sha256, e);
}

int templates_publish(struct templates *t, const char *name, const char *dir,
		      bool replace, struct err *e)
{
	struct template *old = template_find(t, name);
	struct db_template row = { 0 };
	guard_free char *to = NULL;
	struct template *p;
	int r;

	if (!old && t->n == TEMPLATES_MAX)
		return err_set(e, ENOSPC, "more than %d templates",
			       TEMPLATES_MAX);
	r = templates_replaceable(t, name, replace, e);
	if (r == 0)
		r = template_new_row(name, dir, &row, e);
	if (r < 0)
		return r;
	to = io_path("%s/%s", t->dir, row.dir);
	if (!to)
		return err_errno(e, ENOMEM, "publish %s", name);
	if (rename(dir, to) < 0)
		return err_errno(e, errno, "rename %s to %s", dir, to);
	r = io_sync_parent(to, e);
	if (r == 0)
		r = db_template_put(t->db, &row, e);
	if (r == 0)
		r = db_sync(t->db, e);
	p = r == 0 ? template_add(t, &row) : NULL;
	if (r == 0 && !p) {
		err_drop(db_template_delete(t->db, name, NULL));
		r = err_errno(e, ENOMEM, "publish %s", name);
	}
	if (r < 0) {
		template_delete_files(t, row.dir);
		return r;
	}
	if (old) {
		template_forget(old);
		template_delete_files(t, old->row.dir);
		template_drop(t, old);
	}
	return template_open(p);
}

/* ---- start and end ---- */

static int template_load(const struct db_template *row, void *arg)
{
	return template_add(arg, row) ? 0 : -ENOMEM;
}

static int templates_sweep(struct templates *t, struct err *e)
{
	guard_dir DIR *d = opendir(t->dir);
	struct dirent *entry;

	if (!d)
		return err_errno(e, errno, "open %s", t->dir);
	while ((entry = readdir(d))) {
		bool known = entry->d_name[0] == '.';

		for (size_t i = 0; i < t->n; i++)
			known |= !strcmp(t->entry[i]->row.dir, entry->d_name);
		if (known)
			continue;
		log_info("event=sweep path=%s/%s", t->dir, entry->d_name);
		template_delete_files(t, entry->d_name);
	}
	return 0;
}

static bool template_known(void *arg, const char *dir)
{
	return template_find_dir(arg, dir) != NULL;
}

/* Pushes that did not end may go on; pulls and completions begin anew. */
static int templates_sweep_transfers(struct templates *t, struct err *e)
{
	guard_free char *pull = io_path("%s/pull", t->root);

	for (size_t i = 0; i < t->n; i++)
		if (t->entry[i]->remote[0])
			pack_complete_tidy(t->entry[i]->path);
	push_sweep(t->root, template_known, t);
	return pull ? io_remove_tree(pull, e)
		    : err_errno(e, ENOMEM, "templates");
}

int templates_new(struct loop *loop, struct worker *worker,
		  struct vmm_host *host, struct db *db, const char *root,
		  struct templates **ret, struct err *e)
{
	struct templates *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return err_errno(e, ENOMEM, "templates");
	t->loop = loop;
	t->again_ns = TEMPLATES_AGAIN_NS;
	t->worker = worker;
	t->host = host;
	t->db = db;
	t->root = strdup(root);
	t->dir = io_path("%s/images", root);
	r = t->root && t->dir ? io_mkdirs(t->dir, 0700, e)
			      : err_errno(e, ENOMEM, "templates");
	if (r == 0)
		r = worker_new(loop, TEMPLATES_SLOW_WORKERS, &t->slow, e);
	if (r == 0) {
		r = db_templates(db, template_load, t, e);
		if (r == -ENOMEM)
			err_errno(e, ENOMEM, "templates");
	}
	if (r == 0)
		r = templates_sweep(t, e);
	if (r == 0)
		r = templates_sweep_transfers(t, e);
	/* Verify in the background, so that the first create need not. */
	for (size_t i = 0; r == 0 && i < t->n; i++)
		r = template_open(t->entry[i]);
	if (r < 0) {
		templates_free(t);
		return r;
	}
	*ret = t;
	return 0;
}

struct templates *templates_free(struct templates *t)
{
	if (!t)
		return NULL;
	__atomic_store_n(&t->ending, true, __ATOMIC_RELAXED);
	worker_free(t->slow);
	while (t->n)
		template_drop(t, t->entry[t->n - 1]);
	free(t->root);
	free(t->dir);
	free(t);
	return NULL;
}
