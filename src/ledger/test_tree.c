/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A zygote and three children that dirty known amounts; fixture trees
 */
#include "ledger/tree.h"

#include "base/guard.h"
#include "ledger/proctext.h"
#include "ledger/test_subject.h"

#include <errno.h>

#define HERD 3
#define ZYGOTE_PAGES 1000ull

/* What child i dirties of the zygote's pages in its first command. */
static const uint64_t dirties[HERD] = { 10, 200, 1000 };

struct herd {
	uint8_t *mem;
	uint8_t *scratch;
	struct subject child[HERD];
	unsigned index; /* of this child */
};

/* Step 0 is a rehearsal, so that step 1 dirties nothing else on its way. */
static uint64_t child_step(void *ctx, unsigned step)
{
	struct herd *h = ctx;
	uint8_t *mem = step == 0 ? h->scratch : h->mem;
	uint64_t i;

	for (i = 0; step < 2 && i < dirties[h->index]; i++)
		mem[i * PAGE] = 2;
	return (uint64_t)getpid();
}

/* 0: make the herd; then one step of child 0, 1, 2. */
static uint64_t zygote_step(void *ctx, unsigned step)
{
	struct herd *h = ctx;
	uint64_t i;

	if (step == 0) {
		h->mem = subject_map(ZYGOTE_PAGES, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS, -1);
		h->scratch = subject_map(ZYGOTE_PAGES, PROT_READ | PROT_WRITE,
					 MAP_SHARED | MAP_ANONYMOUS, -1);
		for (i = 0; i < ZYGOTE_PAGES; i++)
			h->mem[i * PAGE] = 1;
		for (i = 0; i < HERD; i++) {
			h->index = (unsigned)i;
			h->child[i] = subject_start(child_step, h);
			subject_step(&h->child[i]);
		}
		return 0;
	}
	if (step <= HERD)
		return subject_step(&h->child[step - 1]);
	subject_end(&h->child[0]);
	return 0;
}

static struct proc_memory *count(pid_t pid, size_t want)
{
	struct proc_memory *list = NULL;
	struct err e = ERR_NULL;
	size_t i, n = 0;
	int r = proc_tree_count("/proc", pid, &list, &n, &e);

	if (r < 0)
		fprintf(stderr, "%s\n", e.msg);
	check(r == 0);
	check(n == want);
	for (i = 0; i < n; i++) {
		check(list[i].configured == buckets_sum(&list[i].b));
		check(list[i].b.balloon == 0 && list[i].vmm > 16384);
	}
	check(list[0].pid == pid && list[0].ppid == getpid());
	for (i = 1; i < n; i++) {
		check(list[i].pid > list[i - 1].pid || i == 1);
		check(list[i].ppid == pid);
	}
	return list;
}

static const struct proc_memory *find(const struct proc_memory *list, size_t n,
				      pid_t pid)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (list[i].pid == pid)
			return &list[i];
	check(!"listed");
	return NULL;
}

/* A child took @pages from shared to private; nobody else's sum changed. */
static void check_moved(const struct proc_memory *before,
			const struct proc_memory *after, pid_t pid,
			uint64_t pages)
{
	const struct proc_memory *a = find(before, HERD + 1, pid);
	const struct proc_memory *b = find(after, HERD + 1, pid);
	size_t i;

	check(b->b.private - a->b.private == pages * PAGE);
	check(a->b.shared - b->b.shared == pages * PAGE);
	check(a->configured == b->configured);
	for (i = 0; i < HERD + 1; i++) {
		if (before[i].pid == pid)
			continue;
		check(before[i].b.private + before[i].b.shared ==
		      after[i].b.private + after[i].b.shared);
	}
}

static void test_zygote(void)
{
	struct herd h = { 0 };
	struct subject zygote = subject_start(zygote_step, &h);
	struct proc_memory *before, *after;
	pid_t pid;
	unsigned i;

	subject_step(&zygote);
	before = count(zygote.pid, HERD + 1);
	check(before[0].b.shared >= ZYGOTE_PAGES * PAGE);
	for (i = 0; i < HERD; i++) {
		pid = (pid_t)subject_step(&zygote);
		after = count(zygote.pid, HERD + 1);
		check_moved(before, after, pid, dirties[i]);
		free(before);
		before = after;
	}
	/* pages that all three left are the zygote's alone: the first 10 */
	check(before[0].b.shared >= (ZYGOTE_PAGES - 10) * PAGE);
	/* one child less */
	subject_step(&zygote);
	after = count(zygote.pid, HERD);
	free(after);
	free(before);
	subject_end(&zygote);
}

