/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streamed plans: the shim in a process that behaves like QEMU, this process
 * as daemon and pager
 *
 * For each story this program starts itself again with the shim preloaded. The
 * child plays the VMM and checks what the guest would see; the parent fills the
 * layer's missing pages as events ask for them, and counts those, in memory that
 * the child sees too. A page is filled before its toucher goes on, so the child
 * knows how many events a touch has raised.
 */
#include "gmem/test_shim.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* More fds of the child. */
#define FD_SHARED 102
#define FD_SHIM 103
#define FD_DEV 104
#define FD_SOCK 105
#define FD_UFFD 106
#define NOBODY 65534u

/* The layer's odd pages are missing, and so is all behind HALF. */
#define HALF 800
/* Populated: missing pages, before the guest runs. */
#define POPULATED 1000
#define POPULATED_PAGES 4

#define FAULT_MS 5000
#define QUIET_MS 200

struct shared {
	_Atomic uint64_t events;
	_Atomic uint64_t go; /* the child may go on, or the parent */
	_Atomic uint64_t evict; /* a page of the layer; 0: none, or done */
};

static struct shared *shared_map(int fd)
{
	void *p = mmap(NULL, P, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	check(p != MAP_FAILED);
	return p;
}

static void wait_for(_Atomic uint64_t *at, uint64_t value)
{
	for (int i = 0; i < FAULT_MS && atomic_load(at) != value; i++)
		usleep(1000);
	check(atomic_load(at) == value);
}

static bool missing_at_first(uint64_t page)
{
	uint64_t n = layer_page(page);

	return n && (n % 2 || n >= HALF) &&
	       !(page >= POPULATED && page < POPULATED + POPULATED_PAGES);
}

/* ---- the child: a VMM ---- */

static int give(const struct vmm *m, uint64_t page, uint64_t n)
{
	return madvise(m->ram + page * P, n * P, MADV_DONTNEED);
}

static uint64_t events(const struct vmm *m)
{
	return atomic_load(&m->shared->events);
}

static struct vmm vmm_start(void)
{
	struct err e = ERR_NULL;
	struct vmm m = { .fd = -1,
			 .pages = RAM_PAGES,
			 .shared = shared_map(FD_SHARED) };
	guard_fd int fd = -1;

