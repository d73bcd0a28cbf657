/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NBD: a client of ours that also misbehaves, and QEMU's where it is installed
 */
#include "pager/nbd.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/proc.h"
#include "base/test.h"
#include "pager/stats.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#define DISK_BYTES (8u << 20)
/* The file is shorter than the export: the rest is zero. */
#define FILE_BYTES (DISK_BYTES - 2048)
#define QEMU_IO "/usr/bin/qemu-io"

static char top[200], path[300], sockets[250];
static struct err e;
static struct pager_layer_stats stats;
static uint8_t *content;
static int disk_fd;

/* What need() does. */
static _Atomic int need_result;
static _Atomic uint64_t need_never_below; /* offsets below: -ETIMEDOUT */

static int test_need(void *arg, uint64_t offset, uint64_t len)
{
	check(arg == &stats && len > 0 && offset + len <= DISK_BYTES);
	if (offset < need_never_below)
		return -ETIMEDOUT;
	return need_result;
}

static struct nbd_disk test_disk(void)
{
	return (struct nbd_disk){ .bytes = DISK_BYTES,
				  .fd = disk_fd,
				  .need = test_need,
				  .arg = &stats,
				  .stats = &stats };
}

static void test_content(void)
{
	uint32_t x = 12345;

	content = calloc(1, DISK_BYTES);
	check(content);
	for (size_t i = 0; i < FILE_BYTES; i++) {
		x = x * 1664525 + 1013904223;
		content[i] = (uint8_t)(x >> 24);
	}
	snprintf(path, sizeof(path), "%s/file", top);
	disk_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	check(disk_fd >= 0);
	check(io_pwrite_full(disk_fd, content, FILE_BYTES, 0) == 0);
}

/* ---- a client ---- */

static void put(int fd, const void *p, size_t len)
{
	check(io_write_full(fd, p, len) == 0);
}

static void put16(int fd, uint16_t v)
{
	v = htobe16(v);
	put(fd, &v, sizeof(v));
}

static void put32(int fd, uint32_t v)
{
	v = htobe32(v);
	put(fd, &v, sizeof(v));
}

static void put64(int fd, uint64_t v)
{
	v = htobe64(v);
	put(fd, &v, sizeof(v));
}

static void get(int fd, void *p, size_t len)
{
	check(io_read_full(fd, p, len) == (ssize_t)len);
}

static uint16_t get16(int fd)
{
	uint16_t v;

	get(fd, &v, sizeof(v));
	return be16toh(v);
}

static uint32_t get32(int fd)
{
	uint32_t v;

	get(fd, &v, sizeof(v));
	return be32toh(v);
}

static uint64_t get64(int fd)
{
	uint64_t v;

	get(fd, &v, sizeof(v));
	return be64toh(v);
}

static bool closed(int fd)
{
	char c;

	return io_read_full(fd, &c, 1) <= 0;
}

static int client(uint32_t number, uint32_t flags)
{
	struct err mine = ERR_NULL;
	char at[300];
	int fd = -1;

	snprintf(at, sizeof(at), "%s/%u", sockets, number);
	check(io_connect_unix(at, false, &fd, &mine) == 0);
	check(get64(fd) == 0x4e42444d41474943ull);
	check(get64(fd) == 0x49484156454f5054ull);
	check(get16(fd) == 3);
	put32(fd, flags);
	return fd;
}

static void option(int fd, uint32_t type, const void *p, uint32_t len)
{
	put64(fd, 0x49484156454f5054ull);
	put32(fd, type);
	put32(fd, len);
	put(fd, p, len);
}

/* The answer's type; its data in @p (at least 64 bytes). */
static uint32_t answer(int fd, uint32_t type, uint8_t *p)
{
	uint32_t r, len;

	check(get64(fd) == 0x0003e889045565a9ull);
	check(get32(fd) == type);
	r = get32(fd);
	len = get32(fd);
	check(len <= 64);
	get(fd, p, len);
	return r;
}

static void go(int fd, uint32_t type)
{
	uint8_t p[64], data[10] = { 0, 0, 0, 4, 'd', 'i', 's', 'k', 0, 0 };
	uint64_t bytes;
	uint16_t flags;

	option(fd, type, data, sizeof(data));
	check(answer(fd, type, p) == 3 && p[0] == 0 && p[1] == 0);
	memcpy(&bytes, p + 2, sizeof(bytes));
	memcpy(&flags, p + 10, sizeof(flags));
	check(be64toh(bytes) == DISK_BYTES && be16toh(flags) == 0x103);
	check(answer(fd, type, p) == 3 && p[0] == 0 && p[1] == 3);
	check(answer(fd, type, p) == 1);
}

