/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Digests: the standard's vectors, in one piece, in pieces, from a file
 */
#include "base/digest.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/test.h"

#include <errno.h>
#include <sys/mman.h>

#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
/* A million times "a". */
#define MILLION \
	"cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"

static void test_fd(void)
{
	guard_fd int fd = memfd_create("test", MFD_CLOEXEC);
	guard_fd int none = memfd_create("test", MFD_CLOEXEC);
	char hex[DIGEST_HEX], thousand[1000];
	struct err e = ERR_NULL;
	struct digest *d = NULL;

	check(fd >= 0 && none >= 0);
	memset(thousand, 'a', sizeof(thousand));
	check(digest_new(&d) == 0);
	for (int i = 0; i < 1000; i++) {
		digest_add(d, thousand, sizeof(thousand));
		check(io_write_full(fd, thousand, sizeof(thousand)) == 0);
	}
	digest_end(d, hex);
	check(!digest_free(d));
	check_str(hex, MILLION);
	memset(hex, 0, sizeof(hex));
	/* The position is at the end, and stays there. */
	check(digest_of_fd(fd, hex, &e) == 0);
	check_str(hex, MILLION);
	check(lseek(fd, 0, SEEK_CUR) == 1000000);
	check(digest_of_fd(none, hex, &e) == 0);
	check_str(hex, EMPTY);
	check(digest_of_fd(-1, hex, &e) == -EBADF);
	check(e.code == EBADF);
}

int main(void)
{
	char hex[DIGEST_HEX];

	digest_of("", 0, hex);
	check_str(hex, EMPTY);
	digest_of("abc", 3, hex);
	check_str(hex, ABC);
	test_fd();
	check(!digest_free(NULL));
	check(digest_hex_ok(ABC));
	check(!digest_hex_ok(""));
	check(!digest_hex_ok(ABC "0"));
	check(!digest_hex_ok(&ABC[1]));
	hex[3] = 'F';
	check(!digest_hex_ok(hex));
	hex[3] = 'g';
	check(!digest_hex_ok(hex));
	return 0;
}
