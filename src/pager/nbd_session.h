/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * One NBD connection: what a client may say, and what it gets
 *
 * Blocking; for a thread of the connection's own. The fds are a socket, or two
 * plain files in tests.
 */
#include "base/must.h"

#include <stdint.h>

struct pager_layer_stats;

#define NBD_EXPORT "disk"
/* As the protocol's document recommends. */
#define NBD_REQUEST_MAX (32u << 20)
/* Of an option's data: a name (4096 in the protocol) and some numbers. */
#define NBD_OPTION_BYTES_MAX 8192u
/* QEMU sends five. */
#define NBD_OPTIONS_MAX 64u

struct nbd_disk {
	uint64_t bytes; /* as exported; beyond the file's end are zeros */
	int fd; /* read-only would do */
	/* Waits until these bytes are in the file; negative errno: never.
	 * -ESHUTDOWN: not from us, but perhaps from who comes after us;
	 * -ENOSPC: perhaps later. */
	int (*need)(void *arg, uint64_t offset, uint64_t len);
	void *arg;
	struct pager_layer_stats *stats; /* disk_reads, disk_read_bytes */
};

/* Until the client has chosen the export. Negative: close the connection
 * (-ECANCELED: it asked for that). */
int nbd_negotiate(int in_fd, int out_fd, const struct nbd_disk *d) must_check;
/* Serve requests until the client disconnects (0) or the connection is no good
 * any more (negative). */
int nbd_transmit(int in_fd, int out_fd, const struct nbd_disk *d) must_check;
