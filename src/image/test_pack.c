/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing: an image goes into a store and comes back the same, byte for byte;
 * children share; every kind of damage and half-done work
 */
#include "image/pack.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/test.h"
#include "image/image.h"
#include "image/reference.h"
#include "image/store.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define HEX "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
/* Three chunks and a bit of memory, the second one empty; a disk with an odd
 * tail. */
#define PAGES (3 * INDEX_CHUNK_PAGES + 7)
#define MEMORY (PAGES * IMAGE_PAGE)
#define DISK (INDEX_CHUNK + 3 * IMAGE_PAGE + 100)

static char top[200];
static struct store *store;
static struct err e; /* of the last call */

static const char *const files[] = {
	"manifest.json", "memory",  "memory.digests", "state",
	"disk",          "overlay", "zeromap",        "workingset",
};

__attribute__((noreturn)) static void fail(int line)
{
	fprintf(stderr, "line %d: %s\n", line, e.msg);
	exit(1);
}

#define good(x)                           \
	do {                              \
		e = (struct err)ERR_NULL; \
		if ((x) != 0)             \
			fail(__LINE__);   \
	} while (0)

static int file_at(const char *dir, const char *name, int flags)
{
	guard_free char *path = io_path("%s/%s", dir, name);
	int fd = open(path, flags | O_CLOEXEC, 0600);

	if (fd < 0) {
		fprintf(stderr, "%s\n", path);
		check(fd >= 0);
	}
	return fd;
}

static bool exists(const char *dir, const char *name)
{
	guard_free char *path = io_path("%s/%s", dir, name);

	return access(path, F_OK) == 0;
}

static void put_text(const char *dir, const char *name, const char *text)
{
	guard_fd int fd = file_at(dir, name, O_WRONLY | O_CREAT | O_TRUNC);

	check(io_write_full(fd, text, strlen(text)) == 0);
}

/* Not zero, and not the same for two pages or two versions. */
static void put_page(int fd, uint64_t page, unsigned version)
{
	uint32_t words[IMAGE_PAGE / 4];

	for (size_t i = 0; i < nitems(words); i++)
		words[i] = (uint32_t)(page * 1000003 + version * 77 + i / 5);
	check(io_pwrite_full(fd, words, sizeof(words), page * IMAGE_PAGE) == 0);
}

static bool in_use(uint64_t page)
{
	return page / INDEX_CHUNK_PAGES != 1 && page % 5 != 2;
}

/* @changed: one page that differs from version 0's, if not 0. */
static void put_memory(const char *dir, uint64_t changed, uint64_t hot)
{
	guard_fd int fd = file_at(dir, "memory", O_RDWR | O_CREAT | O_TRUNC);
	guard_free char *zero = io_path("%s/zeromap", dir);
	guard_free char *set = io_path("%s/workingset", dir);
	guard(bitmap_deinit) struct bitmap b = BITMAP_NULL;

	check(ftruncate(fd, (off_t)MEMORY) == 0);
	for (uint64_t i = 0; i < PAGES; i++)
		if (in_use(i))
			put_page(fd, i, changed && i == changed);
	check(image_find_zero(fd, MEMORY, &b, NULL) == 0);
	check(bitmap_write(&b, zero, NULL) == 0);
	bitmap_deinit(&b);
	check(bitmap_init(&b, PAGES) == 0);
	/* Every @hot-th page, the zero ones too. */
	for (uint64_t i = 0; i < PAGES; i += hot)
		bitmap_set(&b, i);
	check(bitmap_write(&b, set, NULL) == 0);
}

static void put_disk(const char *dir)
{
	guard_fd int fd = file_at(dir, "disk", O_RDWR | O_CREAT | O_TRUNC);
	static const uint8_t zeros[IMAGE_PAGE];

	check(ftruncate(fd, (off_t)DISK) == 0);
	for (uint64_t i = 0; i < 40; i++)
		put_page(fd, i * 3, 9);
	/* Written zeros are no data to a pack. */
	check(io_pwrite_full(fd, zeros, sizeof(zeros), 20 * IMAGE_PAGE) == 0);
	check(io_pwrite_full(fd, "tail", 4, DISK - 4) == 0);
}