static int ready(uint32_t number)
{
	int fd = client(number, 3);

	go(fd, 7);
	return fd;
}

static void request(int fd, uint16_t command, uint64_t offset, uint32_t len)
{
	put32(fd, 0x25609513);
	put16(fd, 0);
	put16(fd, command);
	put64(fd, offset * 3 + command);
	put64(fd, offset);
	put32(fd, len);
}

static uint32_t reply(int fd, uint16_t command, uint64_t offset)
{
	uint32_t error;

	check(get32(fd) == 0x67446698);
	error = get32(fd);
	check(get64(fd) == offset * 3 + command);
	return error;
}

static void read_same(int fd, uint64_t offset, uint32_t len)
{
	guard_free uint8_t *p = malloc(len);

	check(p);
	request(fd, 0, offset, len);
	check(reply(fd, 0, offset) == 0);
	get(fd, p, len);
	check(!memcmp(p, content + offset, len));
}

static void no_connections(struct nbd *n)
{
	for (int i = 0; nbd_count(n); i++) {
		check(i < 5000);
		usleep(1000);
	}
}

/* ---- stories ---- */

static void test_reads(struct nbd *n)
{
	uint64_t before = stats.disk_reads;
	int fd = client(3, 3);

	go(fd, 6);
	go(fd, 7);
	read_same(fd, 0, 4096);
	read_same(fd, 1, 511);
	read_same(fd, 12345, 3 << 20);
	read_same(fd, 0, DISK_BYTES);
	read_same(fd, DISK_BYTES - 4096, 4096);
	read_same(fd, DISK_BYTES - 1, 1);
	/* Several under way: answered in order. */
	request(fd, 0, 4096, 512);
	request(fd, 0, 0, 512);
	request(fd, 3, 0, 0);
	check(reply(fd, 0, 4096) == 0);
	get(fd, (uint8_t[512]){ 0 }, 512);
	check(reply(fd, 0, 0) == 0);
	get(fd, (uint8_t[512]){ 0 }, 512);
	check(reply(fd, 3, 0) == 0);
	request(fd, 2, 0, 0);
	check(closed(fd));
	close(fd);
	no_connections(n);
	check(stats.disk_reads == before + 8);
	check(stats.disk_read_bytes >= DISK_BYTES + (3u << 20));
}

static void test_refuses(struct nbd *n)
{
	static const uint64_t bad[][2] = {
		{ 0, 0 },
		{ DISK_BYTES, 1 },
		{ DISK_BYTES - 1, 2 },
		{ UINT64_MAX, 2 },
		{ UINT64_MAX - 4095, 4096 },
		{ 0, DISK_BYTES + 1 },
		{ 0, UINT32_MAX },
	};
	guard_free uint8_t *p = calloc(1, 1 << 20);
	int fd = ready(3);

	for (size_t i = 0; i < nitems(bad); i++) {
		request(fd, 0, bad[i][0], (uint32_t)bad[i][1]);
		check(reply(fd, 0, bad[i][0]) == EINVAL);
	}
	request(fd, 1, 0, 1 << 20);
	put(fd, p, 1 << 20);
	check(reply(fd, 1, 0) == EPERM);
	request(fd, 4, 0, 4096);
	check(reply(fd, 4, 0) == EPERM);
	request(fd, 6, 0, 4096);
	check(reply(fd, 6, 0) == EPERM);
	request(fd, 5, 0, 4096);
	check(reply(fd, 5, 0) == 0);
	request(fd, 7, 0, 4096);
	check(reply(fd, 7, 0) == EINVAL);
	read_same(fd, 0, 4096); /* the disk and the connection are as before */
	request(fd, 1, 0, UINT32_MAX);
	check(closed(fd));
	close(fd);
	fd = ready(3);
	put(fd, p, 28);
	check(closed(fd));
	close(fd);
	no_connections(n);
}

