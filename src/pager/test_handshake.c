/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handshakes of all versions, and of nobody
 */
#include "pager/handshake.h"

#include "base/test.h"

#include <errno.h>
#include <inttypes.h>

#define MIB (1ull << 20)
#define IMAGE (512 * MIB)

static struct engine_region region[ENGINE_REGIONS_MAX];
static unsigned n;
static struct err e;

static int parse(const char *json)
{
	e = (struct err)ERR_NULL;
	return handshake_parse(json, strlen(json), IMAGE, region, &n, &e);
}

static void good(const char *json, unsigned regions, uint64_t page_bytes)
{
	check(parse(json) == 0);
	check(n == regions && !e.code);
	check(region[0].page_bytes == page_bytes);
}

static void bad(const char *json, int code, const char *word)
{
	n = 77;
	check(parse(json) == -code);
	check(e.code == code && n == 77);
	if (!strstr(e.msg, word)) {
		fprintf(stderr, "\"%s\" does not say \"%s\"\n", e.msg, word);
		check(false);
	}
}

#define KEYS(addr, size, offset)                              \
	"{\"base_host_virt_addr\": " addr ", \"size\": " size \
	", \"offset\": " offset
#define ROUND KEYS("140737488355328", "4194304", "0")

static void test_versions(void)
{
	/* 1.1, 1.7, 1.12, and what may come. */
	good("[" KEYS("140737400000512", "1048576", "4096") "}]", 1, 4096);
	check(region[0].addr == 140737400000512ull);
	check(region[0].bytes == MIB && region[0].offset == 4096);
	good("[" ROUND ", \"page_size_kib\": 4096}]", 1, 4096);
	good("[" ROUND ", \"page_size_kib\": 2097152}]", 1, 2 * MIB);
	good("[" ROUND ", \"page_size\": 2097152,"
	     " \"page_size_kib\": 2097152}]",
	     1, 2 * MIB);
	good("[" ROUND ", \"page_size\": 4096}]", 1, 4096);
	good("[" ROUND ", \"gpa_start\": 0, \"x\": [{\"y\": null}]}]", 1, 4096);
	/* Two regions around the MMIO gap: no gap in the file. */
	good("[" KEYS("4096", "268435456", "0") "},"
						" " KEYS("1073741824",
							 "268435456",
							 "268435456") "}]",
	     2, 4096);
	check(region[1].offset == 256 * MIB && region[1].bytes == 256 * MIB);
	good("\n [" ROUND "}] \n", 1, 4096);
}

static void test_refused(void)
{
	bad("", EAGAIN, "ends too early");
	bad("[", EAGAIN, "ends too early");
	bad("[" ROUND, EAGAIN, "ends too early");
	bad("hello", EBADMSG, "JSON");
	bad("[]", ERANGE, "0 regions");
	bad("{}", EBADMSG, "array");
	bad("[1]", EBADMSG, "region 0: no object");
	bad("[" ROUND "}] x", EBADMSG, "JSON");
	bad("[" ROUND ", \"size\": 4096}]", EBADMSG, "JSON");
	bad("[{\"size\": 4096, \"offset\": 0}]", EBADMSG, "base_host");
	bad("[{\"base_host_virt_addr\": 0, \"size\": 4096}]", EBADMSG,
	    "no offset");
	bad("[" KEYS("\"4096\"", "4096", "0") "}]", EBADMSG, "no integer");
	bad("[" KEYS("4096", "4096.0", "0") "}]", EBADMSG, "no integer");
	bad("[" KEYS("4096", "true", "0") "}]", EBADMSG, "no integer");
	bad("[" KEYS("4096", "-4096", "0") "}]", ERANGE, "negative");
	bad("[" KEYS("18446744073709547520", "4096", "0") "}]", EBADMSG,
	    "JSON");
	bad("[" KEYS("9223372036854771712", "8192", "0") "}]", ERANGE,
	    "address space");
	bad("[" KEYS("4096", "0", "0") "}]", ERANGE, "empty");
	bad("[" KEYS("4097", "4096", "0") "}]", EINVAL, "whole pages");
	bad("[" KEYS("4096", "4095", "0") "}]", EINVAL, "whole pages");
	bad("[" KEYS("4096", "4096", "1") "}]", EINVAL, "whole pages");
	bad("[" KEYS("4096", "4194304", "0") ", \"page_size\": 2097152}]",
	    EINVAL, "whole pages");
	bad("[" KEYS("4096", "4096", "536870912") "}]", ERANGE, "outside");
	bad("[" KEYS("4096", "8192", "536866816") "}]", ERANGE, "outside");
	bad("[" KEYS("4096", "9223372036854767616", "4096") "}]", ERANGE,
	    "outside");
	bad("[" ROUND ", \"page_size\": 16384}]", ENOTSUP, "16384");
	bad("[" ROUND ", \"page_size_kib\": 4}]", ENOTSUP, "4 bytes");
	bad("[" ROUND ", \"page_size\": 4096, \"page_size_kib\": 2097152}]",
	    EINVAL, "page_size_kib");
	bad("[" KEYS("4096", "8192", "0") "}, " KEYS("8192", "4096",
						     "8192") "}]",
	    EINVAL, "0 and 1 overlap");
	bad("[" KEYS("4096", "8192", "0") "}, " KEYS("1048576", "4096",
						     "4096") "}]",
	    EINVAL, "0 and 1 overlap");
}

static void test_many(void)
{
	static char json[HANDSHAKE_BYTES_MAX + 2];
	size_t len;

	for (unsigned many = ENGINE_REGIONS_MAX; many <= ENGINE_REGIONS_MAX + 1;
	     many++) {
		len = 0;
		for (unsigned i = 0; i < many; i++)
			len += (size_t)snprintf(
				json + len, sizeof(json) - len,
				"%s" KEYS("%u", "4096",
					  "%u") ", \"page_size\": 4096,"
						" \"page_size_kib\": 4096}",
				i ? ", " : "[", (i + 1) * 8192, i * 4096);
		snprintf(json + len, sizeof(json) - len, "]");
		if (many > ENGINE_REGIONS_MAX)
			bad(json, ERANGE, "65 regions");
		else
			good(json, many, 4096);
	}
	memset(json, ' ', sizeof(json) - 1);
	bad(json, E2BIG, "65537");
	memset(json, '[', HANDSHAKE_BYTES_MAX);
	json[HANDSHAKE_BYTES_MAX] = '\0';
	check(parse(json) < 0);
}

int main(void)
{
	test_versions();
	test_refused();
	test_many();
	return 0;
}
