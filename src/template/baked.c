/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making the files of an image
 *
 * Zero pages become holes of the memory file; reading a hole through a mapping
 * fills the page cache with zeros all the same, so what a bake's own guest has
 * touched of them is dropped at the end. The overlay is made by qemu-img, once
 * per template: 200 KB that every sandbox copies.
 */
#include "template/baked.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/proc.h"
#include "image/bitmap.h"
#include "image/chunk.h"
#include "image/image.h"
#include "sandbox/workdir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int baked_copy(const char *from, const char *to, struct err *e)
{
	guard_fd int in = open(from, O_RDONLY | O_CLOEXEC);
	guard_fd int out = -1;
	struct stat st;

	if (in < 0)
		return err_errno(e, errno, "open %s", from);
	if (fstat(in, &st) < 0 || !S_ISREG(st.st_mode))
		return err_set(e, EINVAL, "%s is no disk image file", from);
	if (st.st_size == 0 || st.st_size % 512)
		return err_set(e, EINVAL,
			       "%s: %lld bytes are no whole number of sectors",
			       from, (long long)st.st_size);
	out = open(to, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (out < 0)
		return err_errno(e, errno, "create %s", to);
	if (io_copy_file(in, out, e) < 0)
		return err_prefix(e, "copy %s", from);
	return 0;
}

int baked_digest(const char *path, char hex[DIGEST_HEX], struct err *e)
{
	guard_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(e, errno, "open %s", path);
	if (chunk_file_digest(fd, (uint64_t)st.st_size, hex, e) < 0)
		return err_prefix(e, "%s", path);
	return 0;
}

int baked_overlay(const char *dir, struct err *e)
{
	guard_free char *path = io_path("%s/overlay", dir);
	guard_free char *disk = io_path("%s/disk", dir);
	char size[32];
	const char *argv[] = {
		"qemu-img",          "create", "-q", "-f", "qcow2", "-o",
		"lazy_refcounts=on", path,     size, NULL
	};
	struct stat st;

	if (!path || !disk)
		return err_errno(e, ENOMEM, "overlay");
	if (stat(disk, &st) < 0)
		return err_errno(e, errno, "stat %s", disk);
	snprintf(size, sizeof(size), "%lld", (long long)st.st_size);
	return proc_run(argv, 4096, NULL, e);
}

int baked_zeromap(const char *dir, int memory_fd, uint64_t bytes, struct err *e)
{
	guard_free char *path = io_path("%s/zeromap", dir);
	struct bitmap zero = BITMAP_NULL;
	int r;

	if (!path)
		return err_errno(e, ENOMEM, "zero map");
	r = image_find_zero(memory_fd, bytes, &zero, e);
	if (r == 0)
		r = bitmap_write(&zero, path, e);
	bitmap_deinit(&zero);
	return r;
}

int baked_reserve(const char *dir, struct err *e)
{
	guard_free char *memory = io_path("%s/memory", dir);
	guard_free char *path = io_path("%s/zeromap", dir);
	struct bitmap zero = BITMAP_NULL;
	struct stat st = { 0 };
	guard_fd int fd = -1;
	int r;

	if (!memory || !path)
		return err_errno(e, ENOMEM, "memory");
	fd = open(memory, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
	    bitmap_read(path, (uint64_t)st.st_size / IMAGE_PAGE, &zero, NULL) <
		    0)
		return 0;
	r = image_reserve(fd, &zero, workdir_zero_run(&zero), e);
	bitmap_deinit(&zero);
	return r;
}

void baked_drop_holes(const char *dir, int memory_fd, uint64_t bytes)
{
	guard_free char *path = io_path("%s/zeromap", dir);
	struct bitmap zero = BITMAP_NULL;

	if (!path || bitmap_read(path, bytes / IMAGE_PAGE, &zero, NULL) < 0)
		return;
	for (uint64_t i = 0, run; i < zero.n; i += run) {
		run = bitmap_run(&zero, i);
		if (bitmap_get(&zero, i))
			posix_fadvise(memory_fd, (off_t)(i * IMAGE_PAGE),
				      (off_t)(run * IMAGE_PAGE),
				      POSIX_FADV_DONTNEED);
	}
	bitmap_deinit(&zero);
}