/* Every anonymous page is in the account: RssAnon. */
static void test_complete(void)
{
	struct herd h = { 0 };
	struct subject zygote = subject_start(zygote_step, &h);
	struct proc_memory *list;
	uint64_t file, anon;

	subject_step(&zygote);
	list = count(zygote.pid, HERD + 1);
	anon = smaps_sum(zygote.pid, 0, UINT64_MAX, "Anonymous");
	/* file pages of writable mappings are the rest of shared */
	file = list[0].b.private + list[0].b.shared - anon;
	check(list[0].b.private + list[0].b.shared >= anon);
	check(file <= smaps_sum(zygote.pid, 0, UINT64_MAX, "Rss") - anon);
	check(list[0].b.swapped ==
	      smaps_sum(zygote.pid, 0, UINT64_MAX, "Swap"));
	check_str(list[0].comm, "test_tree");
	free(list);
	subject_end(&zygote);
}

static void expect(int r, int want, const struct err *e, const char *word)
{
	if (r == want && e->code == -want && strstr(e->msg, word))
		return;
	fprintf(stderr, "%d instead of %d: %s\n", r, want, e->msg);
	exit(1);
}

static uint64_t idle_step(void *ctx unused, unsigned step unused)
{
	return 0;
}

static void test_gone(void)
{
	struct subject s = subject_start(idle_step, NULL);
	struct proc_memory *list = NULL;
	struct err e = ERR_NULL;
	size_t n = 0;

	subject_step(&s);
	subject_kill(&s);
	expect(proc_tree_count("/proc", s.pid, &list, &n, &e), -ESRCH, &e,
	       "gone");
	subject_end(&s);
	expect(proc_tree_count("/proc", s.pid, &list, &n, &e), -ESRCH, &e,
	       "no process");
	expect(proc_tree_count("/proc", 0, &list, &n, &e), -ESRCH, &e,
	       "no process");
	expect(proc_tree_count("/nonexistent", 1, &list, &n, &e), -ENOENT, &e,
	       "/nonexistent");
	check(!list && n == 0);
}

/* ---- fixture trees ---- */

#define PRESENT (1ull << 63)
#define SWAPPED (1ull << 62)
#define OF_FILE (1ull << 61)
#define EXCLUSIVE (1ull << 56)

/* Writable, read-only, shared. */
#define MAPS                                             \
	"10000-18000 rw-p 00000000 00:00 0 \n"           \
	"20000-24000 r--p 00000000 fe:00 77 /lib/x.so\n" \
	"30000-34000 rw-s 00000000 fe:00 78 /var/x\n"

static void fixture_process(const char *root, pid_t pid, pid_t ppid)
{
	char dir[512], status[128];

	snprintf(dir, sizeof(dir), "%s/%d", root, (int)pid);
	check(mkdir(dir, 0700) == 0);
	snprintf(status, sizeof(status),
		 "Name:\tp%d\nPPid:\t%d\nVmPTE:\t4 kB\nThreads:\t1\n", (int)pid,
		 (int)ppid);
	fixture_write(dir, "status", status);
	fixture_write(dir, "maps", MAPS);
	fixture_word(dir, "pagemap", 0x100, 0);
}

static void fixture_process_remove(const char *root, pid_t pid)
{
	char dir[512];

	snprintf(dir, sizeof(dir), "%s/%d", root, (int)pid);
	fixture_remove(dir, "status");
	fixture_remove(dir, "maps");
	fixture_remove(dir, "pagemap");
	check(rmdir(dir) == 0);
}

