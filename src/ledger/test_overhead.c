/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a child costs outside its RAM, against the kernel's own sums
 */
#include "ledger/overhead.h"

#include "ledger/proctext.h"
#include "ledger/test_subject.h"

#include <errno.h>
#include <fcntl.h>

#define RAM_PAGES 4096ull
#define RAM_DIRTY 123ull
#define ANON_DIRTY 300ull
#define SHMEM_PAGES 40ull

/* A key of a file of /proc/PID, in bytes. */
static uint64_t proc_value(pid_t pid, const char *name, const char *key)
{
	char path[64], line[8192];
	uint64_t value = UINT64_MAX;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	f = fopen(path, "re");
	check(f);
	while (value == UINT64_MAX && fgets(line, sizeof(line), f))
		if (proctext_is(line, key))
			check(proctext_bytes(line, &value) == 0);
	fclose(f);
	check(value != UINT64_MAX);
	return value;
}

static struct overhead count(pid_t pid, uint64_t addr, uint64_t len)
{
	struct overhead o = { 0 };
	struct err e = ERR_NULL;
	int r = overhead_count("/proc", pid, addr, len, &o, &e);

	if (r < 0)
		fprintf(stderr, "%s\n", e.msg);
	check(r == 0);
	check(overhead_sum(&o) == o.anon + o.shmem + o.tables + o.kernel);
	return o;
}

/* The kernel rounds its sum down to a kB. */
static void check_kb(uint64_t exact, uint64_t kernel)
{
	if (exact >= kernel && exact < kernel + 1024)
		return;
	fprintf(stderr, "counted %llu, the kernel %llu\n",
		(unsigned long long)exact, (unsigned long long)kernel);
	exit(1);
}

/*
 * Our own writes end the sharing of a page with the child, and make it dearer
 * for the child; after a few counts the pages we write are all ours. So count
 * until two counts agree.
 */
#define TRIES 50

/* What a range costs as RAM: the difference it makes to be left out. */
static uint64_t count_ram(pid_t pid, uint64_t addr, uint64_t len,
			  struct overhead *ret_rest)
{
	struct overhead all, again;
	unsigned tries;

	for (tries = 0; tries < TRIES; tries++) {
		*ret_rest = count(pid, addr, len);
		all = count(pid, 0, 0);
		again = count(pid, addr, len);
		if (ret_rest->anon == again.anon)
			break;
	}
	check(tries < TRIES);
	check(all.shmem == ret_rest->shmem);
	return all.anon - ret_rest->anon;
}

static uint64_t kernel_anon(pid_t pid)
{
	return proc_value(pid, "smaps_rollup", "Pss_Anon") +
	       proc_value(pid, "smaps_rollup", "SwapPss");
}

static void check_kernel(pid_t pid)
{
	struct overhead o;
	uint64_t anon = 0;
	unsigned tries;

	for (tries = 0; tries < TRIES; tries++) {
		anon = kernel_anon(pid);
		o = count(pid, 0, 0);
		if (anon == kernel_anon(pid))
			break;
	}
	check(tries < TRIES);
	check_kb(o.anon, anon);
	check_kb(o.shmem, proc_value(pid, "smaps_rollup", "Pss_Shmem"));
	check(o.tables == proc_value(pid, "status", "VmPTE"));
	check(o.kernel == 16384);
}

static uint64_t make_own(void *ctx unused, unsigned step)
{
	uint8_t *anon, *shm;
	uint64_t i;

	if (step > 0)
		return 0;
	anon = subject_map(2 * ANON_DIRTY, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1);
	shm = subject_map(2 * SHMEM_PAGES, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1);
	for (i = 0; i < ANON_DIRTY; i++) {
		anon[2 * i * PAGE] = 1;
		subject_read_page(anon + (2 * i + 1) * PAGE);
	}
	for (i = 0; i < SHMEM_PAGES; i++)
		shm[2 * i * PAGE] = 1;
	/* no longer writable, still its own */
	check(mprotect(anon, ANON_DIRTY * PAGE, PROT_READ) == 0);
	return (uintptr_t)anon;
}

