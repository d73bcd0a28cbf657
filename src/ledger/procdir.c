/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Process directories
 *
 * A count reads several files of one process: maps, pagemap, status. Opened
 * by path, each could belong to another process, because a pid may be reused
 * between two opens. Opened through one directory fd they cannot: the kernel
 * ties the directory to the process it was opened for, and answers ENOENT or
 * ESRCH for ever after that process is reaped.
 *
 * 1. Every file of one count comes from one directory fd.
 * 2. "It is gone" is always -ESRCH, whichever errno the kernel chose, so that
 *    a caller needs one comparison to tell a guest that ended from a host
 *    that forbids looking.
 */
#include "ledger/procdir.h"

#include "base/guard.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>

int procdir_gone(pid_t pid, struct err *e)
{
	return err_set(e, ESRCH, "process %d is gone, or has no memory",
		       (int)pid);
}

int procdir_open(const char *proc_root, pid_t pid, int *ret_fd, struct err *e)
{
	guard_free char *path = NULL;
	int fd, error;

	if (pid <= 0)
		return err_set(e, ESRCH, "no process %d", (int)pid);
	path = io_path("%s/%d", proc_root, (int)pid);
	if (!path)
		return err_errno(e, ENOMEM, "read process %d", (int)pid);

	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		error = errno;
		if (error == ENOENT || error == ESRCH)
			return err_set(e, ESRCH, "no process %d in %s",
				       (int)pid, proc_root);
		return err_errno(e, error, "open %s", path);
	}
	*ret_fd = fd;
	return 0;
}

int procdir_file(int dir_fd, pid_t pid, const char *name, int *ret_fd,
		 struct err *e)
{
	int fd, error;

	fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		error = errno;
		if (error == ENOENT || error == ESRCH)
			return procdir_gone(pid, e);
		return err_errno(e, error, "open %s of process %d", name,
				 (int)pid);
	}
	*ret_fd = fd;
	return 0;
}

int procdir_stream(int dir_fd, pid_t pid, const char *name, FILE **ret,
		   struct err *e)
{
	guard_fd int fd = -1;
	FILE *f;
	int r;

	r = procdir_file(dir_fd, pid, name, &fd, e);
	if (r < 0)
		return r;
	f = fdopen(fd, "re");
	if (!f)
		return err_errno(e, errno, "read %s of process %d", name,
				 (int)pid);
	fd_take(&fd);
	*ret = f;
	return 0;
}