static char *image_make(const char *name, uint64_t changed, uint64_t hot)
{
	struct image_manifest m = { .name = "sample",
				    .created = "2024-05-01T12:34:56Z",
				    .driver = "qemu",
				    .version = "7.2.9",
				    .accel = "tcg",
				    .kernel_sha256 = HEX,
				    .rootfs_sha256 = HEX,
				    .memory_bytes = MEMORY,
				    .vcpus = 1,
				    .boot_ms = 4312.25 };
	char *dir = io_path("%s/%s", top, name);

	good(io_mkdirs(dir, 0700, &e));
	put_memory(dir, changed, hot);
	put_disk(dir);
	put_text(dir, "state", "device state");
	put_text(dir, "overlay", "overlay");
	good(image_seal(dir, &m, &e));
	return dir;
}

static struct index *index_at(const char *dir)
{
	guard_fd int fd = file_at(dir, "index", O_RDONLY);
	struct index *x = NULL;

	good(index_open(fd, &x, &e));
	return x;
}

/* Image @from becomes @name. */
static struct index *pack(const char *from, const char *name,
			  const struct index *parent, uint64_t *ret_shared)
{
	guard_free char *dir = io_path("%s/%s", top, name);
	struct image *image = NULL;

	good(image_open(from, &image, &e));
	check(!image_remote(image));
	good(pack_make(image, parent, dir, NULL, NULL, ret_shared, &e));
	image_unref(image);
	return index_at(dir);
}

/* Into the store, as an upload leaves it. */
static void publish(const char *name, const struct index *x)
{
	guard_free char *from = io_path("%s/%s/pack", top, name);
	guard_free char *dir = io_path("%s/store/images/%s", top, index_id(x));
	guard_free char *to = io_path("%s/pack", dir);
	guard_fd int in = -1, out = -1;

	good(io_mkdirs(dir, 0755, &e));
	in = open(from, O_RDONLY | O_CLOEXEC);
	out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	check(in >= 0 && out >= 0);
	good(io_copy_file(in, out, &e));
}

static char *enroll(const char *packed, const char *name, const struct index *x)
{
	guard_free char *from = io_path("%s/%s", top, packed);
	char *dir = io_path("%s/%s", top, name);
	guard_fd int fd = file_at(from, "index", O_RDONLY);

	good(pack_register(x, fd, "main", dir, &e));
	return dir;
}

static void same_file(const char *a, const char *b, const char *name)
{
	guard_fd int fa = file_at(a, name, O_RDONLY);
	guard_fd int fb = file_at(b, name, O_RDONLY);
	char x[65536], y[65536];
	ssize_t n;

	do {
		n = io_read_full(fa, x, sizeof(x));
		check(n >= 0 && io_read_full(fb, y, sizeof(y)) == n);
		check(!memcmp(x, y, (size_t)n));
	} while (n);
}

static void same_image(const char *a, const char *b)
{
	struct image *image = NULL;

	for (size_t i = 0; i < nitems(files); i++)
		same_file(a, b, files[i]);
	good(image_open(b, &image, &e));
	check(!image_remote(image));
	image_unref(image);
	check(!exists(b, "remote") && !exists(b, "memory.new") &&
	      !exists(b, "disk.new"));
}

/* Nothing of a completion is there. */
static void only_remote(const char *dir)
{
	check(exists(dir, "remote") && !exists(dir, "memory") &&
	      !exists(dir, "memory.new") && !exists(dir, "disk") &&
	      !exists(dir, "disk.new"));
}

static int complete(const struct index *x, const char *dir, int memory,
		    int disk)
{
	return pack_complete(x, dir, store, memory, disk, NULL, NULL, &e);
}

/* ---- stories ---- */

static void test_make(const char *image)
{
	uint64_t shared = 1, hot_end = 0, data = 0;
	struct index *x = pack(image, "packed", NULL, &shared);
	struct index *y = pack(image, "again", NULL, &shared);
	const struct index_frame *f;
	guard_free char *a = io_path("%s/packed", top);
	guard_free char *b = io_path("%s/again", top);

	check(shared == 0 && index_sources(x) == 1);
	same_file(a, b, "index");
	same_file(a, b, "pack");
	check(index_layer_bytes(x, INDEX_DISK) == INDEX_CHUNK + 4 * INDEX_PAGE);
	check(index_data_bytes(x, INDEX_DISK) == 41 * INDEX_PAGE);
	for (uint64_t i = 0; i < PAGES; i++) {
		uint32_t want = (uint32_t)(i / INDEX_CHUNK_PAGES * 2);

		data += in_use(i);
		check(index_frame_of(x, INDEX_MEMORY, i) ==
		      (!in_use(i) ? UINT32_MAX : want + (i % 7 != 0)));
	}
	check(index_data_bytes(x, INDEX_MEMORY) == data * INDEX_PAGE);
	/* The disk's first page, then hot frames side by side, then the cold
	 * ones. */
	f = index_frame(x, INDEX_DISK, 0);
	check(f->pages == 1 && f->offset == 0);
	hot_end = f->stored;
	for (unsigned cold = 0; cold < 2; cold++)
		for (uint32_t i = cold; i < 8; i += 2) {
			f = index_frame(x, INDEX_MEMORY, i);
			check(!f->pages || f->offset == hot_end);
			hot_end += f->stored;
		}
	publish("packed", x);
	good(pack_verify(x, store, NULL, NULL, &e));
	index_free(x);
	index_free(y);
}

