/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages in swap: every part of the ledger that meets them
 */
#include "ledger/buckets.h"
#include "ledger/overhead.h"
#include "ledger/pagemap.h"
#include "ledger/tree.h"

#include "ledger/test_subject.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/swap.h>

#define PAGES 1024ull
#define COPIED 100ull

/* 1024 pages of a private memfd mapping, 100 of them copied; then 1024 of
 * anonymous memory, all written; both paged out. */
static uint64_t make_cold(void *ctx unused, unsigned step unused)
{
	int fd = memfd_create("layer", MFD_CLOEXEC);
	uint8_t *p = subject_map(2 * PAGES, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1);
	uint64_t i;

	check(ftruncate(fd, (off_t)(PAGES * PAGE)) == 0);
	check(mmap(p, PAGES * PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_FIXED, fd, 0) == p);
	for (i = 0; i < COPIED; i++)
		p[3 * i * PAGE] = 1;
	for (i = PAGES; i < 2 * PAGES; i++)
		memset(p + i * PAGE, (int)i, PAGE);
	madvise(p, 2 * PAGES * PAGE, MADV_PAGEOUT);
	return (uintptr_t)p;
}

static bool have_swap(void)
{
	char line[256];
	unsigned lines = 0;
	FILE *f = fopen("/proc/swaps", "re");

	while (f && fgets(line, sizeof(line), f))
		lines++;
	if (f)
		fclose(f);
	return lines > 1;
}

static void check_count(pid_t pid, uint64_t p, enum pagemap_how how)
{
	uint64_t end = p + 2 * PAGES * PAGE;
	struct buckets b = { 0 };
	struct err e = ERR_NULL;

	check(pagemap_count("/proc", pid, p, 2 * PAGES * PAGE, NULL, how, &b,
			    NULL, &e) == 0);
	check(b.swapped == smaps_sum(pid, p, end, "Swap"));
	check(b.private == smaps_sum(pid, p, end, "Anonymous"));
	check(b.swapped + b.private == (PAGES + COPIED) * PAGE);
	check(b.swapped > 0);
}

/* The swapped part of RAM and what is outside of it. */
static void check_overhead(pid_t pid, uint64_t p)
{
	struct overhead all = { 0 }, rest = { 0 };
	struct err e = ERR_NULL;
	uint64_t swap = smaps_sum(pid, 0, UINT64_MAX, "SwapPss");

	check(overhead_count("/proc", pid, 0, 0, &all, &e) == 0);
	check(overhead_count("/proc", pid, p, 2 * PAGES * PAGE, &rest, &e) ==
	      0);
	check(all.anon >= swap);
	/* what the parent writes in between makes the child dearer */
	check(all.anon - rest.anon + 32 * PAGE > (PAGES + COPIED) * PAGE);
	check(all.anon - rest.anon < (PAGES + COPIED + 32) * PAGE);
}

static void check_tree(pid_t pid)
{
	struct proc_memory *list = NULL;
	struct err e = ERR_NULL;
	size_t n = 0;

	check(proc_tree_count("/proc", pid, &list, &n, &e) == 0 && n == 1);
	check(list->b.swapped == smaps_sum(pid, 0, UINT64_MAX, "Swap"));
	check(list->configured == buckets_sum(&list->b));
	free(list);
}

/* ---- a swap file of our own, where the host has none ---- */

#define SWAP_BYTES (64u << 20)

static char swap_dir[256], swap_path[300];

static void swap_end(void)
{
	swapoff(swap_path);
	unlink(swap_path);
	rmdir(swap_dir);
}

/* No holes: the kernel refuses them. */
static bool swap_fill(void)
{
	guard_fd int fd = open(swap_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	guard_free char *zeros = calloc(1, 1u << 20);

	if (fd < 0 || !zeros)
		return false;
	for (unsigned done = 0; done < SWAP_BYTES; done += 1u << 20)
		if (io_write_full(fd, zeros, 1u << 20) < 0)
			return false;
	return fsync(fd) == 0;
}

static bool swap_on(void)
{
	const char *const argv[] = { "mkswap", swap_path, NULL };
	struct err e = ERR_NULL;

	test_dir(swap_dir, sizeof(swap_dir));
	snprintf(swap_path, sizeof(swap_path), "%s/swap", swap_dir);
	atexit(swap_end);
	return swap_fill() && proc_run(argv, 4096, NULL, &e) == 0 &&
	       swapon(swap_path, 0) == 0;
}

int main(void)
{
	struct subject s;
	uint64_t p;

	if (getuid() != 0)
		test_skip("frame numbers are for root");
	if (!have_swap() && !swap_on())
		test_skip("no swap on this host, and none can be made");
	s = subject_start(make_cold, NULL);
	p = subject_step(&s);
	check_count(s.pid, p, PAGEMAP_AUTO);
	check_count(s.pid, p, PAGEMAP_WORDS_ONLY);
	check_overhead(s.pid, p);
	check_tree(s.pid);
	subject_end(&s);
	return 0;
}
