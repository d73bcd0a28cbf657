/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The inside of the daemon's side of the pager, for client.c, talk.c, keeper.c
 */
#include "base/list.h"
#include "base/loop.h"
#include "base/proc.h"
#include "pager/client.h"
#include "pager/hold.h"

struct pager_layer {
	struct list link;
	struct pager *pager;
	char *dir;
	uint32_t number;
	unsigned refs, guests;
	bool forgotten;
	bool whole;
	struct err disk_lost; /* the last reason, and */
	uint64_t disk_lost_ns; /* when it was heard */
	struct hold hold;
	int nbd_dir_fd; /* RUN/nbd/NUMBER, O_PATH */
	int listen_fd; /* `disk` in it */
	struct store_spec store;
	bool told;
	/* Still to be said; `all` is kept for the next pager. */
	bool prefetch, all;
	uint64_t evict_bytes;
};

struct pager_guest {
	struct list link;
	struct pager_layer *layer;
	uint64_t id;
	int uffd, pidfd;
	uint64_t ram_addr, ram_bytes;
	void (*failed)(void *arg, const struct err *e);
	void *arg;
	bool told;
	bool dead; /* failed: never told again */
};

struct pager_gone {
	struct list link;
	uint32_t type; /* PAGER_GUEST_GONE or PAGER_LAYER_GONE */
	uint32_t layer;
	uint64_t guest;
};

struct pager {
	struct pager_config config;
	char *root, *run, *program;
	struct list layers, guests, gone;
	unsigned n_guests, n_gone;
	bool taken[PAGER_LAYERS_MAX]; /* numbers */
	uint64_t last_guest;
	struct pager_stats *stats;
	int stats_fd;
	int older_fd; /* pidfd of a former daemon's pager */
	struct proc_id proc;
	int pidfd, control_fd;
	struct loop_fd death, control;
	struct loop_timer again; /* start again; or say the rest */
	struct loop_timer settle;
	uint64_t started_ns;
	bool ready; /* it has said so */
	uint64_t pause_ns; /* before the next start; 0: the last one lived */
	bool left;
};

/* talk.c */
/* Say all that is unsaid. */
void talk_flush(struct pager *p);
/* It was said that this is here, and now it is not. */
void talk_gone(struct pager *p, uint32_t type, uint32_t layer, uint64_t guest);
void talk_drop_gone(struct pager *p);
/* All that is there. -EPIPE at the end of the connection. */
int talk_hear(struct pager *p) must_check;
void talk_ready(struct loop_fd *f, uint32_t events);

/* keeper.c */
int keeper_start(struct pager *p, struct err *e) must_check;
/* Let go of the process, or of what is left of it. */
void keeper_close(struct pager *p);
void keeper_later(struct pager *p, uint64_t ns);
void keeper_kill(struct pager *p);
