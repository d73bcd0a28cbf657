/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The user's terminal: raw while a command has it, and its size
 */
#include "base/err.h"

#include <stdint.h>
#include <termios.h>

struct tty {
	int fd; /* borrowed; -1: not raw */
	struct termios saved;
};

#define TTY_NULL         \
	{                \
		.fd = -1 \
	}

/* Every byte goes through as it is, Ctrl-C too. */
int tty_init(struct tty *t, int fd, struct err *e) must_check;
/* As it was before. Idempotent. */
void tty_deinit(struct tty *t);

/* Of the first of stdin, stdout, stderr that is a terminal; 24 x 80 when none
 * is. */
void tty_size(uint16_t *ret_rows, uint16_t *ret_cols);
