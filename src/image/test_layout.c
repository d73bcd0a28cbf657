/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layout: drawn maps, and random ones against a model that decides page by page
 */
#include "image/layout.h"

#include "base/guard.h"
#include "base/test.h"
#include "image/bitmap.h"
#include "image/image.h"

#include <errno.h>

#define PAGES_MAX 400

struct drawing {
	char text[PAGES_MAX + 1]; /* z or d per page, upper case starts one */
	uint64_t pos;
	int calls;
	int fail_at; /* 0: never */
};

static int draw(uint64_t start, uint64_t len, bool is_zero, void *arg)
{
	struct drawing *d = arg;

	if (++d->calls == d->fail_at)
		return -EDOM;
	check(start == d->pos * IMAGE_PAGE && len && len % IMAGE_PAGE == 0);
	for (uint64_t i = 0; i < len / IMAGE_PAGE; i++) {
		check(d->pos < PAGES_MAX);
		d->text[d->pos++] = i ? (is_zero ? 'z' : 'd')
				      : (is_zero ? 'Z' : 'D');
	}
	return 0;
}

/* Draws over an extent of data. */
static int draw_hole(uint64_t start, uint64_t len, void *arg)
{
	struct drawing *d = arg;

	if (++d->calls == d->fail_at)
		return -EDOM;
	for (uint64_t i = start / IMAGE_PAGE; len; i++, len -= IMAGE_PAGE) {
		check(d->text[i] == 'd' || d->text[i] == 'D');
		d->text[i] = '0';
	}
	return 0;
}

static void expect(const char *map, uint64_t minimum, const char *extents)
{
	guard(bitmap_deinit) struct bitmap b = BITMAP_NULL;
	struct drawing d = { .pos = 0 };

	check(bitmap_init(&b, strlen(map)) == 0);
	for (size_t i = 0; map[i]; i++)
		if (map[i] == '0')
			bitmap_set(&b, i);
	check(image_extents(&b, minimum, draw, &d) == 0);
	check_str(d.text, extents);
	/* What is zero is in an extent of zero or a hole, and nothing else. */
	check(image_holes(&b, minimum, draw_hole, &d) == 0);
	for (size_t i = 0; map[i]; i++)
		check((map[i] == '0') == !!strchr("zZ0", d.text[i]));
}

static void test_drawn(void)
{
	expect("", 4, "");
	expect("#", 4, "D");
	expect("0", 4, "Z");
	expect("000", 4, "Zzz");
	expect("###", 4, "Ddd");
	expect("000##", 4, "Ddddd");
	expect("0000##", 4, "ZzzzDd");
	expect("##000", 4, "Ddddd");
	expect("##0000", 4, "DdZzzz");
	expect("#000#", 4, "Ddddd");
	expect("#0000#", 4, "DZzzzD");
	expect("000#00#0000##0", 4, "DddddddZzzzDdd");
	expect("0#0#0", 0, "ZDZDZ");
	expect("0#0#0", 1, "ZDZDZ");
	expect("0#0#0", 2, "Ddddd");
	expect("00000#", UINT64_MAX, "Dddddd");
	expect("00000", UINT64_MAX, "Zzzzz");
}

/* A page is zero in the plan if its run is long enough, or all is zero. */
static void model(const char *map, uint64_t n, uint64_t minimum, char *text)
{
	for (uint64_t i = 0; i < n; i++) {
		uint64_t a = i, z = i;
		bool zero, start;

		while (a > 0 && map[a - 1] == '0')
			a--;
		while (z < n && map[z] == '0')
			z++;
		zero = map[i] == '0' && (z - a >= minimum || z - a == n);
		start = i == 0 || (text[i - 1] | 0x20) != (zero ? 'z' : 'd');
		text[i] = zero ? (start ? 'Z' : 'z') : (start ? 'D' : 'd');
	}
	text[n] = '\0';
}

static void test_random(void)
{
	char map[PAGES_MAX + 1], text[PAGES_MAX + 1];

	srandom(7);
	for (int round = 0; round < 3000; round++) {
		uint64_t n = (uint64_t)random() % PAGES_MAX;
		uint64_t minimum = (uint64_t)random() % 20;
		long stay = 1 + random() % 30;
		char page = random() % 2 ? '0' : '#';

		for (uint64_t i = 0; i < n; i++) {
			if (random() % stay == 0)
				page = page == '0' ? '#' : '0';
			map[i] = page;
		}
		map[n] = '\0';
		model(map, n, minimum, text);
		expect(map, minimum, text);
	}
}

static void test_forward(void)
{
	guard(bitmap_deinit) struct bitmap b = BITMAP_NULL;

	check(bitmap_init(&b, 3) == 0);
	bitmap_set(&b, 1);
	for (int i = 1; i <= 3; i++) {
		struct drawing d = { .fail_at = i };

		check(image_extents(&b, 1, draw, &d) == -EDOM);
		check(d.calls == i);
	}
	{
		struct drawing d = { .text = "DDD", .fail_at = 1 };

		check(image_holes(&b, 2, draw_hole, &d) == -EDOM);
	}
}

int main(void)
{
	test_drawn();
	test_random();
	test_forward();
	return 0;
}