static void test_register(const char *image)
{
	guard_free char *packed = io_path("%s/packed", top);
	struct index *x = index_at(packed);
	guard_free char *dir = enroll("packed", "pulled", x);
	guard_free char *path = io_path("%s/index", dir);
	struct image *i = NULL;

	for (size_t f = 0; f < nitems(files); f++)
		if (strncmp(files[f], "memory", 6) && strcmp(files[f], "disk"))
			same_file(image, dir, files[f]);
	same_file(packed, dir, "index");
	good(image_open(dir, &i, &e));
	check_str(image_remote(i), "main");
	check(image_fd(i, IMAGE_MEMORY) == -1 && image_fd(i, IMAGE_DISK) == -1);
	check(image_fd(i, IMAGE_STATE) >= 0);
	check(bitmap_count(image_workingset(i)) == (PAGES + 6) / 7);
	good(image_unchanged(i, &e));
	check(pack_make(i, NULL, packed, NULL, NULL, NULL, &e) == -ENODATA);
	put_text(dir, "memory", "of no consequence");
	good(image_unchanged(i, &e));
	put_text(dir, "index", "damage");
	check(image_unchanged(i, &e) == -ESTALE);
	image_unref(i);
	check(image_open(dir, &i, &e) == -EBADMSG);
	check(unlink(path) == 0);
	check(image_open(dir, &i, &e) == -ENOENT);
	check(strstr(e.msg, "index"));
	free(enroll("packed", "pulled", x));
	put_text(dir, "remote", "../x\n");
	check(image_open(dir, &i, &e) == -EBADMSG);
	put_text(dir, "remote", "main");
	check(image_open(dir, &i, &e) == -EBADMSG);
	check(pack_register(x, 0, "a/b", dir, &e) == -EINVAL);
	index_free(x);
}

static void test_complete(const char *image)
{
	guard_free char *packed = io_path("%s/packed", top);
	struct index *x = index_at(packed);
	guard_free char *dir = enroll("packed", "whole", x);
	struct stat a = { 0 }, b = { 0 };
	guard_fd int one = -1, two = -1;

	/* Left by a crash. */
	put_text(dir, "memory.new", "half of it");
	put_text(dir, "memory", "not it");
	good(complete(x, dir, -1, -1));
	same_image(image, dir);
	one = file_at(image, "memory", O_RDONLY);
	two = file_at(dir, "memory", O_RDONLY);
	check(fstat(one, &a) == 0 && fstat(two, &b) == 0);
	check(b.st_blocks <= a.st_blocks + 16);
	good(complete(x, dir, -1, -1));
	/* Renamed, but `remote` is still there: nothing is fetched. */
	put_text(dir, "remote", "main\n");
	good(pack_complete(x, dir, NULL, -1, -1, NULL, NULL, &e));
	same_image(image, dir);
	index_free(x);
}

/* A layer as a pager has it: some frames are there. */
static int layer_of(const char *image, const char *name, uint64_t bytes)
{
	guard_fd int from = file_at(image, name, O_RDONLY);
	int fd = memfd_create(name, MFD_CLOEXEC);

	good(io_copy_file(from, fd, &e));
	check(ftruncate(fd, (off_t)bytes) == 0);
	return fd;
}

static void punch(int fd, uint64_t page, uint64_t n)
{
	check(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			(off_t)(page * IMAGE_PAGE),
			(off_t)(n * IMAGE_PAGE)) == 0);
}

