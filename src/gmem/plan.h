/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The plan: how one guest's memory is put together
 *
 * The daemon writes a plan into a memfd and the VMM inherits it; the shim
 * (shim.c), preloaded into the VMM, carries it out when the VMM maps its guest
 * memory. The same memfd carries back what only the shim can know: where the
 * guest memory ended up, and which pages the guest has surrendered.
 *
 *	struct gmem_plan        one page (PLAN_HEADER bytes)
 *	struct gmem_extent[]    n_extents, at PLAN_HEADER
 *	surrendered bitmap      one bit per page, at bitmap_offset
 *	populate list           struct gmem_range[], at populate_offset
 *
 * Everything behind the header's `shim` part is written once, before the VMM
 * starts. The daemon never trusts what comes back: the VMM can write there, so
 * addresses are checked against /proc/PID/maps and the bitmap only ever moves
 * a page between two buckets of the same guest's account.
 *
 * Numbers are in the machine's byte order: a plan never leaves the host.
 */
#include "base/err.h"

#include <stdint.h>

#define PLAN_MAGIC 0x6e616c7065727962ull /* "byreplan" */
#define PLAN_VERSION 2u
#define PLAN_HEADER 4096u
#define PLAN_PAGE 4096ull
/* Anonymous runs shorter than this stay holes in the layer's file: each extent
 * costs a VMA, and the kernel's default limit is 65530 of them. */
#define PLAN_ZERO_RUN_MIN 65536ull
/* Extents in one plan; half the VMA limit leaves room for discards. */
#define PLAN_EXTENTS_MAX 32768u
/* Guest memory of one sandbox. */
#define PLAN_RAM_MAX (1ull << 40)
/* VMAs that discards in file-backed extents may add; see shim.c. */
#define PLAN_SPLITS_MAX 16384u

/* Flags of a plan. */
/* The layer is a memfd that is still being filled: the shim arms its extents
 * with a userfaultfd (missing pages) and hands that to the daemon. */
#define PLAN_STREAMED 1u
/* Only pages that are touched are to be mapped, not their neighbours too, where
 * the kernel can do that (6.7): for learning a working set. */
#define PLAN_EXACT 2u
#define PLAN_FLAGS (PLAN_STREAMED | PLAN_EXACT) /* all there are */

/* Environment of the VMM: number of the plan's fd; number of the fd of layer 0
 * (a plan of this version has at most one layer). */
#define PLAN_ENV "BYRE_GMEM_PLAN"
#define PLAN_ENV_LAYER "BYRE_GMEM_LAYER"
/* For a streamed plan: the fd of /dev/userfaultfd (without it the process needs
 * the privilege for userfaultfd(2)); the number at which the shim keeps its
 * userfaultfd, for whoever must fetch it back (some fd is there to hold the
 * place, and is replaced); the fd of the socket over which it hands out a copy.
 * The shim closes the first and the last. */
#define PLAN_ENV_UFFD_DEV "BYRE_GMEM_UFFD_DEV"
#define PLAN_ENV_UFFD "BYRE_GMEM_UFFD"
#define PLAN_ENV_UFFD_SOCK "BYRE_GMEM_UFFD_SOCK"
/* The path the VMM is told for its memory. Never exists: the shim answers. */
#define PLAN_PATH "/byre/gmem"

enum plan_mode {
	PLAN_PRIVATE, /* restore: extents mapped privately */
	PLAN_SHARED, /* bake: the layer mapped shared, discards punch it */
	PLAN_MODE_COUNT,
};

enum plan_kind {
	PLAN_ZERO, /* anonymous */
	PLAN_LAYER, /* the layer's file at `offset` */
	PLAN_KIND_COUNT,
};

struct gmem_extent {
	uint64_t start; /* guest offset in bytes; sorted, no gaps */
	uint64_t len; /* bytes, whole pages */
	uint32_t kind; /* enum plan_kind */
	uint32_t layer; /* 0 */
	uint64_t offset; /* bytes, into the layer */
};

