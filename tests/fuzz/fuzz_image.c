/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images' foreign bytes: the manifest and the bitmaps
 *
 * The first byte chooses:
 *
 *	0  the rest is a manifest
 *	1  the rest edits a good manifest: triples of {offset (16 bits), byte};
 *	   the fuzzer need not invent forty keys first
 *	2  one byte of page count, then a bitmap
 *
 * What is accepted must be usable: a manifest prints, and parses again to the
 * same text; a bitmap's runs add up to its pages, and its bits to its count.
 * What is refused has a sentence of printable ASCII.
 */
#include "image/image.h"

#include "base/guard.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HEX "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define PAGES 525u

static void refused(int r, const struct err *e)
{
	must(e->code == -r && e->msg[0]);
	for (const char *s = e->msg; *s; s++)
		must(*s >= 0x20 && *s < 0x7f);
}

static void manifest(const char *text, size_t len)
{
	struct image_manifest a = { 0 }, b = { 0 };
	guard_free char *one = NULL, *two = NULL;
	struct err e = ERR_NULL;
	int r = image_manifest_parse(text, len, &a, &e);

	if (r < 0) {
		refused(r, &e);
		return;
	}
	must(a.zero_bytes <= a.memory_bytes);
	must(a.memory_bytes && a.memory_bytes <= IMAGE_MEMORY_MAX);
	must(image_manifest_print(&a, &one) == 0);
	must(image_manifest_parse(one, strlen(one), &b, &e) == 0);
	must(image_manifest_print(&b, &two) == 0);
	must(!strcmp(one, two));
}

static char *good_manifest(void)
{
	struct image_manifest m = { .name = "debian-12",
				    .created = "2024-05-01T12:34:56.5Z",
				    .driver = "qemu",
				    .version = "7.2.9",
				    .accel = "tcg",
				    .cpu = "max",
				    .machine = "microvm",
				    .kernel = "6.1.0-21-amd64",
				    .kernel_sha256 = HEX,
				    .rootfs_sha256 = HEX,
				    .memory_bytes = PAGES * IMAGE_PAGE,
				    .vcpus = 2,
				    .boot_ms = 4312.25 };
	char *text;

	for (unsigned f = 0; f < IMAGE_FILE_COUNT; f++)
		strcpy(m.file[f].sha256, HEX);
	m.file[IMAGE_MEMORY].bytes = m.memory_bytes;
	m.file[IMAGE_ZEROMAP].bytes = BITMAP_HEADER + bitmap_bytes(PAGES);
	m.file[IMAGE_WORKINGSET].bytes = m.file[IMAGE_ZEROMAP].bytes;
	must(image_manifest_print(&m, &text) == 0);
	return text;
}

static void edited(const uint8_t *data, size_t size)
{
	guard_free char *text = good_manifest();
	size_t len = strlen(text);

	for (; size >= 3; data += 3, size -= 3)
		text[(data[0] | (size_t)data[1] << 8) % len] = (char)data[2];
	manifest(text, len);
}

static void bitmap(const uint8_t *data, size_t size)
{
	uint64_t marked = 0, i, run;
	struct bitmap b = BITMAP_NULL;
	struct err e = ERR_NULL;
	int r;

	if (!size)
		return;
	r = bitmap_parse(data + 1, size - 1, data[0], &b, &e);
	if (r < 0) {
		refused(r, &e);
		must(!b.bits);
		return;
	}
	must(b.n == data[0]);
	for (i = 0; i < b.n; i += run) {
		run = bitmap_run(&b, i);
		must(run > 0 && run <= b.n - i);
		if (bitmap_get(&b, i))
			marked += run;
	}
	must(marked == bitmap_count(&b));
	bitmap_deinit(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	if (data[0] % 3 == 0)
		manifest((const char *)data + 1, size - 1);
	else if (data[0] % 3 == 1)
		edited(data + 1, size - 1);
	else
		bitmap(data + 1, size - 1);
	return 0;
}
