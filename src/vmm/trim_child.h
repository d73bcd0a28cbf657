/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Inside a VMM: give back memory that is only there for speed
 */

/* From now on, each write to the eventfd @fd makes the VMM trim itself. For
 * programs that cannot, nothing happens. */
void trim_start(int fd);
