/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page maps
 *
 * The kernel shows a process's page tables in two ways.
 *
 * PAGEMAP_SCAN (Linux 6.7) returns regions of equal category and skips empty
 * page tables, so its cost follows what is present and not what is promised.
 * It knows the zero page. It does not know who else maps a page.
 *
 * Words: /proc/PID/pagemap has 8 bytes per page of address space, present or
 * not. Bit 63 present, 62 swapped, 61 file or shared memory, 58 guard region
 * (6.15), 56 mapped by one process only, low 55 the frame, which reads as 0
 * without CAP_SYS_ADMIN. The zero page is "present, anonymous, not exclusive",
 * and only /proc/kpageflags tells it from a page shared with a forked relative.
 *
 * Scan is the way, words are the fallback; and after a scan, words are read
 * for just those regions whose sharing somebody wants to know.
 *
 * Measured (2 GiB, best of 7): 68 k pages present in 63 k regions, the worst
 * case for a scan: scan 5.3 ms, words 6.3 ms. 37 k pages in a piece, as a guest
 * leaves them: scan 3.0 ms, words 4.9 ms; most of it is the kernel looking at
 * each page to tell a file's from an anonymous one.
 *
 * Kinds. A private mapping's page is in one of five states, and that is the
 * whole ledger: nothing there; the file's page, mapped but not copied; the
 * zero page, mapped because somebody read where nothing was; its own page; its
 * own page in swap.
 *
 * 1. A walk reports every page of its range exactly once, in order: the sums
 *    of the buckets are right by construction.
 * 2. A walk succeeds only if the address space was alive at its end. After
 *    exit the kernel shows a readable, empty page map, which would count as
 *    "all absent"; so one word is read afterwards, and none to be had means
 *    the process is gone.
 * 3. Memory that is not mapped at all is absent.
 * 4. The surrendered bitmap may change while it is read (a VMM writes it): a
 *    run's bits are counted once and the rest of the run is absent.
 *
 * A trap (seen on 6.18): given room for more than 512 regions, the kernel works
 * in several rounds, and leaves walk_end where the last full round ended even
 * if another one reached the end of the range: who goes on from there counts
 * the tail twice. With room for 512 there is one round per call. What was
 * reported before is skipped all the same.
 *
 * Not exact: a page under migration (compaction, NUMA) looks swapped for that
 * microsecond; with a file page the kernel says so and it is counted as
 * present. In a scan without sharing, a guard region (madvise) looks swapped;
 * guest RAM has none.
 */
#include "ledger/pagemap.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/uapi.h"
#include "ledger/buckets.h"
#include "ledger/procdir.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Documentation/admin-guide/mm/pagemap.rst */
#define WORD_PRESENT (1ull << 63)
#define WORD_SWAPPED (1ull << 62)
#define WORD_FILE (1ull << 61)
#define WORD_GUARD (1ull << 58)
#define WORD_EXCLUSIVE (1ull << 56)
#define WORD_FRAME ((1ull << 55) - 1)
/* include/uapi/linux/kernel-page-flags.h */
#define KPF_ZERO_PAGE (1ull << 24)
/* Pages of a 2 MiB huge page. */
#define HUGE_PAGES 512ull

/* Words per read, 16 KiB: the kernel hands out 512 at a time. */
#define WORDS_MAX 2048
/* Regions per scan, 12 KiB: what the kernel collects in one go. Not more. */
#define REGIONS_MAX 512

/* ---- opening ---- */

/* Also tells whether the address space is alive: no words, no process. */
static bool pagemap_alive(const struct pagemap *m)
{
	uint64_t word;

	return pread(m->fd, &word, sizeof(word), 0) == sizeof(word);
}

static int pagemap_ioctl(const struct pagemap *m, uint64_t start, uint64_t end,
			 struct uapi_page_region *regions, uint64_t n,
			 uint64_t *ret_end)
{
	struct uapi_pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = start,
		.end = end,
		.vec = (uintptr_t)regions,
		.vec_len = n,
		.category_anyof_mask = UAPI_PAGE_IS_PRESENT |
				       UAPI_PAGE_IS_SWAPPED,
		.return_mask = UAPI_PAGE_IS_PRESENT | UAPI_PAGE_IS_SWAPPED |
			       UAPI_PAGE_IS_FILE | UAPI_PAGE_IS_PFNZERO,
	};
	int r;

	r = ioctl(m->fd, UAPI_PAGEMAP_SCAN, &arg);
	if (r < 0)
		return -errno;
	*ret_end = arg.walk_end;
	return r;
}