	check(!getenv(PLAN_ENV_UFFD) && !getenv(PLAN_ENV_UFFD_SOCK) &&
	      !getenv(PLAN_ENV_UFFD_DEV));
	check(plan_view_open(FD_PLAN, RAM_PAGES * P, &m.view, &e) == 0);
	fd = open(PLAN_PATH, O_RDWR);
	check(fd >= 0 && fd != FD_UFFD);
	m.ram = mmap(NULL, RAM_PAGES * P, PROT_READ | PROT_WRITE, MAP_SHARED,
		     fd, 0);
	check(m.ram != MAP_FAILED);
	check(plan_view_report(&m.view).ram_addr == (uintptr_t)m.ram);
	check(plan_view_report(&m.view).error == 0);
	check(madvise(m.ram, RAM_PAGES * P, MADV_DONTDUMP) == 0);
	check(madvise(m.ram, RAM_PAGES * P, MADV_HUGEPAGE) == 0);
	check(madvise(m.ram, RAM_PAGES * P, MADV_DONTFORK) == 0);
	check(vmas(&m, NULL) == 4);
	return m;
}

static void check_fds(void)
{
	char is[64] = "";

	check(fcntl(FD_SOCK, F_GETFD) < 0 && errno == EBADF);
	check(fcntl(FD_DEV, F_GETFD) < 0 && errno == EBADF);
	check(fcntl(FD_UFFD, F_GETFD) & FD_CLOEXEC);
	check(readlink("/proc/self/fd/106", is, sizeof(is) - 1) > 0);
	check_str(is, "anon_inode:[userfaultfd]");
}

/* Every page once; in a new layer, the missing ones come by events. */
static void child_read(const struct vmm *m, bool fresh)
{
	uint64_t n0 = events(m);

	for (uint64_t i = 0; i < RAM_PAGES; i++) {
		uint64_t n = layer_page(i), before = events(m);

		check(n ? page_is(m, i, mark(n)) : page_zero(m, i));
		check(events(m) - before == (fresh && missing_at_first(i)));
	}
	check(fresh || events(m) == n0);
	check(vmas(m, NULL) == 4);
}

static void child_fresh(void)
{
	struct vmm m = vmm_start();
	uint64_t n, entry;
	guard_fd int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	check_fds();
	/* populated with the pager's help */
	check(events(&m) == POPULATED_PAGES);
	for (uint64_t i = POPULATED; i < POPULATED + POPULATED_PAGES; i++) {
		check(pread(pagemap, &entry, 8,
			    (off_t)((uintptr_t)m.ram / P + i) * 8) == 8);
		check(entry >> 63 & 1 && entry >> 61 & 1);
	}
	child_read(&m, true);
	n = events(&m);
	/* writing makes it the guest's own */
	memset(m.ram, 0x5a, RAM_PAGES * P);
	check(page_is(&m, LAYER_A, 0x5a5a5a5a5a5a5a5aull));
	check(events(&m) == n);
}

/* All that the first guest fetched is there for the second. */
static void child_second(void)
{
	struct vmm m = vmm_start();

	check(events(&m) == 0);
	child_read(&m, false);
	check(events(&m) == 0);
}

/* The kernel touches missing pages, as KVM and vhost would. */
static void child_kernel(void)
{
	struct vmm m = vmm_start();
	uint64_t n0 = events(&m), odd = LAYER_A + 1, v = 0;
	int ends[2];

	check(pipe2(ends, O_CLOEXEC) == 0);
	check(missing_at_first(odd) && missing_at_first(odd + 2));
	check(write(ends[1], m.ram + odd * P, 8) == 8);
	check(events(&m) == n0 + 1);
	check(read(ends[0], m.ram + (odd + 2) * P, 8) == 8);
	check(events(&m) == n0 + 2);
	memcpy(&v, m.ram + (odd + 2) * P, 8);
	check(v == mark(layer_page(odd)));
	memcpy(&v, m.ram + (odd + 3) * P - 8, 8);
	check(v == mark(layer_page(odd + 2)));
}

/* Discarded is discarded: also when the layer's page went, and came again for
 * somebody else. */
static void child_evicted(void)
{
	struct vmm m = vmm_start();
	uint64_t n0 = events(&m), page = LAYER_A + 100;

	check(!missing_at_first(page) && !missing_at_first(page + 2));
	check(page_is(&m, page, mark(layer_page(page))));
	check(give(&m, page, 1) == 0 && page_zero(&m, page));
	for (uint64_t i = page; i <= page + 2; i += 2) {
		atomic_store(&m.shared->evict, layer_page(i));
		wait_for(&m.shared->evict, 0);
	}
	check(page_zero(&m, page) && events(&m) == n0);
	/* one that was not discarded comes back */
	check(page_is(&m, page + 2, mark(layer_page(page + 2))));
	check(page_zero(&m, page) && events(&m) == n0 + 1);
}

static void child_discard(void)
{
	struct vmm m = vmm_start();
	uint64_t n0 = events(&m), even = LAYER_A + 100, odd = even + 101;

	check(!missing_at_first(even) && missing_at_first(odd));
	/* present and untouched; present and mapped; dirty */
	check(page_is(&m, even + 2, mark(layer_page(even + 2))));
	memset(m.ram + (even + 4) * P, 1, P);
	for (uint64_t i = even; i <= even + 4; i += 2) {
		check(give(&m, i, 1) == 0 && page_zero(&m, i));
		check(is_surrendered(&m, i) && !is_surrendered(&m, i + 1));
	}
	check(page_is(&m, even + 6, mark(layer_page(even + 6))));
	/* missing: nobody need fetch it, whether it is read or written */
	check(give(&m, odd, 1) == 0 && page_zero(&m, odd));
	check(give(&m, odd + 2, 1) == 0);
	m.ram[(odd + 2) * P] = 7;
	check(m.ram[(odd + 2) * P] == 7 && m.ram[(odd + 2) * P + 1] == 0);
	/* again */
	check(give(&m, odd + 2, 1) == 0 && page_zero(&m, odd + 2));
	check(give(&m, odd + 2, 1) == 0 && page_zero(&m, odd + 2));
	check(madvise(m.ram + odd * P, P, MADV_WILLNEED) == 0);
	check(!is_surrendered(&m, odd) && page_zero(&m, odd));
	check(events(&m) == n0);
	/* its neighbour is still missing */
	check(page_is(&m, odd + 4, mark(layer_page(odd + 4))));
	check(events(&m) == n0 + 1);

	/* mixed, then everything, over all extents */
	check(give(&m, even - 8, 64) == 0);
	for (uint64_t i = even - 8; i < even + 56; i++)
		check(page_zero(&m, i));
	memset(m.ram, 3, LAYER_A * P);
	check(give(&m, 0, RAM_PAGES) == 0);
	for (uint64_t i = 0; i < RAM_PAGES; i++)
		check(page_zero(&m, i) && is_surrendered(&m, i));
	check(events(&m) == n0 + 1);
	check(plan_view_report(&m.view).split_refused == 0);
}

/* ---- discards under the eyes of vCPUs ---- */

#define ROUNDS 3000
#define RACE_FROM (LAYER_A + 64)
#define RACE_PAGES 64

static _Atomic bool race_over;

/* Reads what is being discarded, and its neighbours. */
static void *racer(void *arg)
{
	const struct vmm *m = arg;
	volatile char *p = m->ram;
	unsigned sum = 0;

	while (!atomic_load(&race_over))
		for (uint64_t i = 0; i < RACE_PAGES; i++)
			sum += (unsigned)p[(RACE_FROM + i) * P];
	return sum == 1 ? arg : NULL;
}

static void child_race(void)
{
	struct vmm m = vmm_start();
	unsigned seed = 1;
	pthread_t t[2];

	for (size_t i = 0; i < nitems(t); i++)
		check(pthread_create(&t[i], NULL, racer, &m) == 0);
	for (int round = 0; round < ROUNDS; round++) {
		uint64_t n = 1 + (uint64_t)rand_r(&seed) % 8;
		uint64_t at =
			RACE_FROM + (uint64_t)rand_r(&seed) % (RACE_PAGES - n);

		memset(m.ram + at * P, 1, P);
		check(give(&m, at, n) == 0);
		for (uint64_t i = at; i < at + n; i++)
			check(page_zero(&m, i));
	}
	atomic_store(&race_over, true);
	for (size_t i = 0; i < nitems(t); i++)
		check(pthread_join(t[i], NULL) == 0);
}

/* ---- a pager that dies ---- */

static void *toucher(void *arg)
{
	struct vmm *m = arg;

	check(page_is(m, LAYER_A + 1, mark(layer_page(LAYER_A + 1))));
	atomic_store(&m->shared->go, 3);
	return NULL;
}

static void child_frozen(void)
{
	struct vmm m = vmm_start();
	pthread_t t;

	check(pthread_create(&t, NULL, toucher, &m) == 0);
	check(pthread_join(t, NULL) == 0);
}

static void child_bad(void)
{
	guard_fd int fd = open(PLAN_PATH, O_RDWR);

	check(mmap(NULL, RAM_PAGES * P, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		   0) != MAP_FAILED);
}

static void child_unarmed(void)
{
	check(fcntl(FD_SOCK, F_GETFD) < 0 && fcntl(FD_DEV, F_GETFD) < 0);
}

static const struct story stories[] = {
	{ "fresh", child_fresh },     { "second", child_second },
	{ "kernel", child_kernel },   { "discard", child_discard },
	{ "race", child_race },       { "frozen", child_frozen },
	{ "bad", child_bad },         { "unarmed", child_unarmed },
	{ "evicted", child_evicted },
};

/* ---- the parent: starting one ---- */

static int shim_fd = -1, dev_fd = -1;

/* By fd: others may not reach the path. */
static void shim_find(void)
{
	char path[PATH_MAX];

	shim_path(path);
	shim_fd = open(path, O_RDONLY | O_CLOEXEC);
	check(shim_fd >= 0);
}

/* What a child gets; -1: neither the fd nor its variable. */
struct setup {
	const char *story;
	int plan, layer, shared, dev, sock, err;
	const char *uffd_env; /* "106" when all is right */
	bool no_place; /* nothing is open at that number */
	bool nobody; /* unprivileged */
};

static void child_exec(const struct setup *s)
{
	static char preload[] = "LD_PRELOAD=/proc/self/fd/103";
	static char plan[] = PLAN_ENV "=100", layer[] = PLAN_ENV_LAYER "=101";
	static char dev[] = PLAN_ENV_UFFD_DEV "=104";
	static char sock[] = PLAN_ENV_UFFD_SOCK "=105";
	static char uffd[64];
	/* The sanitizers like to be first; here the shim is. */
	static char asan[] = "ASAN_OPTIONS=verify_asan_link_order=0";
	char self[] = "/proc/self/exe", name[32];
	char *argv[] = { self, name, NULL };
	char *env[8] = { preload, asan, plan, layer };
	int n = 4;

	snprintf(name, sizeof(name), "%s", s->story);
	check(dup2(shim_fd, FD_SHIM) == FD_SHIM);
	check(dup2(s->plan, FD_PLAN) == FD_PLAN);
	check(dup2(s->layer, FD_LAYER) == FD_LAYER);
	if (s->shared >= 0)
		check(dup2(s->shared, FD_SHARED) == FD_SHARED);
	if (s->dev >= 0) {
		check(dup2(s->dev, FD_DEV) == FD_DEV);
		env[n++] = dev;
	}
	if (s->sock >= 0) {
		check(dup2(s->sock, FD_SOCK) == FD_SOCK);
		env[n++] = sock;
	}
	if (s->uffd_env) {
		snprintf(uffd, sizeof(uffd), PLAN_ENV_UFFD "=%s", s->uffd_env);
		env[n++] = uffd;
	}
	if (!s->no_place)
		check(dup2(STDIN_FILENO, FD_UFFD) == FD_UFFD);
	if (s->err >= 0)
		check(dup2(s->err, STDERR_FILENO) == STDERR_FILENO);
	if (s->nobody)
		check(setresgid(NOBODY, NOBODY, NOBODY) == 0 &&
		      setresuid(NOBODY, NOBODY, NOBODY) == 0);
	execve(self, argv, env);
	_exit(126);
}

static pid_t start(const struct setup *s)
{
	pid_t pid = fork();

	check(pid >= 0);
	if (pid == 0)
		child_exec(s);
	return pid;
}

/* ---- the parent: a pager ---- */

static void layer_fill(int fd, uint64_t n)
{
	uint64_t v = mark(n);

	/* One write: a page with only its head would be there already. */
	char page[P] = { 0 };

	memcpy(page, &v, 8);
	memcpy(page + P - 8, &v, 8);
	check(pwrite(fd, page, P, (off_t)(n * P)) == P);
}

/* A memfd that has the even pages of its first HALF. */
static int layer_new(void)
{
	int fd = memfd_create("layer", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	check(fd >= 0 && ftruncate(fd, (off_t)(LAYER_PAGES * P)) == 0);
	check(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) == 0);
	check(fchmod(fd, 0400) == 0);
	for (uint64_t i = 0; i < HALF; i += 2)
		layer_fill(fd, i);
	return fd;
}

static int read_only(int fd)
{
	char path[64];
	int ro;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	check(ro >= 0);
	return ro;
}

static int stream_plan(bool streamed)
{
	struct plan *p = usual_plan();

	check(plan_populate(p, POPULATED * P, POPULATED_PAGES * P) == 0);
	if (streamed)
		plan_set_streamed(p);
	return finish_plan(p);
}

struct pager {
	int layer; /* writable */
	int layer_ro;
	int shared_fd;
	struct shared *shared;
	int sock[2];
	struct gmem_handover h;
	int uffd;
};

static void pager_open(struct pager *g, int layer)
{
	g->layer = layer;
	g->layer_ro = read_only(layer);
	g->shared_fd = memfd_create("shared", MFD_CLOEXEC);
	check(g->shared_fd >= 0 && ftruncate(g->shared_fd, P) == 0);
	g->shared = shared_map(g->shared_fd);
	g->uffd = -1;
	check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, g->sock) ==
	      0);
}

