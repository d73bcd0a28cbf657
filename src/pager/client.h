/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The daemon's side of the pager: starts it, holds its fds, starts it again
 *
 * A streamed layer is a memfd (memory) and a sparse file (disk) that the daemon
 * made and keeps; the pager process only fills them. When it dies, another gets
 * everything again within milliseconds, and wakes all guests.
 *
 *	NONE --first layer--> RUNNING --died--> RUNNING (again) ...
 *
 * All on the loop's thread.
 */
#include "base/err.h"
#include "image/index.h"
#include "image/store.h"
#include "pager/stats.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct loop;
struct pager;
struct pager_layer;
struct pager_guest;

struct pager_config {
	struct loop *loop;
	const char *root; /* cache in ROOT/cache */
	const char *run; /* RUN/pager.pid, RUN/nbd */
	const char *program; /* the byre binary; NULL: /proc/self/exe */
	uint64_t cache_bytes; /* budget */
	/* Every frame of an image is here: it can become plain files. */
	void (*whole)(void *arg, struct pager_layer *l);
	void *arg;
};

int pager_new(const struct pager_config *config, struct pager **ret,
	      struct err *e) must_check;
/* The daemon ends: nothing is said from here on, so that what is freed now goes
 * on in the process. Opening and adding fail with ECANCELED. */
void pager_leave(struct pager *p);
/* Layers' references and guests first. The process goes on for its guests'
 * sake. */
struct pager *pager_free(struct pager *p);
pid_t pager_pid(const struct pager *p); /* 0: none */
const struct pager_stats *pager_stats(const struct pager *p);

/* The layer of the image in @dir (ROOT/images/...; its file `index`), made at
 * the first call: memfd sealed GROW | SHRINK, mode 0400, and DIR/disk.part. One
 * per directory, counted. Working-set prefetch begins when it is made. */
int pager_layer_open(struct pager *p, const char *dir,
		     const struct store_spec *store, struct pager_layer **ret,
		     struct err *e) must_check;
/* After a daemon's death: the same, with the memfd of a VMM (any fd of it). */
int pager_layer_adopt(struct pager *p, const char *dir,
		      const struct store_spec *store, int memory_fd,
		      struct pager_layer **ret, struct err *e) must_check;
/* Borrowed; NULL: none is open for @dir. */
struct pager_layer *pager_layer_find(const struct pager *p, const char *dir);
struct pager_layer *pager_layer_ref(struct pager_layer *l);
struct pager_layer *pager_layer_unref(struct pager_layer *l);
/* The image is removed, replaced, or all plain files now. Until then a layer is
 * kept without references, too: what was fetched once serves the next guest.
 * Forgotten, it goes with its last reference. */
void pager_forget(struct pager *p, const char *dir);
const char *pager_layer_dir(const struct pager_layer *l);
uint32_t pager_layer_number(const struct pager_layer *l);
unsigned pager_layer_guests(const struct pager_layer *l);
bool pager_layer_whole(const struct pager_layer *l);
/* Why bytes of its disk could not be had, the last time; false: not since
 * @since_ns. */
bool pager_layer_disk_lost(const struct pager_layer *l, uint64_t since_ns,
			   struct err *ret);
/* For a VMM: read-only, borrowed. */
int pager_layer_fd(const struct pager_layer *l);
/* Read-write, borrowed: for turning a whole layer into files. */
int pager_layer_memory_fd(const struct pager_layer *l);
int pager_layer_disk_fd(const struct pager_layer *l);
const struct index *pager_layer_index(const struct pager_layer *l);
const struct pager_layer_stats *pager_layer_stats(const struct pager_layer *l);
/* O_PATH of the directory with the layer's NBD socket, and nothing else: what a
 * VMM may reach. Borrowed. */
int pager_layer_nbd_dir(const struct pager_layer *l);
#define PAGER_NBD_NAME "disk"
int pager_layer_prefetch(struct pager_layer *l, bool all) must_check;
int pager_layer_evict(struct pager_layer *l, uint64_t bytes) must_check;

/* @failed: a page will never come; kill the VMM with this reason. Called at
 * most once, never before this returns. Takes @uffd. */
int pager_guest_add(struct pager_layer *l, int uffd_take, int pidfd,
		    uint64_t ram_addr, uint64_t ram_bytes,
		    void (*failed)(void *arg, const struct err *e), void *arg,
		    struct pager_guest **ret, struct err *e) must_check;
struct pager_guest *pager_guest_free(struct pager_guest *g);
