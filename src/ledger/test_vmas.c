/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mappings of a child: by query and by text, skipping and from the start
 */
#include "ledger/vmas.h"

#include "base/err.h"
#include "base/guard.h"
#include "ledger/procdir.h"
#include "ledger/test_subject.h"

#include <errno.h>

#define SHARED_PAGES 5ull

static uint64_t make_maps(void *ctx unused, unsigned step unused)
{
	uint8_t *p = subject_map(64, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1);
	uint64_t i;

	/* every second page its own mapping */
	for (i = 0; i < 64; i += 2)
		check(mprotect(p + i * PAGE, PAGE, PROT_READ) == 0);
	subject_map(SHARED_PAGES, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1);
	return (uintptr_t)p;
}

static void check_equal(const struct vma *a, const struct vma *b)
{
	check(a->start == b->start && a->end == b->end);
	check(a->read == b->read && a->write == b->write);
	check(a->exec == b->exec && a->shared == b->shared);
	check(a->dev == b->dev && a->inode == b->inode);
	check(a->special == b->special);
}

static struct vmas open_maps(int dir_fd, pid_t pid, bool query)
{
	struct vmas v = VMAS_NULL;
	struct err e = ERR_NULL;

	check(vmas_open(&v, dir_fd, pid, &e) == 0);
	v.query = v.query && query;
	return v;
}

static bool kernel_half(uint64_t address)
{
	return address >= 1ull << 63;
}

/* Both ways see the same, whatever they skip. */
static void check_ways(int dir_fd, pid_t pid, uint64_t skip, uint64_t skip_end)
{
	struct vmas query = open_maps(dir_fd, pid, true);
	struct vmas text = open_maps(dir_fd, pid, false);
	struct vma a = { 0 }, b = { 0 };
	unsigned n = 0, shared = 0, special = 0;
	struct err e = ERR_NULL;
	uint64_t from = 0;
	int r, s;

	do {
		r = vmas_next(&query, from, &a, &e);
		s = vmas_next(&text, from, &b, &e);
		check(r >= 0 && s >= 0);
		/* only the text has the kernel's own page at the top */
		if (r == VMAS_END || s == VMAS_END)
			break;
		check_equal(&a, &b);
		check(a.end > from);
		from = a.end;
		if (from > skip && from < skip_end)
			from = skip_end;
		n++;
		shared += a.shared && a.end - a.start == SHARED_PAGES * PAGE;
		special += a.special;
	} while (true);
	check(s == VMAS_END || kernel_half(b.start));
	check(r == VMAS_END);
	check(n > 10 && shared >= 1 && special >= 1);
	vmas_close(&query);
	vmas_close(&text);
	vmas_close(&text);
}

/* A step that ends inside a mapping gives that mapping again. */
static void check_inside(int dir_fd, pid_t pid, uint64_t p, bool query)
{
	struct vmas v = open_maps(dir_fd, pid, query);
	struct vma a = { 0 };
	struct err e = ERR_NULL;

	check(vmas_next(&v, p + 3 * PAGE, &a, &e) == 0);
	check(a.start == p + 3 * PAGE && a.write);
	check(vmas_next(&v, p + 3 * PAGE + 1, &a, &e) == 0);
	check(a.start == p + 3 * PAGE && a.end == p + 4 * PAGE);
	check(vmas_next(&v, p + 4 * PAGE, &a, &e) == 0);
	check(a.start == p + 4 * PAGE && !a.write);
	vmas_close(&v);
}

static void check_bad_text(void)
{
	char root[64], dir[80];
	guard_fd int fd = -1;
	struct vmas v = VMAS_NULL;
	struct vma a = { 0 };
	struct err e = ERR_NULL;

	test_dir(root, sizeof(root));
	snprintf(dir, sizeof(dir), "%s/5", root);
	check(mkdir(dir, 0700) == 0);
	check(procdir_open(root, 6, &fd, &e) == -ESRCH);
	check(procdir_open(root, 5, &fd, &e) == 0);
	check(vmas_open(&v, fd, 5, &e) == -ESRCH);
	fixture_write(dir, "maps", "1000-2000 rw-p 0 00:00 0 \nrubbish\n");
	check(vmas_open(&v, fd, 5, &e) == 0);
	check(!v.query);
	check(vmas_next(&v, 0, &a, &e) == 0 && a.start == 0x1000);
	check(vmas_next(&v, a.end, &a, &e) == -EPROTO);
	check(strstr(e.msg, "rubbish"));
	vmas_close(&v);
	fixture_remove(dir, "maps");
	check(rmdir(dir) == 0 && rmdir(root) == 0);
}

int main(void)
{
	struct subject s = subject_start(make_maps, NULL);
	uint64_t p = subject_step(&s);
	guard_fd int dir_fd = -1;
	struct err e = ERR_NULL;

	check(procdir_open("/proc", s.pid, &dir_fd, &e) == 0);
	check_ways(dir_fd, s.pid, 0, 0);
	check_ways(dir_fd, s.pid, p + PAGE, p + 33 * PAGE);
	check_inside(dir_fd, s.pid, p, true);
	check_inside(dir_fd, s.pid, p, false);
	subject_end(&s);
	check_bad_text();
	return 0;
}
