/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the kernel tests share: memory to map, page tables, userfaultfd
 *
 * Header-only, so that each program stays one file that can be compiled and
 * traced by hand.
 */
#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define PAGE 4096ull

/* ---- memory ---- */

/* An unlinked file on a disk, or a memfd; page n is full of byte n + 1. */
static inline int file_new(bool on_disk, uint64_t pages)
{
	char dir[64], path[80], page[PAGE];
	int fd;

	if (on_disk) {
		test_dir(dir, sizeof(dir));
		snprintf(path, sizeof(path), "%s/file", dir);
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		check(fd >= 0 && unlink(path) == 0 && rmdir(dir) == 0);
	} else {
		fd = memfd_create("file", MFD_CLOEXEC);
		check(fd >= 0);
	}
	for (uint64_t i = 0; i < pages; i++) {
		memset(page, (int)(i + 1), PAGE);
		check(pwrite(fd, page, PAGE, (off_t)(i * PAGE)) == PAGE);
	}
	return fd;
}

/* The same file through an fd that cannot write. */
static inline int file_read_only(int fd)
{
	char path[64];
	int ro;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	check(ro >= 0);
	return ro;
}

static inline uint8_t file_byte(int fd, uint64_t page)
{
	uint8_t b = 0;

	check(pread(fd, &b, 1, (off_t)(page * PAGE)) == 1);
	return b;
}

static inline volatile uint8_t *map_private(int fd, uint64_t pages)
{
	void *p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_NORESERVE, fd, 0);

	check(p != MAP_FAILED);
	return p;
}

static inline void *page_at(volatile uint8_t *p, uint64_t page)
{
	return (void *)((uintptr_t)p + page * PAGE);
}

/* ---- page tables ---- */

#define PAGE_PRESENT (1ull << 63)
#define PAGE_FILE (1ull << 61)

static inline uint64_t page_entry(volatile uint8_t *p, uint64_t page)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	check(fd >= 0);
	check(pread(fd, &entry, sizeof(entry),
		    (off_t)((uintptr_t)p / PAGE + page) * 8) == sizeof(entry));
	close(fd);
	return entry & (PAGE_PRESENT | PAGE_FILE);
}

/* VMAs inside [p, p + pages). */
static inline unsigned vma_count(volatile uint8_t *p, uint64_t pages)
{
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned long from, to;
	char line[512];
	unsigned n = 0;

	check(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx-%lx", &from, &to) == 2 &&
		    from >= (uintptr_t)p && to <= (uintptr_t)page_at(p, pages))
			n++;
	fclose(f);
	return n;
}

/* ---- userfaultfd ---- */

static inline void uffd_api(int uffd)
{
	struct uffdio_api api = { .api = UFFD_API };

	check(ioctl(uffd, UFFDIO_API, &api) == 0);
}

static inline int uffd_new(void)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 && errno == EPERM)
		test_skip("userfaultfd needs privilege here");
	if (fd < 0 && errno == ENOSYS)
		test_skip("this kernel has no userfaultfd");
	check(fd >= 0);
	uffd_api(fd);
	return fd;
}

static inline void uffd_arm(int uffd, volatile uint8_t *p, uint64_t pages)
{
	struct uffdio_register r = {
		.range = { .start = (uintptr_t)p, .len = pages * PAGE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	check(ioctl(uffd, UFFDIO_REGISTER, &r) == 0);
}

/* The page of the next fault; -1 when none comes within @timeout_ms. */
static inline int uffd_next(int uffd, volatile uint8_t *p, int timeout_ms)
{
	struct pollfd pfd = { .fd = uffd, .events = POLLIN };
	struct uffd_msg msg = { 0 };

	if (poll(&pfd, 1, timeout_ms) == 0)
		return -1;
	check(read(uffd, &msg, sizeof(msg)) == sizeof(msg));
	check(msg.event == UFFD_EVENT_PAGEFAULT);
	return (int)((msg.arg.pagefault.address - (uintptr_t)p) / PAGE);
}

static inline void uffd_wake(int uffd, volatile uint8_t *p, uint64_t page)
{
	struct uffdio_range r = {
		.start = (uintptr_t)page_at(p, page),
		.len = PAGE,
	};

	check(ioctl(uffd, UFFDIO_WAKE, &r) == 0);
}

/* Long enough for a fault to arrive on a busy machine; short enough to wait
 * for one that must not. */
#define FAULT_MS 5000
#define QUIET_MS 100

/* A thread that reads one byte, as a vCPU would. */
struct toucher {
	pthread_t thread;
	volatile uint8_t *at;
	uint8_t got;
};

static inline void *toucher_main(void *p)
{
	struct toucher *t = p;

	t->got = *t->at;
	return NULL;
}

static inline void toucher_start(struct toucher *t, volatile uint8_t *p,
				 uint64_t page)
{
	t->at = p + page * PAGE;
	check(pthread_create(&t->thread, NULL, toucher_main, t) == 0);
}

static inline uint8_t toucher_end(struct toucher *t)
{
	check(pthread_join(t->thread, NULL) == 0);
	return t->got;
}
