/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What daemon and pager say to each other
 *
 * One SOCK_SEQPACKET pair, one struct pager_message per packet, fds attached.
 * Both are of one build and trust each other; the reader checks all the same.
 * Order is kept; there are no answers but the ones listed.
 *
 *	to the pager
 *	LAYER       an image to serve. fds: index (read-only), memory (memfd,
 *	            read-write), disk (sparse file, read-write), the listening
 *	            socket of the disk. Whatever data they hold already is right
 *	            (an earlier pager put it there).
 *	GUEST       a VMM to serve. fds: userfaultfd (its ranges registered,
 *	            MISSING), pidfd. The pager wakes all of its ranges at once.
 *	GUEST_GONE  forget it
 *	LAYER_GONE  forget it; its guests are gone
 *	PREFETCH    fetch ahead of demand: the hot frames, or all of
 *	            both layers
 *	EVICT       drop clean pages of memory, at most `bytes`. It takes its
 *	            time, in slices; what is asked meanwhile is part of it
 *
 *	from the pager
 *	GUEST_FAILED   a page of it will never come: `code`, `text`. The pager
 *	               never touches it again; the daemon kills it
 *	WHOLE          every frame of both layers is here
 *	EVICTED        `bytes` were dropped
 *	READY          it is up. The first message, once
 *	DISK_LOST      bytes of a layer's disk will never come: `code`, `text`.
 *	               Sent before whoever asked for them gets an error; which
 *	               guest that is, its VMM says
 *
 * The daemon's end closing means that the daemon is gone: the pager goes on
 * with the guests it has, and ends with the last. The next daemon ends it (by
 * its pid file), takes the fds back from the VMMs and starts another.
 *
 * Disks are served over NBD by the pager on the unix socket RUN/nbd/LAYER/disk
 * (LAYER: the number of the layer in decimal), export name "disk". The socket
 * is the daemon's: a VMM that connects before the pager runs, or while another
 * one is being started, waits in its queue instead of trying again a second
 * later.
 */
#include "image/store.h"

#include <stdint.h>

enum pager_message_type {
	PAGER_LAYER = 1,
	PAGER_GUEST,
	PAGER_GUEST_GONE,
	PAGER_LAYER_GONE,
	PAGER_PREFETCH,
	PAGER_EVICT,
	PAGER_GUEST_FAILED,
	PAGER_WHOLE,
	PAGER_EVICTED,
	PAGER_READY,
	PAGER_DISK_LOST,
};

#define PAGER_MAGIC 0x52474150u
#define PAGER_FDS_MAX 4
/* Layers and guests of one pager; tables are of fixed size. */
#define PAGER_LAYERS_MAX 64u
#define PAGER_GUESTS_MAX 4096u
/* After that long without a byte a page is given up; the guests that wait for
 * it are FAILED. BYRE_PAGER_DEADLINE (seconds) overrides. */
#define PAGER_DEADLINE_NS (60ull * 1000000000ull)

struct pager_message {
	uint32_t magic;
	uint32_t type; /* enum pager_message_type */
	uint32_t layer; /* 0 .. PAGER_LAYERS_MAX - 1: slot in pager_stats too */
	uint32_t all; /* PREFETCH: everything, not only what is hot */
	uint64_t guest; /* chosen by the daemon, never 0 */
	uint64_t ram_addr; /* GUEST: of guest offset 0 in the VMM */
	uint64_t ram_bytes;
	uint64_t bytes;
	int32_t code; /* positive errno */
	uint32_t pad;
	char text[256];
	struct store_spec store; /* LAYER */
};
