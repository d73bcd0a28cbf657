/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Overhead
 *
 * The obvious source is /proc/PID/smaps: it has Pss. But the kernel walks
 * guest RAM to make it, which we do not want to know and which is nearly all
 * there is: 11-17 ms per VMM, more than a second for a herd of 100.
 * smaps_rollup is 4-7 ms, and what it adds up cannot be taken apart again
 * where RAM is a memfd (its Pss_Shmem holds both).
 *
 * So we walk the page tables of the mappings outside RAM (pagemap.c) and price
 * the pages ourselves:
 *
 *	anonymous, mapped by this process alone    a page
 *	anonymous, shared                          a page / map count
 *	shared memory (memfd, /dev/shm, hugetlb)   the same two
 *	zero page, file pages, special mappings    nothing
 *	swapped                                    a page
 *
 * The map count is /proc/kpagecount of the page's frame, both for root only.
 * That is how smaps gets its Pss, and test_overhead.c compares the two.
 * Neighbouring private mappings are walked in one go, holes between them
 * included, which a scan skips. 1.0 ms for QEMU (308 mappings), 2.1 ms for 1220
 * mappings and 3000 more of RAM, however much of that is present.
 *
 * Anonymous pages are shared between forked relatives: VMMs are children of one
 * zygote and share what it had loaded (6 MiB), so a herd's sum counts that
 * once. Two cases are given to smaps, slow but right:
 *
 * 1. an anonymous page is shared and its frame is hidden from us;
 * 2. something is swapped while other pages are shared: how many share a swap
 *    entry is told nowhere else.
 *
 * In smaps, too, a private mapping of a file does not say which part of its
 * Pss is anonymous; min(Pss, Anonymous) is an upper bound, too high by at most
 * the file pages' share.
 *
 * Shared memory whose frame is hidden (we are not root) is counted in full:
 * the usual case is the guest's plan, which the daemon maps as well, and it
 * exists on behalf of this VMM.
 *
 * Status is read last: it succeeds only if the process outlived the count.
 */
#include "ledger/overhead.h"

#include "base/guard.h"
#include "base/io.h"
#include "ledger/pagemap.h"
#include "ledger/procdir.h"
#include "ledger/procstatus.h"
#include "ledger/smaps.h"
#include "ledger/vmas.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* Fractions of a byte kept while adding shares, as the kernel does for Pss. */
#define SHARE_SHIFT 12

/* memfd and SysV and /dev/zero; /dev/shm; huge pages. */
#define SHMEM_DEVS 3

struct shmem_devs {
	dev_t dev[SHMEM_DEVS];
	unsigned n;
};

struct overhead_tally {
	struct shmem_devs devs;
	uint64_t ram_start, ram_end;
	int counts_fd; /* kpagecount; -1: not readable */
	/* neighbouring private mappings, to be walked in one go */
	uint64_t span_start, span_end;
	bool in_shmem; /* what is being walked */
	bool shared; /* an anonymous page is shared */
	bool hidden; /* ...and we cannot know by how many */
	uint64_t swapped; /* bytes */
	uint64_t anon, shmem; /* bytes << SHARE_SHIFT */
};

uint64_t overhead_sum(const struct overhead *o)
{
	return o->anon + o->shmem + o->tables + o->kernel;
}

/* ---- what is shared memory ---- */

static void shmem_devs_add_memfd(struct shmem_devs *d, unsigned flags)
{
	guard_fd int fd = memfd_create("byre-dev", MFD_CLOEXEC | flags);
	struct stat st = { 0 };

	if (fd >= 0 && fstat(fd, &st) == 0)
		d->dev[d->n++] = st.st_dev;
}

/* Mappings name a device number; ask what the kernel gives such files. */
static void shmem_devs_init(struct shmem_devs *d)
{
	struct stat st = { 0 };

	d->n = 0;
	shmem_devs_add_memfd(d, 0);
	shmem_devs_add_memfd(d, MFD_HUGETLB);
	if (stat("/dev/shm", &st) == 0)
		d->dev[d->n++] = st.st_dev;
}

static bool shmem_devs_has(const struct shmem_devs *d, const struct vma *v)
{
	unsigned i;

	for (i = 0; v->inode && i < d->n; i++)
		if (d->dev[i] == v->dev)
			return true;
	return false;
}

