/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shim: carries out a plan inside the VMM
 *
 * Preloaded into a stock QEMU, it stands between the VMM and the handful of
 * calls with which the VMM makes and manages its guest's memory. QEMU is told
 * "memory-backend-file,share=on,mem-path=PLAN_PATH" and believes it shares that
 * file; with x-ignore-shared its migration code then leaves the RAM alone. What
 * it gets instead is what the plan says. Without PLAN_ENV every call goes
 * straight to the kernel.
 *
 * What QEMU 7.2 does with guest memory, in this order (strace):
 *
 *	open(PLAN_PATH, O_RDWR)           -> a dup of the guest memory's fd
 *	fstat, lseek(SEEK_END), fstatfs   on that fd: it has the RAM's size
 *	mmap(NULL, ram + 4096, PROT_NONE)    not ours
 *	mmap(addr, ram, MAP_SHARED | MAP_FIXED, fd, 0)   -> the plan
 *	madvise DONTDUMP, HUGEPAGE, DONTFORK, DONTDUMP   on all of it, whatever
 *	                                  dump-guest-core and mem-merge say
 *	fallocate(fd, PUNCH_HOLE), madvise(DONTNEED)     balloon, page reporting
 *	madvise(WILLNEED)                                balloon, deflating
 *
 * The guest memory's fd. In a bake it is the layer. In a restore it is an empty
 * memfd of the RAM's size, sealed against everything: whatever the VMM does
 * with it that we did not foresee fails, and the layer is out of its reach.
 * It is recognised by inode, because QEMU may dup it.
 *
 * Restored memory. One anonymous mapping, layer extents mapped privately over
 * it. A discarded page must read as zeros afterwards. In anonymous memory
 * MADV_DONTNEED does that; in a private mapping of a file it would bring the
 * file's bytes back, so the page is replaced by an anonymous one. That splits
 * VMAs, of which a process may have 65530:
 *
 *	file file file  ->  file anon file	two more
 *	anon file file  ->  anon anon file	none: neighbours merge
 *	anon file anon  ->  anon anon anon	one or two fewer
 *
 * A layer that is still being filled (PLAN_STREAMED) is armed with a userfaultfd
 * (shim_uffd.c), and its discarded pages are replaced like any: the kernel's zero
 * page in their place would be cheaper, and is dropped with the layer's page when
 * that is evicted (tests/kernel/punch_hole_keeps_anon.c).
 *
 * Invariants
 *  1. A layer is only ever mapped MAP_PRIVATE, or shared in a bake of its own.
 *  2. `replaced` has the bit of exactly those pages of layer extents that are
 *     anonymous now. Only discards change it, under `lock`. In a streamed plan
 *     they are not armed any more, and need not be.
 *  3. `splits` is never below the number of VMAs that discards have added. At
 *     PLAN_SPLITS_MAX, or when the kernel refuses, pages are zeroed by writing:
 *     that costs their memory, but it is right.
 *  4. VMAs merge only when their flags are equal, so advice that QEMU gave for
 *     all of the RAM is given again for each replaced run (`sticky`).
 *  5. After the constructor nothing here allocates, and the constructor runs
 *     before QEMU's seccomp filter. All calls go through syscall(2): there is
 *     no next function to look up, and no order of constructors to get wrong.
 *  6. Guest memory is mapped once and lives as long as the process.
 *  7. Guest memory has no huge pages: the VMM's advice for them is dropped, and
 *     so is the host's default. One touched byte would cost 2 MiB.
 *  8. A streamed layer is armed before anything touches it, and the daemon has
 *     the userfaultfd before anything waits for a page.
 *
 * There is one of it in a process by nature: hence the static object.
 *
 * Not here: policy, the pager, any knowledge of guests.
 */
#include "gmem/plan.h"
#include "gmem/shim_uffd.h"
#include "base/uapi.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Then mmap's offset argument is in bytes, and open64 is open. */
_Static_assert(sizeof(long) == 8, "64-bit hosts only");

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* 6.1 */
#endif