/* Does the kernel have the ioctl? Asked of page 0, which is never mapped. */
static int pagemap_probe(struct pagemap *m)
{
	struct uapi_page_region region = { 0 };
	uint64_t end;
	int r;

	r = pagemap_ioctl(m, 0, PAGEMAP_PAGE, &region, 1, &end);
	m->scan = r >= 0;
	return r < 0 ? r : 0;
}

/* Frames are judged by words only; unreadable means "cannot tell". */
static void pagemap_open_flags(struct pagemap *m, const char *proc_root)
{
	guard_free char *path = io_path("%s/kpageflags", proc_root);

	if (path)
		m->flags_fd = open(path, O_RDONLY | O_CLOEXEC);
}

int pagemap_open_at(struct pagemap *m, const char *proc_root, int dir_fd,
		    pid_t pid, enum pagemap_how how, struct err *e)
{
	struct pagemap new = PAGEMAP_NULL;
	int r;

	new.pid = pid;
	r = procdir_file(dir_fd, pid, "pagemap", &new.fd, e);
	if (r < 0)
		return r;
	/* before the ioctl: a zombie's page map has no address space */
	if (!pagemap_alive(&new)) {
		pagemap_close(&new);
		return procdir_gone(pid, e);
	}
	if (how != PAGEMAP_WORDS_ONLY) {
		r = pagemap_probe(&new);
		if (r < 0 && how == PAGEMAP_SCAN_ONLY) {
			pagemap_close(&new);
			return err_errno(e, -r, "PAGEMAP_SCAN of process %d",
					 (int)pid);
		}
	}
	if (!new.scan)
		pagemap_open_flags(&new, proc_root);
	*m = new;
	return 0;
}

int pagemap_open(struct pagemap *m, const char *proc_root, pid_t pid,
		 enum pagemap_how how, struct err *e)
{
	guard_fd int dir_fd = -1;
	int r;

	r = procdir_open(proc_root, pid, &dir_fd, e);
	if (r < 0)
		return r;
	return pagemap_open_at(m, proc_root, dir_fd, pid, how, e);
}

void pagemap_close(struct pagemap *m)
{
	fd_close(&m->fd);
	fd_close(&m->flags_fd);
}

/* ---- words ---- */

enum frame_is {
	FRAME_UNKNOWN,
	FRAME_ZERO,
	FRAME_OTHER,
};

static enum frame_is pagemap_frame(const struct pagemap *m, uint64_t frame)
{
	uint64_t flags;

	if (!frame || m->flags_fd < 0 ||
	    pread(m->flags_fd, &flags, sizeof(flags),
		  (off_t)(frame * sizeof(flags))) != sizeof(flags))
		return FRAME_UNKNOWN;
	return flags & KPF_ZERO_PAGE ? FRAME_ZERO : FRAME_OTHER;
}

/* A present, anonymous page mapped more than once. */
static enum frame_is pagemap_anon_frame(struct pagemap *m, uint64_t frame)
{
	enum frame_is is;

	if (frame && frame == m->zero_frame)
		return FRAME_ZERO;
	is = pagemap_frame(m, frame);
	if (is == FRAME_ZERO)
		m->zero_frame = frame;
	return is;
}

/*
 * The huge zero page poses as a file's. It lies at the same offset from a
 * multiple of 512 in frames and in addresses; few file pages do (1 in 512), so
 * that looking those up costs nothing.
 */
static bool pagemap_huge_zero(struct pagemap *m, uint64_t word, uint64_t addr)
{
	uint64_t frame = word & WORD_FRAME;
	uint64_t base = frame - frame % HUGE_PAGES;

	if (word & WORD_EXCLUSIVE || !base ||
	    frame % HUGE_PAGES != addr / PAGEMAP_PAGE % HUGE_PAGES)
		return false;
	if (base != m->huge_frame) {
		m->huge_frame = base;
		m->huge_is_zero = pagemap_frame(m, base) == FRAME_ZERO;
	}
	return m->huge_is_zero;
}

