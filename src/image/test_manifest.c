/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The manifest: there and back, and every kind of damage
 */
#include <jansson.h>

#include "image/image.h"

#include "base/guard.h"
#include "base/test.h"

#include <errno.h>
#include <math.h>

#define HEX "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define PAGES 525u /* odd, not a multiple of 8 */

static struct image_manifest sample(void)
{
	struct image_manifest m = { .name = "debian-12",
				    .created = "2024-05-01T12:34:56Z",
				    .driver = "qemu",
				    .version = "7.2.9",
				    .accel = "tcg",
				    .cpu = "max",
				    .machine = "microvm",
				    .kernel = "6.1.0-21-amd64",
				    .kernel_sha256 = HEX,
				    .rootfs_sha256 = HEX,
				    .memory_bytes = PAGES * IMAGE_PAGE,
				    .zero_bytes = 17 * IMAGE_PAGE,
				    .workingset_bytes = 3 * IMAGE_PAGE,
				    .vcpus = 2,
				    .share = true,
				    .boot_ms = 4312.0625 };

	for (unsigned f = 0; f < IMAGE_FILE_COUNT; f++) {
		m.file[f].bytes = 1000 + f;
		strcpy(m.file[f].sha256, HEX);
	}
	m.file[IMAGE_MEMORY].bytes = m.memory_bytes;
	m.file[IMAGE_ZEROMAP].bytes = BITMAP_HEADER + bitmap_bytes(PAGES);
	m.file[IMAGE_WORKINGSET].bytes = m.file[IMAGE_ZEROMAP].bytes;
	return m;
}

static int parse(const char *text, struct err *e)
{
	struct image_manifest m = { .vcpus = 77 };
	int r = image_manifest_parse(text, strlen(text), &m, e);

	if (r < 0)
		check(m.vcpus == 77 && e->code == -r && e->msg[0]);
	return r;
}

static json_t *sample_json(void)
{
	struct image_manifest m = sample();
	guard_free char *text = NULL;
	json_t *j;

	check(image_manifest_print(&m, &text) == 0);
	j = json_loads(text, 0, NULL);
	check(j);
	return j;
}

/* Refused, with a sentence that has @part; steals @j. */
static void refuse(json_t *j, const char *part)
{
	guard_free char *text = json_dumps(j, 0);
	struct err e = ERR_NULL;

	check(text);
	if (parse(text, &e) != -EINVAL || !strstr(e.msg, part)) {
		fprintf(stderr, "\"%s\" has no \"%s\"\n", e.msg, part);
		exit(1);
	}
	json_decref(j);
}

static void refuse_value(const char *key, json_t *value, const char *part)
{
	json_t *j = sample_json();

	check(json_object_set_new(j, key, value) == 0);
	refuse(j, part);
}

static void refuse_file(const char *file, const char *key, json_t *value,
			const char *part)
{
	json_t *j = sample_json();

	check(json_object_set_new(
		      json_object_get(json_object_get(j, "files"), file), key,
		      value) == 0);
	refuse(j, part);
}

static void test_round(void)
{
	struct image_manifest a = sample(), b = { 0 };
	guard_free char *text = NULL, *again = NULL;
	struct err e = ERR_NULL;

	check(image_manifest_print(&a, &text) == 0);
	check(!strncmp(text, "{\n  \"format\": 1,\n", 17));
	check(text[strlen(text) - 1] == '\n');
	check(image_manifest_parse(text, strlen(text), &b, &e) == 0);
	check(image_manifest_print(&b, &again) == 0);
	check_str(text, again);
	check_str(b.kernel, a.kernel);
	check(b.memory_bytes == a.memory_bytes && b.vcpus == 2 && b.share &&
	      !b.net && b.boot_ms == a.boot_ms);
	check(b.file[IMAGE_DISK].bytes == 1002);
	/* The largest. */
	a.memory_bytes = IMAGE_MEMORY_MAX;
	a.file[IMAGE_MEMORY].bytes = IMAGE_MEMORY_MAX;
	a.file[IMAGE_ZEROMAP].bytes = a.file[IMAGE_WORKINGSET].bytes =
		BITMAP_HEADER + bitmap_bytes(IMAGE_MEMORY_MAX / IMAGE_PAGE);
	memset(a.name, 'x', sizeof(a.name) - 1);
	strcpy(a.created, "2024-05-01T12:34:56.123Z");
	a.boot_ms = 0.1;
	free(take(text));
	check(image_manifest_print(&a, &text) == 0);
	check(image_manifest_parse(text, strlen(text), &b, &e) == 0);
	check(b.boot_ms == 0.1 && b.memory_bytes == IMAGE_MEMORY_MAX);
}

