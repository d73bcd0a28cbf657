/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a pseudo terminal by hand
 *
 * glibc's openpty looks for group "tty" and walks /dev/pts; we need neither.
 * TIOCGPTPEER opens the other end without a path, so that it works whatever is
 * mounted on /dev/pts by then.
 */
#include "agent/pty.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

int pty_resize(int master, uint16_t rows, uint16_t cols)
{
	struct winsize size = { .ws_row = rows, .ws_col = cols };

	return ioctl(master, TIOCSWINSZ, &size) < 0 ? -errno : 0;
}

int pty_open(uint16_t rows, uint16_t cols, uid_t uid, int *ret_master,
	     int *ret_slave, struct err *e)
{
	int master, slave, r, unlock = 0;

	master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (master < 0)
		return err_errno(e, errno, "open /dev/ptmx");
	slave = -1;
	if (ioctl(master, TIOCSPTLCK, &unlock) == 0)
		slave = ioctl(master, TIOCGPTPEER,
			      O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0) {
		r = err_errno(e, errno, "open the slave of /dev/ptmx");
		close(master);
		return r;
	}
	err_drop(pty_resize(master, rows, cols));
	/* Programs open their terminal by name. Where we may not give it away
	 * (not root), it is already ours and so is the program. */
	if (uid != 0)
		err_drop(fchown(slave, uid, (gid_t)-1));
	*ret_master = master;
	*ret_slave = slave;
	return 0;
}