/* A page that never comes costs that request, not the connection. */
static void test_fails(struct nbd *n)
{
	int fd = ready(3);

	need_never_below = 4096;
	request(fd, 0, 0, 8192);
	check(reply(fd, 0, 0) == EIO);
	read_same(fd, 4096, 4096);
	need_never_below = 0;
	/* For want of room on the host: a VMM waits for that to pass. */
	need_result = -ENOSPC;
	request(fd, 0, 0, 8192);
	check(reply(fd, 0, 0) == ENOSPC);
	need_result = 0;
	read_same(fd, 0, 8192);
	close(fd);
	no_connections(n);
}

/* A pager that goes costs the connection, not the request: it is for the next
 * one to answer. */
static void test_goes(struct nbd *n)
{
	int fd = ready(3);

	need_result = -ESHUTDOWN;
	request(fd, 0, 0, 4096);
	check(closed(fd));
	need_result = 0;
	close(fd);
	no_connections(n);
}

static void test_options(struct nbd *n)
{
	static const uint32_t unsupported[] = { 3, 5, 8, 9, 10, 0, 4096 };
	uint8_t p[64], data[12] = { 0, 0, 0, 4, 'd', 'i', 's', 'k', 0, 1 };
	guard_free uint8_t *zeros = calloc(1, 10000);
	int fd = client(3, 3);

	for (size_t i = 0; i < nitems(unsupported); i++) {
		option(fd, unsupported[i], "abc", 3);
		check(answer(fd, unsupported[i], p) == 0x80000001u);
	}
	option(fd, 7, data, 5);
	check(answer(fd, 7, p) == 0x80000003u);
	option(fd, 7, data, 10); /* one wish, none there */
	check(answer(fd, 7, p) == 0x80000003u);
	option(fd, 7, "\xff\xff\xff\xff\0\0", 6);
	check(answer(fd, 7, p) == 0x80000003u);
	option(fd, 7, "\0\0\0\4tape\0\0", 10);
	check(answer(fd, 7, p) == 0x80000006u);
	data[11] = 3;
	option(fd, 6, data, 12);
	check(answer(fd, 6, p) == 3 && answer(fd, 6, p) == 3);
	check(answer(fd, 6, p) == 1);
	option(fd, 2, "", 0);
	check(answer(fd, 2, p) == 1 && closed(fd));
	close(fd);
	/* The old way, with and without the zeros. */
	for (uint32_t flags = 1; flags <= 3; flags += 2) {
		fd = client(3, flags);
		option(fd, 1, "disk", 4);
		check(get64(fd) == DISK_BYTES && get16(fd) == 0x103);
		if (flags == 1)
			get(fd, zeros, 124);
		read_same(fd, 512, 512);
		close(fd);
	}
	fd = client(3, 3);
	option(fd, 1, "", 0);
	check(closed(fd));
	close(fd);
	fd = client(3, 0x80);
	check(closed(fd));
	close(fd);
	fd = client(3, 3);
	put64(fd, 0x49484156454f5054ull);
	put32(fd, 7);
	put32(fd, 1u << 31);
	check(closed(fd));
	close(fd);
	/* Options without end. */
	fd = client(3, 3);
	for (unsigned i = 0; i < NBD_OPTIONS_MAX; i++) {
		option(fd, 8, "", 0);
		check(answer(fd, 8, p) == 0x80000001u);
	}
	check(closed(fd));
	close(fd);
	no_connections(n);
}

static void test_mode(void)
{
	struct stat st = { 0 };

	snprintf(path, sizeof(path), "%s/nbd", top);
	check(stat(path, &st) == 0 && (st.st_mode & 07777) == 0711);
	snprintf(path, sizeof(path), "%s/nbd/3", top);
	check(stat(path, &st) == 0 && (st.st_mode & 07777) == 0666);
}

/* The layer goes: its connections end, others stay; its number is free. */
static void test_remove(struct nbd *n)
{
	struct nbd_disk d = test_disk();
	int a = ready(3), idle = client(3, 3), b;

	check(nbd_add(n, 3, &d, -1, &e) == -EEXIST);
	check(nbd_add(n, PAGER_LAYERS_MAX, &d, -1, &e) == -EEXIST);
	check(nbd_add(n, 4, &d, -1, &e) == 0);
	b = ready(4);
	nbd_remove(n, 3);
	check(closed(a) && closed(idle));
	close(a);
	close(idle);
	snprintf(path, sizeof(path), "%s/nbd/3", top);
	check(access(path, F_OK) < 0 && errno == ENOENT);
	read_same(b, 0, 4096);
	check(nbd_add(n, 3, &d, -1, &e) == 0);
	close(b);
	nbd_remove(n, 4);
	nbd_remove(n, 4);
	a = ready(3);
	read_same(a, 0, 4096);
	close(a);
	no_connections(n);
}

