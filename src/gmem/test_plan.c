/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plans: what may be added, how it is laid out, and views of hostile ones
 */
#include "gmem/plan.h"

#include "base/fdpass.h"
#include "base/guard.h"
#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define P PLAN_PAGE

static void test_new(void)
{
	struct err e = ERR_NULL;
	struct plan *p = NULL;

	check(plan_new(PLAN_MODE_COUNT, P, &p, &e) == -EINVAL && !p);
	check(plan_new(PLAN_PRIVATE, 0, &p, &e) == -EINVAL);
	check(plan_new(PLAN_PRIVATE, P + 1, &p, &e) == -EINVAL);
	check(plan_new(PLAN_PRIVATE, PLAN_RAM_MAX + P, &p, &e) == -EINVAL);
	check(!p && e.code == EINVAL && strstr(e.msg, "guest memory"));
	check(plan_new(PLAN_PRIVATE, PLAN_RAM_MAX, &p, &e) == 0 && p);
	check(!plan_free(p));
	check(!plan_free(NULL));
}

static void test_add(void)
{
	struct err e = ERR_NULL;
	struct plan *p = NULL;
	int fd = -1;

	check(plan_new(PLAN_PRIVATE, 100 * P, &p, &e) == 0);
	check(plan_add(p, PLAN_KIND_COUNT, P, 0) == -EINVAL);
	check(plan_add(p, PLAN_ZERO, 0, 0) == -EINVAL);
	check(plan_add(p, PLAN_ZERO, P - 1, 0) == -EINVAL);
	check(plan_add(p, PLAN_LAYER, P, 1) == -EINVAL);
	check(plan_add(p, PLAN_ZERO, 101 * P, 0) == -ERANGE);
	check(plan_add(p, PLAN_ZERO, -P, 0) == -ERANGE);
	check(plan_add(p, PLAN_LAYER, 2 * P, -P) == -ERANGE);
	check(plan_add(p, PLAN_LAYER, P, INT64_MAX / P * P) == -ERANGE);
	check(plan_finish(p, &fd, &e) == -EINVAL);
	check(plan_add(p, PLAN_ZERO, 99 * P, 0) == 0);
	check(plan_finish(p, &fd, &e) == -EINVAL && fd == -1);
	check(strstr(e.msg, "405504 of 409600"));
	check(plan_add(p, PLAN_ZERO, 2 * P, 0) == -ERANGE);
	check(plan_add(p, PLAN_ZERO, P, 0) == 0);
	check(plan_add(p, PLAN_ZERO, P, 0) == -ERANGE);

	check(plan_populate(p, 0, 0) == -EINVAL);
	check(plan_populate(p, 1, P) == -EINVAL);
	check(plan_populate(p, 0, P + 1) == -EINVAL);
	check(plan_populate(p, 99 * P, 2 * P) == -ERANGE);
	check(plan_populate(p, 101 * P, P) == -ERANGE);
	check(plan_populate(p, 99 * P, P) == 0);
	plan_free(p);
}

/* A bake's plan can only be the file as it is. */
static void test_shared(void)
{
	struct err e = ERR_NULL;
	struct plan *p = NULL;
	guard_fd int fd = -1;

	check(plan_new(PLAN_SHARED, 8 * P, &p, &e) == 0);
	check(plan_add(p, PLAN_ZERO, P, 0) == -EINVAL);
	check(plan_add(p, PLAN_LAYER, P, P) == -EINVAL);
	check(plan_add(p, PLAN_LAYER, 4 * P, 0) == 0);
	check(plan_add(p, PLAN_LAYER, 4 * P, 0) == -EINVAL);
	check(plan_add(p, PLAN_LAYER, 4 * P, 4 * P) == 0);
	check(plan_finish(p, &fd, &e) == 0);
	/* and nobody else's to fill */
	plan_set_streamed(p);
	check(plan_finish(p, &fd, &e) == -EINVAL && strstr(e.msg, "streamed"));
	plan_free(p);
	/* nor to learn from */
	check(plan_new(PLAN_SHARED, P, &p, &e) == 0);
	check(plan_add(p, PLAN_LAYER, P, 0) == 0);
	plan_set_exact(p);
	check(plan_finish(p, &fd, &e) == -EINVAL && strstr(e.msg, "exact"));
	plan_free(p);
}