/* ---- by pages ---- */

/* One page's share, shifted. *ret_known is false without a frame or counts. */
static uint64_t overhead_share(const struct overhead_tally *t, uint64_t frame,
			       bool *ret_known)
{
	uint64_t count = 0;

	*ret_known = frame && t->counts_fd >= 0 &&
		     pread(t->counts_fd, &count, sizeof(count),
			   (off_t)(frame * sizeof(count))) == sizeof(count);
	if (!*ret_known)
		return PAGEMAP_PAGE << SHARE_SHIFT;
	/* a kernel page mapped by a driver is on nobody's account */
	if (count == 0)
		return 0;
	return (PAGEMAP_PAGE << SHARE_SHIFT) / count;
}

static void overhead_page(struct overhead_tally *t, const struct page_run *run)
{
	uint64_t pages = run->n_pages * (PAGEMAP_PAGE << SHARE_SHIFT);
	bool known = true;

	if (!run->exclusive)
		pages = run->n_pages * overhead_share(t, run->frame, &known);
	if (run->kind == PAGE_FILE) {
		t->shmem += pages;
		return;
	}
	t->anon += pages;
	t->shared |= !run->exclusive;
	t->hidden |= !known;
}

static void overhead_run(void *ctx, const struct page_run *run)
{
	struct overhead_tally *t = ctx;

	switch (run->kind) {
	case PAGE_FILE:
		if (t->in_shmem)
			overhead_page(t, run);
		break;
	case PAGE_ANON:
		overhead_page(t, run);
		break;
	case PAGE_SWAPPED:
		t->swapped += run->n_pages * PAGEMAP_PAGE;
		break;
	case PAGE_ABSENT:
	case PAGE_ZERO:
		break;
	case PAGE_KIND_COUNT:
		must(false);
	}
}

static int overhead_span_walk(struct overhead_tally *t, struct pagemap *m,
			      struct err *e)
{
	uint64_t start = t->span_start, end = t->span_end;

	t->span_start = t->span_end = 0;
	if (start == end)
		return 0;
	return pagemap_walk(m, start, end, PAGEMAP_ANON_SHARING, overhead_run,
			    t, e);
}

/* A scan passes over holes for nothing, words only when there are none. */
static bool overhead_span_reaches(const struct overhead_tally *t,
				  const struct pagemap *m, uint64_t start)
{
	bool over_ram = t->span_end <= t->ram_start && start >= t->ram_end &&
			t->ram_start < t->ram_end;

	if (t->span_start == t->span_end || over_ram)
		return false;
	return m->scan || start == t->span_end;
}

static int overhead_span_add(struct overhead_tally *t, struct pagemap *m,
			     uint64_t start, uint64_t end, struct err *e)
{
	int r;

	if (start >= end)
		return 0;
	if (!overhead_span_reaches(t, m, start)) {
		r = overhead_span_walk(t, m, e);
		if (r < 0)
			return r;
		t->span_start = start;
	}
	t->span_end = end;
	return 0;
}

static int overhead_shmem(struct overhead_tally *t, struct pagemap *m,
			  uint64_t start, uint64_t end, struct err *e)
{
	int r;

	if (start >= end)
		return 0;
	t->in_shmem = true;
	r = pagemap_walk(m, start, end, PAGEMAP_ALL_SHARING, overhead_run, t,
			 e);
	t->in_shmem = false;
	return r;
}

static int overhead_vma(struct overhead_tally *t, struct pagemap *m,
			const struct vma *v, struct err *e)
{
	uint64_t low_end = min(v->end, t->ram_start);
	uint64_t high_start = max(v->start, t->ram_end);
	int r;

	/* Reservations: nothing in them, and words cost 8 bytes per page of
	 * it. What was there before an mprotect() to nothing is missed. */
	if (!m->scan && !v->read && !v->write && !v->exec)
		return 0;
	if (!v->shared && !v->special) {
		r = overhead_span_add(t, m, v->start, low_end, e);
		if (r < 0)
			return r;
		return overhead_span_add(t, m, high_start, v->end, e);
	}
	r = overhead_span_walk(t, m, e);
	if (r < 0 || !v->shared || !shmem_devs_has(&t->devs, v))
		return r;
	r = overhead_shmem(t, m, v->start, low_end, e);
	if (r < 0)
		return r;
	return overhead_shmem(t, m, high_start, v->end, e);
}