/* A child of this process shares anonymous pages with it: the kernel's Pss. */
static void test_relative(void)
{
	struct subject s = subject_start(make_own, NULL);
	uint64_t anon = subject_step(&s);
	struct overhead rest;

	check_kernel(s.pid);
	/* a range that begins and ends inside a mapping */
	check(count_ram(s.pid, anon + 10 * PAGE, 20 * PAGE, &rest) ==
	      10 * PAGE);
	check(rest.anon > (ANON_DIRTY - 10) * PAGE);
	check(rest.shmem == SHMEM_PAGES * PAGE);
	subject_end(&s);
}

/* RAM: alternating zero extents and a layer; also step 1 writes there. */
static uint64_t make_ram(void *ctx unused, unsigned step)
{
	static uint8_t *ram;
	int fd, prot = PROT_READ | PROT_WRITE;
	uint64_t i, len = 64 * PAGE;

	if (step == 1) {
		for (i = 0; i < RAM_DIRTY; i++)
			ram[7 * i * PAGE] = 1;
		return 0;
	}
	fd = memfd_create("layer", MFD_CLOEXEC);
	check(ftruncate(fd, RAM_PAGES * PAGE) == 0);
	check(pwrite(fd, "x", 1, 200 * PAGE) == 1);
	ram = subject_map(RAM_PAGES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1);
	for (i = 0; i < RAM_PAGES * PAGE; i += 2 * len) {
		check(mmap(ram + i, len, prot, MAP_PRIVATE | MAP_FIXED, fd,
			   (off_t)i) == ram + i);
		check(mprotect(ram + i + len, len, prot) == 0);
	}
	subject_read_page(ram + 256 * PAGE);
	/* have the tables, whose cost is not left out */
	for (i = 0; i < RAM_PAGES; i += 256)
		subject_read_page(ram + (i + 64) * PAGE);
	close(fd);
	return (uintptr_t)ram;
}

static void test_ram_left_out(void)
{
	struct subject s = subject_start(make_ram, NULL);
	uint64_t ram = subject_step(&s);
	struct overhead before, after;

	check(count_ram(s.pid, ram, RAM_PAGES * PAGE, &before) == 0);
	subject_step(&s);
	check(count_ram(s.pid, ram, RAM_PAGES * PAGE, &after) ==
	      RAM_DIRTY * PAGE);
	/* a private mapping of a memfd is a layer, not shared memory */
	check(after.shmem == 0);
	subject_end(&s);
}

/* A program of its own, as a VMM is: without privileges, too, no page is
 * shared and nothing hidden matters. */
static void check_own(pid_t pid)
{
	struct overhead o = count(pid, 0, 0);

	check_kb(o.anon, proc_value(pid, "smaps_rollup", "Pss_Anon"));
	check(o.anon > 0 && o.tables > 0 && o.kernel == 16384);
}

static pid_t spawn_cat(int *ret_fd)
{
	int fds[2], ready[2];
	char c;
	pid_t pid;

	check(pipe2(fds, O_CLOEXEC) == 0 && pipe2(ready, O_CLOEXEC) == 0);
	check(write(fds[1], "x", 1) == 1);
	pid = fork();
	check(pid >= 0);
	if (pid == 0) {
		check(dup2(fds[0], 0) == 0 && dup2(ready[1], 1) == 1);
		execlp("cat", "cat", NULL);
		_exit(1);
	}
	close(fds[0]);
	close(ready[1]);
	check(read(ready[0], &c, 1) == 1);
	/* it has answered, and now goes back to sleep in read() */
	usleep(50000);
	*ret_fd = fds[1];
	return pid;
}

static void test_program(void)
{
	int fd = -1;
	pid_t pid = spawn_cat(&fd);

	check_own(pid);
	kill(pid, SIGKILL);
	check(waitpid(pid, NULL, 0) == pid);
	close(fd);
}

