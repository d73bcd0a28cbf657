/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files whose size is made up, sent with the size they have
 */
#include "base/guard.h"
#include "base/io.h"
#include "base/test.h"
#include "cmd/entry.h"
#include "cmd/pack.h"
#include "cmd/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#define TEXT_MAX 8192

static char dir[64];

/* What came out at the other end. */
static struct entry came;
static unsigned entries;
static uint8_t data[TEXT_MAX];
static size_t data_len;

static void take_frame(const struct wire_frame *f)
{
	if (f->type == WIRE_ENTRY) {
		check(entry_read(f, &came, NULL) == 0);
		entries++;
		return;
	}
	check(f->type == WIRE_DATA && f->channel == WIRE_STDIN);
	check(f->len <= sizeof(data) - data_len);
	memcpy(data + data_len, f->payload, f->len);
	data_len += f->len;
}

/* pack_send() to nobody; less than a window is sent. */
static int play(const char *path, struct err *e)
{
	struct stream_result result = { 0 };
	struct stream s = STREAM_NULL;
	size_t used = 0, skipped = 0;
	struct wire_frame f;
	int fds[2], r;

	*e = (struct err)ERR_NULL;
	entries = 0;
	data_len = 0;
	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
	s.fd = fds[0];
	buf_init(&s.in, 2 * WIRE_FRAME_MAX);
	buf_init(&s.out, 4 * WIRE_WINDOW);
	s.mem = malloc(WIRE_FRAME_MAX);
	check(s.mem);
	stream_begin_open(&s, WIRE_PUT);
	r = pack_send(&s, path, "", false, &result, e);
	while (wire_next(buf_data(&s.out), buf_len(&s.out), &f, &used,
			 &skipped) == 0) {
		check(!skipped);
		take_frame(&f);
		buf_consume(&s.out, used);
	}
	check(!buf_len(&s.out));
	close(fds[1]);
	stream_deinit(&s);
	return r;
}

static void test_like(const char *path)
{
	static uint8_t want[TEXT_MAX];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct err e;
	ssize_t n;

	if (fd < 0)
		return; /* another kernel */
	n = io_read_full(fd, want, sizeof(want));
	close(fd);
	check(n > 0 && n < TEXT_MAX);
	check(play(path, &e) == 0 && entries == 1);
	check(came.size == (uint64_t)n && data_len == (size_t)n);
	check(!memcmp(data, want, data_len));
}

static void test_real(const char *text)
{
	guard_free char *path = io_path("%s/file", dir);
	struct err e;

	check(path && io_write_file(path, text, strlen(text), 0600, NULL) == 0);
	check(play(path, &e) == 0 && entries == 1);
	check(came.size == strlen(text) && data_len == strlen(text));
	check(!memcmp(data, text, data_len));
}

static void test_too_long(void)
{
	struct err e;
	int r = play("/proc/kallsyms", &e);

	if (r == 0)
		return; /* a small kernel, or one that tells us none */
	check(r == -EFBIG && !entries && !data_len);
	check(strstr(e.msg, "/proc/kallsyms") && strstr(e.msg, "1 MiB"));
}

int main(void)
{
	test_dir(dir, sizeof(dir));
	test_like("/proc/version");
	test_like("/proc/filesystems");
	test_like("/sys/kernel/uevent_seqnum");
	test_like("/sys/kernel/mm/transparent_hugepage/enabled");
	test_real("");
	test_real("a real file");
	test_too_long();
	check(io_remove_tree(dir, NULL) == 0);
	return 0;
}
