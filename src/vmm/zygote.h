/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The zygote: a VMM program that has been loaded, and forks on request
 *
 * QEMU is 18 MB of program and fifty libraries. Loading and relocating them
 * takes 12 ms of a core and dirties 7 MiB of every process, the same 7 MiB
 * each time. The zygote does it once: it stops before main(), and every guest
 * is a fork of it that goes on into main() with an argv of its own. Guests share
 * the relocated pages copy-on-write, as they share their template.
 *
 * The price: all guests of a daemon have one address-space layout, so what one
 * VMM leaks about its addresses is true of its siblings.
 */
#include "base/err.h"
#include "base/proc.h"
#include "vmm/child.h"

#include <stdint.h>

struct zygote;

/* ---- the request, over a SOCK_SEQPACKET socket ---- */

#define ZYGOTE_ENV "BYRE_ZYGOTE" /* number of the socket's fd */
/* MODULE_INIT_QOM of the program, when known. */
#define ZYGOTE_ENV_CLASSES "BYRE_ZYGOTE_CLASSES"
#define ZYGOTE_MAGIC 0x7a79676fu
/* A command line is 3 KB. Also the room kept for it in the process's argument
 * area, which /proc/PID/cmdline shows. */
#define ZYGOTE_TEXT_MAX 8192u
/* Socket of the zygote, the first fd behind stdin, stdout, stderr. */
#define ZYGOTE_FD 3

/* fds in the new process, for the shim and for trimming; -1: there is none. */
struct zygote_numbers {
	int32_t plan, layer, trim;
	int32_t uffd_dev, uffd_sock, uffd; /* of a streamed plan */
};

struct zygote_request {
	uint32_t magic;
	uint32_t fd_mask; /* bit i: an fd for number i is passed, in order */
	uint32_t n_fds;
	uint32_t drop;
	uint32_t uid;
	uint32_t argc;
	struct zygote_numbers numbers;
	char text[ZYGOTE_TEXT_MAX]; /* argc strings, each terminated */
};

/* Comes with the pidfd; pid is -errno when it could not fork. */
struct zygote_reply {
	int32_t pid;
};

/* ---- the daemon's side ---- */

/* @preload: LD_PRELOAD with the shim and libbyre-zygote.so. @class_kind: see
 * ZYGOTE_ENV_CLASSES, 0: unknown. */
int zygote_new(const char *program, const char *preload, int class_kind,
	       struct zygote **ret, struct err *e) must_check;
/* It ends; its children live on. */
struct zygote *zygote_free(struct zygote *z);

/* A new VMM. -EPIPE: the zygote is gone. Waits for the fork (a millisecond). */
int zygote_fork(struct zygote *z, const char *const *argv,
		const struct child *child, const struct zygote_numbers *numbers,
		struct proc_id *ret, int *ret_pidfd, struct err *e) must_check;
