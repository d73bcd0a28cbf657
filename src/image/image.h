/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * An image: a baked guest, as a directory of files
 *
 *	manifest.json   what it is, and the size and digest of every other file
 *	memory          guest RAM, zero pages are holes
 *	memory.digests  one line per IMAGE_CHUNK of memory (image/chunk.h)
 *	state           device state of the VMM
 *	disk            root disk, raw
 *	overlay         an empty qcow2 overlay for `disk`, copied per sandbox
 *	zeromap         bitmap: page is zero
 *	workingset      bitmap: page was touched by trial restores
 *
 * A directory is made elsewhere, complete, and renamed into place: an image
 * that can be seen is whole. Files are never changed afterwards; every open
 * checks sizes, and digests unless the very same inodes (device, number,
 * size, change time) were verified before by this process.
 *
 * In the manifest, memory's sha256 is that of memory.digests; every other one
 * is that of the file itself.
 */
#include "base/digest.h"
#include "image/bitmap.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define IMAGE_PAGE 4096ull
/* Format of the directory and its manifest; others are refused. */
#define IMAGE_FORMAT 1
/* Guest memory of one image; BAKE_MEMORY_MAX is the same. */
#define IMAGE_MEMORY_MAX (64ull << 30)
/* As many as QEMU's microvm takes. */
#define IMAGE_VCPUS_MAX 288u
/* Of any file: what ext4 can hold. */
#define IMAGE_BYTES_MAX (16ull << 40)
/* A manifest is a few KB. */
#define IMAGE_MANIFEST_MAX 262144u
/* Memory is digested in pieces, so that an error can say where. */
#define IMAGE_CHUNK (4ull << 20)
#define IMAGE_MANIFEST_NAME "manifest.json"
#define IMAGE_DIGESTS_NAME "memory.digests"

enum image_file {
	IMAGE_MEMORY,
	IMAGE_STATE,
	IMAGE_DISK,
	IMAGE_OVERLAY,
	IMAGE_ZEROMAP,
	IMAGE_WORKINGSET,
	IMAGE_FILE_COUNT,
};

const char *image_file_name(enum image_file f);

struct image_file_info {
	uint64_t bytes;
	char sha256[DIGEST_HEX];
};

/* The manifest. Strings are bounded and printable ASCII; what else holds, the
 * table in manifest.c says and image_manifest_check() checks. */
struct image_manifest {
	char name[64];
	char created[32]; /* RFC 3339, UTC */
	/* what the state can be loaded into (vmm/vmm.h, struct vmm_flavor) */
	char driver[16];
	char version[64];
	char accel[8];
	char cpu[128];
	char machine[64];
	char kernel[128]; /* release string */
	char kernel_sha256[DIGEST_HEX];
	char rootfs_sha256[DIGEST_HEX];
	uint64_t memory_bytes;
	uint64_t zero_bytes;
	uint64_t workingset_bytes;
	uint32_t vcpus;
	bool share; /* template: guests share pages; none: they do not */
	bool net; /* its warm-up commands had a network */
	double boot_ms; /* cold boot to the first command's answer */
	struct image_file_info file[IMAGE_FILE_COUNT];
};

/* JSON text to manifest: every key is required, unknown ones are refused. */
int image_manifest_parse(const char *json, size_t len,
			 struct image_manifest *ret, struct err *e) must_check;
/* Could this be the manifest of an image? Parsing and printing ask; the
 * sentence names the key. */
int image_manifest_check(const struct image_manifest *m,
			 struct err *e) must_check;
/* Fresh zero-terminated text, format first. -EINVAL for what
 * image_manifest_check() refuses. */
int image_manifest_print(const struct image_manifest *m, char **ret) must_check;

struct image;

/*
 * Open and check the image in @dir. Blocking: hashes what was not verified
 * before; run it in a worker. The error names the file and, for memory, the
 * offset of the first bad chunk. Damage is EBADMSG, a refused manifest EINVAL.
 *
 * The reference count is plain: the opener's thread hands the image to the
 * loop, and from then on only the loop takes and drops references.
 */
int image_open(const char *dir, struct image **ret, struct err *e) must_check;
/* The same for who knows the manifest's digest from elsewhere: the manifest has
 * every other file's, and nothing in the directory has its own. NULL: any. */
int image_open_known(const char *dir, const char *manifest_sha256,
		     struct image **ret, struct err *e) must_check;
/* Of manifest.json in @dir, as it is now. */
int image_manifest_digest(const char *dir, char hex[DIGEST_HEX],
			  struct err *e) must_check;
struct image *image_ref(struct image *i);
struct image *image_unref(struct image *i);

/* Is every file still what was verified, and still what its path leads to?
 * Cheap (stat). -ESTALE, or the stat's error; the sentence names the file. */
int image_unchanged(const struct image *i, struct err *e) must_check;

/*
 * A pulled image whose memory and disk are not here yet: the file `remote` in
 * its directory says where they are. It has an `index` (image/index.h), and
 * image_fd() of IMAGE_MEMORY and IMAGE_DISK is -1. When both files have
 * arrived (pack_complete), `remote` goes, and with it the difference.
 */
#define IMAGE_REMOTE_NAME "remote"
#define IMAGE_INDEX_NAME "index"
#define IMAGE_REMOTE_MAX 64
/* Name of the store; NULL for an image that is all here. */
const char *image_remote(const struct image *i);

const struct image_manifest *image_manifest(const struct image *i);
/* Of the text it was read from. */
const char *image_manifest_sha256(const struct image *i);
const char *image_dir(const struct image *i);
/* Read-only fd, borrowed. */
int image_fd(const struct image *i, enum image_file f);
const struct bitmap *image_zeromap(const struct image *i);
const struct bitmap *image_workingset(const struct image *i);

/*
 * Make a directory into an image: syncs and digests every file, refuses a
 * zero map that calls a used page zero, writes memory.digests and, last, the
 * manifest. @m comes filled but for file[], zero and working-set bytes, and is
 * left alone on failure. The files count as verified by this process. Renaming
 * the directory and syncing its parent is the caller's.
 */
int image_seal(const char *dir, struct image_manifest *m,
	       struct err *e) must_check;

/* Find the zero pages of a memory file, page-exact, and punch them out. Moves
 * the fd's position. A file system that cannot punch holes is an error. */
int image_find_zero(int memory_fd, uint64_t bytes, struct bitmap *ret,
		    struct err *e) must_check;

/*
 * Give the holes that guests map (image_holes() with that minimum) room in the
 * file, where touching one through a mapping takes room: on a tmpfs. It may
 * change the file's change time, so do it before the file is verified.
 */
int image_reserve(int memory_fd, const struct bitmap *zeromap,
		  uint64_t min_zero_run_pages, struct err *e) must_check;