static void pager_close(struct pager *g)
{
	munmap(g->shared, P);
	fd_close(&g->layer_ro);
	fd_close(&g->shared_fd);
	fd_close(&g->sock[0]);
	fd_close(&g->sock[1]);
	fd_close(&g->uffd);
}

static pid_t pager_start(struct pager *g, const char *story, bool nobody)
{
	guard_fd int plan = stream_plan(true);
	struct setup s = { .story = story,
			   .plan = plan,
			   .layer = g->layer_ro,
			   .shared = g->shared_fd,
			   .dev = dev_fd,
			   .sock = g->sock[1],
			   .err = -1,
			   .uffd_env = "106",
			   .nobody = nobody };
	struct err e = ERR_NULL;
	struct pollfd p = { .fd = g->sock[0], .events = POLLIN };
	pid_t pid;

	check(plan_handover_receive(g->sock[0], &g->h, &g->uffd, &e) ==
	      -EAGAIN);
	pid = start(&s);
	fd_close(&g->sock[1]);
	check(poll(&p, 1, FAULT_MS) == 1);
	if (plan_handover_receive(g->sock[0], &g->h, &g->uffd, &e) < 0)
		test_failed(e.msg, __FILE__, __LINE__);
	check(g->h.ram_bytes == RAM_PAGES * P);
	check(fcntl(g->uffd, F_GETFD) & FD_CLOEXEC);
	return pid;
}

