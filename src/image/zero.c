/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Zero pages and holes of a memory file
 *
 * A booted guest of 2 GiB has written to perhaps 150 MiB; the rest of its
 * memory file is holes, which the file system can list (SEEK_DATA, SEEK_HOLE).
 * Only what is not a hole is read, in pieces, and looked at page by page. Zero
 * pages found there are holes of the future: they are punched out, so that the
 * file, its zero map and its cost on disk agree.
 *
 * Invariants:
 *  1. What a file system calls data may be zero; what it calls a hole is. Its
 *     edges are rounded outward to whole pages of data.
 *  2. The map is exact: a page is marked if and only if all its bytes are zero.
 *  3. Punching changes no byte as seen by a reader, so a failure half way
 *     leaves a correct file.
 *
 * Reading is by pread and not by mapping: reading a hole of a tmpfs file
 * through a mapping allocates the page. Guests do map it, those holes that are
 * too short to be left out, and when there is no room for the page their VMM is
 * killed by SIGBUS. image_reserve() takes that room when somebody can still be
 * told. Its sum of blocks says whether it did: a file has those of its data at
 * least, and more only by having been reserved, mapped or written whole.
 *
 * It does not stop the guest: nobody writes to the file meanwhile.
 */
#include "image/zero.h"

#include "base/guard.h"
#include "base/io.h"
#include "image/bitmap.h"
#include "image/image.h"
#include "image/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

/* Read at a time: the share of the system call is lost, and the buffer stays
 * near the last level cache's share of one core. */
#define ZERO_READ_BYTES (4ull << 20)

/* Words examined between looks at the result: four cache lines, so that a page
 * in use, which nearly always shows it at once, costs no more than that. */
#define ZERO_STEP 32u
#define ZERO_WORDS (IMAGE_PAGE / sizeof(uint64_t))

bool zero_page(const void *page)
{
	const uint64_t *w = page, *end = w + ZERO_WORDS;

	for (; w < end; w += ZERO_STEP) {
		uint64_t any = 0;

		for (unsigned i = 0; i < ZERO_STEP; i++)
			any |= w[i];
		if (any)
			return false;
	}
	return true;
}

int zero_next_data(int fd, uint64_t pos, uint64_t bytes, uint64_t *ret_start,
		   uint64_t *ret_end, struct err *e)
{
	off_t data, hole;

	*ret_start = *ret_end = bytes;
	if (pos >= bytes)
		return 0;
	data = lseek(fd, (off_t)pos, SEEK_DATA);
	if (data < 0 && errno == ENXIO)
		return 0;
	if (data < 0 && errno == EINVAL) {
		*ret_start = pos;
		return 0;
	}
	if (data < 0)
		return err_errno(e, errno, "find data at %" PRIu64, pos);
	if ((uint64_t)data >= bytes)
		return 0;
	hole = lseek(fd, data, SEEK_HOLE);
	if (hole < 0)
		return err_errno(e, errno, "find a hole at %" PRIu64,
				 (uint64_t)data);
	*ret_start = (uint64_t)data & ~(IMAGE_PAGE - 1);
	*ret_end = min(((uint64_t)hole + IMAGE_PAGE - 1) & ~(IMAGE_PAGE - 1),
		       bytes);
	return 0;
}

/* Mark the zero pages of one data extent. */
static int zero_mark(int fd, uint64_t start, uint64_t end, void *buf,
		     struct bitmap *map, struct err *e)
{
	uint64_t len, i;
	ssize_t n;

	for (; start < end; start += len) {
		len = min(end - start, ZERO_READ_BYTES);
		n = io_pread_full(fd, buf, len, start);
		if (n < 0)
			return err_errno(e, (int)-n, "read at %" PRIu64, start);
		if ((uint64_t)n < len)
			return err_set(e, EBADMSG,
				       "ends at %" PRIu64 " while read",
				       start + (uint64_t)n);
		for (i = 0; i < len / IMAGE_PAGE; i++)
			if (zero_page((uint8_t *)buf + i * IMAGE_PAGE))
				bitmap_set(map, start / IMAGE_PAGE + i);
	}
	return 0;
}

