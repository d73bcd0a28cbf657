/* SPDX-License-Identifier: Apache-2.0 */
/*
 * connect(2) reaches a unix socket as /proc/self/fd/N/NAME, with N an O_PATH fd
 * of the socket's directory: also when the way there is closed to the process,
 * which needs search permission on that directory and write permission on the
 * socket, and nothing above. Such an fd passes over SCM_RIGHTS like any other.
 * (A VMM that runs as a user of its own reaches the disk its pager serves.)
 */
#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define NOBODY 65534u

static int listen_at(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	check(fd >= 0 && strlen(path) < sizeof(a.sun_path));
	strcpy(a.sun_path, path);
	check(bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
	check(listen(fd, 4) == 0);
	return fd;
}

/* 0 or -errno. */
static int connect_at(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

	check(fd >= 0 && strlen(path) < sizeof(a.sun_path));
	strcpy(a.sun_path, path);
	r = connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ? -errno : 0;
	close(fd);
	return r;
}

/* The same fd, as a zygote would receive it. */
static int passed(int fd)
{
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	char c = 0;
	struct iovec iov = { .iov_base = &c, .iov_len = 1 };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	struct cmsghdr *h = &control.align;
	int pair[2], got = -1;

	check(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(h), &fd, sizeof(int));
	check(sendmsg(pair[0], &m, 0) == 1);
	check(recvmsg(pair[1], &m, 0) == 1 && CMSG_FIRSTHDR(&m));
	memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(int));
	check(got >= 0 && got != fd);
	close(pair[0]);
	close(pair[1]);
	return got;
}

/* What the other user gets: by its path, and through the fd. */
static void expect_nobody(const char *path, const char *by_fd, int want)
{
	pid_t pid = fork();
	int status = 0;

	check(pid >= 0);
	if (pid == 0) {
		check(setresgid(NOBODY, NOBODY, NOBODY) == 0 &&
		      setresuid(NOBODY, NOBODY, NOBODY) == 0);
		check(connect_at(path) == -EACCES);
		check(connect_at(by_fd) == want);
		_exit(0);
	}
	check(waitpid(pid, &status, 0) == pid && status == 0);
}

int main(void)
{
	char top[64], dir[80], path[96], by_fd[64];
	int fd, sock;

	test_dir(top, sizeof(top)); /* 0700 */
	snprintf(dir, sizeof(dir), "%s/sub", top);
	snprintf(path, sizeof(path), "%s/sock", dir);
	check(mkdir(dir, 0700) == 0 && chmod(dir, 0711) == 0);
	sock = listen_at(path);
	fd = passed(open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC));
	snprintf(by_fd, sizeof(by_fd), "/proc/self/fd/%d/sock", fd);

	check(connect_at(path) == 0 && connect_at(by_fd) == 0);
	if (geteuid() == 0) {
		check(chmod(path, 0600) == 0);
		expect_nobody(path, by_fd, -EACCES);
		check(chmod(path, 0666) == 0);
		expect_nobody(path, by_fd, 0);
		check(chmod(dir, 0700) == 0);
		expect_nobody(path, by_fd, -EACCES);
	}
	/* A server that comes back makes a new socket of the same name. */
	close(sock);
	check(connect_at(by_fd) == -ECONNREFUSED);
	check(unlink(path) == 0 && connect_at(by_fd) == -ENOENT);
	sock = listen_at(path);
	check(connect_at(by_fd) == 0);

	close(sock);
	check(unlink(path) == 0 && rmdir(dir) == 0 && rmdir(top) == 0);
	return 0;
}
