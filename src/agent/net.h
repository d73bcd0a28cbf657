/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The guest's network, as QEMU's user networking expects it
 */
#include "base/err.h"

/* lo up. */
int net_up(struct err *e) must_check;

/* eth0, if there is one, gets its address and route, and /etc/resolv.conf a
 * name server if it has none. Every guest has the card; only those whose host
 * asked for a network use it, because an interface that is up makes the kernel
 * talk. */
int net_attach(struct err *e) must_check;