/* What one word says. After a scan zero pages are already known. */
static struct page_run pagemap_judge(struct pagemap *m, uint64_t word,
				     uint64_t addr)
{
	struct page_run run = { .addr = addr, .n_pages = 1 };
	enum frame_is is;

	if (word & WORD_GUARD)
		return run;
	if (!(word & WORD_PRESENT)) {
		if (word & WORD_SWAPPED)
			run.kind = word & WORD_FILE ? PAGE_FILE : PAGE_SWAPPED;
		return run;
	}
	run.exclusive = word & WORD_EXCLUSIVE;
	run.frame = word & WORD_FRAME;
	run.kind = word & WORD_FILE ? PAGE_FILE : PAGE_ANON;
	if (m->scan || run.exclusive)
		return run;
	if (run.kind == PAGE_FILE) {
		if (pagemap_huge_zero(m, word, addr))
			run.kind = PAGE_ZERO;
		return run;
	}
	is = pagemap_anon_frame(m, run.frame);
	if (is == FRAME_ZERO)
		run.kind = PAGE_ZERO;
	run.unsure = is == FRAME_UNKNOWN;
	return run;
}

/* Forget what the caller did not ask for, so that runs grow long. */
static void page_run_reduce(struct page_run *run, enum pagemap_detail detail)
{
	bool wanted = (run->kind == PAGE_ANON && detail != PAGEMAP_KINDS) ||
		      (run->kind == PAGE_FILE && detail == PAGEMAP_ALL_SHARING);

	if (!wanted)
		run->exclusive = false;
	if (!wanted || run->exclusive)
		run->frame = 0;
}

static bool page_run_joins(const struct page_run *a, const struct page_run *b)
{
	return a->kind == b->kind && a->exclusive == b->exclusive &&
	       a->unsure == b->unsure && !a->frame && !b->frame;
}

/* Read up to WORDS_MAX words; *ret_n is never 0. */
static int pagemap_words(const struct pagemap *m, uint64_t addr, uint64_t end,
			 uint64_t *words, size_t *ret_n, struct err *e)
{
	uint64_t n = (end - addr) / PAGEMAP_PAGE;
	ssize_t got;
	int error;

	got = pread(m->fd, words, min(n, WORDS_MAX) * sizeof(*words),
		    (off_t)(addr / PAGEMAP_PAGE * sizeof(*words)));
	if (got < 0) {
		error = errno;
		return err_errno(e, error, "read pagemap of process %d",
				 (int)m->pid);
	}
	if (got < (ssize_t)sizeof(*words)) {
		if (!pagemap_alive(m))
			return procdir_gone(m->pid, e);
		return err_set(e, EINVAL,
			       "process %d has no user address %#llx",
			       (int)m->pid, (unsigned long long)addr);
	}
	*ret_n = (size_t)got / sizeof(*words);
	return 0;
}

/* The same as the word before, whatever frame it has: nearly all are. */
static bool word_repeats(uint64_t word, uint64_t bits)
{
	return (word & ~WORD_FRAME) == bits &&
	       (!(bits & WORD_PRESENT) || bits & WORD_EXCLUSIVE);
}

static int pagemap_walk_words(struct pagemap *m, uint64_t start, uint64_t end,
			      enum pagemap_detail detail, pagemap_fn fn,
			      void *ctx, struct err *e)
{
	struct page_run run = { .addr = start }, next;
	uint64_t words[WORDS_MAX], addr = start, bits = 0;
	size_t i, n = 0;
	int r;

	while (addr < end) {
		r = pagemap_words(m, addr, end, words, &n, e);
		if (r < 0)
			return r;
		for (i = 0; i < n; i++, addr += PAGEMAP_PAGE) {
			if (run.n_pages && word_repeats(words[i], bits)) {
				run.n_pages++;
				continue;
			}
			bits = words[i] & ~WORD_FRAME;
			next = pagemap_judge(m, words[i], addr);
			page_run_reduce(&next, detail);
			if (run.n_pages && page_run_joins(&run, &next)) {
				run.n_pages++;
				continue;
			}
			if (run.n_pages)
				fn(ctx, &run);
			run = next;
		}
	}
	if (run.n_pages)
		fn(ctx, &run);
	return 0;
}

/* ---- scan ---- */