static void fixture_pages(const char *root, pid_t pid)
{
	char dir[512];

	snprintf(dir, sizeof(dir), "%s/%d", root, (int)pid);
	fixture_word(dir, "pagemap", 0x10, PRESENT | EXCLUSIVE);
	fixture_word(dir, "pagemap", 0x11, PRESENT | 9);
	fixture_word(dir, "pagemap", 0x12, PRESENT | 10);
	fixture_word(dir, "pagemap", 0x13, PRESENT | OF_FILE | 11);
	fixture_word(dir, "pagemap", 0x14, SWAPPED);
	fixture_word(dir, "pagemap", 0x20, PRESENT | EXCLUSIVE);
	fixture_word(dir, "pagemap", 0x21, PRESENT | OF_FILE);
	fixture_word(dir, "pagemap", 0x30, PRESENT | OF_FILE | EXCLUSIVE);
	fixture_word(root, "kpageflags", 9, 0);
	fixture_word(root, "kpageflags", 10, 1 << 24);
}

/* 5 has 7 and 6; 6 has 90; 8 is 4's; 20 and 21 are each other's parents. */
static void test_fixture(void)
{
	static const pid_t kin[][2] = {
		{ 5, 1 }, { 7, 5 },   { 6, 5 },   { 90, 6 },
		{ 8, 4 }, { 20, 21 }, { 21, 20 }, { 30, 30 },
	};
	struct proc_memory *list = NULL;
	struct err e = ERR_NULL;
	char root[64];
	size_t i, n = 0;

	test_dir(root, sizeof(root));
	expect(proc_tree_count(root, 5, &list, &n, &e), -ESRCH, &e,
	       "no process");
	fixture_write(root, "uptime", "1\n");
	for (i = 0; i < nitems(kin); i++)
		fixture_process(root, kin[i][0], kin[i][1]);
	fixture_pages(root, 6);
	check(proc_tree_count(root, 5, &list, &n, &e) == 0);
	check(n == 4);
	check(list[0].pid == 5 && list[1].pid == 6 && list[2].pid == 7 &&
	      list[3].pid == 90 && list[3].ppid == 6);
	check_str(list[3].comm, "p90");
	check(list[0].configured == 8 * PAGE && list[0].b.absent == 8 * PAGE);
	check(list[1].configured == 9 * PAGE);
	check(list[1].b.private == 2 * PAGE && list[1].b.shared == 2 * PAGE);
	check(list[1].b.zero == PAGE && list[1].b.swapped == PAGE);
	check(list[1].b.absent == 3 * PAGE);
	check(list[1].vmm == 4096 + 16384);
	free(list);
	check(proc_tree_count(root, 20, &list, &n, &e) == 0 && n == 2);
	free(list);
	check(proc_tree_count(root, 30, &list, &n, &e) == 0 && n == 1);
	free(list);
	list = NULL;
	expect(proc_tree_count(root, 4, &list, &n, &e), -ESRCH, &e,
	       "no process");
	for (i = 0; i < nitems(kin); i++)
		fixture_process_remove(root, kin[i][0]);
	fixture_remove(root, "uptime");
	fixture_remove(root, "kpageflags");
	check(rmdir(root) == 0);
}

/* Only statuses: the tree is refused before anything is counted. */
static void test_too_many(void)
{
	struct proc_memory *list = NULL;
	struct err e = ERR_NULL;
	char root[64];
	size_t n = 0;
	pid_t pid;

	test_dir(root, sizeof(root));
	for (pid = 1; pid <= PROC_TREE_MAX + 1; pid++)
		fixture_process(root, pid, 1);
	expect(proc_tree_count(root, 1, &list, &n, &e), -E2BIG, &e,
	       "more than 4096");
	fixture_process_remove(root, PROC_TREE_MAX + 1);
	check(proc_tree_count(root, 1, &list, &n, &e) == 0);
	check(n == PROC_TREE_MAX);
	free(list);
	for (pid = 1; pid <= PROC_TREE_MAX; pid++)
		fixture_process_remove(root, pid);
	check(rmdir(root) == 0);
}

/* Its own memory is in the processes we count, and it writes there. */
static bool under_valgrind(void)
{
	const char *preload = getenv("LD_PRELOAD");

	return preload && strstr(preload, "vgpreload");
}

int main(void)
{
	test_fixture();
	test_too_many();
	test_gone();
	if (under_valgrind())
		test_skip("valgrind dirties pages of the herd");
	test_zygote();
	test_complete();
	return 0;
}