/* PR_THP_DISABLE_EXCEPT_ADVISED, 6.18: include/uapi/linux/prctl.h */
#define SHIM_EXCEPT_ADVISED (1ul << 1)

#define exported __attribute__((visibility("default")))

/* What a process exits with when its plan is bad; EX_SOFTWARE. */
#define SHIM_EXIT 70

/* Advice for the whole RAM that replaced pages must be given too. */
enum {
	STICKY_DONTDUMP = 1 << 0,
	STICKY_DONTFORK = 1 << 1,
};

struct shim {
	bool active;
	struct gmem_plan *plan; /* shared with the daemon */
	const struct gmem_extent *extents;
	const struct gmem_range *populate;
	uint8_t *surrendered; /* bitmap, shared with the daemon */
	/* copies: judged once, then not read from shared memory again */
	enum plan_mode mode;
	uint32_t flags; /* of the plan */
	uint64_t ram_bytes;
	uint32_t n_extents;
	uint32_t n_populate;
	int layer_fd; /* -1: a plan without a layer */
	int ram_fd; /* what the VMM gets a dup of */
	dev_t ram_dev;
	ino_t ram_ino;
	uint8_t *replaced; /* bitmap */

	char *ram; /* NULL until mapped; atomic */
	pthread_mutex_t lock; /* discards; `splits` and `sticky` */
	uint64_t splits;
	unsigned sticky;
};

static struct shim shim = {
	.layer_fd = -1,
	.ram_fd = -1,
	.lock = PTHREAD_MUTEX_INITIALIZER,
};

/* ---- the kernel, without libc's names that we stand in for ---- */

static int sys_openat(int dir, const char *path, int flags, mode_t mode)
{
	return (int)syscall(SYS_openat, dir, path, flags, mode);
}

static void *sys_mmap(void *addr, size_t len, int prot, int flags, int fd,
		      off_t offset)
{
	/* syscall() returns -1 and sets errno: the value of MAP_FAILED */
	return (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, offset);
}

static int sys_madvise(void *addr, size_t len, int advice)
{
	return (int)syscall(SYS_madvise, addr, len, advice);
}

static int sys_fallocate(int fd, int mode, off_t offset, off_t len)
{
	return (int)syscall(SYS_fallocate, fd, mode, offset, len);
}

