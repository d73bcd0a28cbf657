/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All sandboxes of a daemon, and what an earlier daemon left
 *
 * The registry is a list, oldest first. A host has hundreds of sandboxes, and
 * finding one is a walk over a few tens of kilobytes: less than one request's
 * JSON costs.
 *
 * Adoption. The database says which sandboxes should be alive, {pid, start time}
 * which processes they are. Living ones are taken over by their sockets' paths,
 * dead ones are recorded as FAILED. Rows still CREATING, and files without a
 * row, belonged to a daemon killed in the middle: their processes are killed,
 * their files deleted.
 */
#include "sandbox/object.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/log.h"
#include "base/parse.h"
#include "image/image.h"
#include "vmm/spawn.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

int registry_new(const struct registry_config *config, struct registry **ret,
		 struct err *e)
{
	struct registry *r = calloc(1, sizeof(*r));

	if (!r)
		return err_errno(e, ENOMEM, "registry");
	r->config = *config;
	list_init(&r->sandboxes);
	*ret = r;
	return 0;
}

struct registry *registry_free(struct registry *r)
{
	struct sandbox *s, *tmp;

	if (!r)
		return NULL;
	list_for_each (s, tmp, &r->sandboxes, struct sandbox, link)
		sandbox_free(s);
	free(r);
	return NULL;
}

struct sandbox *registry_add(struct registry *r)
{
	struct sandbox *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->registry = r;
	s->dir = (struct workdir)WORKDIR_NULL;
	s->streamed = (struct streamed)STREAMED_NULL;
	s->layer_fd = -1;
	list_init(&s->runners);
	list_init(&s->removers);
	list_init(&s->creator);
	list_init(&s->identity.link);
	list_add_tail(&r->sandboxes, &s->link);
	r->n++;
	return s;
}

/* Lets a process go on running; tells nobody. */
void sandbox_free(struct sandbox *s)
{
	struct err gone = ERR_NULL;

	err_set(&gone, ECANCELED, "sandbox %s: the daemon ends", s->row.id);
	list_del(&s->link);
	s->registry->n--;
	sandbox_disconnect(s);
	loop_timer_del(&s->deadline);
	loop_timer_del(&s->ttl);
	waiters_tell(&s->creator, NULL, &gone);
	waiters_tell(&s->runners, NULL, &gone);
	waiters_tell(&s->removers, NULL, &gone);
	streamed_end(s);
	vmm_free(s->vmm);
	plan_view_close(&s->plan);
	image_unref(s->image);
	fd_close(&s->layer_fd);
	workdir_deinit(&s->dir);
	for (size_t i = 0; i < s->n_env; i++)
		free(s->env[i]);
	free(s->env);
	free(s);
}

struct sandbox *registry_find(struct registry *r, const char *id_or_name)
{
	struct sandbox *s, *tmp;

	if (!*id_or_name)
		return NULL;
	list_for_each (s, tmp, &r->sandboxes, struct sandbox, link)
		if (!strcmp(s->row.id, id_or_name) ||
		    !strcmp(s->row.name, id_or_name))
			return s;
	return NULL;
}

struct sandbox *registry_next(struct registry *r, struct sandbox *after)
{
	struct list *next = after ? after->link.next : r->sandboxes.next;

	return next == &r->sandboxes ? NULL
				     : list_entry(next, struct sandbox, link);
}

size_t registry_count(const struct registry *r)
{
	return r->n;
}

size_t registry_uses(const struct registry *r, const char *template)
{
	const struct list *l;
	size_t n = 0;

	for (l = r->sandboxes.next; l != &r->sandboxes; l = l->next) {
		const struct sandbox *s =
			container_of(l, const struct sandbox, link);

		n += s->row.state <= SANDBOX_PAUSED &&
		     !strcmp(s->row.template, template);
	}
	return n;
}

int registry_free_slot(const struct registry *r, uint32_t *ret)
{
	/* A start that differs from daemon to daemon on one host, then the
	 * first that no sandbox here has. */
	uint32_t base = (uint32_t)getpid() * 131u;

	for (uint32_t i = 0; i < SPAWN_SLOTS; i++) {
		uint32_t slot = (base + i) % SPAWN_SLOTS;
		const struct list *l;
		bool used = false;

		for (l = r->sandboxes.next; l != &r->sandboxes; l = l->next)
			used |= container_of(l, const struct sandbox, link)
					->row.slot == slot;
		if (!used) {
			*ret = slot;
			return 0;
		}
	}
	return -EAGAIN;
}

/* ---- adoption ---- */

struct registry_rows {
	struct db_sandbox *row;
	size_t n, size;
	struct stray_id *stray;
	size_t n_stray;
};

static int registry_keep_row(const struct db_sandbox *row, void *arg)
{
	struct registry_rows *rows = arg;

	if (rows->n == rows->size) {
		size_t size = rows->size ? 2 * rows->size : 64;
		struct db_sandbox *p = realloc(rows->row, size * sizeof(*p));

		if (!p)
			return -ENOMEM;
		rows->row = p;
		rows->size = size;
	}
	rows->row[rows->n++] = *row;
	return 0;
}

static int registry_add_stray(struct registry_rows *rows, const char *id)
{
	struct stray_id *p =
		realloc(rows->stray, (rows->n_stray + 1) * sizeof(*p));

	if (!p)
		return -ENOMEM;
	rows->stray = p;
	snprintf(p[rows->n_stray++].id, sizeof(p->id), "%s", id);
	return 0;
}