/* Frames hidden and a forked relative: smaps. An upper bound, and close. */
static void check_hidden(void)
{
	struct subject s = subject_start(make_own, NULL);
	struct overhead o;
	uint64_t kernel;

	subject_step(&s);
	o = count(s.pid, 0, 0);
	kernel = proc_value(s.pid, "smaps_rollup", "Pss_Anon");
	/* smaps rounds the Pss of each of some hundred mappings down to a KiB;
	 * smaps_rollup rounds once. */
	check(o.anon + 256 * 1024 >= kernel);
	check(o.anon < kernel + 512 * 1024);
	check(o.shmem == SHMEM_PAGES * PAGE);
	subject_end(&s);
}

static uint64_t blind(void *ctx unused, unsigned step unused)
{
	drop_sys_admin();
	test_program();
	check_hidden();
	return 1;
}

static void test_blind(void)
{
	struct subject s = subject_start(blind, NULL);

	check(subject_step(&s) == 1);
	subject_end(&s);
}

static void expect(int r, int want, const struct err *e, const char *word)
{
	if (r == want && e->code == -want && strstr(e->msg, word))
		return;
	fprintf(stderr, "%d instead of %d: %s\n", r, want, e->msg);
	exit(1);
}

static void test_refused(void)
{
	struct subject s = subject_start(make_own, NULL);
	struct overhead o = { .anon = 7 };
	struct err e = ERR_NULL;
	pid_t pid = s.pid;

	subject_step(&s);
	expect(overhead_count("/proc", pid, 1, PAGE, &o, &e), -EINVAL, &e,
	       "no range");
	expect(overhead_count("/proc", pid, PAGE, 1, &o, &e), -EINVAL, &e,
	       "no range");
	expect(overhead_count("/proc", pid, -PAGE, 2 * PAGE, &o, &e), -EINVAL,
	       &e, "no range");
	subject_kill(&s);
	expect(overhead_count("/proc", pid, 0, 0, &o, &e), -ESRCH, &e, "gone");
	subject_end(&s);
	expect(overhead_count("/proc", pid, 0, 0, &o, &e), -ESRCH, &e,
	       "no process");
	check(o.anon == 7);
}

/* ---- fixture trees ---- */

#define STATUS "Name:\tvmm\nPPid:\t1\nVmPTE:\t 100 kB\nThreads:\t4\n"

/*
 * 0x10000 anonymous, 2 pages; 0x20000 private file; 0x30000 guest RAM;
 * 0x40000 a shared mapping of a plain file
 */
#define LINE_ANON "10000-12000 rw-p 00000000 00:00 0 \n"
#define LINE_FILE "20000-22000 rw-p 00000000 fe:00 77 /lib/x.so\n"
#define LINE_RAM "30000-32000 rw-p 00000000 00:00 0 \n"
#define LINE_OTHER "40000-42000 rw-s 00000000 fe:00 78 /var/x\n"

static void test_fixture_smaps(const char *root, const char *dir)
{
	struct overhead o = { 0 };
	struct err e = ERR_NULL;

	fixture_write(dir, "status", STATUS);
	expect(overhead_count(root, 5, 0, 0, &o, &e), -ESRCH, &e, "gone");
	fixture_write(dir, "smaps",
		      LINE_ANON
		      "Pss: 6 kB\nAnonymous: 8 kB\nSwapPss: 3 kB\n" LINE_FILE
		      "Pss: 6 kB\nAnonymous: 4 kB\nSwapPss: 0 kB\n" LINE_RAM
		      "Pss: 8 kB\nAnonymous: 8 kB\nSwapPss: 8 kB\n" LINE_OTHER
		      "Pss: 8 kB\nAnonymous: 0 kB\nSwapPss: 0 kB\n");
	check(overhead_count(root, 5, 0x30000, 0x2000, &o, &e) == 0);
	check(o.anon == (6 + 3 + 4) * 1024);
	check(o.shmem == 0);
	check(o.tables == 100 * 1024 && o.kernel == 4 * 16384);
	fixture_write(dir, "smaps", LINE_ANON "Pss: x kB\n");
	expect(overhead_count(root, 5, 0, 0, &o, &e), -EINVAL, &e, "Pss: x");
	fixture_write(dir, "smaps", LINE_ANON "Pss: 6 kB\n");
	fixture_write(dir, "status", "Name:\tx\nPPid:\t1\nThreads:\t1\n");
	expect(overhead_count(root, 5, 0, 0, &o, &e), -ESRCH, &e, "gone");
	fixture_write(dir, "status", "Threads:\t-1\n");
	expect(overhead_count(root, 5, 0, 0, &o, &e), -EINVAL, &e, "Threads");
	fixture_write(dir, "status", "");
	expect(overhead_count(root, 5, 0, 0, &o, &e), -ESRCH, &e, "gone");
	fixture_write(dir, "status", STATUS);
}

