/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * QEMU's command line and the numbers of the fds that go with it
 */
#include "vmm/vmm.h"

/* fds of the new process; QEMU is told numbers, never paths. */
enum qemu_fd {
	QEMU_FD_STDIN,
	QEMU_FD_STDOUT,
	QEMU_FD_STDERR,
	QEMU_FD_PLAN,
	QEMU_FD_LAYER,
	QEMU_FD_CONTROL,
	QEMU_FD_AGENT,
	QEMU_FD_CONSOLE,
	QEMU_FD_DISK_RW,
	QEMU_FD_DISK_RO,
	QEMU_FD_STATE,
	QEMU_FD_KERNEL,
	QEMU_FD_INITRD,
	QEMU_FD_TRIM, /* eventfd; see trim_child.c */
	QEMU_FD_UFFD_DEV, /* the shim closes these two */
	QEMU_FD_UFFD_SOCK,
	QEMU_FD_UFFD, /* held free for the one that the shim makes */
	QEMU_FD_NBD_DIR,
	QEMU_FD_COUNT,
};

/* Our device set: part of the flavor, raised whenever what QEMU is told changes
 * in a way that a saved state can notice. */
#define QEMU_MACHINE "microvm/byre1"

/* TCG: everything it can emulate, less what is dear in an emulator: string
 * instructions that the kernel prefers when the CPU calls them fast (each byte
 * is interpreted), SMAP (two translation-block ends per user access), a fifth
 * level of page tables. */
#define QEMU_TCG_CPU "max,-erms,-fsrm,-smap,-la57"

#define QEMU_ARGV_MAX 96
#define QEMU_ARGS_BYTES 8192

struct qemu_args {
	const char *argv[QEMU_ARGV_MAX];
	size_t n;
	char text[QEMU_ARGS_BYTES];
	size_t used;
	bool overflow;
};

/* -E2BIG when it does not fit, -EINVAL for a bad name of a socket. @cpu: -cpu argument; @khz: of the host's TSC,
 * 0 when unknown. */
int qemu_args_make(struct qemu_args *a, const struct vmm_host_facts *facts,
		   const struct vmm_spec *spec, uint64_t khz) must_check;
