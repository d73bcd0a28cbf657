/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Process trees
 *
 * A zygote, a pre-forked server, a database forking to save: the same
 * copy-on-write herd as ours, made by fork() instead of by mapping a template.
 * This file shows it in the ledger's words:
 *
 *	page of a private mapping                     bucket
 *	the file's                                    shared
 *	anonymous, and another process maps it too    shared
 *	anonymous, this process alone                 private
 *	in swap                                       swapped
 *	zero page                                     zero
 *	none                                          absent
 *
 * Which mappings: the private, writable ones with all their pages. A private
 * mapping that is not writable may have been (relocated tables of a library,
 * compiled code): of those only anonymous pages count, for `configured` too,
 * so that neither program text nor terabytes of PROT_NONE reservation pose as
 * a promise, and yet no anonymous page is missed: private, swapped and the
 * anonymous part of shared are the process's RssAnon + VmSwap.
 *
 * Who belongs to the tree is decided by one pass over /proc (a snapshot of
 * parents), then a breadth-first search from the root. That is a moment's
 * picture: a child forked after the pass is missed, one whose parent died
 * during it has moved to init. A loop among parents, which only a fixture can
 * have, ends because a process is taken once.
 *
 * A page shared with a relative outside the tree is `shared` as well: the root
 * of a tree is rarely the first of its line.
 */
#include "ledger/tree.h"

#include "base/guard.h"
#include "base/io.h"
#include "ledger/pagemap.h"
#include "ledger/procdir.h"
#include "ledger/procstatus.h"
#include "ledger/vmas.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

/* ---- who ---- */

struct kin {
	pid_t pid;
	pid_t ppid;
};

struct kins {
	struct kin *v;
	size_t n, size;
};

static void kins_deinit(struct kins *k)
{
	free(k->v);
	k->v = NULL;
	k->n = k->size = 0;
}

static int kins_add(struct kins *k, pid_t pid, pid_t ppid)
{
	size_t size = k->size ? k->size * 2 : 256;
	struct kin *v;

	if (k->n == k->size) {
		v = reallocarray(k->v, size, sizeof(*v));
		if (!v)
			return -ENOMEM;
		k->v = v;
		k->size = size;
	}
	k->v[k->n++] = (struct kin){ .pid = pid, .ppid = ppid };
	return 0;
}

/* A directory's name as a pid; 0 when it is none. */
static pid_t kin_pid(const char *name)
{
	long pid = 0;

	for (; isdigit((unsigned char)*name) && pid <= INT_MAX; name++)
		pid = pid * 10 + (*name - '0');
	return *name == '\0' && pid <= INT_MAX ? (pid_t)pid : 0;
}

static int kin_status(const char *proc_root, pid_t pid, struct procstatus *ret,
		      struct err *e)
{
	guard_fd int dir_fd = -1;
	int r;

	r = procdir_open(proc_root, pid, &dir_fd, e);
	if (r < 0)
		return r;
	return procstatus_read(dir_fd, pid, ret, e);
}

/* Every process of the host and its parent. */
static int kins_read(struct kins *k, const char *proc_root, struct err *e)
{
	guard_dir DIR *d = opendir(proc_root);
	struct procstatus status = { 0 };
	struct dirent *entry;
	pid_t pid;
	int r;

	if (!d)
		return err_errno(e, errno, "open %s", proc_root);
	while ((entry = readdir(d))) {
		pid = kin_pid(entry->d_name);
		if (!pid)
			continue;
		r = kin_status(proc_root, pid, &status, e);
		if (r == -ESRCH)
			continue;
		if (r < 0)
			return r;
		if (kins_add(k, pid, status.ppid) < 0)
			return err_errno(e, ENOMEM, "list processes");
	}
	return 0;
}

static int kin_by_parent(const void *a, const void *b)
{
	const struct kin *x = a, *y = b;

	if (x->ppid != y->ppid)
		return x->ppid < y->ppid ? -1 : 1;
	return x->pid < y->pid ? -1 : x->pid > y->pid;
}

static int kin_by_pid(const void *a, const void *b)
{
	const struct kin *x = a, *y = b;

	return x->pid < y->pid ? -1 : x->pid > y->pid;
}