struct gmem_range {
	uint64_t start;
	uint64_t len;
};

/* What the shim reports; every field is written by the VMM process. */
struct gmem_report {
	uint64_t ram_addr; /* 0 until mapped */
	uint64_t ram_len;
	uint64_t map_ns; /* time the mappings took */
	uint64_t populate_ns;
	uint64_t discards; /* calls */
	uint64_t discarded_bytes;
	uint64_t splits; /* VMAs added by discards */
	uint64_t split_refused; /* pages zeroed by writing instead */
	int64_t error; /* -errno of a plan that could not be carried out */
	uint32_t error_extent; /* which extent */
	uint32_t pad;
};

struct gmem_plan {
	uint64_t magic;
	uint32_t version;
	uint32_t mode; /* enum plan_mode */
	uint32_t flags; /* PLAN_FLAGS */
	uint32_t pad;
	uint64_t ram_bytes;
	uint32_t n_extents;
	uint32_t n_populate;
	uint64_t bitmap_offset;
	uint64_t populate_offset;
	uint64_t total_bytes; /* of the memfd */
	struct gmem_report report;
};

/* ---- making a plan (the daemon) ---- */

struct plan; /* a plan being put together, and its memfd's mapping */

int plan_new(enum plan_mode mode, uint64_t ram_bytes, struct plan **ret,
	     struct err *e) must_check;
struct plan *plan_free(struct plan *p);

/* Append an extent behind the last one; adjacent ones of a kind are merged.
 * Zero runs below PLAN_ZERO_RUN_MIN should come as part of a layer extent. */
int plan_add(struct plan *p, enum plan_kind kind, uint64_t len,
	     uint64_t offset) must_check;
/* Pages to map before the guest runs; whole pages, inside the RAM. */
int plan_populate(struct plan *p, uint64_t start, uint64_t len) must_check;

/* Its layer is still being filled: PLAN_STREAMED. Not for a shared plan, which
 * plan_finish() then refuses. */
void plan_set_streamed(struct plan *p);
/* PLAN_EXACT. Best effort: without it more is mapped than was touched. Neither
 * for a shared plan nor for a streamed one. */
void plan_set_exact(struct plan *p);

/* Write it to a sealed-size memfd: *ret_fd is the caller's. The extents must
 * cover the RAM exactly. */
int plan_finish(struct plan *p, int *ret_fd, struct err *e) must_check;

/* ---- reading what the shim says (the daemon; never trusts it) ---- */

struct plan_view {
	const struct gmem_plan
		*head; /* shared with the VMM: copy, then judge */
	const uint8_t *bitmap;
	uint64_t ram_bytes; /* the value the daemon knows, not the header's */
	uint64_t map_len;
};

#define PLAN_VIEW_NULL       \
	{                    \
		.head = NULL \
	}

/* Map @fd read-only; sizes are computed from @ram_bytes and checked. */
int plan_view_open(int fd, uint64_t ram_bytes, struct plan_view *ret,
		   struct err *e) must_check;
void plan_view_close(struct plan_view *v);
/* A private copy of the report. */
struct gmem_report plan_view_report(const struct plan_view *v);

/* ---- the userfaultfd of a streamed plan ---- */

#define GMEM_HANDOVER_MAGIC 0x7265766f646e6168ull /* "handover" */

/* What the shim says, once, with the userfaultfd as SCM_RIGHTS, when all layer
 * extents are armed and nothing has touched them yet. */
struct gmem_handover {
	uint64_t magic;
	uint64_t ram_addr; /* in the VMM: of guest offset 0 */
	uint64_t ram_bytes;
};

/* The daemon's end; @sock is one of a SOCK_SEQPACKET pair. Never waits. -EAGAIN:
 * not there yet; -EPIPE: the other end was closed without; -EPROTO: not what
 * the shim says. @ret_uffd is a userfaultfd, close-on-exec, the caller's. */
int plan_handover_receive(int sock, struct gmem_handover *ret, int *ret_uffd,
			  struct err *e) must_check;