static enum page_kind region_kind(const struct uapi_page_region *region)
{
	/* first, because the huge zero page may look like a file's */
	if (region->categories & UAPI_PAGE_IS_PFNZERO)
		return PAGE_ZERO;
	if (region->categories & UAPI_PAGE_IS_FILE)
		return PAGE_FILE;
	return region->categories & UAPI_PAGE_IS_PRESENT ? PAGE_ANON
							 : PAGE_SWAPPED;
}

/* A swapped region is looked at again for guard regions, which pose as swap. */
static bool region_needs_words(enum page_kind kind, enum pagemap_detail detail)
{
	switch (kind) {
	case PAGE_ANON:
	case PAGE_SWAPPED:
		return detail != PAGEMAP_KINDS;
	case PAGE_FILE:
		return detail == PAGEMAP_ALL_SHARING;
	case PAGE_ABSENT:
	case PAGE_ZERO:
	case PAGE_KIND_COUNT:
		break;
	}
	return false;
}

static int pagemap_region(struct pagemap *m,
			  const struct uapi_page_region *region,
			  enum pagemap_detail detail, pagemap_fn fn, void *ctx,
			  struct err *e)
{
	struct page_run run = {
		.addr = region->start,
		.n_pages = (region->end - region->start) / PAGEMAP_PAGE,
		.kind = region_kind(region),
	};

	if (region_needs_words(run.kind, detail))
		return pagemap_walk_words(m, region->start, region->end, detail,
					  fn, ctx, e);
	fn(ctx, &run);
	return 0;
}

static void pagemap_hole(uint64_t start, uint64_t end, pagemap_fn fn, void *ctx)
{
	struct page_run run = {
		.addr = start,
		.n_pages = (end - start) / PAGEMAP_PAGE,
		.kind = PAGE_ABSENT,
	};

	if (run.n_pages)
		fn(ctx, &run);
}

static int pagemap_scan_error(const struct pagemap *m, int error, uint64_t addr,
			      struct err *e)
{
	if (error == EFAULT)
		return err_set(e, EINVAL,
			       "process %d has no user address %#llx",
			       (int)m->pid, (unsigned long long)addr);
	return err_errno(e, error, "PAGEMAP_SCAN of process %d", (int)m->pid);
}

static int pagemap_walk_scan(struct pagemap *m, uint64_t start, uint64_t end,
			     enum pagemap_detail detail, pagemap_fn fn,
			     void *ctx, struct err *e)
{
	struct uapi_page_region regions[REGIONS_MAX] = { 0 };
	/* all below `told` is reported, all below `from` is scanned */
	uint64_t told = start, from = start, next;
	int i, n, r;

	while (from < end) {
		n = pagemap_ioctl(m, from, end, regions, REGIONS_MAX, &next);
		if (n < 0)
			return pagemap_scan_error(m, -n, from, e);
		for (i = 0; i < n; i++) {
			if (regions[i].end <= told)
				continue;
			regions[i].start = max(regions[i].start, told);
			pagemap_hole(told, regions[i].start, fn, ctx);
			r = pagemap_region(m, &regions[i], detail, fn, ctx, e);
			if (r < 0)
				return r;
			told = regions[i].end;
		}
		if (next <= from)
			return err_set(e, EIO,
				       "PAGEMAP_SCAN of process %d "
				       "makes no progress",
				       (int)m->pid);
		from = next;
	}
	pagemap_hole(told, end, fn, ctx);
	return 0;
}

int pagemap_walk(struct pagemap *m, uint64_t start, uint64_t end,
		 enum pagemap_detail detail, pagemap_fn fn, void *ctx,
		 struct err *e)
{
	int r;

	if (start > end || start % PAGEMAP_PAGE || end % PAGEMAP_PAGE)
		return err_set(e, EINVAL, "%#llx-%#llx is no range of pages",
			       (unsigned long long)start,
			       (unsigned long long)end);
	if (m->scan)
		r = pagemap_walk_scan(m, start, end, detail, fn, ctx, e);
	else
		r = pagemap_walk_words(m, start, end, detail, fn, ctx, e);
	if (r < 0)
		return r;
	return pagemap_alive(m) ? 0 : procdir_gone(m->pid, e);
}

/* ---- counting guest RAM ---- */

struct pagemap_tally {
	struct buckets b;
	const uint8_t *surrendered;
	uint64_t addr; /* of bit 0 */
	bool exact;
};

