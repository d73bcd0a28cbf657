/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The page tables of a process, as the kernel shows them
 *
 * pagemap_count() and pagemap_touched() answer the two questions asked
 * about guest RAM. The walk below them serves the rest of the ledger.
 */
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct buckets;

/* x86-64; huge pages count as 512 of these. */
#define PAGEMAP_PAGE 4096ull

/* How to read page tables: PAGEMAP_SCAN, or words of /proc/PID/pagemap. */
enum pagemap_how {
	PAGEMAP_AUTO,
	PAGEMAP_SCAN_ONLY,
	PAGEMAP_WORDS_ONLY,
	PAGEMAP_HOW_COUNT,
};

/*
 * Count the pages of [addr, addr + len) of a process. @surrendered: a bitmap of
 * pages (bit 0 of byte 0 is the first) that count as balloon while absent; may
 * be NULL. @proc_root is "/proc" (a parameter for fixture trees). A page that
 * is anonymous, present and still shared with a forked relative is private.
 *
 * Words show the zero page only to CAP_SYS_ADMIN. Without it a present
 * anonymous page that is not mapped by this process alone counts as zero (a
 * VMM has no forked relatives), and *ret_exact (may be NULL) is false if there
 * was one.
 *
 * -ESRCH: no such process, or it ended meanwhile. -EINVAL: not whole pages, or
 * not user addresses. -ENOTTY: PAGEMAP_SCAN_ONLY before Linux 6.7.
 */
int pagemap_count(const char *proc_root, pid_t pid, uint64_t addr, uint64_t len,
		  const uint8_t *surrendered, enum pagemap_how how,
		  struct buckets *ret, bool *ret_exact,
		  struct err *e) must_check;

/*
 * The pages of [addr, addr + len) that are present, from a file or a copy of
 * its own, as a bitmap of len / page size bits (the caller's, zeroed): what a
 * restored guest has touched.
 */
int pagemap_touched(const char *proc_root, pid_t pid, uint64_t addr,
		    uint64_t len, uint8_t *bitmap, struct err *e) must_check;

/* ---- the walk ---- */

enum page_kind {
	PAGE_ABSENT,
	PAGE_FILE, /* present, from a file or shared memory */
	PAGE_ZERO, /* the kernel's zero page */
	PAGE_ANON, /* present, anonymous: made by copy or from nothing */
	PAGE_SWAPPED,
	PAGE_KIND_COUNT,
};

/* Neighbouring pages of which the same is true. */
struct page_run {
	uint64_t addr;
	uint64_t n_pages;
	enum page_kind kind;
	bool exclusive; /* mapped by this process alone; see enum below */
	bool unsure; /* words: zero, or anonymous and not exclusive */
	uint64_t frame; /* of a single page not exclusive; 0: not shown */
};

/* Of which pages `exclusive` and `frame` are found out. */
enum pagemap_detail {
	PAGEMAP_KINDS, /* of none: the quickest */
	PAGEMAP_ANON_SHARING, /* of PAGE_ANON */
	PAGEMAP_ALL_SHARING, /* of PAGE_ANON and PAGE_FILE */
	PAGEMAP_DETAIL_COUNT,
};

struct pagemap {
	int fd;
	int flags_fd; /* /proc/kpageflags; -1 when not readable */
	pid_t pid;
	bool scan; /* PAGEMAP_SCAN works */
	uint64_t zero_frame; /* last frame seen to be the zero page */
	uint64_t huge_frame; /* last candidate for the huge zero page... */
	bool huge_is_zero; /* ...and what it was */
};

#define PAGEMAP_NULL                     \
	{                                \
		.fd = -1, .flags_fd = -1 \
	}

int pagemap_open(struct pagemap *m, const char *proc_root, pid_t pid,
		 enum pagemap_how how, struct err *e) must_check;
/* The same, in an open process directory (procdir.h). */
int pagemap_open_at(struct pagemap *m, const char *proc_root, int dir_fd,
		    pid_t pid, enum pagemap_how how, struct err *e) must_check;
void pagemap_close(struct pagemap *m);

typedef void (*pagemap_fn)(void *ctx, const struct page_run *run);

/* Call @fn for runs that cover [start, end) in order, without gaps, absent
 * ones included. -ESRCH when the process ended before or meanwhile. */
int pagemap_walk(struct pagemap *m, uint64_t start, uint64_t end,
		 enum pagemap_detail detail, pagemap_fn fn, void *ctx,
		 struct err *e) must_check;