/* Each key: missing, null, twice; and one too many. */
static void test_keys(void)
{
	json_t *all = sample_json(), *files, *value;
	struct err e = ERR_NULL;
	const char *key;

	files = json_object_get(all, "files");
	json_object_foreach (all, key, value) {
		json_t *j = sample_json();
		char part[80];

		json_object_del(j, key);
		snprintf(part, sizeof(part), "key %s: missing", key);
		refuse(j, part);
		snprintf(part, sizeof(part), "key %s: not ", key);
		refuse_value(key, json_null(), part);
		refuse_value(key, json_object(), key);
		refuse_value(key, json_array(), part);
	}
	json_object_foreach (files, key, value) {
		json_t *j = sample_json();

		json_object_del(json_object_get(j, "files"), key);
		refuse(j, "missing");
		j = sample_json();
		json_object_set_new(json_object_get(j, "files"), key,
				    json_true());
		refuse(j, "not an object");
		j = sample_json();
		json_object_del(
			json_object_get(json_object_get(j, "files"), key),
			"sha256");
		refuse(j, "key sha256: missing");
		refuse_file(key, "bytes", json_real(1), "not a whole number");
		refuse_file(key, "bytes", json_integer(-1), "negative");
		refuse_file(key, "sha256", json_string("x"), "64 lower-case");
		refuse_file(key, "mode", json_integer(1), "key mode: unknown");
	}
	json_decref(all);
	refuse_value("extra", json_true(), "key extra: unknown");
	refuse_value("e\nx", json_true(), "key (unprintable): unknown");
	check(parse("{\"format\":1,\"format\":1}", &e) == -EINVAL);
}

static void test_values(void)
{
	char upper[] = HEX;

	upper[0] = 'B';
	refuse_value("format", json_integer(2), "format 2, this byre reads 1");
	refuse_value("format", json_real(1), "not a whole number");
	refuse_value("name", json_string(""), "key name: not a name");
	refuse_value("name", json_string("../x"), "key name: not a name");
	refuse_value("accel", json_string("12345678"), "more than 7");
	refuse_value("cpu", json_string("a\x1b[0m"), "not printable ASCII");
	refuse_value("cpu", json_string("\xc3\xa4"), "not printable ASCII");
	refuse_value("created", json_string(""), "not a time");
	refuse_value("created", json_string("2024-05-01 12:34:56Z"), "a time");
	refuse_value("created", json_string("2024-05-01T12:34:56"), "a time");
	refuse_value("created", json_string("2024-05-01T12:34:56.Z"), "time");
	refuse_value("created", json_string("2024-05-01T12:34:56+01"), "time");
	refuse_value("kernel_sha256", json_string(""), "64 lower-case");
	refuse_value("kernel_sha256", json_string(HEX "0"), "more than 64");
	refuse_value("rootfs_sha256", json_string(upper), "64 lower");
	refuse_value("memory_bytes", json_integer(0), "key memory_bytes: 0");
	refuse_value("memory_bytes", json_integer(4097), "not in whole pages");
	refuse_value("memory_bytes", json_integer(-4096), "negative");
	refuse_value("memory_bytes", json_integer(IMAGE_MEMORY_MAX + 4096),
		     "is more than 68719476736");
	refuse_value("memory_bytes", json_integer(INT64_MAX), "is more than");
	refuse_value("memory_bytes", json_integer(1 << 30), "files.memory.");
	refuse_value("zero_bytes", json_integer((PAGES + 1) * IMAGE_PAGE),
		     "key zero_bytes: more than memory_bytes");
	refuse_value("zero_bytes", json_integer(1), "whole pages");
	refuse_value("workingset_bytes", json_integer((PAGES + 1) * IMAGE_PAGE),
		     "key workingset_bytes: more than memory_bytes");
	refuse_value("vcpus", json_integer(0), "key vcpus: 0 is not from 1");
	refuse_value("vcpus", json_integer(289), "from 1 to 288");
	refuse_value("vcpus", json_integer(0x100000001), "out of range");
	refuse_value("share", json_integer(1), "not true or false");
	refuse_value("boot_ms", json_integer(-1), "out of range");
	refuse_value("boot_ms", json_real(1e30), "out of range");
	refuse_file("memory", "bytes", json_integer(4096), "asks for");
	refuse_file("zeromap", "bytes", json_integer(81), "asks for 82");
	refuse_file("workingset", "bytes", json_integer(83), "asks for 82");
	refuse_file("disk", "bytes", json_integer(INT64_MAX), "is more than");
}

