/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What a sandbox needs while its image is still on its way
 *
 *	(nothing) --prepare--> LAYER --spawned--> ARMING --handover--> SERVED
 *	                                                  adopt ----------^
 *
 * Any of them --end--> (nothing). For a sandbox whose image is all here
 * everything stays nothing, and every function does nothing.
 */
#include "base/err.h"
#include "base/loop.h"

#include <stdbool.h>

struct image;
struct pager_guest;
struct pager_layer;
struct sandbox;
struct vmm_spec;
struct workdir_layer;

struct streamed {
	struct pager_layer *layer; /* a reference */
	struct pager_guest *guest; /* SERVED */
	int sock_fd; /* ours, from which the handover comes */
	int vmm_sock_fd; /* the VMM's end, until it has it */
	int device_fd; /* /dev/userfaultfd, likewise; or -1 */
	struct loop_fd handover; /* ARMING */
	bool failed; /* a page will never come, or bytes of its disk */
	struct loop_timer disk_wait; /* for the pager's word, with */
	char disk_why[160]; /* the VMM's */
};

#define STREAMED_NULL                                              \
	{                                                          \
		.sock_fd = -1, .vmm_sock_fd = -1, .device_fd = -1, \
		.handover = LOOP_FD_NULL                           \
	}

/* Whether s->image is to be streamed, and then its layer. Once, in the loop,
 * before workdir_make_restore(). */
int streamed_prepare(struct sandbox *s, struct err *e) must_check;
/* For workdir_make_restore(); false: not streamed. */
bool streamed_layer(const struct sandbox *s, struct workdir_layer *ret);
void streamed_spec(const struct sandbox *s, struct vmm_spec *spec);
/* s->vmm is there: wait for its userfaultfd. */
int streamed_spawned(struct sandbox *s, struct err *e) must_check;
/* s->vmm and s->plan were taken over: take back the rest. */
int streamed_adopt(struct sandbox *s, struct err *e) must_check;
/* The VMM stopped the guest, because its disk failed (struct vmm_events). */
void streamed_disk_failed(struct sandbox *s, const char *why);
/* The VMM is gone, or goes on without this daemon. Idempotent. */
void streamed_end(struct sandbox *s);