/* Another user's connections are bounded, and it does not keep us out. */
static void test_bounded(struct nbd *n)
{
	int status = 0, fd;
	pid_t pid;

	if (geteuid() != 0)
		return;
	pid = fork();
	check(pid >= 0);
	if (pid == 0) {
		/* It could not find the way, and is brought there, as a VMM
		 * is. */
		check(chdir(sockets) == 0);
		snprintf(sockets, sizeof(sockets), ".");
		check(setresuid(12345, 12345, 12345) == 0);
		for (unsigned i = 0; i < NBD_PER_USER_MAX; i++)
			read_same(ready(3), 0, 512);
		check(io_connect_unix("./3", false, &fd, &e) == 0);
		check(closed(fd));
		_exit(0);
	}
	fd = ready(3);
	check(waitpid(pid, &status, 0) == pid && status == 0);
	read_same(fd, 0, 512);
	close(fd);
	no_connections(n);
}

static void *test_reader(void *arg)
{
	unsigned x = *(const unsigned *)arg;
	int fd = ready(3);

	for (int i = 0; i < 300; i++) {
		x = x * 1103515245 + 12345;
		read_same(fd, (x >> 8) % (DISK_BYTES - 262144),
			  1 + (x >> 4) % 262144);
	}
	close(fd);
	return NULL;
}

static void test_many(void)
{
	unsigned seed[4] = { 1, 2, 3, 4 };
	pthread_t thread[nitems(seed)];

	for (size_t i = 0; i < nitems(seed); i++)
		check(!pthread_create(&thread[i], NULL, test_reader, &seed[i]));
	for (size_t i = 0; i < nitems(seed); i++)
		check(!pthread_join(thread[i], NULL));
}

static void test_qemu(void)
{
	char url[400], read_all[100];
	const char *argv[] = { QEMU_IO, "-f",     "raw", "-r",
			       "-c",    read_all, "-c",  "read 1048576 4096",
			       url,     NULL };
	guard_free char *output = NULL;
	guard_free char *copy = NULL;
	size_t len = 0;

	if (access(QEMU_IO, X_OK) < 0)
		return;
	snprintf(url, sizeof(url), "nbd+unix:///disk?socket=%s/nbd/3", top);
	snprintf(read_all, sizeof(read_all), "read 0 %u", DISK_BYTES);
	check(proc_run(argv, 65536, &output, &e) == 0);
	check(strstr(output, "read 8388608/8388608 bytes at offset 0"));
	/* And byte by byte. */
	snprintf(path, sizeof(path), "%s/copy", top);
	check(proc_run((const char *[]){ "/usr/bin/qemu-img", "convert", "-f",
					 "raw", "-O", "raw", url, path, NULL },
		       65536, NULL, &e) == 0);
	check(io_read_file(path, DISK_BYTES, &copy, &len, &e) == 0);
	check(len == DISK_BYTES && !memcmp(copy, content, len));
	/* Writes are refused. */
	argv[3] = "-n";
	argv[5] = "write 0 4096";
	check(proc_run(argv, 65536, NULL, &e) < 0);
	need_result = -ETIMEDOUT;
	argv[3] = "-r";
	argv[5] = "read 0 4096";
	check(proc_run(argv, 65536, NULL, &e) < 0);
	need_result = 0;
}

int main(void)
{
	struct nbd_disk d;
	struct nbd *n = NULL;

	signal(SIGPIPE, SIG_IGN);
	test_dir(top, sizeof(top));
	test_content();
	d = test_disk();
	snprintf(sockets, sizeof(sockets), "%s/nbd", top);
	check(nbd_new(sockets, &n, &e) == 0);
	check(nbd_add(n, 3, &d, -1, &e) == 0);
	test_mode();
	test_reads(n);
	test_refuses(n);
	test_fails(n);
	test_goes(n);
	test_options(n);
	test_remove(n);
	test_bounded(n);
	test_many();
	no_connections(n);
	test_qemu();
	/* Ends with somebody connected. */
	int last = ready(3);

	nbd_free(n);
	check(closed(last));
	close(last);
	close(disk_fd);
	free(content);
	check(io_remove_tree(top, &e) == 0);
	return 0;
}