/* The guest's page of the next event; -1 when none came. */
static int64_t pager_next(struct pager *g, int timeout_ms)
{
	struct pollfd p = { .fd = g->uffd, .events = POLLIN };
	struct uffd_msg msg = { 0 };
	uint64_t at;

	if (poll(&p, 1, timeout_ms) == 0)
		return -1;
	/* The process may be ending, or the page be there meanwhile. */
	if (read(g->uffd, &msg, sizeof(msg)) != sizeof(msg))
		return -1;
	check(msg.event == UFFD_EVENT_PAGEFAULT);
	at = msg.arg.pagefault.address - g->h.ram_addr;
	check(at < RAM_PAGES * P);
	return (int64_t)(at / P);
}

static void pager_wake(struct pager *g, uint64_t page, uint64_t n)
{
	struct uffdio_range r = { .start = g->h.ram_addr + page * P,
				  .len = n * P };

	check(ioctl(g->uffd, UFFDIO_WAKE, &r) == 0 || errno == ESRCH);
}

static void pager_fill(struct pager *g, uint64_t page)
{
	uint64_t n = layer_page(page);

	check(n > 0); /* zero extents are not armed */
	layer_fill(g->layer, n);
	atomic_fetch_add(&g->shared->events, 1);
	pager_wake(g, page, 1);
}

