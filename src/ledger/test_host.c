/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host totals from fixture trees, and from this host
 */
#include "ledger/host.h"

#include "base/test.h"
#include "ledger/test_subject.h"

#include <errno.h>

#define GOOD                            \
	"MemTotal:       24653516 kB\n" \
	"MemFree:        20000000 kB\n" \
	"MemAvailable:   22000000 kB\n" \
	"Buffers:           16384 kB\n" \
	"SwapTotal:             0 kB\n" \
	"SwapFree:              0 kB\n" \
	"CommitLimit:    12326756 kB\n" \
	"Committed_AS:  300000000 kB\n" \
	"HugePages_Total:       0\n"

/* Everything but MemTotal, for odd first lines. */
#define REST                                                   \
	"MemFree: 1 kB\nMemAvailable: 2 kB\nSwapTotal: 3 kB\n" \
	"SwapFree: 4 kB\nCommitLimit: 5 kB\nCommitted_AS: 6 kB\n"

static const struct test_case {
	const char *meminfo;
	const char *overcommit;
	int r;
	const char *word;
} cases[] = {
	{ GOOD, "1\n", 0, "" },
	{ "MemTotal: 7 kB\n" REST, "2", 0, "" },
	{ "MemTotal: 7 kB\nMemTotal: x\n" REST, "0\n", 0, "" },
	{ "no colon here\n\n\nMemTotal:7\n" REST, "0\n", 0, "" },
	{ "MemTotal: 18014398509481983 kB\n" REST, "0\n", 0, "" },
	{ REST, "0\n", -EPROTO, "no MemTotal" },
	{ "", "0\n", -EPROTO, "no MemTotal" },
	{ "MemTotal: 7 kB\nMemFree: 1 kB\n", "0\n", -EPROTO, "no MemAv" },
	{ "MemTotal: 18014398509481984 kB\n" REST, "0\n", -ERANGE, "MemTotal" },
	{ "MemTotal: 99999999999999999999 kB\n" REST, "0\n", -ERANGE,
	  "MemTotal" },
	{ "MemTotal: -7 kB\n" REST, "0\n", -EINVAL, "MemTotal: -7" },
	{ "MemTotal: 7 GB\n" REST, "0\n", -EINVAL, "MemTotal: 7 GB" },
	{ "MemTotal:\n" REST, "0\n", -EINVAL, "MemTotal" },
	{ GOOD, "3\n", -EPROTO, "overcommit_memory says 3" },
	{ GOOD, "-1\n", -EPROTO, "overcommit_memory says -1" },
	{ GOOD, "", -EPROTO, "overcommit_memory" },
	{ GOOD, "yes\n", -EPROTO, "overcommit_memory says yes" },
};

static void tree_make(char *root, size_t size)
{
	char path[512];

	test_dir(root, size);
	snprintf(path, sizeof(path), "%s/sys", root);
	check(mkdir(path, 0700) == 0);
	snprintf(path, sizeof(path), "%s/sys/vm", root);
	check(mkdir(path, 0700) == 0);
}

static void tree_remove(const char *root)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/sys/vm", root);
	check(rmdir(path) == 0);
	snprintf(path, sizeof(path), "%s/sys", root);
	check(rmdir(path) == 0 && rmdir(root) == 0);
}

static void test_cases(const char *root)
{
	const struct host_memory none = { .mem_total = 77 };
	size_t i;

	for (i = 0; i < nitems(cases); i++) {
		struct host_memory h = none;
		struct err e = ERR_NULL;
		int r;

		fixture_write(root, "meminfo", cases[i].meminfo);
		fixture_write(root, "sys/vm/overcommit_memory",
			      cases[i].overcommit);
		r = host_memory_read(root, &h, &e);
		if (r != cases[i].r || !strstr(e.msg, cases[i].word)) {
			fprintf(stderr, "case %zu: %d %s\n", i, r, e.msg);
			exit(1);
		}
		check(r == 0 || memcmp(&h, &none, sizeof(h)) == 0);
	}
}

static void test_values(const char *root)
{
	struct host_memory h = { 0 };
	struct err e = ERR_NULL;

	fixture_write(root, "meminfo", GOOD);
	fixture_write(root, "sys/vm/overcommit_memory", "1\n");
	check(host_memory_read(root, &h, &e) == 0);
	check(h.mem_total == 24653516ull * 1024);
	check(h.mem_free == 20000000ull * 1024);
	check(h.mem_available == 22000000ull * 1024);
	check(h.swap_total == 0 && h.swap_free == 0);
	check(h.commit_limit == 12326756ull * 1024);
	check(h.committed_as == 300000000ull * 1024);
	check(h.overcommit_memory == 1);
}

static void test_missing(const char *root)
{
	struct host_memory h = { 0 };
	struct err e = ERR_NULL;

	fixture_remove(root, "sys/vm/overcommit_memory");
	check(host_memory_read(root, &h, &e) == -ENOENT);
	check(strstr(e.msg, "overcommit_memory"));
	fixture_remove(root, "meminfo");
	check(host_memory_read(root, &h, &e) == -ENOENT);
	check(strstr(e.msg, "meminfo"));
}

int main(void)
{
	struct host_memory h = { 0 };
	struct err e = ERR_NULL;
	char root[64];

	tree_make(root, sizeof(root));
	test_cases(root);
	test_values(root);
	test_missing(root);
	tree_remove(root);
	check(host_memory_read("/proc", &h, &e) == 0);
	check(h.mem_total > h.mem_free && h.mem_available > 0);
	return 0;
}
