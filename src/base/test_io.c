/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files, directories, sockets: also the ugly ones
 */
#include "base/io.h"

#include "base/guard.h"
#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

static char top[200];
static struct err e;

/* A path below the test's directory; good for a few at a time. */
__attribute__((format(printf, 1, 2))) static const char *at(const char *fmt,
							    ...)
{
	static char paths[4][1200];
	static unsigned next;
	char *path = paths[next++ % nitems(paths)];
	va_list ap;
	int n = snprintf(path, sizeof(paths[0]), "%s/", top);

	va_start(ap, fmt);
	vsnprintf(path + n, sizeof(paths[0]) - (size_t)n, fmt, ap);
	va_end(ap);
	return path;
}

static int test_open(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	check(fd >= 0);
	return fd;
}

static bool test_exists(const char *path)
{
	struct stat st = { 0 };

	return lstat(path, &st) == 0;
}

static mode_t test_mode(const char *path)
{
	struct stat st = { 0 };

	check(lstat(path, &st) == 0);
	return st.st_mode & 07777;
}

static size_t test_count(const char *path)
{
	guard_dir DIR *d = opendir(path);
	size_t n = 0;

	check(d);
	while (readdir(d))
		n++;
	return n - 2;
}

static void *test_feed(void *arg)
{
	const int *fd = arg;

	for (int i = 0; i < 10; i++) {
		check(write(*fd, "0123456789", 10) == 10);
		usleep(500);
	}
	close(*fd);
	return NULL;
}

static void test_full(void)
{
	char in[200] = { 0 };
	pthread_t thread;
	int fds[2], fd;

	/* Short reads until the end of the file. */
	check(pipe2(fds, O_CLOEXEC) == 0);
	check(pthread_create(&thread, NULL, test_feed, &fds[1]) == 0);
	check(io_read_full(fds[0], in, 95) == 95);
	check(io_read_full(fds[0], in + 95, 100) == 5);
	check(io_read_full(fds[0], in, 1) == 0);
	check(pthread_join(thread, NULL) == 0);
	check(!strncmp(in + 90, "0123456789", 11));
	close(fds[0]);
	check(io_read_full(fds[0], in, 1) == -EBADF);
	check(io_write_full(fds[0], in, 1) == -EBADF);

	fd = test_open(at("full"));
	check(io_pwrite_full(fd, "hello", 5, 5000000000ull) == 0);
	check(io_pread_full(fd, in, 100, 5000000000ull - 1) == 6);
	check(!memcmp(in, "\0hello", 6));
	check(io_pread_full(fd, in, 100, 5000000005ull) == 0);
	check(lseek(fd, 0, SEEK_CUR) == 0);
	close(fd);
	check(unlink(at("full")) == 0);
}

static void test_read_file(void)
{
	char *s = NULL;
	size_t len = 77;

	check(io_read_file(at("none"), 10, &s, &len, &e) == -ENOENT);
	check(strstr(e.msg, "/none: No such file"));
	check(!s && len == 77);
	check(io_write_file(at("f"), "0123456789", 10, 0600, &e) == 0);
	check(io_read_file(at("f"), 10, &s, &len, &e) == 0);
	check(len == 10);
	check_str(s, "0123456789");
	free(s);
	s = NULL;
	check(io_read_file(at("f"), 9, &s, &len, &e) == -EFBIG);
	check(strstr(e.msg, "more than 9 bytes"));
	check(io_read_file(at("f"), 9, &s, &len, NULL) == -EFBIG);
	check(!s);
	check(io_write_file(at("f"), "", 0, 0600, &e) == 0);
	check(io_read_file(at("f"), 0, &s, NULL, &e) == 0);
	check_str(s, "");
	free(s);
	/* Claims to be empty and is larger than the first guess. */
	check(io_read_file("/proc/self/smaps", 1 << 26, &s, &len, &e) == 0);
	check(len > 4096 && strlen(s) == len);
	free(s);
	s = NULL;
	check(io_read_file("/proc/self/smaps", 100, &s, &len, &e) == -EFBIG);
	check(io_read_file("/proc/self/smaps", 5000, &s, &len, &e) == -EFBIG);
	check(io_read_file(top, 100, &s, &len, &e) == -EISDIR);
	check(!s);
	check(unlink(at("f")) == 0);
}