static int registry_keep_bake(const char *id, void *arg)
{
	return registry_add_stray(arg, id);
}

/* The plan lives in the VMM; a copy of its fd is all that is needed. */
static int adopt_plan(struct sandbox *s, struct err *e)
{
	int fd = (int)syscall(SYS_pidfd_getfd, vmm_pidfd(s->vmm),
			      vmm_plan_fd_number(), 0);

	if (fd < 0)
		return err_errno(e, errno, "take back the memory plan");
	s->dir.plan_fd = fd;
	return plan_view_open(fd, s->row.memory_bytes, &s->plan, e);
}

/* The image may be gone by name; the VMM has an fd of its memory. Judged like
 * anything from a VMM, and not missed much: only the ledger asks for it, and only
 * when the template was replaced. */
static void adopt_layer(struct sandbox *s)
{
	guard_fd int fd = -1;
	struct stat st = { 0 };

	if (!s->row.image[0])
		return;
	fd = (int)syscall(SYS_pidfd_getfd, vmm_pidfd(s->vmm),
			  vmm_layer_fd_number(), 0);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
	    (uint64_t)st.st_size != s->row.memory_bytes)
		SANDBOX_LOG(warn, s,
			    "event=adopt error=\"its layer is lost: the ledger "
			    "cannot count it\"");
	else
		s->layer_fd = fd_take(&fd);
}

static int adopt_living(struct sandbox *s, struct err *e)
{
	int r = vmm_adopt(s->registry->config.host, &s->row.proc,
			  s->dir.control_path, &sandbox_vmm_events, s, &s->vmm,
			  e);

	if (r < 0)
		return r;
	r = adopt_plan(s, e);
	if (r < 0) {
		/* It can be used, only its balloon is not told apart. */
		log_warn("sandbox=%s event=adopt error=\"%s\"", s->row.id,
			 e->msg);
		*e = (struct err)ERR_NULL;
	}
	adopt_layer(s);
	/* Without its pages it could only wait for ever. */
	r = streamed_adopt(s, e);
	if (r < 0)
		return r;
	return sandbox_connect(s, false, e);
}

static int adopt_row(struct registry *r, const struct db_sandbox *row,
		     struct err *e)
{
	struct sandbox *s = registry_add(r);
	struct err mine = ERR_NULL;
	int ret;

	if (!s)
		return err_errno(e, ENOMEM, "adopt sandbox %s", row->id);
	s->row = *row;
	ret = workdir_init(&s->dir, r->config.root, r->config.run, row->id, e);
	if (ret < 0) {
		sandbox_free(s);
		return ret;
	}
	if (row->state == SANDBOX_RUNNING || row->state == SANDBOX_PAUSED) {
		if (adopt_living(s, &mine) < 0) {
			if (s->vmm) {
				vmm_kill(s->vmm, mine.msg);
				return 0; /* its exit follows */
			}
			sandbox_ended(s,
				      mine.code == ESRCH
					      ? "the VMM ended while no daemon "
						"was watching"
					      : mine.msg,
				      false);
			return 0;
		}
	}
	sandbox_arm_ttl(s);
	return 0;
}

/* Directories below @parent that no row explains. */
static int registry_sweep(struct registry *r, const char *parent, struct err *e)
{
	guard_free char *path = io_path("%s/sandboxes", parent);
	guard_dir DIR *d = path ? opendir(path) : NULL;
	struct dirent *entry;

	if (!d)
		return 0;
	while ((entry = readdir(d))) {
		guard_free char *stray = NULL;
		int ret;

		if (entry->d_name[0] == '.' || registry_find(r, entry->d_name))
			continue;
		stray = io_path("%s/%s", path, entry->d_name);
		if (!stray)
			return err_errno(e, ENOMEM, "sweep %s", path);
		log_info("event=sweep path=%s", stray);
		ret = io_remove_tree(stray, e);
		if (ret < 0)
			return ret;
	}
	return 0;
}

static int registry_adopt_rows(struct registry *r, struct registry_rows *rows,
			       struct err *e)
{
	int ret = 0;

	for (size_t i = 0; ret == 0 && i < rows->n; i++)
		if (rows->row[i].state == SANDBOX_CREATING)
			ret = registry_add_stray(rows, rows->row[i].id);
	if (ret < 0)
		return err_errno(e, -ret, "adopt");
	ret = stray_kill(rows->stray, rows->n_stray, e);
	for (size_t i = 0; ret == 0 && i < rows->n_stray; i++) {
		ret = db_bake_delete(r->config.db, rows->stray[i].id, e);
		if (ret == 0)
			ret = db_sandbox_delete(r->config.db, rows->stray[i].id,
						e);
	}
	for (size_t i = 0; ret == 0 && i < rows->n; i++)
		if (rows->row[i].state != SANDBOX_CREATING)
			ret = adopt_row(r, &rows->row[i], e);
	return ret;
}

int registry_adopt(struct registry *r, struct err *e)
{
	struct registry_rows rows = { 0 };
	int ret = db_sandboxes(r->config.db, registry_keep_row, &rows, e);

	if (ret == 0)
		ret = db_bakes(r->config.db, registry_keep_bake, &rows, e);
	if (ret == 0)
		ret = registry_adopt_rows(r, &rows, e);
	if (ret == 0)
		ret = registry_sweep(r, r->config.root, e);
	if (ret == 0)
		ret = registry_sweep(r, r->config.run, e);
	free(rows.row);
	free(rows.stray);
	return ret;
}