static void pager_evict(struct pager *g)
{
	uint64_t n = atomic_load(&g->shared->evict);

	if (!n)
		return;
	check(fallocate(g->layer, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			(off_t)(n * P), P) == 0);
	atomic_store(&g->shared->evict, 0);
}

static void pager_serve(struct pager *g, pid_t pid)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	int64_t page;

	check(pidfd >= 0);
	while (poll(&p, 1, 0) == 0) {
		pager_evict(g);
		page = pager_next(g, 20);
		if (page >= 0)
			pager_fill(g, (uint64_t)page);
	}
	close(pidfd);
}

static void run_story(const char *story, int layer, bool nobody)
{
	struct pager g = { 0 };
	pid_t pid;
	int code;

	pager_open(&g, layer);
	pid = pager_start(&g, story, nobody);
	pager_serve(&g, pid);
	code = finish(pid, story);
	if (code)
		fprintf(stderr, "story %s: exit %d\n", story, code);
	check(code == 0);
	pager_close(&g);
}

/* Whatever guests did, the layer holds what the pager wrote, or nothing. */
static void layer_check(int fd)
{
	for (uint64_t i = 0; i < LAYER_PAGES; i++) {
		uint64_t v = 0;

		check(pread(fd, &v, 8, (off_t)(i * P)) == 8);
		check(v == mark(i) || v == 0);
	}
}

static void test_stories(bool nobody)
{
	static const char *const names[] = { "kernel", "discard", "evicted",
					     "race" };
	guard_fd int first = layer_new();

	run_story("fresh", first, nobody);
	run_story("second", first, nobody);
	layer_check(first);
	for (size_t i = 0; i < nitems(names); i++) {
		guard_fd int layer = layer_new();

		run_story(names[i], layer, nobody);
		layer_check(layer);
	}
}

/* A pager that took an event and died: the guest waits, and a new one gets the
 * userfaultfd from the VMM, and the event again. */
