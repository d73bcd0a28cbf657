/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The user's terminal
 *
 * While a command in a guest has a terminal of its own, ours only carries
 * bytes: no echo, no lines, no signals from keys, no flow control. The guest's
 * terminal does all that.
 *
 * 1. What was saved is restored exactly once, by tty_deinit(); signals
 *    that would end us are read from a signalfd meanwhile (session.c), so
 *    there is no other way out but SIGKILL.
 * 2. TCSADRAIN in both directions: what was printed is not cut, and what was
 *    typed ahead is not lost.
 */
#include "cmd/tty.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

int tty_init(struct tty *t, int fd, struct err *e)
{
	struct termios raw;

	if (tcgetattr(fd, &t->saved) < 0)
		return err_errno(e, errno, "read the terminal's modes");
	raw = t->saved;
	cfmakeraw(&raw);
	if (tcsetattr(fd, TCSADRAIN, &raw) < 0)
		return err_errno(e, errno, "make the terminal raw");
	t->fd = fd;
	return 0;
}

void tty_deinit(struct tty *t)
{
	if (t->fd >= 0)
		tcsetattr(t->fd, TCSADRAIN, &t->saved);
	t->fd = -1;
}

void tty_size(uint16_t *ret_rows, uint16_t *ret_cols)
{
	struct winsize w = { 0 };

	*ret_rows = 24;
	*ret_cols = 80;
	for (int fd = 0; fd <= 2; fd++) {
		if (ioctl(fd, TIOCGWINSZ, &w) < 0 || !w.ws_row || !w.ws_col)
			continue;
		*ret_rows = w.ws_row;
		*ret_cols = w.ws_col;
		return;
	}
}
