/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What PID 1 does before it serves
 */
#include "base/err.h"

/* From the first mount to an open port. @broken says, when the root disk is
 * unusable, why (code is set); the port is served nevertheless. */
int init_start(int *ret_port_fd, struct err *broken, struct err *e) must_check;
