/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines of status, meminfo, smaps and maps: good, odd and hostile
 */
#include "ledger/procstatus.h"
#include "ledger/proctext.h"
#include "ledger/smaps.h"
#include "ledger/vmas.h"

#include "base/test.h"

#include <errno.h>
#include <sys/sysmacros.h>

#define UNTOUCHED 0xdeadull

struct test_case {
	const char *line;
	int r;
	uint64_t bytes;
};

static const struct test_case lines[] = {
	{ "Pss:                   8 kB\n", 0, 8192 },
	{ "Pss: 8 kB", 0, 8192 },
	{ "VmPTE:\t     44 kB\n", 0, 45056 },
	{ "Threads:\t3\n", 0, 3 },
	{ "Threads:3", 0, 3 },
	{ "MemTotal: 0 kB\n", 0, 0 },
	{ "MemTotal: 18014398509481983 kB\n", 0, 18446744073709550592ull },
	{ "MemTotal: 18014398509481984 kB\n", -ERANGE, 0 },
	{ "MemTotal: 18446744073709551615\n", 0, UINT64_MAX },
	{ "MemTotal: 18446744073709551616\n", -ERANGE, 0 },
	{ "MemTotal: 99999999999999999999999999 kB\n", -ERANGE, 0 },
	{ "MemTotal: -1 kB\n", -EINVAL, 0 },
	{ "MemTotal: +1 kB\n", -EINVAL, 0 },
	{ "MemTotal: 1 MB\n", -EINVAL, 0 },
	{ "MemTotal: 1 kBs\n", -EINVAL, 0 },
	{ "MemTotal: 1 2\n", -EINVAL, 0 },
	{ "MemTotal: 0x10 kB\n", -EINVAL, 0 },
	{ "MemTotal:\n", -EINVAL, 0 },
	{ "MemTotal", -EINVAL, 0 },
	{ "MemTotal: kB\n", -EINVAL, 0 },
	{ "", -EINVAL, 0 },
};

static void test_bytes(void)
{
	size_t i;

	for (i = 0; i < nitems(lines); i++) {
		uint64_t v = UNTOUCHED;
		int r = proctext_bytes(lines[i].line, &v);

		if (r == lines[i].r &&
		    v == (r == 0 ? lines[i].bytes : UNTOUCHED))
			continue;
		fprintf(stderr, "\"%s\": %d, %llu\n", lines[i].line, r,
			(unsigned long long)v);
		exit(1);
	}
	check(proctext_is("Pss: 1 kB", "Pss"));
	check(!proctext_is("Pss_Dirty: 1 kB", "Pss"));
	check(!proctext_is("Ps", "Pss"));
	check(!proctext_is("", "Pss"));
}

static void test_number(void)
{
	uint64_t v = UNTOUCHED;

	check(proctext_number("PPid:\t1 kB\n", &v) == -EINVAL);
	check(v == UNTOUCHED);
	check(proctext_number("PPid:\t17\n", &v) == 0 && v == 17);
}

static void test_quote(void)
{
	char out[8];

	check_str(proctext_quote("a\tb\x7f\xc3\nmore", out, sizeof(out)),
		  "a?b??");
	check_str(proctext_quote("0123456789", out, sizeof(out)), "0123456");
	check_str(proctext_quote("", out, sizeof(out)), "");
}

static void test_status(void)
{
	struct procstatus s = { 0 };

	check(procstatus_line(&s, "Name:\ta \x1b[1m b\x80\n") == 0);
	check_str(s.comm, "a ?[1m b?");
	check(procstatus_line(&s, "Name:\t0123456789012345678901234567890123456"
				  "789\n") == 0);
	check(strlen(s.comm) == sizeof(s.comm) - 1);
	check(procstatus_line(&s, "PPid:\t4294967297\n") == -ERANGE);
	check(procstatus_line(&s, "PPid:\tx\n") == -EINVAL);
	check(procstatus_line(&s, "PPid:\t7\n") == 0 && s.ppid == 7);
	check(procstatus_line(&s, "Threads:\t1073741824\n") == -ERANGE);
	check(procstatus_line(&s, "Threads:\t2\n") == 0);
	check(procstatus_stacks(&s) == 32768);
	check(!s.has_memory);
	check(procstatus_line(&s, "VmPTE:\t 12 kB\n") == 0);
	check(s.has_memory && s.tables == 12288);
	check(procstatus_line(&s, "Groups:\t \n") == 0);
	check(procstatus_line(&s, "") == 0);
}

