/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shim, in a process that behaves like QEMU
 *
 * For each story this program starts itself again with the shim preloaded and
 * a plan in the environment. The child plays the VMM and checks what the guest
 * would see; the parent then checks what the daemon would see: the report, the
 * bitmap, and that the layer's digest is the one it had. Streamed plans have a
 * test of their own, test_shim_uffd.c.
 */
#include "gmem/test_shim.h"

#include "base/digest.h"
#include "base/uapi.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* ---- the child: a VMM ---- */

/* What the guest should find in a page nobody wrote. */
static uint64_t page_mark(uint64_t page)
{
	uint64_t n = layer_page(page);

	return n ? mark(n) : 0;
}

static struct gmem_report report(const struct vmm *m)
{
	return plan_view_report(&m->view);
}

static int give(const struct vmm *m, uint64_t page, uint64_t n, int advice)
{
	return madvise(m->ram + page * P, n * P, advice);
}

/* As QEMU does it: reserve, then map over the reservation. */
static char *map_like_qemu(int fd, uint64_t bytes)
{
	char *at = mmap(NULL, bytes + P, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
			-1, 0);
	char *ram;

	check(at != MAP_FAILED);
	ram = mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		   fd, 0);
	check(ram == at);
	return ram;
}

static struct vmm vmm_start(uint64_t pages)
{
	struct err e = ERR_NULL;
	struct vmm m = { .pages = pages };

	check(!getenv(PLAN_ENV) && !getenv(PLAN_ENV_LAYER));
	check(plan_view_open(FD_PLAN, pages * P, &m.view, &e) == 0);
	check(report(&m).ram_addr == 0);
	m.fd = open(PLAN_PATH, O_RDWR);
	check(m.fd >= 0 && m.fd != FD_LAYER);
	m.ram = map_like_qemu(m.fd, pages * P);
	check(report(&m).ram_addr == (uintptr_t)m.ram);
	check(report(&m).ram_len == pages * P);
	/* QEMU's advice, which replaced pages must inherit to merge */
	check(madvise(m.ram, pages * P, MADV_DONTDUMP) == 0);
	check(madvise(m.ram, pages * P, MADV_HUGEPAGE) == 0);
	check(madvise(m.ram, pages * P, MADV_DONTFORK) == 0);
	return m;
}

/* No huge pages that nobody asked for, whatever the host says. */
static void check_no_thp(void)
{
	guard_file FILE *f =
		fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re");
	char mode[64] = "";

	if (f && fgets(mode, sizeof(mode), f) && !strstr(mode, "[always]"))
		return;
	check(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) > 0);
}

static void child_contents(void)
{
	struct vmm m = vmm_start(RAM_PAGES);
	struct stat st = { 0 };
	int fd;

	for (uint64_t i = 0; i < RAM_PAGES; i++) {
		check(page_is(&m, i, page_mark(i)));
		memset(m.ram + i * P, 0x5a, P);
	}
	for (uint64_t i = 0; i < RAM_PAGES; i++)
		check(page_is(&m, i, 0x5a5a5a5a5a5a5a5aull));
	check(vmas(&m, NULL) == 4);
	check(vmas(&m, " hg") == 0);
	check(vmas(&m, " dd") == 4 && vmas(&m, " dc") == 4);
	check_no_thp();

	/* the other names, and what the VMM asks about its fd */
	fd = openat(AT_FDCWD, PLAN_PATH, O_RDWR | O_CLOEXEC);
	check(fd >= 0 && fd != m.fd && close(fd) == 0);
	fd = open64(PLAN_PATH, O_RDWR);
	check(fd >= 0 && close(fd) == 0);
	fd = openat64(AT_FDCWD, PLAN_PATH, O_RDWR);
	check(fd >= 0 && fstat(fd, &st) == 0);
	check((uint64_t)st.st_size == RAM_PAGES * P);
	check((uint64_t)lseek(fd, 0, SEEK_END) == RAM_PAGES * P);
	check(open("/byre", O_RDONLY) < 0 && errno == ENOENT);
	check(report(&m).populate_ns > 0 && report(&m).map_ns > 0);
	check(report(&m).error == 0);
}

