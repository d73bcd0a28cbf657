/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Templates whose memory is not here yet
 *
 *	REMOTE --held, completed--> LOCAL
 *
 * A pulled template is a name, an image directory without memory and disk, and
 * (once a sandbox was made from it) a layer of the pager, which fills. It
 * becomes an ordinary one when both files have been written beside the others:
 * by a pull that wants all of it, or here, when the pager says that every page
 * has come by itself. The files appear, `remote` goes (image/pack.h), the image
 * is opened again, and the pager forgets the layer.
 *
 * What the pager says it says once. If that is not the moment (somebody holds
 * the template), or it fails (the disk is full), it is tried again: when the
 * hold is released, and by a timer, after a minute, two, four, at last every
 * hour. Nobody asked for it, so it keeps quiet: it does not begin where there
 * is no room for all of it, nor while the layer has lost pages again.
 *
 * Invariants:
 *  1. One completion per directory: p->held. Whoever holds is not given the
 *     template but its directory and fds of its own, so the template may be
 *     removed or replaced meanwhile; then the end of the completion finds
 *     nobody, and that is that.
 *  2. Until the image is open as a local one, the remote one is handed out:
 *     creates never wait for a completion. Guests of the layer keep it, whole
 *     or not, for as long as they live.
 *  3. A layer that the pager has forgotten is still counted while guests run
 *     on it: `waning` holds it, and looks every few seconds whether they do.
 *  4. present + remote + zero = configured, whatever the pager counted.
 *
 * It fetches nothing itself.
 */
#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/worker.h"
#include "image/index.h"
#include "image/pack.h"
#include "pager/client.h"
#include "template/object.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

/* How often a layer that is on its way out is looked at. */
#define TEMPLATE_WANE_NS (5 * NS_PER_SEC)
/* The longest pause between tries to complete a layer that is whole; the first
 * is TEMPLATES_AGAIN_NS. A try reads and writes all of an image. */
#define TEMPLATE_AGAIN_MAX_NS (3600 * NS_PER_SEC)

static void template_complete(struct template *p);
static void template_again(struct loop_timer *timer);

void templates_set_pager(struct templates *t, struct pager *p)
{
	for (size_t i = 0; i < t->n; i++) {
		template_wane_end(t->entry[i]);
		loop_timer_del(&t->entry[i]->again);
	}
	t->pager = p;
}

struct worker *templates_slow(struct templates *t)
{
	return t->slow;
}

void template_read_remote(struct template *p)
{
	guard_free char *path = io_path("%s/" IMAGE_REMOTE_NAME, p->path);
	guard_free char *text = NULL;

	p->remote[0] = '\0';
	if (!path ||
	    io_read_file(path, IMAGE_REMOTE_MAX, &text, NULL, NULL) < 0)
		return;
	snprintf(p->remote, sizeof(p->remote), "%.*s", (int)strcspn(text, "\n"),
		 text);
}

struct pager_layer *template_layer(const struct template *p)
{
	struct pager *pager = p->owner->pager;
	struct pager_layer *l = pager ? pager_layer_find(pager, p->path) : NULL;

	return l ? l : p->waning;
}

void template_wane_end(struct template *p)
{
	loop_timer_del(&p->wane);
	if (p->waning)
		p->waning = pager_layer_unref(p->waning);
}

static void template_wane(struct loop_timer *timer)
{
	struct template *p = container_of(timer, struct template, wane);
	struct loop *loop = p->owner->loop;

	if (!pager_layer_guests(p->waning) ||
	    loop_timer_set(loop, timer, loop->now_ns + TEMPLATE_WANE_NS,
			   template_wane) < 0)
		template_wane_end(p);
}

void template_forget(struct template *p)
{
	struct pager *pager = p->owner->pager;
	struct pager_layer *l = pager ? pager_layer_find(pager, p->path) : NULL;

	if (!l)
		return;
	template_wane_end(p);
	if (pager_layer_guests(l)) {
		p->waning = pager_layer_ref(l);
		template_wane(&p->wane);
	}
	pager_forget(pager, p->path);
}

const char *templates_user_of(const struct templates *t, const char *store)
{
	for (size_t i = 0; i < t->n; i++)
		if (!strcmp(t->entry[i]->remote, store))
			return t->entry[i]->row.name;
	return NULL;
}