static int overhead_by_pages(struct overhead_tally *t, struct pagemap *m,
			     int dir_fd, struct err *e)
{
	guard(vmas_close) struct vmas vmas = VMAS_NULL;
	struct vma v = { 0 };
	uint64_t from = 0;
	int r;

	r = vmas_open(&vmas, dir_fd, m->pid, e);
	if (r < 0)
		return r;
	while ((r = vmas_next(&vmas, from, &v, e)) == 0) {
		r = overhead_vma(t, m, &v, e);
		if (r < 0)
			return r;
		from = v.end;
		if (from > t->ram_start)
			from = max(from, t->ram_end);
	}
	if (r < 0)
		return r;
	return overhead_span_walk(t, m, e);
}

/* ---- by smaps ---- */

static void overhead_entry(void *ctx, const struct smaps_entry *s)
{
	struct overhead_tally *t = ctx;
	const struct vma *v = &s->vma;

	/* what touches RAM is RAM: it cannot be cut in two here */
	if (v->start < t->ram_end && v->end > t->ram_start)
		return;
	if (v->shared) {
		if (shmem_devs_has(&t->devs, v))
			t->shmem += s->pss << SHARE_SHIFT;
		return;
	}
	t->anon += (v->inode ? min(s->pss, s->anonymous) : s->pss)
		   << SHARE_SHIFT;
	t->swapped += s->swap_pss;
}

static int overhead_by_smaps(struct overhead_tally *t, int dir_fd, pid_t pid,
			     struct err *e)
{
	t->anon = t->shmem = t->swapped = 0;
	return smaps_read(dir_fd, pid, overhead_entry, t, e);
}

/* ---- both ---- */

static int overhead_open_counts(const char *proc_root)
{
	guard_free char *path = io_path("%s/kpagecount", proc_root);

	return path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
}

static int overhead_pages_or_smaps(struct overhead_tally *t,
				   const char *proc_root, int dir_fd, pid_t pid,
				   struct err *e)
{
	guard(pagemap_close) struct pagemap m = PAGEMAP_NULL;
	guard_fd int counts_fd = overhead_open_counts(proc_root);
	int r;

	t->counts_fd = counts_fd;
	r = pagemap_open_at(&m, proc_root, dir_fd, pid, PAGEMAP_AUTO, e);
	/* no page map: gone, or a fixture that has only smaps */
	if (r == -ESRCH)
		return overhead_by_smaps(t, dir_fd, pid, e);
	if (r < 0)
		return r;
	r = overhead_by_pages(t, &m, dir_fd, e);
	if (r < 0)
		return r;
	if (t->hidden || (t->swapped && t->shared))
		return overhead_by_smaps(t, dir_fd, pid, e);
	return 0;
}

int overhead_count(const char *proc_root, pid_t pid, uint64_t ram_addr,
		   uint64_t ram_len, struct overhead *ret, struct err *e)
{
	struct overhead_tally t = {
		.ram_start = ram_addr,
		.ram_end = ram_addr + ram_len,
		.counts_fd = -1,
	};
	struct procstatus status = { 0 };
	guard_fd int dir_fd = -1;
	int r;

	if (ram_addr % PAGEMAP_PAGE || ram_len % PAGEMAP_PAGE ||
	    t.ram_end < ram_addr)
		return err_set(e, EINVAL, "%#llx+%#llx is no range of pages",
			       (unsigned long long)ram_addr,
			       (unsigned long long)ram_len);
	r = procdir_open(proc_root, pid, &dir_fd, e);
	if (r < 0)
		return r;
	shmem_devs_init(&t.devs);
	r = overhead_pages_or_smaps(&t, proc_root, dir_fd, pid, e);
	if (r < 0)
		return r;
	r = procstatus_read(dir_fd, pid, &status, e);
	if (r < 0)
		return r;
	if (!status.has_memory)
		return procdir_gone(pid, e);
	*ret = (struct overhead){
		.anon = (t.anon >> SHARE_SHIFT) + t.swapped,
		.shmem = t.shmem >> SHARE_SHIFT,
		.tables = status.tables,
		.kernel = procstatus_stacks(&status),
	};
	return 0;
}