static void test_vma(void)
{
	static const char *const bad[] = {
		"",
		"\n",
		"1000-1000 rw-p 00000000 00:00 0 \n",
		"2000-1000 rw-p 00000000 00:00 0 \n",
		"1001-2000 rw-p 00000000 00:00 0 \n",
		"1000-2001 rw-p 00000000 00:00 0 \n",
		"1000 2000 rw-p 00000000 00:00 0 \n",
		"1000-2000 rw-q 00000000 00:00 0 \n",
		"1000-2000 rw- 00000000 00:00 0 \n",
		"1000-2000 r",
		"1000-2000 rw-p 00000000 0000 0 \n",
		"1000-2000 rw-p 00000000 00:00 a \n",
		"1000-2000 rw-p 00000000 00:00 -1 \n",
		"1000-2000 rw-p 00000000 100000000:00 1 \n",
		"1000-10000000000002000 rw-p 00000000 00:00 0 \n",
		"1000-2000 rw-p 00000000 00:00 18446744073709551616 \n",
		"1000-2000 rw-p 00000000 00:00",
		"Pss: 1 kB",
	};
	struct vma v = { 0 };
	size_t i;

	check(vma_parse("55c8189fc000-55c8189fe000 r-xs 00002000 fe:1f 247134 "
			"                    /usr/bin/[vvar] x\n",
			&v) == 0);
	check(v.start == 0x55c8189fc000 && v.end == 0x55c8189fe000);
	check(v.read && !v.write && v.exec && v.shared && !v.special);
	check(v.dev == makedev(0xfe, 0x1f) && v.inode == 247134);
	check(vma_parse("1000-2000 -w-p 0 00:00 0", &v) == 0);
	check(!v.read && v.write && !v.shared && v.inode == 0);
	check(vma_parse("1000-2000 r--p 0 00:00 0    [vvar_vclock]\n", &v) ==
	      0);
	check(v.special);
	check(vma_parse("1000-2000 rw-p 0 00:00 0    [heap]\n", &v) == 0);
	check(!v.special);
	check(vma_parse("ffffffffff600000-ffffffffff601000 --xp 0 00:00 0 "
			"[vsyscall]\n",
			&v) == 0);
	check(v.special);
	for (i = 0; i < nitems(bad); i++)
		check(vma_parse(bad[i], &v) == -EINVAL);
}

struct totals {
	unsigned n;
	uint64_t pss, anonymous, swap_pss;
};

static void totals_add(void *ctx, const struct smaps_entry *entry)
{
	struct totals *t = ctx;

	t->n++;
	t->pss += entry->pss;
	t->anonymous += entry->anonymous;
	t->swap_pss += entry->swap_pss;
}

static void test_smaps(void)
{
	struct totals t = { 0 };
	struct smaps s = { .fn = totals_add, .ctx = &t };

	smaps_end(&s);
	check(t.n == 0);
	check(smaps_line(&s, "Pss: 1 kB\n") == -EINVAL);
	check(smaps_line(&s, "1000-2000 rw-p 0 00:00 0 \n") == 0);
	check(smaps_line(&s, "Pss: 4 kB\n") == 0);
	check(smaps_line(&s, "Pss_Dirty: 4 kB\n") == 0);
	check(smaps_line(&s, "VmFlags: rd wr\n") == 0);
	check(smaps_line(&s, "Anonymous: 8 kB\n") == 0);
	check(t.n == 0);
	check(smaps_line(&s, "2000-3000 rw-p 0 00:00 0 \n") == 0);
	check(t.n == 1 && t.pss == 4096);
	check(smaps_line(&s, "SwapPss: 12 kB\n") == 0);
	check(smaps_line(&s, "SwapPss: 12 MB\n") == -EINVAL);
	check(smaps_line(&s, "Nonsense\n") == -EINVAL);
	check(smaps_line(&s, "nonsense\n") == -EINVAL);
	smaps_end(&s);
	smaps_end(&s);
	check(t.n == 2 && t.anonymous == 8192 && t.swap_pss == 12288);
}

int main(void)
{
	test_bytes();
	test_number();
	test_quote();
	test_status();
	test_vma();
	test_smaps();
	return 0;
}
