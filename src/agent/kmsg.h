/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the agent has to say, in the guest kernel's log; and its last words
 */
#include "base/must.h"

/* Where lines go from now on: /dev/kmsg, or stderr where that cannot be
 * opened. Before the first call lines go to stderr. */
void kmsg_open(void);

/* One line, at the kernel's "err" level: a kernel booted with "quiet" still
 * shows it on the console. */
void kmsg_error(const char *fmt, ...) printf_like(1, 2);

/* The same, then the end of the program: a reboot for PID 1, which ends a VM
 * started with -no-reboot, exit for anybody else. */
__attribute__((noreturn)) void kmsg_fatal(const char *fmt, ...)
	printf_like(1, 2);

/* Crashes of PID 1 end in kmsg_fatal() instead of a kernel panic. */
void kmsg_catch_crashes(void);