static void test_write_file(void)
{
	mode_t old = umask(077);
	char *s = NULL;

	check(io_write_file(at("w"), "one", 3, 0644, &e) == 0);
	check(test_mode(at("w")) == 0644);
	check(io_write_file(at("w"), "two!", 4, 0400, &e) == 0);
	check(test_mode(at("w")) == 0400);
	umask(old);
	check(io_read_file(at("w"), 10, &s, NULL, &e) == 0);
	check_str(s, "two!");
	free(s);
	/* A failure leaves the old one, and nothing beside it. */
	check(mkdir(at("dir"), 0700) == 0);
	check(io_write_file(at("dir"), "x", 1, 0600, &e) == -EISDIR);
	check(test_count(top) == 2);
	check(io_write_file(at("no/w"), "x", 1, 0600, &e) == -ENOENT);
	check(strstr(e.msg, "create "));
	check(rmdir(at("dir")) == 0 && unlink(at("w")) == 0);
}

/* Out of room half way: the temporary goes away. */
static void test_write_file_full(void)
{
	const struct rlimit small = { 1000, RLIM_INFINITY };
	struct rlimit old;
	char bytes[2000] = { 0 };

	check(getrlimit(RLIMIT_FSIZE, &old) == 0);
	signal(SIGXFSZ, SIG_IGN);
	check(setrlimit(RLIMIT_FSIZE, &small) == 0);
	check(io_write_file(at("w"), bytes, 2000, 0600, &e) == -EFBIG);
	check(setrlimit(RLIMIT_FSIZE, &old) == 0);
	check(strstr(e.msg, "write ") && strstr(e.msg, ".tmp: File too"));
	check(test_count(top) == 0);
}

static void test_mkdirs(void)
{
	char cwd[1024];

	check(io_mkdirs(at("a//b/c/"), 0750, &e) == 0);
	check(io_mkdirs(at("a/b/c"), 0750, &e) == 0);
	check(test_mode(at("a/b/c")) == 0750);
	check(io_mkdirs(top, 0700, &e) == 0);
	check(io_mkdirs("/", 0700, &e) == 0);
	check(io_mkdirs("/proc/self/fd", 0700, &e) == 0);
	check(io_mkdirs("", 0700, &e) == -ENOENT);
	close(test_open(at("a/file")));
	check(io_mkdirs(at("a/file"), 0700, &e) == -ENOTDIR);
	check(io_mkdirs(at("a/file/x"), 0700, &e) == -ENOTDIR);
	check(strstr(e.msg, "a/file: Not a directory"));
	check(symlink("b", at("a/link")) == 0);
	check(io_mkdirs(at("a/link/d"), 0700, &e) == 0);
	check(test_exists(at("a/b/d")));
	check(getcwd(cwd, sizeof(cwd)) && chdir(at("a")) == 0);
	check(io_mkdirs("r/s", 0700, &e) == 0);
	check(io_mkdirs("r", 0700, &e) == 0);
	check(test_exists(at("a/r/s")));
	check(io_remove_tree("r", &e) == 0);
	check(!test_exists(at("a/r")));
	check(chdir(cwd) == 0);
	check(io_remove_tree(at("a"), &e) == 0);
	check(test_count(top) == 0);
}