static void test_layers(const char *image)
{
	guard_free char *packed = io_path("%s/packed", top);
	struct index *x = index_at(packed);
	guard_free char *dir = enroll("packed", "layers", x);
	guard_fd int memory = layer_of(image, "memory", MEMORY);
	guard_fd int disk =
		layer_of(image, "disk", INDEX_CHUNK + 4 * IMAGE_PAGE);
	guard_free char *remote = io_path("%s/remote", dir);
	guard_free char *name = io_path("%s/memory", dir);
	static const uint8_t zeros[IMAGE_PAGE];

	/* All there: the store is not asked. */
	good(pack_complete(x, dir, NULL, memory, disk, NULL, NULL, &e));
	same_image(image, dir);
	/* Frame 5 misses a page, frame 1 has lost one to zeros. */
	punch(memory, 2 * INDEX_CHUNK_PAGES + 5, 1);
	check(io_pwrite_full(memory, zeros, sizeof(zeros), IMAGE_PAGE) == 0);
	put_text(dir, "remote", "main\n");
	check(unlink(name) == 0);
	check(pack_complete(x, dir, NULL, memory, disk, NULL, NULL, &e) ==
	      -ENODATA);
	check(strstr(e.msg, "2 frames are missing"));
	good(complete(x, dir, memory, disk));
	same_image(image, dir);
	/* A page that is wrong without looking so: all is fetched. */
	check(io_pwrite_full(memory, "wrong", 5, 3 * IMAGE_PAGE) == 0);
	put_text(dir, "remote", "main\n");
	check(unlink(name) == 0);
	check(pack_complete(x, dir, NULL, memory, disk, NULL, NULL, &e) != 0);
	good(complete(x, dir, memory, disk));
	same_image(image, dir);
	check(access(remote, F_OK) < 0);
	index_free(x);
}

/* ---- parents ---- */

static void test_parent(const char *image)
{
	guard_free char *packed = io_path("%s/packed", top);
	/* A page of chunk 2 changes, in the grandchild another one; other
	 * pages are hot. */
	guard_free char *second =
		image_make("second", 2 * INDEX_CHUNK_PAGES + 1, 11);
	guard_free char *dir = NULL, *third = NULL;
	struct index *x = index_at(packed), *y, *z;
	uint64_t shared = 0;

	y = pack(second, "packed2", x, &shared);
	check(shared > 0 && index_sources(y) == 2);
	check_str(index_source(y, 1)->id, index_id(x));
	check(index_frame(y, INDEX_MEMORY, 0)->source == 1);
	check(index_frame(y, INDEX_MEMORY, 1)->source == 1);
	check(index_frame(y, INDEX_MEMORY, 4)->source == 0);
	check(index_frame(y, INDEX_MEMORY, 6)->source == 1);
	check(index_frame(y, INDEX_DISK, 1)->source == 1);
	/* The parent's hot map where it is the parent's. */
	check(index_frame_of(y, INDEX_MEMORY, 14) == 0);
	check(index_frame_of(y, INDEX_MEMORY, 11) == 1);
	check(index_frame_of(y, INDEX_MEMORY, 2 * INDEX_CHUNK_PAGES + 20) == 4);
	publish("packed2", y);
	good(pack_verify(y, store, NULL, NULL, &e));
	dir = enroll("packed2", "pulled2", y);
	good(complete(y, dir, -1, -1));
	same_image(second, dir);

	/* The grandchild names the grandparent, and no longer the parent where
	 * nothing is left of it. */
	third = image_make("third", 2 * INDEX_CHUNK_PAGES + 4, 11);
	z = pack(third, "packed3", y, &shared);
	check(shared > 0 && index_sources(z) == 2);
	check_str(index_source(z, 1)->id, index_id(x));
	index_free(z);
	/* The same again: nothing is stored. */
	z = pack(second, "packed4", y, &shared);
	check(index_sources(z) == 3 && index_source(z, 0)->pack_bytes == 0);
	check(strcmp(index_id(z), index_id(y)) != 0);
	publish("packed4", z);
	good(pack_verify(z, store, NULL, NULL, &e));
	index_free(z);
	same_file(image, second, "disk");
	index_free(x);
	index_free(y);
}

/* ---- what goes wrong ---- */

static void test_damage(void)
{
	guard_free char *packed = io_path("%s/packed", top);
	struct index *x = index_at(packed);
	guard_free char *dir = enroll("packed", "damaged", x);
	guard_free char *in = io_path("%s/store/images/%s", top, index_id(x));
	guard_free char *path = io_path("%s/pack", in);
	uint64_t at = index_frame(x, INDEX_MEMORY, 5)->offset + 9;
	guard_fd int fd = -1;
	char byte;

	fd = file_at(in, "pack", O_RDWR);
	check(io_pread_full(fd, &byte, 1, at) == 1);
	byte ^= 1;
	check(io_pwrite_full(fd, &byte, 1, at) == 0);
	check(pack_verify(x, store, NULL, NULL, &e) == -EBADMSG);
	check(strstr(e.msg, "memory: frame 5 (chunk at 8388608)"));
	check(complete(x, dir, -1, -1) == -EBADMSG);
	check(strstr(e.msg, "memory: frame 5"));
	check(exists(dir, "remote") && !exists(dir, "memory"));
	byte ^= 1;
	check(io_pwrite_full(fd, &byte, 1, at) == 0);
	check(unlink(path) == 0);
	check(pack_verify(x, store, NULL, NULL, &e) == -ENOENT);
	check(strstr(e.msg, "there is no images/im"));
	publish("packed", x);
	good(complete(x, dir, -1, -1));
	index_free(x);
}

