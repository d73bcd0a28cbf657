/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Disks over NBD: a unix socket per layer, a thread per connection
 *
 *	DIR/<number>	export name "disk"
 *
 * The directory can be searched by everybody (0711) and the sockets connected
 * to (0666): VMMs have users of their own. Who may reach DIR is decided by the
 * directory around it. The process must ignore SIGPIPE.
 */
#include "base/err.h"
#include "pager/nbd_session.h"

#include <stdint.h>

struct nbd;

/* Connections of one user that is not ours; a VMM needs one. */
#define NBD_PER_USER_MAX 16u
/* To choose an export takes QEMU a millisecond. */
#define NBD_NEGOTIATE_SECONDS 10

int nbd_new(const char *dir, struct nbd **ret, struct err *e) must_check;
/* Ends all connections and waits for their threads: need() must return. */
struct nbd *nbd_free(struct nbd *n);

/* Listen at DIR/@number (below PAGER_LAYERS_MAX, and free), or on @listen_fd, a
 * socket that somebody made there. Both fds are dup'ed. need() is called on
 * threads of the connections. */
int nbd_add(struct nbd *n, uint32_t number, const struct nbd_disk *disk,
	    int listen_fd, struct err *e) must_check;
/* Close the socket and all of its connections. Does not wait: a need() may be
 * under way still, and end later. */
void nbd_remove(struct nbd *n, uint32_t number);
/* Connections right now. */
unsigned nbd_count(struct nbd *n);
