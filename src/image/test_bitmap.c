/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bitmaps: against a byte per page, and every kind of bad file
 */
#include "image/bitmap.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/test.h"

#include <errno.h>

static char dir[200];

/* Deterministic, so that a failure comes again. */
static unsigned random_next(void)
{
	static uint64_t state = 1;

	state = state * 6364136223846793005ull + 1442695040888963407ull;
	return (unsigned)(state >> 33);
}

static void compare(const struct bitmap *b, const uint8_t *model, uint64_t n)
{
	uint64_t count = 0, i, run;

	check(b->n == n);
	for (i = 0; i < n; i++) {
		check(bitmap_get(b, i) == model[i]);
		count += model[i];
		for (run = 1; i + run < n && model[i + run] == model[i];)
			run++;
		check(bitmap_run(b, i) == run);
	}
	check(bitmap_count(b) == count);
}

static void test_model(void)
{
	static uint8_t model[1000];

	for (int round = 0; round < 300; round++) {
		guard(bitmap_deinit) struct bitmap b = BITMAP_NULL;
		uint64_t n = random_next() % 400;

		check(bitmap_init(&b, n) == 0);
		memset(model, 0, sizeof(model));
		for (unsigned k = random_next() % 8; k && n; k--) {
			uint64_t i = random_next() % n;
			uint64_t len = random_next() % (n - i + 1);

			bitmap_set_run(&b, i, len);
			memset(model + i, 1, len);
			i = random_next() % n;
			bitmap_set(&b, i);
			model[i] = 1;
		}
		compare(&b, model, n);
	}
}

/* Bytes that somebody else allocated, to the last one. */
static void test_foreign(void)
{
	for (uint64_t n = 1; n < 200; n++) {
		guard_free uint8_t *bits = malloc(bitmap_bytes(n));
		struct bitmap b = { .bits = bits, .n = n };

		check(bits);
		memset(bits, 0xff, bitmap_bytes(n));
		check(bitmap_run(&b, 0) == n);
		check(bitmap_count(&b) == n);
	}
}

static void test_file(void)
{
	guard(bitmap_deinit) struct bitmap a = BITMAP_NULL, b = BITMAP_NULL;
	guard_free char *path = io_path("%s/map", dir);
	struct err e = ERR_NULL;

	check(bitmap_init(&a, 131) == 0);
	bitmap_set_run(&a, 3, 70);
	bitmap_set(&a, 130);
	check(bitmap_write(&a, path, &e) == 0);
	check(bitmap_read(path, 131, &b, &e) == 0);
	check(b.n == 131 && !memcmp(a.bits, b.bits, bitmap_bytes(131)));
	/* 130 and 131 pages take as many bytes. */
	bitmap_deinit(&b);
	check(bitmap_read(path, 130, &b, &e) == -EBADMSG);
	check(strstr(e.msg, path) && strstr(e.msg, "131 pages, not 130"));
	check(bitmap_read(path, 8, &b, &e) == -EBADMSG);
	check(strstr(e.msg, "more than 17 bytes"));
	check(bitmap_read(path, 100000, &b, &e) == -EBADMSG);
	check(strstr(e.msg, "33 bytes, 100000 pages need 12516"));
	check(bitmap_read(path, UINT64_MAX, &b, &e) == -E2BIG);
	check(bitmap_read("/nowhere/map", 8, &b, &e) == -ENOENT);
	check(!b.bits);
}

static void test_parse(void)
{
	/* Nine pages, the last one marked. */
	const uint8_t good[] = { 0x31, 0, 'b', 'y', 'e', 'm', 'a', 'p', 9,
				 0,    0, 0,   0,   0,   0,   0,   0,   1 };
	struct bitmap b = BITMAP_NULL;
	uint8_t bad[sizeof(good)];
	struct err e = ERR_NULL;

	check(bitmap_parse(good, sizeof(good), 9, &b, &e) == 0);
	check(bitmap_count(&b) == 1 && bitmap_get(&b, 8));
	bitmap_deinit(&b);
	bitmap_deinit(&b);
	for (size_t len = 0; len < sizeof(good); len++)
		check(bitmap_parse(good, len, 9, &b, &e) == -EBADMSG);
	for (size_t i = 0; i < BITMAP_HEADER; i++) {
		memcpy(bad, good, sizeof(bad));
		bad[i] ^= 0x10;
		check(bitmap_parse(bad, sizeof(bad), 9, &b, &e) == -EBADMSG);
	}
	memcpy(bad, good, sizeof(bad));
	bad[sizeof(bad) - 1] |= 2;
	check(bitmap_parse(bad, sizeof(bad), 9, &b, &e) == -EBADMSG);
	check_str(e.msg, "bits set behind the last page");
	check(!b.bits);
}

int main(void)
{
	struct bitmap b = BITMAP_NULL;

	test_dir(dir, sizeof(dir));
	test_model();
	test_foreign();
	test_file();
	test_parse();
	check(bitmap_init(&b, BITMAP_PAGES_MAX + 1) == -E2BIG);
	check(bitmap_init(&b, UINT64_MAX) == -E2BIG);
	check(!b.bits);
	check(io_remove_tree(dir, NULL) == 0);
	return 0;
}