void template_info_remote(const struct template *p, struct template_info *info)
{
	const struct image_manifest *m = p->manifest;
	uint64_t data = m ? m->memory_bytes - m->zero_bytes : 0;
	struct pager_layer *l = template_layer(p);
	struct stat st;

	/* A memfd's blocks are its pages, in memory or in swap. */
	if (l && fstat(pager_layer_fd(l), &st) == 0)
		info->resident_bytes += (uint64_t)st.st_blocks * 512;
	info->present_bytes = data;
	if (!p->remote[0])
		return;
	info->remote = p->remote;
	info->streamed_bytes =
		l ? min(data,
			PAGER_GET(pager_layer_stats(l)->memory_present_bytes))
		  : 0;
	info->present_bytes = info->streamed_bytes;
	info->remote_bytes = data - info->present_bytes;
}

/* ---- holding ---- */

static int template_dup(int fd, int *ret, const char *name, struct err *e)
{
	*ret = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (fd >= 0 && *ret < 0)
		return err_errno(e, errno, "complete template %s", name);
	return 0;
}

static void template_hold_deinit(struct template_hold *h)
{
	guard_freep(&h->dir);
	h->dir = NULL;
	fd_close(&h->memory_fd);
	fd_close(&h->disk_fd);
}

static int template_hold(struct template *p, struct template_hold *ret,
			 struct err *e)
{
	guard(template_hold_deinit) struct template_hold h = TEMPLATE_HOLD_NULL;
	const char *name = p->row.name;
	struct pager_layer *l = template_layer(p);
	int r = 0;

	if (!p->remote[0])
		return err_set(e, ENOTSUP,
			       "complete template %s: it is all here", name);
	if (p->held)
		return err_set(e, EBUSY,
			       "complete template %s: somebody does already",
			       name);
	h.dir = strdup(p->path);
	if (!h.dir)
		return err_errno(e, ENOMEM, "complete template %s", name);
	if (l)
		r = template_dup(pager_layer_memory_fd(l), &h.memory_fd, name,
				 e);
	if (r == 0 && l)
		r = template_dup(pager_layer_disk_fd(l), &h.disk_fd, name, e);
	if (r < 0)
		return r;
	p->held = true;
	*ret = h;
	h = (struct template_hold)TEMPLATE_HOLD_NULL;
	return 0;
}

int templates_hold(struct templates *t, const char *name,
		   struct template_hold *ret, struct err *e)
{
	struct template *p = template_find(t, name);

	if (!p)
		return err_set(e, ENOENT, "template %s does not exist", name);
	return template_hold(p, ret, e);
}

/* What is still remote afterwards; NULL: nothing. */
static struct template *template_unhold(struct templates *t,
					struct template_hold *h, bool whole)
{
	struct template *p = h->dir ? template_find_dir(t, h->dir) : NULL;

	template_hold_deinit(h);
	if (!p)
		return NULL;
	p->held = false;
	if (t->ending)
		return NULL;
	if (!whole)
		return p;
	log_info("event=template-whole template=%s store=%s", p->row.name,
		 p->remote);
	p->remote[0] = '\0';
	loop_timer_del(&p->again);
	if (template_open(p) < 0)
		log_error("template=%s error=\"out of memory\"", p->row.name);
	return NULL;
}

void templates_release(struct templates *t, struct template_hold *h, bool whole)
{
	struct template *p = template_unhold(t, h, whole);

	if (p)
		template_complete(p);
}

/* ---- every page has come by itself ---- */

struct template_whole {
	struct worker_job job;
	struct templates *owner;
	struct template_hold hold;
	struct err e;
};

static int template_whole_progress(void *arg, unused uint64_t done,
				   unused uint64_t total)
{
	const struct template_whole *w = arg;

	/* Set by the loop while it waits for this thread. */
	return __atomic_load_n(&w->owner->ending, __ATOMIC_RELAXED) ? -ECANCELED
								    : 0;
}

static int template_whole_room(const struct index *x, const char *dir,
			       struct err *e)
{
	uint64_t need = index_data_bytes(x, INDEX_MEMORY) +
			index_data_bytes(x, INDEX_DISK);
	struct statvfs f = { 0 };
	char a[16], b[16];