static void test_remove_tree(void)
{
	char path[1100];
	int n;

	check(io_remove_tree(at("none"), &e) == 0);
	check(io_remove_tree(at("none/deeper"), &e) == 0);
	check(io_remove_tree("", &e) == -EINVAL);
	check(io_remove_tree("/", &e) == -EINVAL);
	check(io_remove_tree(at("."), &e) == -EINVAL);
	check(io_remove_tree(at(".."), &e) == -EINVAL);

	/* Links go, what they point at stays. */
	check(io_mkdirs(at("keep/sub"), 0700, &e) == 0);
	close(test_open(at("keep/file")));
	check(io_mkdirs(at("go/sub"), 0700, &e) == 0);
	check(symlink(at("keep"), at("go/sub/dir")) == 0);
	check(symlink(at("keep/file"), at("go/file")) == 0);
	check(symlink("/nowhere/at/all", at("go/dangling")) == 0);
	check(mkfifo(at("go/fifo"), 0600) == 0);
	for (int i = 0; i < 500; i++)
		close(test_open(at("go/sub/%d", i)));
	check(symlink("keep", at("link")) == 0);
	check(io_remove_tree(at("link/"), &e) == 0);
	check(!test_exists(at("link")));
	check(io_remove_tree(at("go//"), &e) == 0);
	check(!test_exists(at("go")));
	check(test_count(at("keep")) == 2);
	check(io_remove_tree(at("keep/file"), &e) == 0);
	check(io_remove_tree(at("keep"), &e) == 0);

	/* Deeper than it is willing to go: refused, not crashed. */
	n = snprintf(path, sizeof(path), "%s/deep", top);
	for (int i = 0; i < 300; i++)
		n += snprintf(path + n, sizeof(path) - (size_t)n, "/d");
	check(io_mkdirs(path, 0700, &e) == 0);
	check(io_remove_tree(at("deep"), &e) == -ELOOP);
	path[n - 200] = '\0'; /* the lower 100 first */
	check(path[n - 201] == 'd');
	check(io_remove_tree(path, &e) == 0);
	check(io_remove_tree(at("deep"), &e) == 0);
	check(test_count(top) == 0);
}

/* Data at the edges and in the middle, holes between, an odd size. */
#define SPARSE_BYTES (9000000u + 123)

static void test_fill(int fd)
{
	check(ftruncate(fd, SPARSE_BYTES) == 0);
	check(io_pwrite_full(fd, "begin", 5, 0) == 0);
	check(io_pwrite_full(fd, "middle", 6, 4000001) == 0);
	check(io_pwrite_full(fd, "end", 3, SPARSE_BYTES - 1000000) == 0);
}

static void test_same_bytes(int a, int b)
{
	guard_free char *x = malloc(SPARSE_BYTES + 1);
	guard_free char *y = malloc(SPARSE_BYTES + 1);

	check(x && y);
	check(io_pread_full(a, x, SPARSE_BYTES + 1, 0) == SPARSE_BYTES);
	check(io_pread_full(b, y, SPARSE_BYTES + 1, 0) == SPARSE_BYTES);
	check(!memcmp(x, y, SPARSE_BYTES));
}

static void test_copy_between(int from, int to)
{
	struct stat st = { 0 };
	guard_free char *junk = malloc(SPARSE_BYTES + 5000);

	check(junk);
	test_fill(from);
	/* What was there must not shine through. */
	memset(junk, 'j', SPARSE_BYTES + 5000);
	check(io_pwrite_full(to, junk, SPARSE_BYTES + 5000, 0) == 0);
	check(io_copy_file(from, to, &e) == 0);
	test_same_bytes(from, to);
	check(fstat(to, &st) == 0);
	check(st.st_blocks * 512 < 1000000);
	/* Nothing but a hole, and nothing at all. */
	check(ftruncate(from, 0) == 0 && ftruncate(from, 70000) == 0);
	check(io_copy_file(from, to, &e) == 0);
	check(fstat(to, &st) == 0);
	check(st.st_size == 70000 && st.st_blocks == 0);
	check(ftruncate(from, 0) == 0);
	check(io_copy_file(from, to, &e) == 0);
	check(fstat(to, &st) == 0 && st.st_size == 0);
}

static void test_copy(void)
{
	guard_fd int a = test_open(at("a")), b = test_open(at("b"));
	guard_fd int m = memfd_create("test", MFD_CLOEXEC);
	guard_fd int n = memfd_create("test", MFD_CLOEXEC);
	guard_fd int same = test_open(at("a"));
	guard_fd int ro = open(at("b"), O_RDONLY | O_CLOEXEC);

	check(m >= 0 && n >= 0 && ro >= 0);
	test_copy_between(a, b); /* within a file system */
	test_copy_between(m, a); /* between two */
	test_copy_between(a, m);
	test_copy_between(m, n);
	check(io_pwrite_full(a, "x", 1, 0) == 0);
	check(io_copy_file(a, same, &e) == -EINVAL);
	check(io_copy_file(a, ro, &e) == -EINVAL);
	check_str(e.msg, "truncate: Invalid argument");
	check(io_copy_file(-1, b, &e) == -EBADF);
	check(unlink(at("a")) == 0 && unlink(at("b")) == 0);
}

