/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Known pages in a child, counted both ways and compared with smaps
 */
#include "ledger/pagemap.h"

#include "ledger/buckets.h"
#include "ledger/test_subject.h"

#include <errno.h>

/* madvise.h of 6.13 */
#define ADVICE_GUARD_INSTALL 102

#define HUGE (512 * PAGE)

/*
 * One address range, in pages:
 *	0	2048	private mapping of a memfd that has the even pages
 *			below 512; all these are read, the first 100 written
 *	2048	4096	anonymous; 50 read, 70 others written
 *	4096	6144	anonymous, 2 MiB aligned, huge pages advised: 1 huge
 *			written, 1 huge read, 2 untouched
 *	6144	8192	not mapped
 */
#define RAM_PAGES 8192ull
#define FILE_EVEN 256ull
#define FILE_WRITTEN 100ull
#define ANON_READ 50ull
#define ANON_WRITTEN 70ull
#define HUGE_AT 4096ull

static uint64_t make_ram(void *ctx unused, unsigned step)
{
	int fd = memfd_create("layer", MFD_CLOEXEC);
	uint8_t *ram, *p;
	uint64_t i;

	if (step > 0)
		return 0;
	check(ftruncate(fd, 2048 * PAGE) == 0);
	for (i = 0; i < FILE_EVEN; i++)
		check(pwrite(fd, "x", 1, (off_t)(2 * i * PAGE)) == 1);
	p = subject_map(RAM_PAGES + 512, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	ram = p + (-(uintptr_t)p & (HUGE - 1));
	check(munmap(p, RAM_PAGES * PAGE + HUGE) == 0);
	check(mmap(ram, 2048 * PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_FIXED, fd, 0) == ram);
	p = ram + 2048 * PAGE;
	check(mmap(p, 4096 * PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
	for (i = 0; i < FILE_EVEN; i++)
		subject_read_page(ram + 2 * i * PAGE);
	for (i = 0; i < FILE_WRITTEN; i++)
		ram[2 * i * PAGE] = 1;
	for (i = 0; i < ANON_READ; i++)
		subject_read_page(p + 3 * i * PAGE);
	for (i = 0; i < ANON_WRITTEN; i++)
		p[(3 * i + 1) * PAGE] = 1;
	p = ram + HUGE_AT * PAGE;
	madvise(p, 2048 * PAGE, MADV_HUGEPAGE);
	p[5] = 1;
	subject_read_page(p + HUGE);
	close(fd);
	return (uintptr_t)ram;
}

static void show(const char *what, const struct buckets *b)
{
	fprintf(stderr,
		"%s: shared %llu private %llu swapped %llu zero %llu "
		"balloon %llu absent %llu\n",
		what, b->shared / PAGE, b->private / PAGE, b->swapped / PAGE,
		b->zero / PAGE, b->balloon / PAGE, b->absent / PAGE);
}

static void check_same(const struct buckets *a, const struct buckets *b)
{
	if (memcmp(a, b, sizeof(*a)) == 0)
		return;
	show("one", a);
	show("other", b);
	exit(1);
}

/* Can the kernel scan? */
static bool have_scan(void)
{
	struct pagemap m = PAGEMAP_NULL;
	struct err e = ERR_NULL;
	int r = pagemap_open(&m, "/proc", getpid(), PAGEMAP_SCAN_ONLY, &e);

	pagemap_close(&m);
	check(r == 0 || r == -ENOTTY);
	return r == 0;
}

static struct buckets count(pid_t pid, uint64_t addr, uint64_t pages,
			    const uint8_t *bitmap, enum pagemap_how how,
			    bool *exact)
{
	struct buckets b = { 0 };
	struct err e = ERR_NULL;
	int r = pagemap_count("/proc", pid, addr, pages * PAGE, bitmap, how, &b,
			      exact, &e);

	if (r < 0)
		fprintf(stderr, "%s\n", e.msg);
	check(r == 0);
	check(buckets_sum(&b) == pages * PAGE);
	return b;
}

/* The huge pages may have come or not; the rest is known. */
static void check_known(pid_t pid, uint64_t ram, enum pagemap_how how)
{
	struct buckets b;
	bool exact = false;

	b = count(pid, ram, HUGE_AT, NULL, how, &exact);
	check(exact);
	check(b.shared == (FILE_EVEN - FILE_WRITTEN) * PAGE);
	check(b.private == (FILE_WRITTEN + ANON_WRITTEN) * PAGE);
	check(b.zero == ANON_READ * PAGE);
	check(b.swapped == 0 && b.balloon == 0);
	/* odd borders: the read page at 0 of the anonymous part is outside */
	b = count(pid, ram + 2049 * PAGE, 2, NULL, how, &exact);
	check(b.private == PAGE && b.absent == PAGE);
	b = count(pid, ram, 0, NULL, how, &exact);
	check(buckets_sum(&b) == 0);
	b = count(pid, ram + 6144 * PAGE, 2048, NULL, how, &exact);
	check(b.absent == 2048 * PAGE);
}

static void check_smaps(pid_t pid, uint64_t ram, const struct buckets *b)
{
	uint64_t end = ram + RAM_PAGES * PAGE;
	uint64_t anon = smaps_sum(pid, ram, end, "Anonymous");

	check(b->private == anon);
	check(b->shared == smaps_sum(pid, ram, end, "Rss") - anon);
	check(b->swapped == smaps_sum(pid, ram, end, "Swap"));
}

static void check_huge(pid_t pid, uint64_t ram, enum pagemap_how how)
{
	uint64_t at = ram + HUGE_AT * PAGE;
	bool exact = false;
	struct buckets b = count(pid, at, 2048, NULL, how, &exact);

	check(exact);
	check(b.shared == 0);
	if (smaps_sum(pid, ram, ram + RAM_PAGES * PAGE, "AnonHugePages") == 0) {
		printf("note: no huge page came\n");
		return;
	}
	check(b.private == HUGE);
	check(b.zero == HUGE || b.zero == PAGE);
	/* from the middle of a huge zero page */
	if (b.zero == HUGE) {
		b = count(pid, at + HUGE + 7 * PAGE, 10, NULL, how, &exact);
		check(b.zero == 10 * PAGE);
	}
}

/* Every second page surrendered, whether there or not. */
static void check_balloon(pid_t pid, uint64_t ram, enum pagemap_how how)
{
	uint8_t bitmap[RAM_PAGES / 8];
	struct buckets without, with;

	memset(bitmap, 0xaa, sizeof(bitmap));
	without = count(pid, ram, RAM_PAGES, NULL, how, NULL);
	with = count(pid, ram, RAM_PAGES, bitmap, how, NULL);
	check(with.private == without.private && with.zero == without.zero);
	check(with.shared == without.shared);
	check(with.balloon + with.absent == without.absent);
	/* below 2048 the odd pages are absent: all of them surrendered */
	with = count(pid, ram, 2048, bitmap, how, NULL);
	check(with.balloon == 1024 * PAGE);
	/* a range that begins and ends inside bytes of the bitmap */
	with = count(pid, ram + 600 * PAGE, 131, bitmap, how, NULL);
	check(with.balloon == 65 * PAGE && with.absent == 66 * PAGE);
}

static void check_touched(pid_t pid, uint64_t ram)
{
	uint8_t bitmap[RAM_PAGES / 8] = { 0 };
	struct err e = ERR_NULL;
	uint64_t i;

	check(pagemap_touched("/proc", pid, ram, RAM_PAGES * PAGE, bitmap,
			      &e) == 0);
	/* Of the file, written or not; of anonymous memory what was written.
	 * Huge pages may have come or not. */
	for (i = 0; i < HUGE_AT; i++) {
		uint64_t k = i - 2048;
		bool file = i % 2 == 0 && i < 2 * FILE_EVEN;
		bool anon = i >= 2048 && k % 3 == 1 && k / 3 < ANON_WRITTEN;

		check((bitmap[i / 8] >> i % 8 & 1) == (file || anon));
	}
}

static void expect(int r, int want, const struct err *e, const char *word)
{
	if (r == want && e->code == -want && strstr(e->msg, word))
		return;
	fprintf(stderr, "%d instead of %d: %s\n", r, want, e->msg);
	exit(1);
}

static void check_refused(pid_t pid, uint64_t ram, enum pagemap_how how)
{
	static const struct {
		uint64_t addr, len;
		const char *word;
	} bad[] = {
		{ 1, PAGE, "no range" },
		{ PAGE, 1, "no range" },
		{ -PAGE, 2 * PAGE, "no range" },
		{ 0xffff800000000000, PAGE, "no user address" },
		{ 0x7ffffffff000, 4 * PAGE, "no user address" },
	};
	static const pid_t nobody[] = { 0, -1, 0x3fffffff };
	struct buckets b = { 0 };
	struct err e = ERR_NULL;
	size_t i;

	for (i = 0; i < nitems(bad); i++)
		expect(pagemap_count("/proc", pid, bad[i].addr, bad[i].len,
				     NULL, how, &b, NULL, &e),
		       -EINVAL, &e, bad[i].word);
	for (i = 0; i < nitems(nobody); i++)
		expect(pagemap_count("/proc", nobody[i], ram, PAGE, NULL, how,
				     &b, NULL, &e),
		       -ESRCH, &e, "no process");
	/* a kernel thread */
	if (getuid() == 0 && access("/proc/2/pagemap", R_OK) == 0)
		expect(pagemap_count("/proc", 2, ram, PAGE, NULL, how, &b, NULL,
				     &e),
		       -ESRCH, &e, "no memory");
	check(buckets_sum(&b) == 0);
}

static void kill_on_first(void *ctx, const struct page_run *run unused)
{
	struct subject *s = ctx;

	if (s->steps == 1)
		subject_kill(s);
	s->steps = 2;
}

static void check_dies(enum pagemap_how how)
{
	struct subject s = subject_start(make_ram, NULL);
	uint64_t ram = subject_step(&s);
	struct pagemap m = PAGEMAP_NULL;
	struct buckets b = { 0 };
	struct err e = ERR_NULL;

	check(pagemap_open(&m, "/proc", s.pid, how, &e) == 0);
	expect(pagemap_walk(&m, ram, ram + RAM_PAGES * PAGE, PAGEMAP_KINDS,
			    kill_on_first, &s, &e),
	       -ESRCH, &e, "gone");
	pagemap_close(&m);
	pagemap_close(&m);
	/* now a zombie, then nobody */
	expect(pagemap_count("/proc", s.pid, ram, PAGE, NULL, how, &b, NULL,
			     &e),
	       -ESRCH, &e, "gone");
	subject_end(&s);
	expect(pagemap_count("/proc", s.pid, ram, PAGE, NULL, how, &b, NULL,
			     &e),
	       -ESRCH, &e, "no process");
}

/* Frames hidden: words guess the zero page, and say so; a scan knows. */
static uint64_t blind(void *ctx, unsigned step unused)
{
	const bool *scan = ctx;
	struct subject s;
	struct buckets b;
	uint64_t ram;
	bool exact = true;

	drop_sys_admin();
	s = subject_start(make_ram, NULL);
	ram = subject_step(&s);
	b = count(s.pid, ram, HUGE_AT, NULL, PAGEMAP_WORDS_ONLY, &exact);
	check(!exact);
	check(b.zero == ANON_READ * PAGE);
	check(b.private == (FILE_WRITTEN + ANON_WRITTEN) * PAGE);
	if (*scan)
		check_known(s.pid, ram, PAGEMAP_SCAN_ONLY);
	subject_end(&s);
	return 1;
}

static uint64_t make_guard(void *ctx unused, unsigned step unused)
{
	uint8_t *p = subject_map(64, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1);

	p[0] = 1;
	if (madvise(p + 8 * PAGE, 8 * PAGE, ADVICE_GUARD_INSTALL) < 0)
		return 0;
	return (uintptr_t)p;
}

static void add_swapped(void *ctx, const struct page_run *run)
{
	uint64_t *pages = ctx;

	if (run->kind == PAGE_SWAPPED)
		*pages += run->n_pages;
}

/* A guard region is not swap, when looked at closely. */
static void check_guard_region(enum pagemap_how how)
{
	struct subject s = subject_start(make_guard, NULL);
	uint64_t p = subject_step(&s), swapped = 0;
	struct pagemap m = PAGEMAP_NULL;
	struct err e = ERR_NULL;

	if (p) {
		check(pagemap_open(&m, "/proc", s.pid, how, &e) == 0);
		check(pagemap_walk(&m, p, p + 64 * PAGE, PAGEMAP_ANON_SHARING,
				   add_swapped, &swapped, &e) == 0);
		check(swapped == 0);
		pagemap_close(&m);
	} else {
		printf("note: no guard regions here\n");
	}
	subject_end(&s);
}

/* One page of hugetlbfs of its own. */
static uint64_t make_hugetlb(void *ctx unused, unsigned step unused)
{
	uint8_t *p = mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	if (p == MAP_FAILED)
		return 0;
	p[HUGE] = 1;
	return (uintptr_t)p;
}

static void check_hugetlb(enum pagemap_how how)
{
	struct subject s = subject_start(make_hugetlb, NULL);
	uint64_t p = subject_step(&s);
	struct buckets b;
	bool exact = false;

	if (p) {
		b = count(s.pid, p, 1024, NULL, how, &exact);
		check(b.private == HUGE && b.absent == HUGE && exact);
	} else {
		printf("note: no hugetlb pages here\n");
	}
	subject_end(&s);
}

#define MANY_PAGES 8192ull

/* Every second page: 4096 regions, eight times what one scan returns. */
static uint64_t make_many(void *ctx unused, unsigned step unused)
{
	uint8_t *p = subject_map(MANY_PAGES, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1);
	uint64_t i;

	for (i = 0; i < MANY_PAGES; i += 2)
		p[i * PAGE] = 1;
	return (uintptr_t)p;
}

/* All windows of odd sizes: regions end everywhere in the kernel's rounds. */
static void check_many(enum pagemap_how how)
{
	struct subject s = subject_start(make_many, NULL);
	uint64_t p = subject_step(&s), n;
	struct buckets b;

	for (n = MANY_PAGES; n > 997; n -= 997) {
		b = count(s.pid, p, n, NULL, how, NULL);
		check(b.private == (n + 1) / 2 * PAGE);
		check(b.absent == n / 2 * PAGE);
	}
	subject_end(&s);
}

static void check_way(enum pagemap_how how)
{
	struct subject s = subject_start(make_ram, NULL);
	uint64_t ram = subject_step(&s);
	struct buckets b = count(s.pid, ram, RAM_PAGES, NULL, how, NULL);

	check_many(how);
	check_hugetlb(how);
	check_known(s.pid, ram, how);
	check_smaps(s.pid, ram, &b);
	check_huge(s.pid, ram, how);
	check_balloon(s.pid, ram, how);
	check_refused(s.pid, ram, how);
	subject_end(&s);
	check_dies(how);
	check_guard_region(how);
}

int main(void)
{
	struct subject s, blinded;
	struct buckets one, other;
	uint64_t ram;
	bool scan = have_scan();

	if (getuid() != 0)
		test_skip("frame numbers are for root");
	check_way(PAGEMAP_AUTO);
	check_way(PAGEMAP_WORDS_ONLY);
	s = subject_start(make_ram, NULL);
	ram = subject_step(&s);
	check_touched(s.pid, ram);
	if (scan) {
		one = count(s.pid, ram, RAM_PAGES, NULL, PAGEMAP_SCAN_ONLY,
			    NULL);
		other = count(s.pid, ram, RAM_PAGES, NULL, PAGEMAP_WORDS_ONLY,
			      NULL);
		check_same(&one, &other);
	} else {
		printf("note: no PAGEMAP_SCAN here\n");
	}
	subject_end(&s);
	blinded = subject_start(blind, &scan);
	check(subject_step(&blinded) == 1);
	subject_end(&blinded);
	return 0;
}