/* Index of the first child of @ppid in a list sorted by parent. */
static size_t kins_children(const struct kins *all, pid_t ppid)
{
	size_t low = 0, high = all->n, mid;

	while (low < high) {
		mid = low + (high - low) / 2;
		if (all->v[mid].ppid < ppid)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* Root and descendants out of @all, root first, then by pid. */
static int kins_descend(struct kins *all, pid_t root, struct kins *tree,
			struct err *e)
{
	size_t i, c;
	pid_t ppid;

	/* a fixture may have no process at all */
	if (all->n)
		qsort(all->v, all->n, sizeof(*all->v), kin_by_parent);
	if (kins_add(tree, root, 0) < 0)
		return err_errno(e, ENOMEM, "list processes");
	for (i = 0; i < tree->n; i++) {
		ppid = tree->v[i].pid;
		for (c = kins_children(all, ppid);
		     c < all->n && all->v[c].ppid == ppid; c++) {
			if (all->v[c].pid == root)
				continue;
			if (tree->n == PROC_TREE_MAX)
				return err_set(e, E2BIG,
					       "more than %d processes below "
					       "process %d",
					       PROC_TREE_MAX, (int)root);
			if (kins_add(tree, all->v[c].pid, ppid) < 0)
				return err_errno(e, ENOMEM, "list processes");
		}
	}
	qsort(tree->v + 1, tree->n - 1, sizeof(*tree->v), kin_by_pid);
	return 0;
}

/* ---- what ---- */

struct proc_tally {
	struct buckets b;
	bool copied_only; /* not writable: anonymous pages only */
};

static void proc_tally_run(void *ctx, const struct page_run *run)
{
	struct proc_tally *t = ctx;
	uint64_t bytes = run->n_pages * PAGEMAP_PAGE;

	switch (run->kind) {
	case PAGE_ABSENT:
		t->b.absent += t->copied_only ? 0 : bytes;
		break;
	case PAGE_FILE:
		t->b.shared += t->copied_only ? 0 : bytes;
		break;
	case PAGE_ZERO:
		t->b.zero += t->copied_only ? 0 : bytes;
		break;
	case PAGE_ANON:
		if (run->exclusive)
			t->b.private += bytes;
		else
			t->b.shared += bytes;
		break;
	case PAGE_SWAPPED:
		t->b.swapped += bytes;
		break;
	case PAGE_KIND_COUNT:
		must(false);
	}
}

static int proc_tally_vma(struct proc_tally *t, struct pagemap *m,
			  const struct vma *v, struct err *e)
{
	if (v->shared || v->special)
		return 0;
	/* Words are read for every page, absent or not: a browser's terabyte
	 * of reservation would take a second. */
	if (!m->scan && !v->read && !v->write && !v->exec)
		return 0;
	t->copied_only = !v->write;
	return pagemap_walk(m, v->start, v->end, PAGEMAP_ANON_SHARING,
			    proc_tally_run, t, e);
}

static int proc_memory_buckets(const char *proc_root, int dir_fd, pid_t pid,
			       struct buckets *ret, struct err *e)
{
	guard(pagemap_close) struct pagemap m = PAGEMAP_NULL;
	guard(vmas_close) struct vmas vmas = VMAS_NULL;
	struct proc_tally t = { 0 };
	struct vma v = { 0 };
	uint64_t from = 0;
	int r;

	r = pagemap_open_at(&m, proc_root, dir_fd, pid, PAGEMAP_AUTO, e);
	if (r < 0)
		return r;
	r = vmas_open(&vmas, dir_fd, pid, e);
	if (r < 0)
		return r;
	while ((r = vmas_next(&vmas, from, &v, e)) == 0) {
		r = proc_tally_vma(&t, &m, &v, e);
		if (r < 0)
			return r;
		from = v.end;
	}
	if (r < 0)
		return r;
	*ret = t.b;
	return 0;
}

static int proc_memory_count(const char *proc_root, pid_t pid,
			     struct proc_memory *ret, struct err *e)
{
	struct proc_memory p = { .pid = pid };
	struct procstatus status = { 0 };
	guard_fd int dir_fd = -1;
	int r;

	r = procdir_open(proc_root, pid, &dir_fd, e);
	if (r < 0)
		return r;
	r = proc_memory_buckets(proc_root, dir_fd, pid, &p.b, e);
	if (r < 0)
		return r;
	/* last: it has memory now, so it had it all the time */
	r = procstatus_read(dir_fd, pid, &status, e);
	if (r < 0)
		return r;
	if (!status.has_memory)
		return procdir_gone(pid, e);
	p.ppid = status.ppid;
	memcpy(p.comm, status.comm, sizeof(p.comm));
	p.configured = buckets_sum(&p.b);
	p.vmm = status.tables + procstatus_stacks(&status);
	*ret = p;
	return 0;
}

int proc_tree_count(const char *proc_root, pid_t root, struct proc_memory **ret,
		    size_t *ret_n, struct err *e)
{
	guard(kins_deinit) struct kins all = { 0 };
	guard(kins_deinit) struct kins tree = { 0 };
	guard_free struct proc_memory *list = NULL;
	size_t i, n = 0;
	int r;

	r = kins_read(&all, proc_root, e);
	if (r < 0)
		return r;
	r = kins_descend(&all, root, &tree, e);
	if (r < 0)
		return r;
	list = calloc(tree.n, sizeof(*list));
	if (!list)
		return err_errno(e, ENOMEM, "count processes");
	for (i = 0; i < tree.n; i++) {
		r = proc_memory_count(proc_root, tree.v[i].pid, &list[n], e);
		if (r == -ESRCH && i > 0)
			continue;
		if (r < 0)
			return r;
		n++;
	}
	*ret = take(list);
	*ret_n = n;
	return 0;
}