static void test_talk(const char *path)
{
	guard_fd int l = -1, c = -1, s = -1;
	char in[6] = { 0 };

	check(io_listen_unix(path, 0620, &l, &e) == 0);
	check(fcntl(l, F_GETFD) & FD_CLOEXEC);
	check(accept4(l, NULL, NULL, SOCK_CLOEXEC) < 0 && errno == EAGAIN);
	check(test_mode(path) == 0620);
	check(io_connect_unix(path, true, &c, &e) == 0);
	check(fcntl(c, F_GETFL) & O_NONBLOCK);
	check(fcntl(c, F_GETFD) & FD_CLOEXEC);
	check(read(c, in, 1) < 0 && errno == EAGAIN);
	s = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	check(s >= 0);
	check(io_write_full(s, "moo", 3) == 0);
	check(io_set_nonblock(c, false) == 0);
	check(io_read_full(c, in, 3) == 3);
	check_str(in, "moo");
	check(io_set_nonblock(c, true) == 0);
	check(io_read_full(c, in, 1) == -EAGAIN);
	fd_close(&c);
	check(io_connect_unix(path, false, &c, &e) == 0);
	check(!(fcntl(c, F_GETFL) & O_NONBLOCK));
	/* The next one takes the place of the old one, dead or alive. */
	fd_close(&l);
	fd_close(&c);
	check(io_connect_unix(path, false, &c, &e) == -ECONNREFUSED);
	check(io_listen_unix(path, 0600, &l, &e) == 0);
	check(test_mode(path) == 0600);
	check(io_connect_unix(path, false, &c, &e) == 0);
}

static void test_sockets(void)
{
	mode_t old = umask(0);
	char name[256];
	int fd = -1;

	test_talk(at("s"));
	umask(0777);
	test_talk(at("s"));
	umask(022);
	check(io_mkdirs(at("%0100d/%0100d", 1, 2), 0700, &e) == 0);
	test_talk(at("%0100d/%0100d/s", 1, 2));
	umask(old);
	memset(name, 'n', 200);
	name[200] = '\0';
	check(io_listen_unix(at("%s", name), 0600, &fd, &e) == -ENAMETOOLONG);
	check(io_connect_unix(at("%s", name), 0, &fd, &e) == -ENAMETOOLONG);
	check(io_connect_unix(name, 0, &fd, &e) == -ENAMETOOLONG);
	check(io_connect_unix(at("none"), false, &fd, &e) == -ENOENT);
	check(strstr(e.msg, "connect to ") && strstr(e.msg, "/none: No such"));
	check(io_listen_unix("", 0600, &fd, &e) == -ENOENT);
	check(io_connect_unix("", false, &fd, &e) == -ENOENT);
	close(test_open(at("file")));
	check(io_listen_unix(at("file"), 0600, &fd, &e) == -EEXIST);
	check(test_exists(at("file")));
	check(fd == -1);
	check(io_set_nonblock(-1, true) == -EBADF);
	check(io_remove_tree(at("%0100d", 1), &e) == 0);
	check(unlink(at("file")) == 0 && unlink(at("s")) == 0);
}

static void test_rest(void)
{
	guard_free char *path = io_path("%s/%d", "x", 7);
	unsigned char a[300] = { 0 }, b[300] = { 0 };

	check_str(path, "x/7");
	io_random(a, sizeof(a));
	io_random(b, sizeof(b));
	check(memcmp(a, b, sizeof(a)) != 0);
	check(io_sync_parent(top, &e) == 0);
	check(io_sync_parent("name", &e) == 0);
	check(io_sync_parent("/name", &e) == 0);
	check(io_sync_parent("/nowhere/at/all", &e) == -ENOENT);
	check(strstr(e.msg, "open /nowhere/at: No such"));
}

int main(void)
{
	test_dir(top, sizeof(top));
	test_full();
	test_read_file();
	test_write_file();
	test_write_file_full();
	test_mkdirs();
	test_remove_tree();
	test_copy();
	test_sockets();
	test_rest();
	check(io_remove_tree(top, &e) == 0);
	check(!test_exists(top));
	return 0;
}