static uint64_t shim_now_ns(void)
{
	struct timespec ts = { 0 };

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/* ---- reading the plan ---- */

/* There is no caller to report to: main has not begun. */
void shim_refuse(uint32_t extent, int code, const char *fmt, ...)
{
	char msg[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	if (shim.plan) {
		shim.plan->report.error_extent = extent;
		shim.plan->report.error = -code;
	}
	dprintf(STDERR_FILENO, "byre-gmem: bad plan: %s\n", msg);
	_exit(SHIM_EXIT);
}

int shim_env_fd(const char *name)
{
	const char *s = getenv(name);
	char *end;
	long n;

	if (!s)
		return -1;
	errno = 0;
	n = strtol(s, &end, 10);
	if (errno || end == s || *end || n < 0 || n > 1 << 20)
		shim_refuse(0, EINVAL, "%s is not an fd: '%s'", name, s);
	if (fcntl((int)n, F_SETFD, FD_CLOEXEC) < 0)
		shim_refuse(0, errno, "%s: fd %ld: %m", name, n);
	unsetenv(name);
	return (int)n;
}

/* Is [start, start + len) made of whole pages inside [0, limit)? */
static bool span_ok(uint64_t start, uint64_t len, uint64_t limit)
{
	return start % PLAN_PAGE == 0 && len % PLAN_PAGE == 0 && len > 0 &&
	       start <= limit && len <= limit - start;
}

/* Does a table of @n items of @size lie inside the plan, behind the header? */
static bool table_ok(uint64_t offset, uint64_t n, uint64_t size, uint64_t total)
{
	return offset >= PLAN_HEADER && offset % 8 == 0 && offset <= total &&
	       n <= (total - offset) / size;
}

static void shim_check_extents(uint64_t layer_bytes)
{
	uint64_t next = 0;

	for (uint32_t i = 0; i < shim.n_extents; i++) {
		const struct gmem_extent *x = &shim.extents[i];

		if (x->start != next)
			shim_refuse(i, EINVAL,
				    "extent %u: begins at %#llx, not %#llx", i,
				    (unsigned long long)x->start,
				    (unsigned long long)next);
		if (!span_ok(x->start, x->len, shim.ram_bytes))
			shim_refuse(i, EINVAL, "extent %u: length %#llx", i,
				    (unsigned long long)x->len);
		if (x->kind >= PLAN_KIND_COUNT)
			shim_refuse(i, EINVAL, "extent %u: kind %u", i,
				    x->kind);
		if (x->kind == PLAN_LAYER) {
			if (x->layer != 0 || shim.layer_fd < 0)
				shim_refuse(i, ENOENT, "extent %u: no layer %u",
					    i, x->layer);
			if (!span_ok(x->offset, x->len, layer_bytes))
				shim_refuse(
					i, ERANGE,
					"extent %u: offset %#llx of a layer of %#llx",
					i, (unsigned long long)x->offset,
					(unsigned long long)layer_bytes);
		}
		/* The VMM maps a bake's file itself, as it is. */
		if (shim.mode == PLAN_SHARED &&
		    (x->kind != PLAN_LAYER || x->offset != x->start))
			shim_refuse(i, EINVAL,
				    "extent %u: not the layer as it is", i);
		next = x->start + x->len;
	}
	if (next != shim.ram_bytes)
		shim_refuse(shim.n_extents, EINVAL,
			    "extent %u: missing, at %#llx of %#llx",
			    shim.n_extents, (unsigned long long)next,
			    (unsigned long long)shim.ram_bytes);
	for (uint32_t i = 0; i < shim.n_populate; i++)
		if (!span_ok(shim.populate[i].start, shim.populate[i].len,
			     shim.ram_bytes))
			shim_refuse(0, EINVAL, "populate range %u", i);
}

static void shim_map_plan(int fd)
{
	struct gmem_plan head = { 0 };
	struct stat st = { 0 };
	uint64_t total;
	void *p;

	if (fstat(fd, &st) < 0)
		shim_refuse(0, errno, "fstat: %m");
	if (st.st_size < PLAN_HEADER)
		shim_refuse(0, EINVAL, "only %lld bytes",
			    (long long)st.st_size);
	p = sys_mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE,
		     MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		shim_refuse(0, errno, "mmap: %m");

	memcpy(&head, p, sizeof(head));
	if (head.magic != PLAN_MAGIC)
		shim_refuse(0, EINVAL, "magic %#llx",
			    (unsigned long long)head.magic);
	/* From here on there is a report to write to. */
	shim.plan = p;
	total = head.total_bytes;
	if (head.version != PLAN_VERSION)
		shim_refuse(0, EINVAL, "version %u", head.version);
	if (total != (uint64_t)st.st_size)
		shim_refuse(0, EINVAL, "%llu bytes of %lld",
			    (unsigned long long)total, (long long)st.st_size);
	if (head.mode >= PLAN_MODE_COUNT)
		shim_refuse(0, EINVAL, "mode %u", head.mode);
	if (head.flags & ~PLAN_FLAGS)
		shim_refuse(0, EINVAL, "flags %#x", head.flags);
	if (head.mode == PLAN_SHARED && head.flags & PLAN_STREAMED)
		shim_refuse(0, EINVAL, "streamed, and shared");
	if (head.flags & PLAN_EXACT &&
	    (head.mode == PLAN_SHARED || head.flags & PLAN_STREAMED))
		shim_refuse(0, EINVAL, "exact, and shared or streamed");
	if (!span_ok(0, head.ram_bytes, PLAN_RAM_MAX))
		shim_refuse(0, EINVAL, "%llu bytes of RAM",
			    (unsigned long long)head.ram_bytes);
	if (head.n_extents > PLAN_EXTENTS_MAX ||
	    !table_ok(PLAN_HEADER, head.n_extents, sizeof(struct gmem_extent),
		      total))
		shim_refuse(0, EINVAL, "%u extents", head.n_extents);
	if (!table_ok(head.bitmap_offset, (head.ram_bytes / PLAN_PAGE + 7) / 8,
		      1, total) ||
	    head.bitmap_offset <
		    PLAN_HEADER + head.n_extents * sizeof(struct gmem_extent))
		shim_refuse(0, EINVAL, "bitmap at %#llx",
			    (unsigned long long)head.bitmap_offset);
	if (!table_ok(head.populate_offset, head.n_populate,
		      sizeof(struct gmem_range), total))
		shim_refuse(0, EINVAL, "populate list at %#llx",
			    (unsigned long long)head.populate_offset);

	shim.mode = head.mode;
	shim.flags = head.flags;
	shim.ram_bytes = head.ram_bytes;
	shim.n_extents = head.n_extents;
	shim.n_populate = head.n_populate;
	shim.extents = (const void *)((char *)p + PLAN_HEADER);
	shim.surrendered = (uint8_t *)p + head.bitmap_offset;
	shim.populate = (const void *)((char *)p + head.populate_offset);
}

/* What the VMM will hold in a restore: the right size, and nothing else. */
static int shim_stand_in(void)
{
	int fd = memfd_create("byre-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		shim_refuse(0, errno, "memfd_create: %m");
	if (ftruncate(fd, (off_t)shim.ram_bytes) < 0)
		shim_refuse(0, errno, "ftruncate: %m");
	if (fcntl(fd, F_ADD_SEALS,
		  F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
		shim_refuse(0, errno, "seal: %m");
	return fd;
}

/* Huge pages only where the VMM asks for them (which for guest memory is not
 * passed on): in the buffer of translated code they save 2,000 faults on the way
 * to a first command, some 5 ms of 75. Anywhere else one touched byte would cost
 * 2 MiB; where the host says "always" and the kernel knows only all or nothing
 * (before 6.18), it is nothing: the VMM gets 3 MiB smaller by it. */
static void shim_no_huge_pages(void)
{
	char mode[64] = "";
	int fd;

	if (prctl(PR_SET_THP_DISABLE, 1, SHIM_EXCEPT_ADVISED, 0, 0) == 0)
		return;
	fd = (int)syscall(SYS_openat, AT_FDCWD,
			  "/sys/kernel/mm/transparent_hugepage/enabled",
			  O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (read(fd, mode, sizeof(mode) - 1) < 0)
			mode[0] = '\0';
		close(fd);
	}
	if (!strstr(mode, "[madvise]") && !strstr(mode, "[never]"))
		prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
}

/* Also called by a zygote's child (src/vmm/zygote_child.c), whose plan comes
 * after it was loaded. */
exported void byre_gmem_start(void);

__attribute__((constructor)) void byre_gmem_start(void)
{
	uint64_t layer_bytes = 0;
	struct stat st = { 0 };
	int fd = shim_env_fd(PLAN_ENV);
	void *p;

	if (fd < 0)
		return;
	shim.layer_fd = shim_env_fd(PLAN_ENV_LAYER);
	shim_map_plan(fd);
	if (shim.layer_fd >= 0) {
		if (fstat(shim.layer_fd, &st) < 0)
			shim_refuse(0, errno, "layer: fstat: %m");
		layer_bytes = ((uint64_t)st.st_size + PLAN_PAGE - 1) /
			      PLAN_PAGE * PLAN_PAGE;
	}
	shim_check_extents(layer_bytes);

	if (shim.mode == PLAN_SHARED) {
		if ((fcntl(shim.layer_fd, F_GETFL) & O_ACCMODE) != O_RDWR)
			shim_refuse(0, EACCES, "layer: not open for writing");
		shim.ram_fd = shim.layer_fd;
	} else {
		shim.ram_fd = shim_stand_in();
	}
	if (fstat(shim.ram_fd, &st) < 0)
		shim_refuse(0, errno, "fstat: %m");
	shim.ram_dev = st.st_dev;
	shim.ram_ino = st.st_ino;

	p = sys_mmap(NULL, shim.ram_bytes / PLAN_PAGE / 8 + 1,
		     PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		shim_refuse(0, errno, "mmap: %m");
	shim.replaced = p;
	shim_uffd_start(shim.flags, (int[]){ fd, shim.layer_fd, shim.ram_fd },
			3);
	shim_no_huge_pages();
	shim.active = true;
}

static bool shim_is_ram_fd(int fd)
{
	struct stat st = { 0 };

	return shim.active && fd >= 0 && fstat(fd, &st) == 0 &&
	       st.st_dev == shim.ram_dev && st.st_ino == shim.ram_ino;
}

/* ---- mapping ---- */

static void shim_report_error(uint32_t extent, int code)
{
	shim.plan->report.error_extent = extent;
	shim.plan->report.error = -code;
}

static void shim_set_ram(char *ram)
{
	shim.plan->report.ram_len = shim.ram_bytes;
	__atomic_store_n(&shim.plan->report.ram_addr, (uint64_t)(uintptr_t)ram,
			 __ATOMIC_RELEASE);
	__atomic_store_n(&shim.ram, ram, __ATOMIC_RELEASE);
}

/* Before anything else can touch it: see invariant 8. */
static void shim_arm(char *ram)
{
	for (uint32_t i = 0; i < shim.n_extents; i++) {
		const struct gmem_extent *x = &shim.extents[i];

		if (x->kind != PLAN_LAYER)
			continue;
		if (shim.flags & PLAN_STREAMED)
			shim_uffd_arm(ram, x, i);
		else if (shim.flags & PLAN_EXACT)
			shim_uffd_exact(ram, x);
	}
	if (shim.flags & PLAN_STREAMED)
		shim_uffd_hand_over(ram, shim.ram_bytes);
}

/* Best effort: whatever is not mapped now will fault later. */
static void shim_populate(char *ram)
{
	uint64_t t0 = shim_now_ns();

	for (uint32_t i = 0; i < shim.n_populate; i++)
		if (sys_madvise(ram + shim.populate[i].start,
				shim.populate[i].len, MADV_POPULATE_READ) < 0)
			break;
	shim.plan->report.populate_ns = shim_now_ns() - t0;
}

/*
 * Everything anonymous first, then the layer's extents on top: half the calls,
 * and none for a zero extent. @fixed: MAP_FIXED, MAP_FIXED_NOREPLACE or 0.
 */
static void *shim_map_private(void *addr, int prot, int fixed)
{
	uint64_t t0 = shim_now_ns();
	char *ram;

	ram = sys_mmap(addr, shim.ram_bytes, prot,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | fixed, -1,
		       0);
	if (ram == MAP_FAILED) {
		shim_report_error(0, errno);
		return MAP_FAILED;
	}
	for (uint32_t i = 0; i < shim.n_extents; i++) {
		const struct gmem_extent *x = &shim.extents[i];
		void *p;
		int code;

		if (x->kind != PLAN_LAYER)
			continue;
		p = sys_mmap(ram + x->start, x->len, prot,
			     MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED,
			     shim.layer_fd, (off_t)x->offset);
		if (p == MAP_FAILED) {
			code = errno;
			shim_report_error(i, code);
			/* Leave the range as we found it: reserved or free. */
			if (fixed)
				sys_mmap(ram, shim.ram_bytes, PROT_NONE,
					 MAP_PRIVATE | MAP_ANONYMOUS |
						 MAP_NORESERVE | MAP_FIXED,
					 -1, 0);
			else
				munmap(ram, shim.ram_bytes);
			errno = code;
			return MAP_FAILED;
		}
	}
	shim_arm(ram);
	shim.plan->report.map_ns = shim_now_ns() - t0;
	shim_populate(ram);
	shim_set_ram(ram);
	return ram;
}

static void *shim_map_shared(void *addr, int prot, int flags, int fd)
{
	uint64_t t0 = shim_now_ns();
	void *ram = sys_mmap(addr, shim.ram_bytes, prot, flags, fd, 0);

	if (ram == MAP_FAILED) {
		shim_report_error(0, errno);
		return MAP_FAILED;
	}
	shim.plan->report.map_ns = shim_now_ns() - t0;
	shim_set_ram(ram);
	return ram;
}

static void *shim_mmap(void *addr, size_t len, int prot, int flags, int fd,
		       off_t offset)
{
	int type = flags & MAP_TYPE;

	if ((type != MAP_SHARED && type != MAP_SHARED_VALIDATE) ||
	    flags & MAP_ANONYMOUS || !shim_is_ram_fd(fd))
		return sys_mmap(addr, len, prot, flags, fd, offset);
	/* All of it, once; anything else would not be what the daemon thinks
	 * it is. */
	if (len != shim.ram_bytes || offset != 0) {
		errno = EINVAL;
		return MAP_FAILED;
	}
	if (shim.ram) {
		errno = EBUSY;
		return MAP_FAILED;
	}
	if (shim.mode == PLAN_SHARED)
		return shim_map_shared(addr, prot, flags, fd);
	return shim_map_private(addr, prot,
				flags & (MAP_FIXED | MAP_FIXED_NOREPLACE));
}

/* ---- discarding ---- */

static bool bit_get(const uint8_t *map, uint64_t i)
{
	return map[i / 8] >> (i % 8) & 1;
}

/* Set or clear bits of [from, to). The other side reads without a lock, so
 * each byte changes at once. */
static void bits_put(uint8_t *map, uint64_t from, uint64_t to, bool value)
{
	while (from < to) {
		uint64_t n = min(8 - from % 8, to - from);
		uint8_t mask = (uint8_t)(((1u << n) - 1) << (from % 8));

		if (value)
			__atomic_fetch_or(&map[from / 8], mask,
					  __ATOMIC_RELAXED);
		else
			__atomic_fetch_and(&map[from / 8], (uint8_t)~mask,
					   __ATOMIC_RELAXED);
		from += n;
	}
}

/* The extent that holds @offset. They cover the RAM without gaps. */
static const struct gmem_extent *shim_extent(uint64_t offset)
{
	uint32_t lo = 0, hi = shim.n_extents;

	while (hi - lo > 1) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (shim.extents[mid].start <= offset)
			lo = mid;
		else
			hi = mid;
	}
	return &shim.extents[lo];
}

static bool shim_page_anon(uint64_t page)
{
	return bit_get(shim.replaced, page) ||
	       shim_extent(page * PLAN_PAGE)->kind == PLAN_ZERO;
}

/* From @page on, how far do pages go on being anonymous, or not? At most to
 * @end, and not across extents. */
static uint64_t shim_run(uint64_t page, uint64_t end, bool *ret_anon)
{
	const struct gmem_extent *x = shim_extent(page * PLAN_PAGE);
	uint64_t i = page + 1;

	end = min(end, (x->start + x->len) / PLAN_PAGE);
	if (x->kind == PLAN_ZERO) {
		*ret_anon = true;
		return end;
	}
	*ret_anon = bit_get(shim.replaced, page);
	while (i < end && bit_get(shim.replaced, i) == *ret_anon)
		i++;
	return i;
}

/* How many VMAs replacing the file pages [from, to) adds at most. */
static int shim_split_cost(uint64_t from, uint64_t to)
{
	uint64_t pages = shim.ram_bytes / PLAN_PAGE;
	int cost = 0;

	if (from > 0)
		cost += shim_page_anon(from - 1) ? -1 : 1;
	if (to < pages)
		cost += shim_page_anon(to) ? -1 : 1;
	/* Between two anonymous VMAs the file's one is gone for certain, but
	 * the two become one only if they never got anon_vmas of their own. */
	return max(cost, -1);
}

static void shim_readvise(char *addr, uint64_t len)
{
	if (shim.sticky & STICKY_DONTDUMP)
		sys_madvise(addr, len, MADV_DONTDUMP);
	if (shim.sticky & STICKY_DONTFORK)
		sys_madvise(addr, len, MADV_DONTFORK);
}

/* Make the file pages [from, to) read as zeros. */
static void shim_replace(uint64_t from, uint64_t to)
{
	char *addr = shim.ram + from * PLAN_PAGE;
	uint64_t len = (to - from) * PLAN_PAGE;
	int cost = shim_split_cost(from, to);
	void *p = MAP_FAILED;

	if (cost <= 0 || shim.splits + (uint64_t)cost <= PLAN_SPLITS_MAX)
		p = sys_mmap(addr, len, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE |
				     MAP_FIXED,
			     -1, 0);
	if (p == MAP_FAILED) {
		memset(addr, 0, len);
		shim.plan->report.split_refused += to - from;
		return;
	}
	shim_readvise(addr, len);
	bits_put(shim.replaced, from, to, true);
	if (cost < 0 && shim.splits < (uint64_t)-cost)
		shim.splits = 0;
	else
		shim.splits += (uint64_t)(int64_t)cost;
	shim.plan->report.splits = shim.splits;
}

/* Pages [from, to), all anonymous or none. */
static int shim_discard_run(uint64_t from, uint64_t to, bool anon)
{
	if (anon)
		return sys_madvise(shim.ram + from * PLAN_PAGE,
				   (to - from) * PLAN_PAGE, MADV_DONTNEED);
	shim_replace(from, to);
	return 0;
}

static int shim_discard_private(uint64_t from, uint64_t to)
{
	while (from < to) {
		bool anon;
		uint64_t end = shim_run(from, to, &anon);

		if (shim_discard_run(from, end, anon) < 0)
			return -1;
		from = end;
	}
	return 0;
}

static int shim_discard(uint64_t offset, uint64_t len, int advice)
{
	uint64_t from = offset / PLAN_PAGE, to = (offset + len) / PLAN_PAGE;
	int r, code;

	pthread_mutex_lock(&shim.lock);
	if (shim.mode == PLAN_SHARED)
		r = sys_madvise(shim.ram + offset, len, advice);
	else
		r = shim_discard_private(from, to);
	code = errno;
	if (r == 0) {
		bits_put(shim.surrendered, from, to, true);
		shim.plan->report.discards++;
		shim.plan->report.discarded_bytes += len;
	}
	pthread_mutex_unlock(&shim.lock);
	errno = code;
	return r;
}

/* Advice that marks the mapping: remember it when it is for all of the RAM. */
static int shim_mark(char *addr, size_t len, int advice, unsigned bit)
{
	int r, code;

	pthread_mutex_lock(&shim.lock);
	r = sys_madvise(addr, len, advice);
	code = errno;
	if (r == 0 && len == shim.ram_bytes)
		shim.sticky |= bit;
	pthread_mutex_unlock(&shim.lock);
	errno = code;
	return r;
}

static int shim_madvise(char *addr, size_t len, int advice)
{
	char *ram = __atomic_load_n(&shim.ram, __ATOMIC_ACQUIRE);
	uint64_t a = (uintptr_t)addr, r = (uintptr_t)ram;
	/* The kernel rounds up, too; what overflows ends beyond every RAM. */
	uint64_t n = len > PLAN_RAM_MAX
			     ? PLAN_RAM_MAX + PLAN_PAGE
			     : (len + PLAN_PAGE - 1) / PLAN_PAGE * PLAN_PAGE;

	if (!ram || n == 0 || a >= r + shim.ram_bytes || (a < r && n <= r - a))
		return sys_madvise(addr, len, advice);
	if (a < r || a % PLAN_PAGE != 0 || n > r + shim.ram_bytes - a) {
		errno = EINVAL;
		return -1;
	}
	switch (advice) {
	case MADV_HUGEPAGE:
	case MADV_COLLAPSE:
	case MADV_MERGEABLE:
		return 0;
	case MADV_WILLNEED:
		/* The balloon gives pages back; reading ahead in a file is not
		 * what the guest needs. */
		bits_put(shim.surrendered, (a - r) / PLAN_PAGE,
			 (a - r + n) / PLAN_PAGE, false);
		return 0;
	case MADV_DONTNEED:
	case MADV_FREE:
	case MADV_REMOVE:
		return shim_discard(a - r, n, advice);
	case MADV_DONTDUMP:
		return shim_mark(addr, n, advice, STICKY_DONTDUMP);
	case MADV_DONTFORK:
		return shim_mark(addr, n, advice, STICKY_DONTFORK);
	default:
		return sys_madvise(addr, len, advice);
	}
}

static int shim_fallocate(int fd, int mode, off_t offset, off_t len)
{
	if (!shim.active || shim.mode != PLAN_PRIVATE || !shim_is_ram_fd(fd))
		return sys_fallocate(fd, mode, offset, len);
	/* Punching holes is half of QEMU's discard; here the other half,
	 * madvise(), does all there is to do. */
	if (mode & FALLOC_FL_PUNCH_HOLE)
		return 0;
	/* Seals do not stop this one: it would fill the stand-in. */
	errno = EPERM;
	return -1;
}

/* ---- the names we stand in for ---- */

static int shim_openat(int dir, const char *path, int flags, mode_t mode)
{
	if (shim.active && path && strcmp(path, PLAN_PATH) == 0)
		return fcntl(shim.ram_fd, F_DUPFD_CLOEXEC, 0);
	return sys_openat(dir, path, flags, mode);
}

/* The mode is there only when something may be created. */
#define OPEN_MODE(flags)                                 \
	({                                               \
		mode_t mode_ = 0;                        \
		if ((flags) & (O_CREAT | __O_TMPFILE)) { \
			va_list ap_;                     \
			va_start(ap_, flags);            \
			mode_ = va_arg(ap_, mode_t);     \
			va_end(ap_);                     \
		}                                        \
		mode_;                                   \
	})

exported int open(const char *path, int flags, ...)
{
	return shim_openat(AT_FDCWD, path, flags, OPEN_MODE(flags));
}

exported int open64(const char *path, int flags, ...)
{
	return shim_openat(AT_FDCWD, path, flags, OPEN_MODE(flags));
}

exported int openat(int dir, const char *path, int flags, ...)
{
	return shim_openat(dir, path, flags, OPEN_MODE(flags));
}

exported int openat64(int dir, const char *path, int flags, ...)
{
	return shim_openat(dir, path, flags, OPEN_MODE(flags));
}

/* What open() becomes under _FORTIFY_SOURCE; QEMU opens its memory with it. */
exported int __open_2(const char *path, int flags);
exported int __open64_2(const char *path, int flags);
exported int __openat_2(int dir, const char *path, int flags);
exported int __openat64_2(int dir, const char *path, int flags);

exported int __open_2(const char *path, int flags)
{
	return shim_openat(AT_FDCWD, path, flags, 0);
}

exported int __open64_2(const char *path, int flags)
{
	return shim_openat(AT_FDCWD, path, flags, 0);
}

exported int __openat_2(int dir, const char *path, int flags)
{
	return shim_openat(dir, path, flags, 0);
}

exported int __openat64_2(int dir, const char *path, int flags)
{
	return shim_openat(dir, path, flags, 0);
}

exported void *mmap(void *addr, size_t len, int prot, int flags, int fd,
		    off_t offset)
{
	return shim_mmap(addr, len, prot, flags, fd, offset);
}

exported void *mmap64(void *addr, size_t len, int prot, int flags, int fd,
		      off64_t offset)
{
	return shim_mmap(addr, len, prot, flags, fd, offset);
}

exported int madvise(void *addr, size_t len, int advice)
{
	return shim_madvise(addr, len, advice);
}

exported int fallocate(int fd, int mode, off_t offset, off_t len)
{
	return shim_fallocate(fd, mode, offset, len);
}

exported int fallocate64(int fd, int mode, off64_t offset, off64_t len)
{
	return shim_fallocate(fd, mode, offset, len);
}