#define PRESENT (1ull << 63)
#define SWAPPED (1ull << 62)
#define OF_FILE (1ull << 61)
#define EXCLUSIVE (1ull << 56)

/* Words of a page map, with frames that two and three others map. */
static void test_fixture_words(const char *root, const char *dir)
{
	struct overhead o = { 0 };
	struct err e = ERR_NULL;

	fixture_write(dir, "maps", LINE_ANON LINE_FILE LINE_RAM LINE_OTHER);
	/* the file reaches behind the last page */
	fixture_word(dir, "pagemap", 0x100, 0);
	fixture_word(dir, "pagemap", 0x10, PRESENT | EXCLUSIVE | 9);
	fixture_word(dir, "pagemap", 0x11, PRESENT | 10);
	fixture_word(dir, "pagemap", 0x20, PRESENT | OF_FILE | 11);
	fixture_word(dir, "pagemap", 0x21, PRESENT | 12);
	fixture_word(dir, "pagemap", 0x30, PRESENT | EXCLUSIVE | 13);
	fixture_word(dir, "pagemap", 0x40, PRESENT | OF_FILE | EXCLUSIVE);
	fixture_word(root, "kpageflags", 10, 0);
	fixture_word(root, "kpageflags", 12, 1 << 24);
	fixture_word(root, "kpagecount", 10, 2);
	check(overhead_count(root, 5, 0x30000, 0x2000, &o, &e) == 0);
	check(o.anon == 4096 + 2048);
	check(overhead_count(root, 5, 0, 0, &o, &e) == 0);
	check(o.anon == 2 * 4096 + 2048);
	/* something shared and something swapped: smaps decides */
	fixture_word(dir, "pagemap", 0x31, SWAPPED);
	check(overhead_count(root, 5, 0, 0, &o, &e) == 0);
	check(o.anon == 6 * 1024);
	check(overhead_count(root, 5, 0x30000, 0x2000, &o, &e) == 0);
	check(o.anon == 4096 + 2048);
	/* a page map that ends too early is a process that ended */
	fixture_write(dir, "maps", "200000-202000 rw-p 00000000 00:00 0 \n");
	expect(overhead_count(root, 5, 0, 0, &o, &e), -EINVAL, &e, "0x200000");
	fixture_remove(root, "kpageflags");
	fixture_remove(root, "kpagecount");
	fixture_remove(dir, "pagemap");
	fixture_remove(dir, "maps");
}

static void test_fixtures(void)
{
	char root[64], dir[80];

	test_dir(root, sizeof(root));
	snprintf(dir, sizeof(dir), "%s/5", root);
	check(mkdir(dir, 0700) == 0);
	test_fixture_smaps(root, dir);
	test_fixture_words(root, dir);
	fixture_remove(dir, "smaps");
	fixture_remove(dir, "status");
	check(rmdir(dir) == 0 && rmdir(root) == 0);
}

int main(void)
{
	test_fixtures();
	if (getuid() != 0)
		test_skip("map counts are for root");
	test_relative();
	test_ram_left_out();
	test_program();
	test_refused();
	test_blind();
	return 0;
}