static int zero_punch(int fd, uint64_t start, uint64_t len, struct err *e)
{
	while (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			 (off_t)start, (off_t)len) < 0)
		if (errno != EINTR)
			return err_errno(e, errno, "punch a hole at %" PRIu64,
					 start);
	return 0;
}

/* Make holes of the zero runs of one data extent. */
static int zero_punch_runs(int fd, uint64_t start, uint64_t end,
			   const struct bitmap *map, struct err *e)
{
	uint64_t i = start / IMAGE_PAGE, n = end / IMAGE_PAGE, run;
	int r;

	for (; i < n; i += run) {
		run = min(bitmap_run(map, i), n - i);
		if (!bitmap_get(map, i))
			continue;
		r = zero_punch(fd, i * IMAGE_PAGE, run * IMAGE_PAGE, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int zero_find(int fd, uint64_t bytes, void *buf, struct bitmap *map,
		     struct err *e)
{
	uint64_t pos = 0, start, end;
	int r;

	while (pos < bytes) {
		r = zero_next_data(fd, pos, bytes, &start, &end, e);
		if (r < 0)
			return r;
		bitmap_set_run(map, pos / IMAGE_PAGE,
			       (start - pos) / IMAGE_PAGE);
		r = zero_mark(fd, start, end, buf, map, e);
		if (r < 0)
			return r;
		r = zero_punch_runs(fd, start, end, map, e);
		if (r < 0)
			return r;
		pos = end;
	}
	return 0;
}

int image_find_zero(int memory_fd, uint64_t bytes, struct bitmap *ret,
		    struct err *e)
{
	guard_free void *buf = malloc(ZERO_READ_BYTES);
	guard(bitmap_deinit) struct bitmap map = BITMAP_NULL;
	struct stat st = { 0 };
	int r;

	if (!buf)
		return err_errno(e, ENOMEM, "memory");
	if (fstat(memory_fd, &st) < 0)
		return err_errno(e, errno, "memory: stat");
	if (bytes % IMAGE_PAGE || (uint64_t)st.st_size != bytes)
		return err_set(e, EINVAL,
			       "memory: %" PRIu64 " bytes, not %" PRIu64
			       " in whole pages",
			       (uint64_t)st.st_size, bytes);
	r = bitmap_init(&map, bytes / IMAGE_PAGE);
	if (r < 0)
		return err_errno(e, -r, "memory: zero map");
	r = zero_find(memory_fd, bytes, buf, &map, e);
	if (r < 0) {
		err_prefix(e, "memory");
		return r;
	}
	*ret = map;
	map = (struct bitmap)BITMAP_NULL;
	return 0;
}

/* ---- room for holes ---- */

struct zero_room {
	int fd;
	uint64_t bytes; /* of holes */
};

static int zero_count_hole(unused uint64_t start, uint64_t len, void *arg)
{
	struct zero_room *room = arg;

	room->bytes += len;
	return 0;
}

static int zero_reserve_hole(uint64_t start, uint64_t len, void *arg)
{
	const struct zero_room *room = arg;

	while (fallocate(room->fd, FALLOC_FL_KEEP_SIZE, (off_t)start,
			 (off_t)len) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

int image_reserve(int memory_fd, const struct bitmap *zeromap,
		  uint64_t min_zero_run_pages, struct err *e)
{
	uint64_t data = (zeromap->n - bitmap_count(zeromap)) * IMAGE_PAGE;
	struct zero_room room = { .fd = memory_fd };
	struct statfs fs = { 0 };
	struct stat st = { 0 };
	int r;

	if (fstatfs(memory_fd, &fs) < 0 || fstat(memory_fd, &st) < 0)
		return err_errno(e, errno, "memory: stat");
	if (fs.f_type != TMPFS_MAGIC)
		return 0;
	err_drop(image_holes(zeromap, min_zero_run_pages, zero_count_hole,
			     &room));
	if ((uint64_t)st.st_blocks * 512 >= data + room.bytes)
		return 0;
	r = image_holes(zeromap, min_zero_run_pages, zero_reserve_hole, &room);
	if (r < 0)
		return err_errno(e, -r,
				 "memory: make room for holes that guests map");
	return 0;
}
