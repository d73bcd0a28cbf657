/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The guest's network, as QEMU's user networking expects it
 */
#include "base/err.h"

/* lo up; eth0, if there is one, gets its address and route, and
 * /etc/resolv.conf a name server if it has none. */
int net_up(struct err *e) must_check;
