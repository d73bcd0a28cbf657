/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Pseudo terminals
 */
#include "base/err.h"

#include <stdint.h>
#include <sys/types.h>

/* Both ends, close-on-exec, the master non-blocking; the slave belongs to
 * @uid. */
int pty_open(uint16_t rows, uint16_t cols, uid_t uid, int *ret_master,
	     int *ret_slave, struct err *e) must_check;
int pty_resize(int master, uint16_t rows, uint16_t cols) must_check;
