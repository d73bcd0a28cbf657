/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an NBD client says: options, then requests
 *
 * The first byte: 0, all of a connection; else requests only. The client's
 * bytes come from a file, and replies go to another. No reply is more than what
 * was asked for, need() is only asked for bytes of the disk, and every reply is
 * one to a request: the output is walked through.
 */
#include "pager/nbd_session.h"

#include "base/err.h"
#include "base/guard.h"
#include "base/io.h"
#include "pager/stats.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BYTES (64u << 10)
/* The file is shorter. */
#define FILE_BYTES (50u << 10)
/* What an input of libFuzzer's 4 KiB can ask for: 140 reads. */
#define OUT_MAX (32u << 20)

static int fuzz_need(void *arg, uint64_t offset, uint64_t len)
{
	must(arg == NULL && len > 0 && offset < BYTES && len <= BYTES - offset);
	return offset % 3 == 0 ? -ETIMEDOUT : 0;
}

static int fuzz_fd(const void *p, size_t len)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	must(fd >= 0);
	must(io_pwrite_full(fd, p, len, 0) == 0);
	return fd;
}

static uint32_t fuzz_u32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return be32toh(v);
}

/* Every request has its reply, with its cookie, and its data. */
static void fuzz_replies(const uint8_t *in, size_t in_len, const uint8_t *out,
			 size_t out_len)
{
	size_t skip;

	while (out_len > 0) {
		must(in_len >= 28 && out_len >= 16);
		must(fuzz_u32(in) == 0x25609513 && fuzz_u32(out) == 0x67446698);
		must(!memcmp(in + 8, out + 8, 8));
		/* Of reads and writes what follows. */
		skip = in[7] == 0 && in[6] == 0 && fuzz_u32(out + 4) == 0
			       ? fuzz_u32(in + 24)
			       : 0;
		must(skip <= BYTES && skip <= out_len - 16);
		out += 16 + skip;
		out_len -= 16 + skip;
		skip = in[7] == 1 && in[6] == 0 ? fuzz_u32(in + 24) : 0;
		must(skip <= in_len - 28);
		in += 28 + skip;
		in_len -= 28 + skip;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct pager_layer_stats stats;
	static uint8_t out[OUT_MAX];
	static int disk_fd = -1;
	struct nbd_disk d = { .bytes = BYTES,
			      .need = fuzz_need,
			      .stats = &stats };
	guard_fd int in_fd = -1, out_fd = -1;
	off_t used = 0, begun = 0;
	ssize_t n;
	int r = 0;

	if (!size || size > 4096)
		return 0;
	if (disk_fd < 0)
		disk_fd = fuzz_fd(out, FILE_BYTES);
	d.fd = disk_fd;
	in_fd = fuzz_fd(data + 1, size - 1);
	out_fd = fuzz_fd(out, 0);
	if (data[0] == 0) {
		r = nbd_negotiate(in_fd, out_fd, &d);
		used = lseek(in_fd, 0, SEEK_CUR);
		begun = lseek(out_fd, 0, SEEK_CUR);
		must(begun >= 18); /* the greeting */
		must(begun <= 18 + 200 * (off_t)NBD_OPTIONS_MAX);
	}
	if (r < 0)
		return 0;
	err_drop(nbd_transmit(in_fd, out_fd, &d));
	n = io_pread_full(out_fd, out, sizeof(out), (uint64_t)begun);
	must(n >= 0);
	fuzz_replies(data + 1 + used, size - 1 - (size_t)used, out, (size_t)n);
	return 0;
}
