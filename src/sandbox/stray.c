/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMM processes that nobody will adopt
 *
 * A daemon killed while it creates or bakes may leave a VMM whose pid it never
 * wrote down. Such a process is found by the id on its command line ("byre-ID",
 * 48 random bits that were recorded before it was started), and killed.
 */
#include "sandbox/object.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>

/* argv of a VMM is some 3 KB, its name is at the start. */
#define STRAY_CMDLINE_MAX 512

static bool stray_matches(const char *cmdline, size_t len,
			  const struct stray_id *ids, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		char name[32];

		snprintf(name, sizeof(name), "byre-%s", ids[i].id);
		if (memmem(cmdline, len, name, strlen(name)))
			return true;
	}
	return false;
}

static void stray_check(pid_t pid, const struct stray_id *ids, size_t n)
{
	guard_fd int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	guard_free char *path = io_path("/proc/%d/cmdline", pid);
	guard_fd int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	char text[STRAY_CMDLINE_MAX];
	ssize_t len;

	if (pidfd < 0 || fd < 0)
		return;
	len = io_read_full(fd, text, sizeof(text));
	if (len > 0 && stray_matches(text, (size_t)len, ids, n))
		syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
}

int stray_kill(const struct stray_id *ids, size_t n, struct err *e)
{
	guard_dir DIR *d = NULL;
	struct dirent *entry;

	if (n == 0)
		return 0;
	d = opendir("/proc");
	if (!d)
		return err_errno(e, errno, "open /proc");
	while ((entry = readdir(d))) {
		pid_t pid = atoi(entry->d_name);

		if (pid > 0 && pid != getpid())
			stray_check(pid, ids, n);
	}
	return 0;
}
