/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What vmm.c and the drivers share: the inside of a struct vmm
 */
#include "base/loop.h"
#include "vmm/vmm.h"

/* A request under way; done is NULL while there is none. */
struct vmm_request {
	vmm_done_fn done;
	void *arg;
};

struct vmm {
	const struct vmm_ops *ops;
	struct vmm_host *host;
	struct loop *loop;
	const struct vmm_events *events;
	void *arg;
	void *driver; /* the driver's own part */
	enum vmm_state state;
	bool started_told;
	bool adopted;
	bool guest_ended; /* the guest asked for the end */
	char cause[240]; /* of the end, as far as known */
	struct proc_id proc;
	int pidfd;
	struct loop_fd pid_source;
	uint64_t start_ns; /* monotonic */
	uint64_t greeted_ns;
	struct vmm_timings timings;
};

struct vmm_host {
	const struct vmm_ops *ops;
	struct loop *loop;
	struct vmm_host_facts facts;
	void *driver;
};

extern const struct vmm_ops qemu_ops;

/* For drivers. Each may end with the vmm freed by a callback: return at once
 * afterwards. */
void vmm_greeted(struct vmm *v);
void vmm_started(struct vmm *v, enum vmm_state state);
void vmm_start_failed(struct vmm *v, const struct err *e);
/* Remember why it will end; the first cause wins. */
void vmm_note_cause(struct vmm *v, bool guest, const char *fmt, ...)
	printf_like(3, 4);
/* The driver has a process: watch it. Takes the pidfd. */
int vmm_watch(struct vmm *v, const struct proc_id *id, int pidfd_take,
	      struct err *e) must_check;
