/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the tests of the shim share: the plan of most stories, a process that
 * plays the VMM, and how it is started again with the shim preloaded
 */
#include "base/guard.h"
#include "base/test.h"
#include "gmem/plan.h"

#include <limits.h>
#include <string.h>

#define P PLAN_PAGE
#define FD_PLAN 100
#define FD_LAYER 101
/* What the shim exits with. */
#define EXIT_BAD_PLAN 70

/*
 * The plan of most stories. Two layer extents whose offsets do not follow each
 * other, zeros before and between them.
 */
#define ZERO_A 0
#define LAYER_A 16
#define ZERO_B 528
#define LAYER_B 544
#define RAM_PAGES 1024ull
#define OFFSET_A 40
#define OFFSET_B 600
#define LAYER_PAGES 1100ull

/* What layer page @n begins and ends with. */
static inline uint64_t mark(uint64_t n)
{
	return 0xb000000000000000ull + n;
}

/* The layer's page behind the guest's; 0: none. */
static inline uint64_t layer_page(uint64_t page)
{
	if (page >= LAYER_B)
		return page - LAYER_B + OFFSET_B;
	if (page >= LAYER_A && page < ZERO_B)
		return page - LAYER_A + OFFSET_A;
	return 0;
}

/* Still to be finished. */
static inline struct plan *usual_plan(void)
{
	struct err e = ERR_NULL;
	struct plan *p = NULL;

	check(plan_new(PLAN_PRIVATE, RAM_PAGES * P, &p, &e) == 0);
	check(plan_add(p, PLAN_ZERO, LAYER_A * P, 0) == 0);
	check(plan_add(p, PLAN_LAYER, (ZERO_B - LAYER_A) * P, OFFSET_A * P) ==
	      0);
	check(plan_add(p, PLAN_ZERO, (LAYER_B - ZERO_B) * P, 0) == 0);
	check(plan_add(p, PLAN_LAYER, (RAM_PAGES - LAYER_B) * P,
		       OFFSET_B * P) == 0);
	return p;
}

/* Its fd; @p is gone. */
static inline int finish_plan(struct plan *p)
{
	struct err e = ERR_NULL;
	int fd = -1;

	check(plan_finish(p, &fd, &e) == 0);
	plan_free(p);
	return fd;
}

/* ---- the child: a VMM ---- */

struct vmm {
	int fd; /* of its RAM */
	char *ram;
	uint64_t pages;
	struct plan_view view; /* its own plan, as the daemon sees it */
	struct shared *shared; /* with the pager, where there is one */
};

static inline uint64_t word(const struct vmm *m, uint64_t page, uint64_t at)
{
	uint64_t v;

	memcpy(&v, m->ram + page * P + at, sizeof(v));
	return v;
}

static inline bool page_is(const struct vmm *m, uint64_t page, uint64_t value)
{
	return word(m, page, 0) == value && word(m, page, P - 8) == value;
}

static inline bool page_zero(const struct vmm *m, uint64_t page)
{
	static const char zeros[P];

	return !memcmp(m->ram + page * P, zeros, P);
}

static inline bool is_surrendered(const struct vmm *m, uint64_t page)
{
	return m->view.bitmap[page / 8] >> (page % 8) & 1;
}

/* VMAs that lie in the RAM; @flag counts only those with that VmFlag. */
static inline uint64_t vmas(const struct vmm *m, const char *flag)
{
	guard_file FILE *f = fopen("/proc/self/smaps", "re");
	char line[512];
	bool inside = false;
	uint64_t n = 0;

	check(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long from, to;

		if (sscanf(line, "%lx-%lx ", &from, &to) == 2) {
			inside = from >= (uintptr_t)m->ram &&
				 to <= (uintptr_t)m->ram + m->pages * P;
			n += inside && !flag;
		} else if (flag && inside && !strncmp(line, "VmFlags:", 8)) {
			n += strstr(line, flag) != NULL;
		}
	}
	return n;
}

struct story {
	const char *name;
	void (*child)(void);
};

/* True when this process is a child, which has played its story now. */
static inline bool story_played(const struct story *stories, size_t n, int argc,
				char **argv)
{
	for (size_t i = 0; argc > 1 && i < n; i++)
		if (!strcmp(argv[1], stories[i].name)) {
			stories[i].child();
			return true;
		}
	check(argc == 1);
	return false;
}

/* ---- the parent: the daemon ---- */

/* The shim is built beside the tests. @path: PATH_MAX. */
static inline void shim_path(char *path)
{
	ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - 1);

	check(n > 0);
	path[n] = '\0';
	for (int up = 0; up < 2; up++) {
		char *slash = strrchr(path, '/');

		check(slash);
		*slash = '\0';
	}
	check(strlen(path) + sizeof("/libbyre-gmem.so") < PATH_MAX);
	strcat(path, "/libbyre-gmem.so");
	if (access(path, R_OK) < 0)
		strcpy(path, "build/release/libbyre-gmem.so");
	if (access(path, R_OK) < 0)
		test_skip("libbyre-gmem.so is not built");
}

/* Returns the exit code. */
static inline int finish(pid_t pid, const char *story)
{
	int status = 0;

	check(waitpid(pid, &status, 0) == pid);
	if (!WIFEXITED(status))
		fprintf(stderr, "story %s: status %#x\n", story, status);
	check(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* What the child wrote into the file that was its stderr. */
static inline void check_complaint(int err_fd, const char *complaint)
{
	char text[512] = { 0 };

	check(pread(err_fd, text, sizeof(text) - 1, 0) > 0);
	if (!strstr(text, complaint))
		check_str(text, complaint);
}
