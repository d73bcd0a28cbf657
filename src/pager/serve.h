/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The pager process of a daemon
 */
#include "base/err.h"

#include <stdint.h>

struct serve_config {
	const char *root; /* cache in ROOT/cache */
	const char *run; /* RUN/pager.pid, RUN/nbd */
	uint64_t cache_bytes; /* budget; 0: no cache */
	int control_fd; /* SOCK_SEQPACKET, see pager/proto.h */
	int stats_fd; /* memfd with a struct pager_stats */
	uint64_t slice_bytes; /* of an eviction; 0: SERVE_SLICE_BYTES */
};

/* What a process that serves page faults does to itself: a name, as many fds as
 * it may have, late in the queue of the OOM killer, no SIGPIPE. Best effort. */
void serve_protect(void);
/* PAGER_DEADLINE_NS, or what BYRE_PAGER_DEADLINE says. */
uint64_t serve_deadline_ns(void);

/* Until SIGTERM, or until the daemon and the last guest are gone. Threads of
 * the engine may still be waiting for something then: end the process. */
int serve_daemon(const struct serve_config *config, struct err *e) must_check;