static void child_unfixed(void)
{
	struct err e = ERR_NULL;
	struct vmm m = { .pages = RAM_PAGES };

	check(plan_view_open(FD_PLAN, RAM_PAGES * P, &m.view, &e) == 0);
	m.fd = open(PLAN_PATH, O_RDWR);
	m.ram = mmap64(NULL, RAM_PAGES * P, PROT_READ | PROT_WRITE, MAP_SHARED,
		       m.fd, 0);
	check(m.ram != MAP_FAILED);
	for (uint64_t i = 0; i < RAM_PAGES; i++)
		check(page_is(&m, i, page_mark(i)));
	/* all of it at once, before anything was split */
	check(give(&m, 0, RAM_PAGES, MADV_DONTNEED) == 0);
	for (uint64_t i = 0; i < RAM_PAGES; i++)
		check(page_zero(&m, i));
	check(report(&m).split_refused == 0 && report(&m).splits == 0);
}

#define PRESENT (1ull << 63)
#define OF_A_FILE (1ull << 61)

/* What /proc/self/pagemap says of pages [@page, @page + @n) of the RAM. */
static void entries(const struct vmm *m, uint64_t page, uint64_t n,
		    uint64_t *ret)
{
	guard_fd int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	check(fd >= 0);
	check(pread(fd, ret, n * 8,
		    (off_t)((uintptr_t)m->ram / P + page) * 8) ==
	      (ssize_t)(n * 8));
}

/* Populated pages are mapped before the guest runs, and still the file's. */
static void child_populate(void)
{
	struct vmm m = vmm_start(RAM_PAGES);
	uint64_t entry;

	entries(&m, 700, 1, &entry);
	check(entry & PRESENT && entry & OF_A_FILE);
}

/* Has it UFFD_FEATURE_WP_ASYNC (6.7)? The shim does without, less exactly. */
static bool kernel_is_exact(void)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_WP_ASYNC };
	guard_fd int fd =
		(int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	return fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0;
}

/* Read, written and discarded pages are there, and no others. */
static void child_exact(void)
{
	struct vmm m = vmm_start(RAM_PAGES);
	uint64_t e[RAM_PAGES], n = 0;

	check(page_is(&m, 600, page_mark(600)));
	memset(m.ram + 650 * P, 0x5a, P);
	check(page_is(&m, 700, page_mark(700)));
	check(give(&m, 700, 1, MADV_DONTNEED) == 0 && page_zero(&m, 700));
	entries(&m, 0, RAM_PAGES, e);
	for (uint64_t i = 0; i < RAM_PAGES; i++)
		n += (e[i] & PRESENT) != 0;
	check(e[600] & PRESENT && e[600] & OF_A_FILE);
	check(e[650] & PRESENT && !(e[650] & OF_A_FILE));
	check(page_is(&m, 601, page_mark(601)));
	check(n == 3 || !kernel_is_exact());
}

