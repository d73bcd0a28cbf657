/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 digests, as lower-case hex text
 *
 * A thin layer over libcrypto's EVP, which picks the CPU's SHA instructions by
 * itself. Once a context exists, hashing bytes cannot fail, so adding and
 * ending return nothing and a failure there is a bug.
 *
 * digest_of() makes its context inside libcrypto and has no result either: it
 * is called per chunk, where a caller could do nothing sensible. Should the
 * few hundred bytes not be had, it waits for them; memory pressure must not
 * end a process that feeds guests.
 *
 * It is not a choice of algorithms: the image format names SHA-256.
 */
/* First: its headers spell __attribute__((unused)), see must.h. */
#include <openssl/evp.h>

#include "base/digest.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/parse.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define DIGEST_BYTES 32

/* Large enough that the system call's share is lost in the hashing (256 KiB
 * are about 150 us of it), small enough for the L2 cache. */
#define DIGEST_READ_BYTES ((size_t)256 << 10)

/* Between attempts to get memory, and how many: ten seconds. After that it is
 * no pressure but a libcrypto without SHA-256, which would hang us silently. */
#define DIGEST_RETRY_NS 1000000
#define DIGEST_RETRIES_MAX 10000

struct digest {
	EVP_MD_CTX *ctx;
};

static void digest_freep(struct digest **d)
{
	digest_free(*d);
}

int digest_new(struct digest **ret)
{
	guard(digest_freep) struct digest *d = calloc(1, sizeof(*d));

	if (!d)
		return -ENOMEM;
	d->ctx = EVP_MD_CTX_new();
	if (!d->ctx || EVP_DigestInit_ex(d->ctx, EVP_sha256(), NULL) != 1)
		return -ENOMEM;
	*ret = take(d);
	return 0;
}

struct digest *digest_free(struct digest *d)
{
	if (d) {
		EVP_MD_CTX_free(d->ctx);
		free(d);
	}
	return NULL;
}

void digest_add(struct digest *d, const void *p, size_t len)
{
	must(EVP_DigestUpdate(d->ctx, p, len) == 1);
}

void digest_end(struct digest *d, char hex[DIGEST_HEX])
{
	unsigned char bytes[DIGEST_BYTES];
	unsigned len = 0;

	must(EVP_DigestFinal_ex(d->ctx, bytes, &len) == 1);
	must(len == sizeof(bytes));
	format_hex(bytes, sizeof(bytes), hex);
}

void digest_of(const void *p, size_t len, char hex[DIGEST_HEX])
{
	const struct timespec pause = { .tv_nsec = DIGEST_RETRY_NS };
	guard(digest_freep) struct digest *d = NULL;

	for (int tries = 0; digest_new(&d) < 0; tries++) {
		must(tries < DIGEST_RETRIES_MAX);
		nanosleep(&pause, NULL);
	}
	digest_add(d, p, len);
	digest_end(d, hex);
}

int digest_of_fd(int fd, char hex[DIGEST_HEX], struct err *e)
{
	guard(digest_freep) struct digest *d = NULL;
	guard_free void *mem = malloc(DIGEST_READ_BYTES);
	uint64_t offset = 0;
	ssize_t n;
	int r;

	if (!mem)
		return err_errno(e, ENOMEM, "digest");
	r = digest_new(&d);
	if (r < 0)
		return err_errno(e, -r, "digest");
	do {
		n = io_pread_full(fd, mem, DIGEST_READ_BYTES, offset);
		if (n < 0)
			return err_errno(e, (int)-n, "read at %llu",
					 (unsigned long long)offset);
		digest_add(d, mem, (size_t)n);
		offset += (uint64_t)n;
	} while ((size_t)n == DIGEST_READ_BYTES);
	digest_end(d, hex);
	return 0;
}

bool digest_hex_ok(const char *s)
{
	size_t n = strspn(s, "0123456789abcdef");

	return n == DIGEST_HEX - 1 && s[n] == '\0';
}
