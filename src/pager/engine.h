/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The engine of the pager: layers, guests, faults, fetches
 *
 * One thread (the poller: engine_run) owns all state: which frames are here,
 * who waits for which. It waits for userfaultfds, for the workers' results and
 * for whatever its owner adds (engine_watch). Workers fetch, verify, decompress
 * and write pages; they own nothing and report back. Functions without
 * "any thread" are for the poller's thread only (or before engine_run).
 *
 * A guest is one of two kinds:
 *	SHARED  its memory is a private mapping of the layer's memfd: a frame
 *	        that arrives is in the memfd, all it needs is UFFDIO_WAKE
 *	COPY    its memory is its own (a stock Firecracker): UFFDIO_COPY from the
 *	        layer, UFFDIO_ZEROPAGE for zeros, REMOVE events honoured
 */
#include "base/err.h"
#include "image/index.h"
#include "pager/stats.h"

#include <stdbool.h>
#include <stdint.h>

struct cache;
struct engine;
struct layer;
struct guest;
struct store;

/* Regions of one guest's memory; Firecracker has one to some tens. */
#define ENGINE_REGIONS_MAX 64

struct engine_region {
	uint64_t addr; /* in the guest's process */
	uint64_t bytes;
	uint64_t offset; /* in the layer */
	uint64_t page_bytes; /* 4096, or 2 MiB (hugetlbfs; COPY only) */
};

enum guest_kind {
	GUEST_SHARED,
	GUEST_COPY,
	GUEST_KIND_COUNT,
};

struct engine_events {
	/* A page of the guest will never come. It is forgotten already, its
	 * uffd stays open until guest_forget(): it must freeze, not read
	 * zeros. */
	void (*guest_failed)(void *arg, uint64_t guest, const struct err *e);
	/* The process has ended (pidfd). It is forgotten. */
	void (*guest_ended)(void *arg, uint64_t guest);
	void (*layer_whole)(void *arg, uint32_t layer);
	/* Bytes of the disk will never come for who waits for them now (not
	 * for want of room in its file). On that reader's thread, before
	 * layer_need_disk() returns. */
	void (*disk_lost)(void *arg, uint32_t layer, const struct err *e);
};

struct engine_config {
	unsigned workers; /* of each layer. 0: one per two cores, at least 8:
			   * they wait more than they work */
	uint64_t deadline_ns; /* PAGER_DEADLINE_NS */
	struct cache *cache; /* may be NULL; borrowed */
	struct pager_stats *stats;
	const struct engine_events *events;
	void *arg;
};

int engine_new(const struct engine_config *config, struct engine **ret,
	       struct err *e) must_check;
struct engine *engine_free(struct engine *g);
int engine_run(struct engine *g, struct err *e) must_check;
void engine_stop(struct engine *g); /* any thread */
/* Call @fn on the poller's thread when @fd is readable. */
int engine_watch(struct engine *g, int fd, void (*fn)(void *arg, int fd),
		 void *arg) must_check;
void engine_unwatch(struct engine *g, int fd);

/* @x is taken; fds are dup'ed. @store may be NULL for a layer that is whole.
 * @disk_fd -1: no disk. Finds out what is present from the fds' data. */
int layer_add(struct engine *g, uint32_t number, struct index *x_take,
	      const struct store_spec *store, int memory_fd, int disk_fd,
	      struct err *e) must_check;
void layer_remove(struct engine *g, uint32_t number);
int layer_prefetch(struct engine *g, uint32_t number, bool all,
		   struct err *e) must_check;
/* Bytes of clean pages dropped. Takes 0.3 ms per MiB, in which no fault is
 * served: ask for some tens of MiB at a time. */
uint64_t layer_evict(struct engine *g, uint32_t number, uint64_t bytes);
/* Any other thread: wait until [offset, offset + len) of the disk is here.
 * -ETIMEDOUT, -EBADMSG..., -ENOSPC, -ESHUTDOWN. */
int layer_need_disk(struct engine *g, uint32_t number, uint64_t offset,
		    uint64_t len) must_check;
/* Borrowed; -1 when there is no such layer. */
int layer_disk_fd(struct engine *g, uint32_t number); /* any thread */

/* Takes the fds. Wakes all ranges: events that an earlier pager lost come
 * again. */
int guest_add(struct engine *g, uint64_t guest, enum guest_kind kind,
	      uint32_t layer, int uffd_take, int pidfd_take,
	      const struct engine_region *regions, unsigned n_regions,
	      struct err *e) must_check;
void guest_forget(struct engine *g, uint64_t guest);
