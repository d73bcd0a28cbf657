/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a restore makes ready: of the layer's holes those that the guest maps,
 * and no others, are in the page cache
 */
#include "sandbox/workdir.h"

#include "base/test.h"
#include "gmem/plan.h"
#include "image/bitmap.h"
#include "ledger/resident.h"
#include "pager/test_image.h"

#include <linux/magic.h>
#include <sys/vfs.h>

#define MEMORY (16ull << 20)

static char top[128];

/* Zero pages in runs that are shorter than an extent of their own. */
static uint64_t short_zero_bytes(const struct bitmap *zero)
{
	uint64_t pages = 0;

	for (uint64_t i = 0, run; i < zero->n; i += run) {
		run = bitmap_run(zero, i);
		if (bitmap_get(zero, i) && run < PLAN_ZERO_RUN_MIN / PLAN_PAGE)
			pages += run;
	}
	return pages * PLAN_PAGE;
}

static uint64_t resident(int fd)
{
	uint64_t bytes = 0;
	struct err e = ERR_NULL;

	sample_ok(file_resident(fd, &bytes, &e), &e);
	return bytes;
}

/* The image of a template whose guests share; nothing of its memory is in the
 * page cache, or the test cannot be made here. */
static struct image *cold_image(const char *dir)
{
	guard_free char *manifest = sample_file(dir, IMAGE_MANIFEST_NAME);
	guard_free char *memory = sample_file(dir, "memory");
	guard_free char *text = NULL;
	guard_fd int fd = -1;
	struct image *i = NULL;
	struct err e = ERR_NULL;
	struct statfs fs = { 0 };
	char *at;

	sample_image(dir, MEMORY, 1 << 20);
	sample_ok(io_read_file(manifest, IMAGE_MANIFEST_MAX, &text, NULL, &e),
		  &e);
	at = strstr(text, "\"share\": false");
	check(at);
	memcpy(at, "\"share\":  true", strlen("\"share\":  true"));
	sample_ok(io_write_file(manifest, text, strlen(text), 0444, &e), &e);
	fd = open(memory, O_RDWR | O_CLOEXEC);
	check(fd >= 0 && statfs(memory, &fs) == 0);
	if (fs.f_type == TMPFS_MAGIC)
		test_skip("the page cache of a tmpfs is all there is of it");
	check(fchmod(fd, 0600) == 0); /* it was verified by image_seal() */
	check(fsync(fd) == 0);
	check(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0);
	if (resident(fd))
		test_skip("the page cache of a file cannot be dropped here");
	sample_ok(image_open(dir, &i, &e), &e);
	return i;
}

static void test_holes(void)
{
	guard_free char *dir = sample_file(top, "image");
	struct image *i = cold_image(dir);
	uint64_t holes = short_zero_bytes(image_zeromap(i));
	uint64_t data = MEMORY - image_manifest(i)->zero_bytes;
	int memory_fd = image_fd(i, IMAGE_MEMORY);
	uint64_t before, after;
	struct workdir w = WORKDIR_NULL;
	struct err e = ERR_NULL;

	check(holes > 0 && holes < image_manifest(i)->zero_bytes);
	/* Verifying reads the data alone; less is there when the host dropped
	 * pages, as it may at any time. */
	before = resident(memory_fd);
	check(before <= data);
	sample_ok(workdir_init(&w, top, top, "sb1", &e), &e);
	sample_ok(workdir_make_restore(&w, i, NULL, &e), &e);
	check(w.layer_fd == memory_fd && w.plan_fd >= 0);
	after = resident(memory_fd);
	check(after > before && after <= data + holes);
	workdir_close(&w);
	sample_ok(workdir_remove(&w, &e), &e);
	workdir_deinit(&w);
	image_unref(i);
}

int main(void)
{
	struct err e = ERR_NULL;

	test_dir(top, sizeof(top));
	test_holes();
	sample_ok(io_remove_tree(top, &e), &e);
	return 0;
}