static void test_text(void)
{
	struct image_manifest m = { 0 }, s = sample();
	guard_free char *text = NULL, *big = NULL, *deep = NULL;
	struct err e = ERR_NULL;
	size_t len;

	check(image_manifest_print(&s, &text) == 0);
	len = strlen(text);
	/* Cut anywhere but in the last newline. */
	for (size_t i = 0; i < len - 1; i++)
		check(image_manifest_parse(text, i, &m, &e) == -EINVAL);
	check(strstr(e.msg, "not JSON: line "));
	check(image_manifest_parse(text, len - 1, &m, &e) == 0);
	check(parse("[]", &e) == -EINVAL);
	check_str(e.msg, "not a JSON object");
	check(parse("{}", &e) == -EINVAL);
	check_str(e.msg, "key format: missing");
	big = malloc(IMAGE_MANIFEST_MAX + 1);
	check(big);
	memset(big, ' ', IMAGE_MANIFEST_MAX + 1);
	memcpy(big, text, len);
	check(image_manifest_parse(big, IMAGE_MANIFEST_MAX, &m, &e) == 0);
	big[len] = 'x';
	check(image_manifest_parse(big, IMAGE_MANIFEST_MAX, &m, &e) == -EINVAL);
	check(image_manifest_parse(big, IMAGE_MANIFEST_MAX + 1, &m, &e) ==
	      -EFBIG);
	deep = malloc(200000);
	check(deep);
	memset(deep, '[', 200000);
	check(image_manifest_parse(deep, 200000, &m, &e) == -EINVAL);
	/* A NUL inside. */
	text[len / 2] = '\0';
	check(image_manifest_parse(text, len, &m, &e) == -EINVAL);
}

static void test_print_refuses(void)
{
	struct image_manifest m = sample();
	struct err e = ERR_NULL;
	char *text = NULL;

	memset(m.cpu, 'x', sizeof(m.cpu));
	check(image_manifest_check(&m, &e) == -EINVAL);
	check_str(e.msg, "key cpu: not terminated");
	check(image_manifest_print(&m, &text) == -EINVAL);
	m = sample();
	m.boot_ms = NAN;
	check(image_manifest_print(&m, &text) == -EINVAL);
	m = sample();
	memset(m.file[IMAGE_STATE].sha256, '0', DIGEST_HEX);
	check(image_manifest_print(&m, &text) == -EINVAL);
	check(!text);
}

int main(void)
{
	test_round();
	test_keys();
	test_values();
	test_text();
	test_print_refuses();
	check_str(image_file_name(IMAGE_WORKINGSET), "workingset");
	return 0;
}