static void test_frozen(bool nobody)
{
	guard_fd int layer = layer_new();
	struct pager g = { 0 };
	pid_t pid;
	int pidfd;

	pager_open(&g, layer);
	pid = pager_start(&g, "frozen", nobody);
	for (int i = 0; i < POPULATED_PAGES; i++)
		pager_fill(&g, (uint64_t)pager_next(&g, FAULT_MS));
	check(pager_next(&g, FAULT_MS) == LAYER_A + 1);
	fd_close(&g.uffd);
	usleep(QUIET_MS * 1000);
	check(atomic_load(&g.shared->go) == 0);

	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	check(pidfd >= 0);
	g.uffd = (int)syscall(SYS_pidfd_getfd, pidfd, FD_UFFD, 0);
	check(g.uffd >= 0);
	pager_wake(&g, 0, RAM_PAGES);
	check(pager_next(&g, FAULT_MS) == LAYER_A + 1);
	pager_fill(&g, LAYER_A + 1);
	wait_for(&g.shared->go, 3);
	check(finish(pid, "frozen") == 0);
	close(pidfd);
	pager_close(&g);
}

/* ---- what must not start ---- */

static void expect_bad(const struct setup *s, const char *complaint)
{
	guard_fd int err_fd = memfd_create("stderr", MFD_CLOEXEC);
	struct setup with = *s;
	int64_t error = 0;

	check(err_fd >= 0);
	with.err = err_fd;
	check(finish(start(&with), s->story) == EXIT_BAD_PLAN);
	check_complaint(err_fd, complaint);
	check(pread(s->plan, &error, sizeof(error),
		    offsetof(struct gmem_plan, report.error)) == sizeof(error));
	check(error < 0);
}

static void test_bad(void)
{
	guard_fd int layer = layer_new(), ro = read_only(layer);
	guard_fd int plan = stream_plan(true), plain = stream_plan(false);
	int pair[2];
	struct setup good = { .story = "bad",
			      .plan = plan,
			      .layer = ro,
			      .shared = -1,
			      .dev = dev_fd,
			      .err = -1,
			      .uffd_env = "106" };
	struct setup s;

	check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
	good.sock = pair[1];
	s = good;
	s.sock = -1;
	expect_bad(&s, "streamed, but " PLAN_ENV_UFFD_SOCK " is not set");
	s = good;
	s.uffd_env = NULL;
	expect_bad(&s, "streamed, but " PLAN_ENV_UFFD " is not set");
	s = good;
	s.no_place = true;
	expect_bad(&s, PLAN_ENV_UFFD ": fd 106: Bad file descriptor");
	s.no_place = false;
	s.uffd_env = "x";
	expect_bad(&s, "is not an fd: 'x'");
	s.uffd_env = "2";
	expect_bad(&s, "fd 2 is in use");
	s.uffd_env = "100";
	expect_bad(&s, "fd 100 is in use");
	s.uffd_env = "101";
	expect_bad(&s, "fd 101 is in use");
	s.uffd_env = "105";
	expect_bad(&s, "fd 105 is in use");
	/* a layer that cannot be armed: not in memory */
	s = good;
	s.layer = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	check(s.layer >= 0);
	expect_bad(&s, "extent ");
	close(s.layer);
	/* nobody there to hand it to */
	close(pair[0]);
	expect_bad(&good, "hand over the userfaultfd: Broken pipe");
	/* a plan that wants none gives back what it got */
	s = good;
	s.story = "unarmed";
	s.plan = plain;
	check(finish(start(&s), s.story) == 0);
	close(pair[1]);
}

/* No device, no privilege: a sentence, not a guest without its memory. */
static void test_forbidden(void)
{
	guard_fd int layer = layer_new(), ro = read_only(layer);
	guard_fd int plan = stream_plan(true);
	guard_file FILE *f =
		fopen("/proc/sys/vm/unprivileged_userfaultfd", "re");
	struct setup s = { .story = "bad",
			   .plan = plan,
			   .layer = ro,
			   .shared = -1,
			   .dev = -1,
			   .sock = STDIN_FILENO,
			   .err = -1,
			   .uffd_env = "106",
			   .nobody = true };

	if (f && fgetc(f) == '0')
		expect_bad(&s, "make a userfaultfd: Operation not permitted");
}

static void prepare(void)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	dev_fd = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (fd < 0 && dev_fd < 0)
		test_skip("neither userfaultfd(2) nor /dev/userfaultfd here");
	fd_close(&fd);
	shim_find();
}

int main(int argc, char **argv)
{
	if (story_played(stories, nitems(stories), argc, argv))
		return 0;
	prepare();
	test_stories(false);
	test_frozen(false);
	test_bad();
	if (geteuid() == 0 && dev_fd >= 0) {
		test_stories(true);
		test_frozen(true);
	}
	if (geteuid() == 0)
		test_forbidden();
	return 0;
}