static void test_layout(void)
{
	static const struct gmem_extent want[] = {
		{ .start = 0, .len = 3 * P, .kind = PLAN_ZERO },
		{ .start = 3 * P,
		  .len = 4 * P,
		  .kind = PLAN_LAYER,
		  .offset = 7 * P },
		{ .start = 7 * P,
		  .len = 2 * P,
		  .kind = PLAN_LAYER,
		  .offset = 3 * P },
	};
	struct err e = ERR_NULL;
	struct plan *p = NULL;
	struct gmem_plan head = { 0 };
	struct gmem_extent got[nitems(want)];
	struct gmem_range range[2];
	guard_fd int fd = -1;
	struct stat st = { 0 };

	check(plan_new(PLAN_PRIVATE, 9 * P, &p, &e) == 0);
	/* the offset of nothing does not count */
	check(plan_add(p, PLAN_ZERO, P, 5 * P) == 0);
	check(plan_add(p, PLAN_ZERO, 2 * P, 0) == 0);
	check(plan_add(p, PLAN_LAYER, P, 7 * P) == 0);
	check(plan_add(p, PLAN_LAYER, 3 * P, 8 * P) == 0);
	check(plan_add(p, PLAN_LAYER, 2 * P, 3 * P) == 0);
	check(plan_populate(p, P, P) == 0);
	check(plan_populate(p, 2 * P, P) == 0);
	check(plan_populate(p, 8 * P, P) == 0);
	check(plan_finish(p, &fd, &e) == 0);
	plan_free(p);

	check(pread(fd, &head, sizeof(head), 0) == sizeof(head));
	check(head.magic == PLAN_MAGIC && !memcmp(&head, "byreplan", 8));
	check(head.version == PLAN_VERSION && head.mode == PLAN_PRIVATE);
	check(head.ram_bytes == 9 * P && head.flags == 0);
	check(head.n_extents == nitems(want) && head.n_populate == 2);
	check(pread(fd, got, sizeof(got), PLAN_HEADER) == sizeof(got));
	check(!memcmp(got, want, sizeof(want)));
	check(pread(fd, range, sizeof(range), (off_t)head.populate_offset) ==
	      sizeof(range));
	check(range[0].start == P && range[0].len == 2 * P);
	check(range[1].start == 8 * P && range[1].len == P);
	check(head.bitmap_offset == 2 * P && head.populate_offset == 3 * P);
	check(fstat(fd, &st) == 0 && (uint64_t)st.st_size == 4 * P);
	check(head.total_bytes == 4 * P);
	check(ftruncate(fd, P) < 0 && errno == EPERM);
	check(ftruncate(fd, 5 * P) < 0 && errno == EPERM);
	check(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) < 0);
	check(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

static void test_streamed(void)
{
	struct err e = ERR_NULL;
	struct plan *p = NULL;
	struct gmem_plan head = { 0 };
	guard_fd int fd = -1;

	check(plan_new(PLAN_PRIVATE, P, &p, &e) == 0);
	check(plan_add(p, PLAN_LAYER, P, 0) == 0);
	plan_set_streamed(p);
	check(plan_finish(p, &fd, &e) == 0);
	plan_free(p);
	check(pread(fd, &head, sizeof(head), 0) == sizeof(head));
	check(head.version == 2 && head.flags == PLAN_STREAMED);
}

/* As many as promised, and not one more. */
static void test_many(void)
{
	struct err e = ERR_NULL;
	struct plan *p = NULL;
	guard_fd int fd = -1;

	check(plan_new(PLAN_PRIVATE, (PLAN_EXTENTS_MAX + 2ull) * P, &p, &e) ==
	      0);
	for (uint32_t i = 0; i < PLAN_EXTENTS_MAX; i++)
		check(plan_add(p, i % 2 ? PLAN_LAYER : PLAN_ZERO, P, i * P) ==
		      0);
	check(plan_add(p, PLAN_ZERO, P, 0) == -E2BIG);
	/* merged: takes no room */
	check(plan_add(p, PLAN_LAYER, 2 * P, PLAN_EXTENTS_MAX * P) == 0);
	check(plan_finish(p, &fd, &e) == 0);
	plan_free(p);
}

static int make_plan(uint64_t pages)
{
	struct err e = ERR_NULL;
	struct plan *p = NULL;
	int fd = -1;

	check(plan_new(PLAN_PRIVATE, pages * P, &p, &e) == 0);
	check(plan_add(p, PLAN_ZERO, pages * P, 0) == 0);
	check(plan_finish(p, &fd, &e) == 0);
	plan_free(p);
	return fd;
}

static void test_view(void)
{
	struct err e = ERR_NULL;
	struct plan_view v = PLAN_VIEW_NULL;
	guard_fd int fd = make_plan(64);
	struct gmem_report r = { .ram_addr = 0x1000, .splits = 7 };
	uint8_t bits = 0xa5;

	check(plan_view_open(fd, 64 * P, &v, &e) == 0);
	check(plan_view_report(&v).ram_addr == 0);
	check(pwrite(fd, &r, sizeof(r), offsetof(struct gmem_plan, report)) ==
	      sizeof(r));
	check(pwrite(fd, &bits, 1, (off_t)v.head->bitmap_offset + 7) == 1);
	check(plan_view_report(&v).ram_addr == 0x1000);
	check(plan_view_report(&v).splits == 7);
	check(v.bitmap[7] == 0xa5 && v.bitmap[6] == 0);
	plan_view_close(&v);
	plan_view_close(&v);
	check(!v.head);
}

static void put(int fd, size_t at, uint64_t value, size_t len)
{
	check(pwrite(fd, &value, len, (off_t)at) == (ssize_t)len);
}

#define FIELD(fd, name, value)                               \
	put((fd), offsetof(struct gmem_plan, name), (value), \
	    sizeof(((struct gmem_plan *)NULL)->name))

/* A VMM may have written anything. */
static void test_hostile(void)
{
	struct err e = ERR_NULL;
	struct plan_view v = PLAN_VIEW_NULL;
	guard_fd int fd = make_plan(64), plain = -1;

	/* another guest's size than the daemon knows */
	check(plan_view_open(fd, 65 * P, &v, &e) == -EINVAL);
	check(plan_view_open(fd, 1, &v, &e) == -EINVAL);
	check(plan_view_open(fd, PLAN_RAM_MAX, &v, &e) == -EINVAL);
	FIELD(fd, bitmap_offset, 0);
	check(plan_view_open(fd, 64 * P, &v, &e) == -EINVAL);
	FIELD(fd, bitmap_offset, UINT64_MAX);
	check(plan_view_open(fd, 64 * P, &v, &e) == -EINVAL);
	FIELD(fd, bitmap_offset, 3 * P - 4);
	check(plan_view_open(fd, 64 * P, &v, &e) == -EINVAL);
	FIELD(fd, bitmap_offset, 3 * P - 8);
	check(plan_view_open(fd, 64 * P, &v, &e) == 0);
	plan_view_close(&v);
	FIELD(fd, version, PLAN_VERSION + 1);
	check(plan_view_open(fd, 64 * P, &v, &e) == -EINVAL);
	FIELD(fd, version, PLAN_VERSION);
	FIELD(fd, magic, 0);
	check(plan_view_open(fd, 64 * P, &v, &e) == -EINVAL);
	check(!v.head);

	plain = memfd_create("plain", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	check(plain >= 0 && ftruncate(plain, 4 * P) == 0);
	check(plan_view_open(plain, 64 * P, &v, &e) == -EPERM);
	check(strstr(e.msg, "not sealed"));
	check(plan_view_open(-1, 64 * P, &v, &e) == -EBADF);
}

/* ---- handovers ---- */

/* @n_fds copies of @fd with the first @len bytes of @h. */
static void hand(int sock, const struct gmem_handover *h, size_t len, int fd,
		 int n_fds)
{
	char text[2 * sizeof(*h)] = { 0 };
	int fds[8];

	memcpy(text, h, sizeof(*h));
	for (int i = 0; i < n_fds; i++)
		fds[i] = fd;
	check(fdpass_send(sock, text, len, fds, (size_t)n_fds, 0) ==
	      (ssize_t)len);
}

/* The lowest free fd: equal before and after, nothing was left open. */
static int next_fd(void)
{
	int fd = dup(STDIN_FILENO);

	check(fd >= 0 && close(fd) == 0);
	return fd;
}

static const struct gmem_handover good = { .magic = GMEM_HANDOVER_MAGIC,
					   .ram_addr = 0x7f0000000000,
					   .ram_bytes = 64 * P };

static void expect_bad_handover(int *pair, const char *why)
{
	struct gmem_handover h = { 0 };
	struct err e = ERR_NULL;
	int uffd = -1, free_fd = next_fd();

	check(plan_handover_receive(pair[0], &h, &uffd, &e) == -EPROTO);
	if (!strstr(e.msg, why))
		check_str(e.msg, why);
	check(uffd == -1 && h.magic == 0 && next_fd() == free_fd);
}

static void test_handover_bad(int *pair, int fd, int blocking)
{
	const struct gmem_handover bad[] = {
		{ 1, good.ram_addr, good.ram_bytes },
		{ good.magic, 0, good.ram_bytes },
		{ good.magic, good.ram_addr + 1, good.ram_bytes },
		{ good.magic, good.ram_addr, 0 },
		{ good.magic, good.ram_addr, P + 1 },
		{ good.magic, good.ram_addr, PLAN_RAM_MAX + P },
		{ good.magic, -P, P },
		{ good.magic, INT64_MAX / P * P, 2 * P },
	};

	for (size_t i = 0; i < nitems(bad); i++) {
		hand(pair[1], &bad[i], sizeof(good), fd, 1);
		expect_bad_handover(pair, "makes no sense");
	}
	hand(pair[1], &good, sizeof(good) - 1, fd, 1);
	expect_bad_handover(pair, "makes no sense");
	hand(pair[1], &good, sizeof(good) + 1, fd, 1);
	expect_bad_handover(pair, "makes no sense");
	for (int n = 0; n <= 8; n++) {
		if (n == 1)
			continue;
		hand(pair[1], &good, sizeof(good), fd, n);
		expect_bad_handover(pair, "something else");
	}
	hand(pair[1], &good, sizeof(good), STDIN_FILENO, 1);
	expect_bad_handover(pair, "something else");
	hand(pair[1], &good, sizeof(good), pair[1], 1);
	expect_bad_handover(pair, "something else");
	hand(pair[1], &good, sizeof(good), blocking, 1);
	expect_bad_handover(pair, "something else");
}

static void test_handover(void)
{
	int flags = O_CLOEXEC | UFFD_USER_MODE_ONLY;
	guard_fd int fd = (int)syscall(SYS_userfaultfd, flags | O_NONBLOCK);
	guard_fd int blocking = (int)syscall(SYS_userfaultfd, flags);
	struct gmem_handover h = { 0 };
	struct err e = ERR_NULL;
	int pair[2], uffd = -1;

	if (fd < 0 || blocking < 0)
		test_skip("no userfaultfd here, not even for ourselves");
	check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
	check(plan_handover_receive(pair[0], &h, &uffd, &e) == -EAGAIN);
	test_handover_bad(pair, fd, blocking);
	hand(pair[1], &good, sizeof(good), fd, 1);
	check(plan_handover_receive(pair[0], &h, &uffd, &e) == 0);
	check(!memcmp(&h, &good, sizeof(h)));
	check(uffd >= 0 && fcntl(uffd, F_GETFD) & FD_CLOEXEC);
	fd_close(&uffd);
	close(pair[1]);
	check(plan_handover_receive(pair[0], &h, &uffd, &e) == -EPIPE);
	check(uffd == -1);
	close(pair[0]);
}

int main(void)
{
	test_new();
	test_add();
	test_shared();
	test_layout();
	test_streamed();
	test_many();
	test_view();
	test_hostile();
	test_handover();
	return 0;
}
