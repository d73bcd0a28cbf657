/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the VMM's serial socket to a bounded file
 *
 * While no daemon runs nobody is connected and QEMU throws console output away;
 * that gap is the price of not letting a guest fill the disk.
 */
#include "sandbox/console.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

/* What is looked at for the last line: a panic's report is some 3 KB. */
#define CONSOLE_TAIL 6144
#define CONSOLE_PANIC "Kernel panic - not syncing"

struct console {
	struct loop *loop;
	struct loop_fd source;
	struct loop_timer timer;
	int fd;
	int file_fd;
	uint64_t size; /* of the file */
	uint32_t budget; /* bytes left in this tick */
};

/* Keep the newer half. */
static void console_cut(struct console *c)
{
	guard_free char *half = malloc(CONSOLE_LOG_MAX / 2);
	ssize_t n;

	if (!half)
		return;
	n = io_pread_full(c->file_fd, half, CONSOLE_LOG_MAX / 2,
			  c->size - CONSOLE_LOG_MAX / 2);
	if (n < 0 || ftruncate(c->file_fd, 0) < 0)
		return;
	err_drop(io_pwrite_full(c->file_fd, half, (size_t)n, 0));
	c->size = (uint64_t)n;
}

/* A full disk loses console output, never a guest. */
static void console_store(struct console *c, const void *p, size_t len)
{
	if (c->size + len > CONSOLE_LOG_MAX)
		console_cut(c);
	if (io_pwrite_full(c->file_fd, p, len, c->size) == 0)
		c->size += len;
}

/* False at the end of the connection. */
static bool console_read(struct console *c)
{
	char p[16384];

	while (c->budget) {
		ssize_t n = recv(c->fd, p, min(sizeof(p), (size_t)c->budget),
				 MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return true;
		if (n <= 0)
			return false;
		c->budget -= (uint32_t)n;
		console_store(c, p, (size_t)n);
	}
	return true;
}

static void console_tick(struct loop_timer *t)
{
	struct console *c = container_of(t, struct console, timer);

	c->budget = CONSOLE_RATE;
	if (c->source.loop)
		loop_fd_set(&c->source, EPOLLIN);
}

static void console_ready(struct loop_fd *f, unused uint32_t events)
{
	struct console *c = container_of(f, struct console, source);

	if (!console_read(c)) {
		loop_fd_del(&c->source);
		return;
	}
	if (c->budget)
		return;
	loop_fd_set(&c->source, 0);
	if (loop_timer_set(c->loop, &c->timer,
			   c->loop->now_ns + CONSOLE_TICK_NS, console_tick) < 0)
		console_tick(&c->timer);
}

int console_new(struct loop *loop, int connected_take, const char *path,
		struct console **ret, struct err *e)
{
	struct console *c = calloc(1, sizeof(*c));
	off_t end;
	int r;

	if (!c) {
		fd_close(&connected_take);
		return err_errno(e, ENOMEM, "console");
	}
	c->loop = loop;
	c->source = (struct loop_fd)LOOP_FD_NULL;
	c->fd = connected_take;
	c->budget = CONSOLE_RATE;
	c->file_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (c->file_fd < 0) {
		r = err_errno(e, errno, "open %s", path);
		console_free(c);
		return r;
	}
	end = lseek(c->file_fd, 0, SEEK_END);
	c->size = end > 0 ? (uint64_t)end : 0;
	r = loop_fd_add(loop, &c->source, c->fd, EPOLLIN, console_ready);
	if (r < 0) {
		console_free(c);
		return err_errno(e, -r, "watch the console");
	}
	*ret = c;
	return 0;
}

struct console *console_free(struct console *c)
{
	if (!c)
		return NULL;
	if (c->source.loop) {
		c->budget = CONSOLE_RATE;
		(void)console_read(c);
	}
	loop_fd_del(&c->source);
	loop_timer_del(&c->timer);
	fd_close(&c->fd);
	fd_close(&c->file_fd);
	free(c);
	return NULL;
}

/* A kernel that panics says why, and then a screenful of registers. A VMM may
 * warn, and then fail without a word: the warning did not end it. */
static char *console_telling_line(char *text)
{
	static char none[] = "";
	char *line = strstr(text, CONSOLE_PANIC);

	if (line) {
		line[strcspn(line, "\r\n")] = '\0';
		return line;
	}
	while ((line = strrchr(text, '\n'))) {
		if (line[1] && !strstr(line, ": warning: "))
			return line + 1;
		*line = '\0';
	}
	return strstr(text, ": warning: ") ? none : text;
}

void console_last_line(const char *path, char *out, size_t size)
{
	guard_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	char tail[CONSOLE_TAIL];
	off_t end = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
	off_t from = end > (off_t)sizeof(tail) - 1
			     ? end - ((off_t)sizeof(tail) - 1)
			     : 0;
	char *line;
	ssize_t n;

	*out = '\0';
	if (end <= 0)
		return;
	n = io_pread_full(fd, tail, sizeof(tail) - 1, (uint64_t)from);
	while (n > 0 && (unsigned char)tail[n - 1] <= ' ')
		n--;
	if (n <= 0)
		return;
	tail[n] = '\0';
	line = console_telling_line(tail);
	/* The guest wrote this: nothing that moves a terminal's cursor. */
	for (char *p = line; *p; p++)
		if ((unsigned char)*p < ' ' || (unsigned char)*p >= 127)
			*p = '?';
	snprintf(out, size, "%s", line);
}

bool console_panicked(const char *path, char *out, size_t size)
{
	console_last_line(path, out, size);
	return !strncmp(out, CONSOLE_PANIC, strlen(CONSOLE_PANIC));
}
