/* SPDX-License-Identifier: Apache-2.0 */
/* The console's file: what is kept, how much, and its last line. */
#include "sandbox/console.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/loop.h"
#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

static struct loop loop;
static char dir[256], path[300];

static void turn(int ms)
{
	struct err e = ERR_NULL;

	check(loop_turn(&loop, ms, &e) == 0);
}

static uint64_t size_of_log(void)
{
	struct stat st;

	check(stat(path, &st) == 0);
	return (uint64_t)st.st_size;
}

static struct console *open_console(int *guest_fd)
{
	struct console *c = NULL;
	struct err e = ERR_NULL;
	int fds[2];

	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
	check(console_new(&loop, fds[0], path, &c, &e) == 0);
	*guest_fd = fds[1];
	return c;
}

static void write_log(const char *text)
{
	guard_fd int fd =
		open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	check(fd >= 0);
	check(io_write_full(fd, text, strlen(text)) == 0);
}

static void test_kept(void)
{
	guard_free char *text = NULL;
	struct console *c;
	int fd;

	/* Appended to what was there; the rest is read when it closes. */
	write_log("before\n");
	c = open_console(&fd);
	check(write(fd, "one\n", 4) == 4);
	turn(100);
	check(size_of_log() == 11);
	check(write(fd, "two\n", 4) == 4);
	check(console_free(c) == NULL);
	check(io_read_file(path, 1000, &text, NULL, NULL) == 0);
	check_str(text, "before\none\ntwo\n");
	check(loop.n_fds == 0);
	close(fd);
	check(console_free(NULL) == NULL);
}

static void test_closed_by_guest(void)
{
	struct console *c;
	int fd;

	write_log("");
	c = open_console(&fd);
	check(write(fd, "last words", 10) == 10);
	close(fd);
	for (int i = 0; i < 5; i++)
		turn(10);
	check(size_of_log() == 10);
	check(loop.n_fds == 0); /* no loop that spins on a closed socket */
	console_free(c);
}

/* A guest that writes as fast as it can: never more than the maximum, the
 * newest is there, and the reader is slowed. */
static void test_flood(void)
{
	static char line[65537];
	guard_free char *text = NULL;
	uint64_t wrote = 0, largest = 0, before;
	unsigned n = 0;
	struct console *c;
	size_t len = 0;
	int fd;

	write_log("");
	c = open_console(&fd);
	/* One tick's worth comes at once, the rest waits for the timer. */
	memset(line, 'x', sizeof(line));
	while (send(fd, line, sizeof(line), MSG_DONTWAIT) > 0)
		;
	for (int i = 0; i < 20; i++)
		turn(0);
	before = size_of_log();
	check(before > 0 && before <= CONSOLE_RATE);
	/* Numbered lines for as long as it takes to fill it twice. */
	while (wrote < 2 * CONSOLE_LOG_MAX + CONSOLE_LOG_MAX / 4) {
		ssize_t sent;

		snprintf(line, sizeof(line), "\nline %u", n);
		sent = send(fd, line, strlen(line), MSG_DONTWAIT);
		if (sent > 0) {
			n++;
			for (int i = 0; i < 8; i++)
				if (send(fd,
					 "................................"
					 "..............................\n",
					 63, MSG_DONTWAIT) < 0)
					break;
		}
		turn(sent > 0 ? 0 : 20);
		if (size_of_log() > largest)
			largest = size_of_log();
		wrote = (uint64_t)n * 500;
	}
	check(largest <= CONSOLE_LOG_MAX);
	check(largest > CONSOLE_LOG_MAX / 2);
	console_free(c);
	close(fd);
	check(size_of_log() <= CONSOLE_LOG_MAX);
	check(io_read_file(path, CONSOLE_LOG_MAX + 1, &text, &len, NULL) == 0);
	/* Lines in order, without a gap, to near the end. */
	text[len] = '\0';
	{
		const char *p = strstr(text, "\nline ");
		unsigned first, last;

		check(p);
		first = last = (unsigned)atoi(p + 6);
		while ((p = strstr(p + 1, "\nline "))) {
			unsigned next = (unsigned)atoi(p + 6);

			check(next == last + 1);
			last = next;
		}
		check(last > first && last + 2000 > n);
	}
}

static void test_errors(void)
{
	struct console *c = NULL;
	struct err e = ERR_NULL;
	int fds[2];

	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
	check(console_new(&loop, fds[0], "/no/such/dir/log", &c, &e) ==
	      -ENOENT);
	check(!c && strstr(e.msg, "/no/such/dir/log"));
	check(loop.n_fds == 0);
	/* Taken all the same. */
	check(send(fds[1], "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
	close(fds[1]);
}

static void last(const char *text, const char *want)
{
	char out[80];

	write_log(text);
	console_last_line(path, out, sizeof(out));
	check_str(out, want);
}

static void test_last_line(void)
{
	static const char why[] =
		"[ 1.0] Kernel panic - not syncing: no init\r\n"
		"[ 1.0] CPU: 0 PID: 1\r\n[ 1.0] Call Trace:\r\n"
		"[ 1.0] Kernel Offset: 0x1\r\n";
	static char big[20000];
	char out[80];

	last("", "");
	last("\n\n \r\n", "");
	last("one", "one");
	last("one\ntwo\n\n", "two");
	last("one\n\033[2J\x80\xffno tricks\177", "?[2J??no tricks?");
	last(why, "Kernel panic - not syncing: no init");
	check(console_panicked(path, out, sizeof(out)));
	last("program: it is broken\nprogram: warning: no peer\n",
	     "program: it is broken");
	last("program: warning: no peer\n", "");
	check(!console_panicked(path, out, sizeof(out)));
	/* Longer than what is looked at. */
	memset(big, 'x', sizeof(big) - 1);
	write_log(big);
	console_last_line(path, out, sizeof(out));
	check(strlen(out) == sizeof(out) - 1);
	console_last_line("/no/such/file", out, sizeof(out));
	check_str(out, "");
}

int main(void)
{
	struct err e = ERR_NULL;

	test_dir(dir, sizeof(dir));
	snprintf(path, sizeof(path), "%s/log", dir);
	check(loop_init(&loop, &e) == 0);
	test_kept();
	test_closed_by_guest();
	test_flood();
	test_errors();
	test_last_line();
	loop_deinit(&loop);
	check(io_remove_tree(dir, &e) == 0);
	return 0;
}
