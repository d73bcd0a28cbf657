/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers: what is understood, what is refused, what people read
 */
#include "base/parse.h"

#include "base/clock.h"
#include "base/test.h"

#include <errno.h>

#define KIB 1024ull
#define UNTOUCHED 0xdeadull

struct test_case {
	const char *text;
	uint64_t value;
	int r;
};

typedef int (*test_fn)(const char *s, uint64_t *ret);

static void test_table(test_fn fn, const struct test_case *cases, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t v = UNTOUCHED;
		int r = fn(cases[i].text, &v);

		if (r != cases[i].r ||
		    v != (r == 0 ? cases[i].value : UNTOUCHED)) {
			fprintf(stderr, "\"%s\": %d, %llu\n", cases[i].text, r,
				(unsigned long long)v);
			exit(1);
		}
	}
}

static const struct test_case u64s[] = {
	{ "0", 0, 0 },
	{ "007", 7, 0 },
	{ "18446744073709551615", UINT64_MAX, 0 },
	{ "18446744073709551616", 0, -ERANGE },
	{ "99999999999999999999999", 0, -ERANGE },
	{ "99999999999999999999999x", 0, -EINVAL },
	{ "", 0, -EINVAL },
	{ "-1", 0, -EINVAL },
	{ "+1", 0, -EINVAL },
	{ " 1", 0, -EINVAL },
	{ "1 ", 0, -EINVAL },
	{ "0x10", 0, -EINVAL },
	{ "1e3", 0, -EINVAL },
	{ "1.0", 0, -EINVAL },
};

static const struct test_case bytes[] = {
	{ "0", 0, 0 },
	{ "4096", 4096, 0 },
	{ "1k", KIB, 0 },
	{ "1K", KIB, 0 },
	{ "512M", 512 * KIB *KIB, 0 },
	{ "2G", 2 * KIB *KIB *KIB, 0 },
	{ "2Gi", 2 * KIB *KIB *KIB, 0 },
	{ "2GB", 2 * KIB *KIB *KIB, 0 },
	{ "2GiB", 2 * KIB *KIB *KIB, 0 },
	{ "1.5G", 3 * KIB *KIB *KIB / 2, 0 },
	{ "1.5T", 3 * KIB *KIB *KIB *KIB / 2, 0 },
	{ "0.1k", 102, 0 },
	{ "1.1G", 1181116006, 0 },
	{ "1.999999999999999999k", 2047, 0 },
	{ "1.0000000000000000000k", 0, -ERANGE },
	{ "16777215T", 16777215 * KIB *KIB *KIB *KIB, 0 },
	{ "16777216T", 0, -ERANGE },
	{ "18446744073709551615", UINT64_MAX, 0 },
	{ "18446744073709551616", 0, -ERANGE },
	{ "18446744073709551615k", 0, -ERANGE },
	{ "", 0, -EINVAL },
	{ "G", 0, -EINVAL },
	{ "-1G", 0, -EINVAL },
	{ "+1G", 0, -EINVAL },
	{ "nan", 0, -EINVAL },
	{ "inf", 0, -EINVAL },
	{ "1.5", 0, -EINVAL },
	{ "1.G", 0, -EINVAL },
	{ ".5G", 0, -EINVAL },
	{ "1,5G", 0, -EINVAL },
	{ "1.5.5G", 0, -EINVAL },
	{ "1 G", 0, -EINVAL },
	{ "1G ", 0, -EINVAL },
	{ "1GG", 0, -EINVAL },
	{ "1GBi", 0, -EINVAL },
	{ "1Gib", 0, -EINVAL },
	{ "1B", 0, -EINVAL },
	{ "1iB", 0, -EINVAL },
	{ "1g", 0, -EINVAL },
	{ "1m", 0, -EINVAL },
	{ "1P", 0, -EINVAL },
	{ "1e3k", 0, -EINVAL },
};