/* An index whose manifest is of something else. */
static void test_foreign(void)
{
	guard_free char *packed = io_path("%s/packed2", top);
	guard_free char *first = io_path("%s/packed", top);
	guard_free char *dir = io_path("%s/foreign", top);
	guard_fd int fd = file_at(packed, "index", O_RDONLY);
	struct index *x = index_at(first);

	check(pack_register(x, fd, "main", dir, &e) == -EBADMSG);
	check(!exists(dir, "manifest.json"));
	index_free(x);
}

struct counter {
	uint64_t last, total, calls, stop;
};

static int count(void *arg, uint64_t done, uint64_t total)
{
	struct counter *c = arg;

	check(done >= c->last && done <= total);
	c->last = done;
	c->total = total;
	return ++c->calls == c->stop ? -ECANCELED : 0;
}

static void test_progress(const char *from)
{
	guard_free char *packed = io_path("%s/packed", top);
	guard_free char *dir = io_path("%s/stopped", top);
	guard_free char *late = NULL;
	struct counter c = { .stop = 2 };
	struct index *x = index_at(packed);
	struct image *image = NULL;
	uint64_t shared;

	good(image_open(from, &image, &e));
	check(pack_make(image, NULL, dir, count, &c, &shared, &e) ==
	      -ECANCELED);
	check(!exists(dir, "index"));
	c = (struct counter){ 0 };
	good(pack_make(image, NULL, dir, count, &c, &shared, &e));
	check(c.last == c.total && c.calls > 4);
	check(c.total == index_data_bytes(x, INDEX_MEMORY) +
				 index_data_bytes(x, INDEX_DISK));
	image_unref(image);
	c = (struct counter){ 0 };
	good(pack_verify(x, store, count, &c, &e));
	check(c.last == c.total);
	late = enroll("packed", "late", x);
	c = (struct counter){ .stop = 1 };
	check(pack_complete(x, late, store, -1, -1, count, &c, &e) ==
	      -ECANCELED);
	check(exists(late, "remote"));
	only_remote(late);
	c = (struct counter){ 0 };
	good(pack_complete(x, late, store, -1, -1, count, &c, &e));
	check(c.last == c.total);
	index_free(x);
}

/* There is no room, or a frame cannot be had: nothing half-made stays, and the
 * next time it works. */
static void test_no_room(void)
{
	guard_free char *packed = io_path("%s/packed", top);
	struct index *x = index_at(packed);
	guard_free char *dir = enroll("packed", "narrow", x);
	guard_free char *left = io_path("%s/memory.new", dir);
	struct rlimit old, tight;

	check(getrlimit(RLIMIT_FSIZE, &old) == 0);
	tight = old;
	tight.rlim_cur = MEMORY / 2;
	signal(SIGXFSZ, SIG_IGN);
	check(setrlimit(RLIMIT_FSIZE, &tight) == 0);
	check(complete(x, dir, -1, -1) == -EFBIG);
	check(setrlimit(RLIMIT_FSIZE, &old) == 0);
	only_remote(dir);
	check(pack_complete(x, dir, NULL, -1, -1, NULL, NULL, &e) == -ENODATA);
	only_remote(dir);
	/* A crash. */
	good(io_write_file(left, "half", 4, 0600, &e));
	pack_complete_tidy(dir);
	only_remote(dir);
	good(complete(x, dir, -1, -1));
	check(!exists(dir, "remote"));
	index_free(x);
}

static void store_make(void)
{
	struct store_spec spec = { .name = "main" };

	snprintf(spec.url, sizeof(spec.url), "%s/store", top);
	good(io_mkdirs(spec.url, 0755, &e));
	good(store_open(&spec, &store, &e));
}

int main(void)
{
	guard_free char *image = NULL;

	test_dir(top, sizeof(top));
	store_make();
	image = image_make("image", 0, 7);
	test_make(image);
	test_register(image);
	test_complete(image);
	test_layers(image);
	test_parent(image);
	test_damage();
	test_foreign();
	test_progress(image);
	test_no_room();
	store_free(store);
	good(io_remove_tree(top, &e));
	return 0;
}
