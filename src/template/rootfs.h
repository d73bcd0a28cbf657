/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Root disks for guests: an ext4 image from Debian packages, a busybox, a
 * directory or an archive
 */
#include "base/err.h"

#include <stdint.h>

/* Sparse: costs only what is in it, and leaves guests room to write. */
#define ROOTFS_SIZE_BYTES (4ull << 30)
/* A busybox needs 3 MiB; without 64-bit block numbers ext4 ends at 16 TiB. */
#define ROOTFS_SIZE_MIN (8ull << 20)
#define ROOTFS_SIZE_MAX (8ull << 40)

enum rootfs_source {
	ROOTFS_DEBIAN,
	ROOTFS_BUSYBOX,
	ROOTFS_FROM,
	ROOTFS_SOURCE_COUNT,
};

struct rootfs_options {
	const char *out; /* the image; an older one is replaced in one step */
	enum rootfs_source source;
	const char *suite; /* Debian: "bookworm" */
	const char *include; /* Debian: packages, "a,b"; NULL: none more */
	const char *variant; /* Debian: as mmdebstrap has it; NULL: essential */
	const char *busybox; /* busybox: the program; NULL: /bin/busybox */
	const char *from; /* a directory or whatever tar(1) unpacks */
	uint64_t size_bytes; /* whole pages; 0: ROOTFS_SIZE_BYTES */
	/* Called as each step begins and every second then. May be NULL. */
	void (*progress)(void *arg, const char *step, uint64_t elapsed_ns);
	void *arg;
};

/*
 * Build it. Takes as long as it takes: never in the loop, and not beside other
 * threads, for it forks. SIGINT, SIGTERM and SIGHUP end it with -EINTR. Unless
 * it returns 0 nothing is left behind and an older image is untouched.
 */
int rootfs_build(const struct rootfs_options *o, struct err *e) must_check;

/* What an image made with these options by this user will lack, as a sentence;
 * NULL: nothing. */
const char *rootfs_caveat(const struct rootfs_options *o);
