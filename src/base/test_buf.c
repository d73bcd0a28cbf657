/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buffers: against a model, and at their maximum
 */
#include "base/buf.h"

#include "base/test.h"

#include <errno.h>

static void test_max(void)
{
	struct buf b = BUF_NULL(10);

	check(buf_len(&b) == 0 && buf_room(&b) == 10 && !buf_data(&b));
	check(buf_add(&b, NULL, 0) == 0);
	check(!b.mem);
	check_str(buf_text(&b), "");
	check(buf_add(&b, "0123456789a", 11) == -ENOBUFS);
	check(buf_len(&b) == 0);
	check(buf_add(&b, "0123456789", 10) == 0);
	check(buf_room(&b) == 0);
	check(buf_add(&b, "x", 1) == -ENOBUFS);
	check(!buf_reserve(&b, 1));
	check_str(buf_text(&b), "0123456789");
	buf_consume(&b, 4);
	check(buf_add(&b, "abcd", 4) == 0);
	check_str(buf_text(&b), "456789abcd");
	check(buf_addf(&b, "%d", 1) == -ENOBUFS);
	buf_consume(&b, 1);
	check(buf_addf(&b, "%d", 1) == 0);
	check_str(buf_text(&b), "56789abcd1");
	check(b.size <= 11);
	buf_deinit(&b);
	buf_deinit(&b);
	check(buf_room(&b) == 10);
}

static void test_none(void)
{
	struct buf b;

	buf_init(&b, 0);
	check(buf_add(&b, "x", 1) == -ENOBUFS);
	check_str(buf_text(&b), "");
	buf_deinit(&b);

	buf_init(&b, SIZE_MAX);
	check(!buf_reserve(&b, SIZE_MAX));
	check(buf_add(&b, "x", 1) == 0);
	check(!buf_reserve(&b, SIZE_MAX));
	check_str(buf_text(&b), "x");
	buf_deinit(&b);
}

/* A queue of numbered bytes: what comes out is what went in. */
static void test_model(size_t max_bytes)
{
	struct buf b = BUF_NULL(max_bytes);
	uint64_t in = 0, out = 0;

	srandom(1);
	for (int turn = 0; turn < 20000; turn++) {
		size_t len = (size_t)random() % (max_bytes / 3);
		uint8_t *p = buf_reserve(&b, len);

		check(!p == (in - out + len > max_bytes));
		if (p) {
			for (size_t i = 0; i < len; i++)
				p[i] = (uint8_t)(in++ * 7);
			buf_commit(&b, len);
		}
		check(b.size <= max_bytes + 1);
		check(buf_len(&b) == in - out);
		len = (size_t)random() % (max_bytes / 3);
		len = min(len, buf_len(&b));
		p = buf_data(&b);
		for (size_t i = 0; i < len; i++)
			check(p[i] == (uint8_t)(out++ * 7));
		buf_consume(&b, len);
	}
	buf_deinit(&b);
}

static void test_format(void)
{
	struct buf b = BUF_NULL(1 << 20);

	for (int i = 0; i < 1000; i++)
		check(buf_addf(&b, "%03d,", i) == 0);
	check(buf_len(&b) == 4000);
	check(!strncmp(buf_text(&b), "000,001,002,", 12));
	buf_deinit(&b);
}

static void test_consume_too_much(void)
{
	struct buf b = BUF_NULL(10);

	buf_consume(&b, 1);
}

int main(void)
{
	test_max();
	test_none();
	test_model(30);
	test_model(5000);
	test_format();
	check(test_dies(test_consume_too_much));
	return 0;
}