	if (statvfs(dir, &f) < 0)
		return err_errno(e, errno, "room in %s", dir);
	if (f.f_bavail * f.f_frsize < need)
		return err_set(e, ENOSPC,
			       "complete %s: it takes %s, %s are free", dir,
			       format_bytes(need, a),
			       format_bytes(f.f_bavail * f.f_frsize, b));
	return 0;
}

static int template_whole_files(struct template_whole *w, struct err *e)
{
	guard_free char *path = io_path("%s/" IMAGE_INDEX_NAME, w->hold.dir);
	guard_fd int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	struct index *x = NULL;
	int r;

	if (!path)
		return err_errno(e, ENOMEM, "complete %s", w->hold.dir);
	if (fd < 0)
		return err_errno(e, errno, "open %s", path);
	r = index_open(fd, &x, e);
	if (r < 0)
		return r;
	r = template_whole_room(x, w->hold.dir, e);
	if (r == 0)
		r = pack_complete(x, w->hold.dir, NULL, w->hold.memory_fd,
				  w->hold.disk_fd, template_whole_progress, w,
				  e);
	index_free(x);
	return r;
}

static void template_whole_run(struct worker_job *job)
{
	struct template_whole *w =
		container_of(job, struct template_whole, job);

	err_drop(template_whole_files(w, &w->e));
}

/* Once more, later than the last time. */
static void template_later(struct template *p)
{
	struct loop *loop = p->owner->loop;
	uint64_t ns = max(2 * p->again_ns, p->owner->again_ns);

	p->again_ns = min(ns, TEMPLATE_AGAIN_MAX_NS);
	if (loop_timer_set(loop, &p->again, loop->now_ns + p->again_ns,
			   template_again) < 0)
		log_error("template=%s error=\"out of memory\"", p->row.name);
}

static void template_whole_done(struct worker_job *job)
{
	struct template_whole *w =
		container_of(job, struct template_whole, job);
	struct template *p;

	if (w->e.code && w->e.code != ECANCELED)
		log_error("event=template-whole dir=%s error=\"%s\"",
			  w->hold.dir, w->e.msg);
	p = template_unhold(w->owner, &w->hold, w->e.code == 0);
	if (p)
		template_later(p);
	free(w);
}

static int template_whole_start(struct template *p, struct err *e)
{
	struct template_whole *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return err_errno(e, ENOMEM, "complete template %s",
				 p->row.name);
	w->owner = p->owner;
	w->hold = (struct template_hold)TEMPLATE_HOLD_NULL;
	r = template_hold(p, &w->hold, e);
	if (r < 0) {
		free(w);
		return r;
	}
	worker_submit(p->owner->slow, &w->job, template_whole_run,
		      template_whole_done);
	return 0;
}

/* The pager has said that all is there. It may not be any more: eviction. */
static bool template_is_whole(const struct pager_layer *l)
{
	const struct pager_layer_stats *s = pager_layer_stats(l);
	const struct index *x = pager_layer_index(l);

	return PAGER_GET(s->memory_present_bytes) >=
		       index_data_bytes(x, INDEX_MEMORY) &&
	       PAGER_GET(s->disk_present_bytes) >=
		       index_data_bytes(x, INDEX_DISK);
}

static void template_complete(struct template *p)
{
	struct pager_layer *l = template_layer(p);
	struct err e = ERR_NULL;

	/* Being completed by a pull: its release leads here. */
	if (!p->remote[0] || p->held || p->owner->ending)
		return;
	if (!l || !pager_layer_whole(l))
		return;
	loop_timer_del(&p->again);
	if (template_is_whole(l) && template_whole_start(p, &e) == 0)
		return;
	if (e.code)
		log_error("event=template-whole error=\"%s\"", e.msg);
	template_later(p);
}

static void template_again(struct loop_timer *timer)
{
	template_complete(container_of(timer, struct template, again));
}

void templates_whole(struct templates *t, struct pager_layer *l)
{
	struct template *p = template_find_dir(t, pager_layer_dir(l));

	if (p) /* not removed meanwhile */
		template_complete(p);
}