static const struct test_case durations[] = {
	{ "0", 0, 0 },
	{ "500ms", 500 * NS_PER_MS, 0 },
	{ "5s", 5 * NS_PER_SEC, 0 },
	{ "5", 5 * NS_PER_SEC, 0 },
	{ "0.5", NS_PER_SEC / 2, 0 },
	{ "1.5s", 1500 * NS_PER_MS, 0 },
	{ "10m", 600 * NS_PER_SEC, 0 },
	{ "2h", 7200 * NS_PER_SEC, 0 },
	{ "1d", 86400 * NS_PER_SEC, 0 },
	{ "213503d", 213503 * (86400 * NS_PER_SEC), 0 },
	{ "213504d", 0, -ERANGE },
	{ "18446744073", 18446744073 * NS_PER_SEC, 0 },
	{ "18446744074", 0, -ERANGE },
	{ "", 0, -EINVAL },
	{ "s", 0, -EINVAL },
	{ "-1s", 0, -EINVAL },
	{ "1 s", 0, -EINVAL },
	{ "1sec", 0, -EINVAL },
	{ "1us", 0, -EINVAL },
	{ "1m30s", 0, -EINVAL },
	{ "1M", 0, -EINVAL },
};

static void test_names(void)
{
	char name[65];

	check(parse_name_ok("a"));
	check(parse_name_ok("0"));
	check(parse_name_ok("Debian-12.5_x"));
	check(!parse_name_ok(""));
	check(!parse_name_ok("."));
	check(!parse_name_ok(".."));
	check(!parse_name_ok("-a"));
	check(!parse_name_ok("_a"));
	check(!parse_name_ok("a/b"));
	check(!parse_name_ok("a b"));
	check(!parse_name_ok("a\n"));
	check(!parse_name_ok("\xc3\xa4"));
	memset(name, 'n', sizeof(name));
	name[63] = '\0';
	check(parse_name_ok(name));
	name[63] = 'n';
	name[64] = '\0';
	check(!parse_name_ok(name));
}

static void test_format(void)
{
	char out[32];

	check_str(format_bytes(0, out), "0 B");
	check_str(format_bytes(1, out), "1 B");
	check_str(format_bytes(1023, out), "1023 B");
	check_str(format_bytes(1024, out), "1 KiB");
	check_str(format_bytes(1536, out), "1.5 KiB");
	check_str(format_bytes(3ull << 29, out), "1.5 GiB");
	check_str(format_bytes(2ull << 30, out), "2 GiB");
	/* Rounded up into the next unit. */
	check_str(format_bytes((1ull << 20) - 1, out), "1 MiB");
	check_str(format_bytes(1023ull << 20, out), "1023 MiB");
	check_str(format_bytes(UINT64_MAX, out), "16 EiB");
	/* Ten times this is 4, modulo 2^64. */
	check_str(format_bytes(1844674407370955162, out), "1.6 EiB");

	check_str(format_duration_ns(0, out), "0 s");
	check_str(format_duration_ns(1, out), "1 ns");
	check_str(format_duration_ns(1500, out), "1.5 us");
	check_str(format_duration_ns(85 * NS_PER_MS, out), "85 ms");
	check_str(format_duration_ns(85400000, out), "85 ms");
	check_str(format_duration_ns(999600000, out), "1 s");
	check_str(format_duration_ns(1234 * NS_PER_MS, out), "1.2 s");
	check_str(format_duration_ns(12 * NS_PER_SEC, out), "12 s");
	check_str(format_duration_ns(90 * NS_PER_SEC, out), "1.5 m");
	check_str(format_duration_ns(600 * NS_PER_SEC, out), "10 m");
	check_str(format_duration_ns(5400 * NS_PER_SEC, out), "1.5 h");
	check_str(format_duration_ns(172800 * NS_PER_SEC, out), "2 d");
	check_str(format_duration_ns(UINT64_MAX, out), "213504 d");

	check_str(format_hex("\x00\x7f\xff", 3, out), "007fff");
	check_str(format_hex(NULL, 0, out), "");
}

int main(void)
{
	test_table(parse_u64, u64s, nitems(u64s));
	test_table(parse_bytes, bytes, nitems(bytes));
	test_table(parse_duration_ns, durations, nitems(durations));
	test_names();
	test_format();
	return 0;
}