/* How many of @n bits from @first are set. */
static uint64_t bitmap_count(const uint8_t *bitmap, uint64_t first, uint64_t n)
{
	uint64_t bit = first, end = first + n, count = 0, word;

	for (; bit < end && bit % 8; bit++)
		count += bitmap[bit / 8] >> bit % 8 & 1;
	for (; bit + 64 <= end; bit += 64) {
		memcpy(&word, bitmap + bit / 8, sizeof(word));
		count += (uint64_t)__builtin_popcountll(word);
	}
	for (; bit < end; bit++)
		count += bitmap[bit / 8] >> bit % 8 & 1;
	return count;
}

static void pagemap_tally_absent(struct pagemap_tally *t,
				 const struct page_run *run)
{
	uint64_t given = 0;

	if (t->surrendered)
		given = bitmap_count(t->surrendered,
				     (run->addr - t->addr) / PAGEMAP_PAGE,
				     run->n_pages);
	t->b.balloon += given * PAGEMAP_PAGE;
	t->b.absent += (run->n_pages - given) * PAGEMAP_PAGE;
}

static void pagemap_tally_run(void *ctx, const struct page_run *run)
{
	struct pagemap_tally *t = ctx;
	uint64_t bytes = run->n_pages * PAGEMAP_PAGE;

	switch (run->kind) {
	case PAGE_ABSENT:
		pagemap_tally_absent(t, run);
		break;
	case PAGE_FILE:
		t->b.shared += bytes;
		break;
	case PAGE_ZERO:
		t->b.zero += bytes;
		break;
	case PAGE_ANON:
		if (run->unsure) {
			t->b.zero += bytes;
			t->exact = false;
		} else {
			t->b.private += bytes;
		}
		break;
	case PAGE_SWAPPED:
		t->b.swapped += bytes;
		break;
	case PAGE_KIND_COUNT:
		must(false);
	}
}

static int pagemap_range_check(uint64_t addr, uint64_t len, struct err *e)
{
	if (addr % PAGEMAP_PAGE || len % PAGEMAP_PAGE || addr + len < addr)
		return err_set(e, EINVAL, "%#llx+%#llx is no range of pages",
			       (unsigned long long)addr,
			       (unsigned long long)len);
	return 0;
}

int pagemap_count(const char *proc_root, pid_t pid, uint64_t addr, uint64_t len,
		  const uint8_t *surrendered, enum pagemap_how how,
		  struct buckets *ret, bool *ret_exact, struct err *e)
{
	guard(pagemap_close) struct pagemap m = PAGEMAP_NULL;
	struct pagemap_tally t = {
		.surrendered = surrendered,
		.addr = addr,
		.exact = true,
	};
	int r;

	r = pagemap_range_check(addr, len, e);
	if (r < 0)
		return r;
	r = pagemap_open(&m, proc_root, pid, how, e);
	if (r < 0)
		return r;
	r = pagemap_walk(&m, addr, addr + len, PAGEMAP_KINDS, pagemap_tally_run,
			 &t, e);
	if (r < 0)
		return r;
	must(buckets_sum(&t.b) == len);
	*ret = t.b;
	if (ret_exact)
		*ret_exact = t.exact;
	return 0;
}

struct pagemap_set {
	uint8_t *bitmap;
	uint64_t addr;
};

static void pagemap_set_run(void *ctx, const struct page_run *run)
{
	struct pagemap_set *s = ctx;
	uint64_t bit = (run->addr - s->addr) / PAGEMAP_PAGE;
	uint64_t end = bit + run->n_pages;

	/* Anonymous ones were read from the file when they were copied. */
	if (run->kind != PAGE_FILE && run->kind != PAGE_ANON)
		return;
	for (; bit < end; bit++)
		s->bitmap[bit / 8] |= (uint8_t)(1u << bit % 8);
}

int pagemap_touched(const char *proc_root, pid_t pid, uint64_t addr,
		    uint64_t len, uint8_t *bitmap, struct err *e)
{
	guard(pagemap_close) struct pagemap m = PAGEMAP_NULL;
	struct pagemap_set s = { .bitmap = bitmap, .addr = addr };
	int r;

	r = pagemap_range_check(addr, len, e);
	if (r < 0)
		return r;
	r = pagemap_open(&m, proc_root, pid, PAGEMAP_AUTO, e);
	if (r < 0)
		return r;
	return pagemap_walk(&m, addr, addr + len, PAGEMAP_KINDS,
			    pagemap_set_run, &s, e);
}