static void child_refusals(void)
{
	struct vmm m = vmm_start(RAM_PAGES);
	char *other = mmap(NULL, 4 * P, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int prot = PROT_READ | PROT_WRITE;

	/* once, all of it */
	check(mmap(NULL, RAM_PAGES * P, prot, MAP_SHARED, m.fd, 0) ==
	      MAP_FAILED);
	check(errno == EBUSY);
	check(mmap(NULL, P, prot, MAP_SHARED, m.fd, 0) == MAP_FAILED);
	check(errno == EINVAL);
	check(mmap(NULL, RAM_PAGES * P, prot, MAP_SHARED, m.fd, P) ==
	      MAP_FAILED);
	check(errno == EINVAL);

	/* the fd is good for nothing else */
	check(write(m.fd, "x", 1) < 0 && errno == EPERM);
	check(ftruncate(m.fd, 0) < 0 && errno == EPERM);
	check(fallocate(m.fd, 0, 0, P) < 0 && errno == EPERM);
	check(write(FD_LAYER, "x", 1) < 0 && errno == EBADF);
	check(fallocate(m.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			RAM_PAGES * P) == 0);
	check(page_is(&m, LAYER_A, page_mark(LAYER_A)));

	/* half in, half out; not at a page; nothing at all */
	check(madvise(m.ram - P, 2 * P, MADV_DONTNEED) < 0 && errno == EINVAL);
	check(madvise(m.ram + (RAM_PAGES - 1) * P, 2 * P, MADV_DONTNEED) < 0 &&
	      errno == EINVAL);
	check(madvise(m.ram, SIZE_MAX, MADV_DONTNEED) < 0 && errno == EINVAL);
	check(madvise(m.ram, SIZE_MAX - P, MADV_DONTNEED) < 0 &&
	      errno == EINVAL);
	check(madvise(m.ram + 1, P, MADV_DONTNEED) < 0 && errno == EINVAL);
	check(madvise(m.ram, 0, MADV_DONTNEED) == 0);
	check(report(&m).discards == 0);

	/* the rest of the VMM's memory is the kernel's business */
	check(other != MAP_FAILED);
	memset(other, 1, 4 * P);
	check(madvise(other, 4 * P, MADV_DONTNEED) == 0 && other[0] == 0);
	check(report(&m).discards == 0);
}

static void child_discard(void)
{
	struct vmm m = vmm_start(RAM_PAGES);
	uint64_t v0 = vmas(&m, NULL);

	/* anonymous from the start: dirty pages go, nothing splits */
	memset(m.ram + ZERO_B * P, 1, 4 * P);
	check(give(&m, ZERO_B, 4, MADV_DONTNEED) == 0);
	for (uint64_t i = 0; i < 4; i++)
		check(page_zero(&m, ZERO_B + i));
	check(report(&m).splits == 0 && report(&m).discards == 1);
	check(report(&m).discarded_bytes == 4 * P);
	check(is_surrendered(&m, ZERO_B) && is_surrendered(&m, ZERO_B + 3));
	check(!is_surrendered(&m, ZERO_B + 4));

	/* one clean and one dirty page of the file, alone */
	memset(m.ram + 101 * P, 1, P);
	check(give(&m, 100, 2, MADV_DONTNEED) == 0);
	check(page_zero(&m, 100) && page_zero(&m, 101));
	check(page_is(&m, 99, page_mark(99)));
	check(page_is(&m, 102, page_mark(102)));
	check(report(&m).splits == 2 && vmas(&m, NULL) == v0 + 2);

	/* again: it is anonymous now */
	memset(m.ram + 100 * P, 1, 2 * P);
	check(give(&m, 100, 2, MADV_DONTNEED) == 0);
	check(page_zero(&m, 100) && page_zero(&m, 101));
	check(report(&m).splits == 2 && vmas(&m, NULL) == v0 + 2);

	/* its neighbours, below, above, and overlapping */
	check(give(&m, 99, 1, MADV_REMOVE) == 0 && page_zero(&m, 99));
	check(give(&m, 102, 1, MADV_FREE) == 0 && page_zero(&m, 102));
	check(give(&m, 95, 20, MADV_DONTNEED) == 0);
	for (uint64_t i = 95; i < 115; i++)
		check(page_zero(&m, i) && is_surrendered(&m, i));
	check(report(&m).splits == 2 && vmas(&m, NULL) == v0 + 2);
	check(page_is(&m, 94, page_mark(94)));
	check(page_is(&m, 115, page_mark(115)));

	/* beside a zero extent */
	check(give(&m, LAYER_A, 1, MADV_DONTNEED) == 0);
	check(page_zero(&m, LAYER_A));
	check(report(&m).splits == 2 && vmas(&m, NULL) == v0 + 2);

	/* the last page has no neighbour above */
	check(give(&m, RAM_PAGES - 1, 1, MADV_DONTNEED) == 0);
	check(report(&m).splits == 3 && vmas(&m, NULL) == v0 + 3);

	/* replaced pages can be used, and carry QEMU's advice */
	memset(m.ram + LAYER_A * P, 7, P);
	check(m.ram[LAYER_A * P] == 7);
	check(vmas(&m, " dd") == v0 + 3 && vmas(&m, " dc") == v0 + 3);
	check(vmas(&m, " hg") == 0);

	/* the balloon gives back */
	check(give(&m, 95, 8, MADV_WILLNEED) == 0);
	check(!is_surrendered(&m, 95) && !is_surrendered(&m, 102));
	check(is_surrendered(&m, 103) && page_zero(&m, 95));

	/* everything, over all extents at once */
	memset(m.ram, 3, RAM_PAGES * P);
	check(give(&m, 0, RAM_PAGES, MADV_DONTNEED) == 0);
	for (uint64_t i = 0; i < RAM_PAGES; i++)
		check(page_zero(&m, i) && is_surrendered(&m, i));
	check(vmas(&m, NULL) <= v0 + report(&m).splits);
	check(report(&m).split_refused == 0 && report(&m).error == 0);
}

/* Filling the gaps between isolated pages takes the splits back. */
static void child_gaps(void)
{
	struct vmm m = vmm_start(RAM_PAGES);
	uint64_t v0 = vmas(&m, NULL), n = 0;

	for (uint64_t i = LAYER_B + 1; i < RAM_PAGES - 1; i += 2, n++)
		check(give(&m, i, 1, MADV_DONTNEED) == 0);
	check(report(&m).splits == 2 * n);
	check(vmas(&m, NULL) == v0 + 2 * n);
	for (uint64_t i = LAYER_B + 2; i < RAM_PAGES - 2; i += 2)
		check(give(&m, i, 1, MADV_DONTNEED) == 0);
	for (uint64_t i = LAYER_B + 1; i < RAM_PAGES - 2; i++)
		check(page_zero(&m, i));
	check(report(&m).splits == n + 1);
	check(vmas(&m, NULL) == v0 + 2);
}

/* Enough isolated discards to use up PLAN_SPLITS_MAX, and two more. */
#define SPLIT_PAGES (PLAN_SPLITS_MAX + 6ull)

static void child_splits(void)
{
	struct vmm m = vmm_start(SPLIT_PAGES);
	uint64_t last = PLAN_SPLITS_MAX + 1;
	uint64_t v0 = vmas(&m, NULL);

	for (uint64_t i = 1; i < last; i += 2)
		check(give(&m, i, 1, MADV_DONTNEED) == 0);
	check(report(&m).splits == PLAN_SPLITS_MAX);
	check(report(&m).split_refused == 0);
	check(vmas(&m, NULL) == v0 + PLAN_SPLITS_MAX);

	check(page_is(&m, last, mark(last)));
	check(give(&m, last, 1, MADV_DONTNEED) == 0);
	check(page_zero(&m, last) && is_surrendered(&m, last));
	check(report(&m).split_refused == 1);
	/* not anonymous in our books: zeroed by writing again */
	memset(m.ram + last * P, 9, P);
	check(give(&m, last, 1, MADV_DONTNEED) == 0 && page_zero(&m, last));
	check(report(&m).split_refused == 2);
	check(vmas(&m, NULL) == v0 + PLAN_SPLITS_MAX);

	/* what needs no more VMAs still goes the cheap way */
	check(give(&m, 2, 1, MADV_DONTNEED) == 0 && page_zero(&m, 2));
	check(report(&m).splits == PLAN_SPLITS_MAX - 1);
	check(report(&m).split_refused == 2);
}

#define THREADS 4
#define ROUNDS 4000
/* Empty discards in a row, so that threads meet between counter and counter:
 * without the lock a good many go uncounted. */
#define EMPTY_ROUNDS 300000

struct worker_arg {
	struct vmm *m;
	unsigned number;
};

/* Each thread owns every fourth page: neighbours are always someone else's. */
static void *discarder(void *p)
{
	const struct worker_arg *a = p;
	unsigned seed = a->number;

	for (int round = 0; round < ROUNDS; round++) {
		uint64_t page = (uint64_t)rand_r(&seed) %
					(RAM_PAGES / THREADS) * THREADS +
				a->number;

		check(give(a->m, page, 1, MADV_DONTNEED) == 0);
		check(page_zero(a->m, page));
		memset(a->m->ram + page * P, 1 + (int)a->number, P);
		if (round % 4 == 0)
			check(give(a->m, page, 1, MADV_WILLNEED) == 0);
	}
	for (int round = 0; round < EMPTY_ROUNDS; round++)
		check(give(a->m, ZERO_A + a->number, 1, MADV_DONTNEED) == 0);
	for (uint64_t i = a->number; i < RAM_PAGES; i += THREADS)
		check(give(a->m, i, 1, MADV_DONTNEED) == 0);
	return NULL;
}

static void child_threads(void)
{
	struct vmm m = vmm_start(RAM_PAGES);
	uint64_t v0 = vmas(&m, NULL);
	struct worker_arg args[THREADS];
	pthread_t t[THREADS];

	for (unsigned i = 0; i < THREADS; i++) {
		args[i] = (struct worker_arg){ .m = &m, .number = i };
		check(pthread_create(&t[i], NULL, discarder, &args[i]) == 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		check(pthread_join(t[i], NULL) == 0);
	for (uint64_t i = 0; i < RAM_PAGES; i++)
		check(page_zero(&m, i) && is_surrendered(&m, i));
	check(report(&m).discards ==
	      THREADS * (ROUNDS + EMPTY_ROUNDS) + RAM_PAGES);
	check(vmas(&m, NULL) <= v0 + report(&m).splits);
	check(report(&m).split_refused == 0);
}

/* A bake: what is written reaches the file, what is discarded leaves it. */
static void child_shared(void)
{
	struct vmm m = vmm_start(RAM_PAGES);
	uint64_t v0 = vmas(&m, NULL);

	check(page_is(&m, 5, mark(5)));
	memset(m.ram + 6 * P, 0x66, P);
	check(fallocate(m.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 7 * P,
			P) == 0);
	check(give(&m, 7, 1, MADV_DONTNEED) == 0);
	check(page_zero(&m, 7) && is_surrendered(&m, 7));
	check(give(&m, 8, 1, MADV_REMOVE) == 0 && page_zero(&m, 8));
	check(give(&m, 8, 1, MADV_WILLNEED) == 0 && !is_surrendered(&m, 8));
	check(report(&m).discards == 2 && report(&m).splits == 0);
	check(vmas(&m, NULL) == v0 && v0 == 1 && vmas(&m, " hg") == 0);
}

/* No layer at all. */
static void child_empty(void)
{
	struct vmm m = vmm_start(RAM_PAGES);

	for (uint64_t i = 0; i < RAM_PAGES; i++)
		check(page_zero(&m, i));
	memset(m.ram, 1, RAM_PAGES * P);
	check(give(&m, 0, RAM_PAGES, MADV_DONTNEED) == 0);
	check(page_zero(&m, 0) && vmas(&m, NULL) == 1);
}

/* Without a plan nothing is different. */
static void child_inert(void)
{
	char *p;

	check(open(PLAN_PATH, O_RDWR) < 0 && errno == ENOENT);
	p = mmap(NULL, 2 * P, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(p != MAP_FAILED);
	p[0] = 1;
	check(madvise(p, 2 * P, MADV_DONTNEED) == 0 && p[0] == 0);
}

static void child_bad(void)
{
}

/* ---- the parent: the daemon ---- */

static const struct story stories[] = {
	{ "contents", child_contents }, { "unfixed", child_unfixed },
	{ "populate", child_populate }, { "refusals", child_refusals },
	{ "discard", child_discard },   { "gaps", child_gaps },
	{ "splits", child_splits },     { "threads", child_threads },
	{ "shared", child_shared },     { "empty", child_empty },
	{ "inert", child_inert },       { "bad", child_bad },
	{ "exact", child_exact },
};

static void child_exec(const char *story, int plan_fd, int layer_fd, int err_fd)
{
	static char preload[PATH_MAX + 16] = "LD_PRELOAD=";
	static char plan[] = PLAN_ENV "=100", layer[] = PLAN_ENV_LAYER "=101";
	/* The sanitizers like to be first; here the shim is. */
	static char asan[] = "ASAN_OPTIONS=verify_asan_link_order=0";
	char self[] = "/proc/self/exe", name[32];
	char *argv[] = { self, name, NULL };
	char *env[5] = { preload, asan };
	int n = 2;

	shim_path(preload + strlen(preload));
	snprintf(name, sizeof(name), "%s", story);
	if (plan_fd >= 0) {
		check(dup2(plan_fd, FD_PLAN) == FD_PLAN);
		env[n++] = plan;
	}
	if (layer_fd >= 0) {
		check(dup2(layer_fd, FD_LAYER) == FD_LAYER);
		env[n++] = layer;
	}
	if (err_fd >= 0)
		check(dup2(err_fd, STDERR_FILENO) == STDERR_FILENO);
	execve(self, argv, env);
	_exit(126);
}

/* Returns the exit code. */
static int run(const char *story, int plan_fd, int layer_fd, int err_fd)
{
	pid_t pid = fork();

	check(pid >= 0);
	if (pid == 0)
		child_exec(story, plan_fd, layer_fd, err_fd);
	return finish(pid, story);
}

struct layer {
	int fd; /* for us */
	int ro_fd; /* for VMMs that restore */
};

/* @first: pages before it stay holes. */
static struct layer layer_new(uint64_t pages, uint64_t first)
{
	struct layer l = { .fd = -1, .ro_fd = -1 };
	char dir[64], path[80];

	test_dir(dir, sizeof(dir));
	snprintf(path, sizeof(path), "%s/layer", dir);
	l.fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	l.ro_fd = open(path, O_RDONLY | O_CLOEXEC);
	check(l.fd >= 0 && l.ro_fd >= 0);
	check(unlink(path) == 0 && rmdir(dir) == 0);
	check(ftruncate(l.fd, (off_t)(pages * P)) == 0);
	for (uint64_t i = first; i < pages; i++) {
		uint64_t v = mark(i);

		check(pwrite(l.fd, &v, 8, (off_t)(i * P)) == 8);
		check(pwrite(l.fd, &v, 8, (off_t)((i + 1) * P - 8)) == 8);
	}
	return l;
}

static void layer_close(struct layer *l)
{
	fd_close(&l->fd);
	fd_close(&l->ro_fd);
}

static int populated_plan(void)
{
	struct plan *p = usual_plan();

	check(plan_populate(p, 10 * P, 10 * P) == 0);
	check(plan_populate(p, 700 * P, 2 * P) == 0);
	return finish_plan(p);
}

/* Nothing populated. */
static int exact_plan(void)
{
	struct err e = ERR_NULL;
	struct plan *p = NULL;

	check(plan_new(PLAN_PRIVATE, RAM_PAGES * P, &p, &e) == 0);
	check(plan_add(p, PLAN_ZERO, LAYER_B * P, 0) == 0);
	check(plan_add(p, PLAN_LAYER, (RAM_PAGES - LAYER_B) * P,
		       OFFSET_B * P) == 0);
	plan_set_exact(p);
	return finish_plan(p);
}

static int one_extent_plan(enum plan_mode mode, enum plan_kind kind,
			   uint64_t pages)
{
	struct err e = ERR_NULL;
	struct plan *p = NULL;

	check(plan_new(mode, pages * P, &p, &e) == 0);
	check(plan_add(p, kind, pages * P, 0) == 0);
	return finish_plan(p);
}

static void test_private(void)
{
	static const char *const names[] = { "contents", "unfixed", "populate",
					     "refusals", "discard", "gaps",
					     "threads" };
	struct layer l = layer_new(LAYER_PAGES, 0);
	char before[DIGEST_HEX], after[DIGEST_HEX];
	struct err e = ERR_NULL;

	check(digest_of_fd(l.fd, before, &e) == 0);
	for (size_t i = 0; i < nitems(names); i++) {
		guard_fd int fd = populated_plan();

		check(run(names[i], fd, l.ro_fd, -1) == 0);
		check(digest_of_fd(l.fd, after, &e) == 0);
		check_str(after, before);
	}
	layer_close(&l);
}

static void test_exact(void)
{
	struct layer l = layer_new(LAYER_PAGES, 0);
	guard_fd int fd = exact_plan();

	check(run("exact", fd, l.ro_fd, -1) == 0);
	layer_close(&l);
}

static void test_splits(void)
{
	struct layer l = layer_new(SPLIT_PAGES, PLAN_SPLITS_MAX - 4);
	guard_fd int fd =
		one_extent_plan(PLAN_PRIVATE, PLAN_LAYER, SPLIT_PAGES);

	check(run("splits", fd, l.ro_fd, -1) == 0);
	layer_close(&l);
}

static void test_shared(void)
{
	struct layer l = layer_new(RAM_PAGES, 0);
	guard_fd int fd = one_extent_plan(PLAN_SHARED, PLAN_LAYER, RAM_PAGES);
	uint64_t v = 0;

	check(run("shared", fd, l.fd, -1) == 0);
	check(pread(l.fd, &v, 8, 6 * P) == 8 && v == 0x6666666666666666ull);
	check(pread(l.fd, &v, 8, 7 * P) == 8 && v == 0);
	check(pread(l.fd, &v, 8, 8 * P) == 8 && v == 0);
	check(pread(l.fd, &v, 8, 9 * P) == 8 && v == mark(9));
	layer_close(&l);
}

static void test_empty(void)
{
	guard_fd int fd = one_extent_plan(PLAN_PRIVATE, PLAN_ZERO, RAM_PAGES);

	check(run("empty", fd, -1, -1) == 0);
	check(run("inert", -1, -1, -1) == 0);
}

/* ---- bad plans ---- */

/* A plan that can be spoilt: not sealed. */
static int loose_plan(void)
{
	guard_fd int from = populated_plan();
	int fd = memfd_create("bad", MFD_CLOEXEC);
	struct stat st = { 0 };
	guard_free char *text = NULL;

	check(fd >= 0 && fstat(from, &st) == 0);
	text = malloc((size_t)st.st_size);
	check(text);
	check(pread(from, text, (size_t)st.st_size, 0) == st.st_size);
	check(pwrite(fd, text, (size_t)st.st_size, 0) == st.st_size);
	return fd;
}

struct spoil {
	const char *complaint;
	size_t at;
	uint64_t value;
	size_t len;
};

#define HEAD(field, v, text)                                      \
	{                                                         \
		text, offsetof(struct gmem_plan, field), v,       \
			sizeof(((struct gmem_plan *)NULL)->field) \
	}
#define EXTENT(i, field, v, text)                                        \
	{                                                                \
		text,                                                    \
			PLAN_HEADER + (i) * sizeof(struct gmem_extent) + \
				offsetof(struct gmem_extent, field),     \
			v, sizeof(((struct gmem_extent *)NULL)->field)   \
	}

static const struct spoil spoils[] = {
	HEAD(magic, 1, "magic"),
	HEAD(version, 9, "version 9"),
	HEAD(version, 1, "version 1"),
	HEAD(mode, 7, "mode 7"),
	HEAD(flags, 4, "flags 0x4"),
	HEAD(flags, PLAN_EXACT | PLAN_STREAMED, "exact, and"),
	HEAD(flags, PLAN_STREAMED, "streamed, but"),
	HEAD(ram_bytes, 0, "bytes of RAM"),
	HEAD(ram_bytes, RAM_PAGES *P + 1, "bytes of RAM"),
	HEAD(ram_bytes, UINT64_MAX / P * P, "bytes of RAM"),
	HEAD(ram_bytes, (RAM_PAGES + 1) * P, "extent 4: missing"),
	HEAD(ram_bytes, (RAM_PAGES - 1) * P, "extent 3: length"),
	HEAD(n_extents, UINT32_MAX, "extents"),
	HEAD(n_extents, PLAN_EXTENTS_MAX, "extents"),
	HEAD(n_extents, 3, "extent 3: missing"),
	HEAD(n_extents, 0, "extent 0: missing"),
	HEAD(n_populate, UINT32_MAX, "populate"),
	HEAD(bitmap_offset, 0, "bitmap"),
	HEAD(bitmap_offset, PLAN_HEADER, "bitmap"),
	HEAD(bitmap_offset, UINT64_MAX - 7, "bitmap"),
	HEAD(populate_offset, UINT64_MAX - 7, "populate"),
	HEAD(populate_offset, 3 * P + 1, "populate"),
	HEAD(total_bytes, 3 * P, "bytes of"),
	HEAD(mode, PLAN_SHARED, "extent 0: not the layer"),
	EXTENT(0, start, P, "extent 0: begins"),
	EXTENT(2, start, 20 * P, "extent 2: begins"),
	EXTENT(1, len, 0, "extent 1: length"),
	EXTENT(1, len, P - 1, "extent 1: length"),
	EXTENT(1, len, UINT64_MAX / P * P, "extent 1: length"),
	EXTENT(1, len, (ZERO_B - LAYER_A - 1) * P, "extent 2: begins"),
	EXTENT(1, kind, 2, "extent 1: kind"),
	EXTENT(1, layer, 1, "extent 1: no layer 1"),
	EXTENT(3, offset, 7, "extent 3: offset"),
	EXTENT(3, offset, (LAYER_PAGES - 1) * P, "extent 3: offset"),
	EXTENT(3, offset, UINT64_MAX / P * P, "extent 3: offset"),
};

/* The child must end at once, say why, and leave a report if it can. */
static void expect_bad(int plan_fd, int layer_fd, const char *complaint)
{
	guard_fd int err_fd = memfd_create("stderr", MFD_CLOEXEC);

	check(err_fd >= 0);
	check(run("bad", plan_fd, layer_fd, err_fd) == EXIT_BAD_PLAN);
	check_complaint(err_fd, complaint);
}

static void test_bad(void)
{
	struct layer l = layer_new(LAYER_PAGES, LAYER_PAGES);
	guard_fd int good = populated_plan(), bake = -1, empty = -1;
	int64_t error = 0;

	for (size_t i = 0; i < nitems(spoils); i++) {
		const struct spoil *s = &spoils[i];
		guard_fd int fd = loose_plan();

		check(pwrite(fd, &s->value, s->len, (off_t)s->at) ==
		      (ssize_t)s->len);
		expect_bad(fd, l.ro_fd, s->complaint);
		check(pread(fd, &error, sizeof(error),
			    offsetof(struct gmem_plan, report.error)) ==
		      sizeof(error));
		check(i == 0 ? error == 0 : error < 0);
	}
	check(run("bad", good, l.ro_fd, -1) == 0);

	expect_bad(good, -1, "extent 1: no layer");
	empty = memfd_create("empty", MFD_CLOEXEC);
	expect_bad(empty, l.ro_fd, "only 0 bytes");
	bake = one_extent_plan(PLAN_SHARED, PLAN_LAYER, RAM_PAGES);
	expect_bad(bake, l.ro_fd, "not open for writing");
	layer_close(&l);
}

int main(int argc, char **argv)
{
	if (story_played(stories, nitems(stories), argc, argv))
		return 0;
	test_private();
	test_exact();
	test_splits();
	test_shared();
	test_empty();
	test_bad();
	return 0;
}
