/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the daemon says to the pager, and what it hears
 *
 * There is no queue of messages. Layers and guests are objects (daemon.h), each
 * with a mark whether the living pager was told of it; to say something is to
 * clear a mark and to walk (talk_flush). What is not said yet because the socket
 * is full is said when it has room, and what a dead pager knew is said again by
 * clearing all marks: the first message and the repeated one are the same code.
 * Only what is gone needs a record of its own.
 *
 * The order of the walk is the order in which things depend on each other, and
 * in which they are urgent: what is gone (its number may be used again), layers,
 * guests (some are stuck), fetching ahead, dropping.
 *
 * Invariants:
 *  1. An object whose mark is set is known to the living pager, or on its way
 *     through the socket. One without leaves without a word.
 *  2. The list of what is gone is never longer than what can be at once: only
 *     what was told gets there, and while it is not empty nothing is told.
 *  3. Nothing here waits, and nothing here ends the object: a pager that cannot
 *     be talked to is killed, and its death is keeper.c's.
 *  4. A guest's callback is called at most once, and the guest is not touched
 *     afterwards: it may be gone.
 */
#include "pager/daemon.h"

#include "base/clock.h"
#include "base/fdpass.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Of fds in flight there are limits that no event tells the end of. */
#define TALK_RETRY_NS (10 * NS_PER_MS)
/* Everything that can be at once, gone at once. */
#define TALK_GONE_MAX (PAGER_LAYERS_MAX + PAGER_GUESTS_MAX)

/* ---- saying ---- */

static bool talk_open(const struct pager *p)
{
	return p->control.loop && !p->left;
}

static bool talk_unsaid(struct pager *p, int code)
{
	if (code == EAGAIN)
		loop_fd_set(&p->control, EPOLLIN | EPOLLOUT);
	else if (code == ENOMEM || code == ENOBUFS || code == ETOOMANYREFS)
		keeper_later(p, TALK_RETRY_NS);
	else if (code == EPIPE || code == ECONNRESET)
		keeper_kill(p); /* its end is closed: it is dying anyway */
	else {
		log_error("event=pager-mute error=\"%s\"", strerror(code));
		keeper_kill(p);
	}
	return false;
}

/* False: not now. */
static bool talk_say(struct pager *p, struct pager_message *m, const int *fds,
		     size_t n_fds)
{
	ssize_t n;

	m->magic = PAGER_MAGIC;
	n = fdpass_send(p->control_fd, m, sizeof(*m), fds, n_fds, MSG_DONTWAIT);
	return n >= 0 || talk_unsaid(p, (int)-n);
}

static bool talk_say_gone(struct pager *p, struct pager_gone *g)
{
	struct pager_message m = {
		.type = g->type,
		.layer = g->layer,
		.guest = g->guest,
	};

	if (!talk_say(p, &m, NULL, 0))
		return false;
	list_del(&g->link);
	p->n_gone--;
	free(g);
	return true;
}

static bool talk_say_layer(struct pager *p, struct pager_layer *l)
{
	const int fds[] = { l->hold.index_fd, l->hold.memory_fd,
			    l->hold.disk_fd, l->listen_fd };
	struct pager_message m = {
		.type = PAGER_LAYER,
		.layer = l->number,
		.store = l->store,
	};

	if (!l->told)
		l->told = talk_say(p, &m, fds, nitems(fds));
	return l->told;
}

static bool talk_say_guest(struct pager *p, struct pager_guest *g)
{
	const int fds[] = { g->uffd, g->pidfd };
	struct pager_message m = {
		.type = PAGER_GUEST,
		.layer = g->layer->number,
		.guest = g->id,
		.ram_addr = g->ram_addr,
		.ram_bytes = g->ram_bytes,
	};

	if (!g->told && !g->dead)
		g->told = talk_say(p, &m, fds, nitems(fds));
	return g->told || g->dead;
}

static bool talk_say_wishes(struct pager *p, struct pager_layer *l)
{
	struct pager_message fetch = {
		.type = PAGER_PREFETCH,
		.layer = l->number,
		.all = l->all,
	};
	struct pager_message drop = {
		.type = PAGER_EVICT,
		.layer = l->number,
		.bytes = l->evict_bytes,
	};

	if (l->prefetch && talk_say(p, &fetch, NULL, 0))
		l->prefetch = false;
	if (!l->prefetch && l->evict_bytes && talk_say(p, &drop, NULL, 0))
		l->evict_bytes = 0;
	return !l->prefetch && !l->evict_bytes;
}

/* In the order of the essay. */
void talk_flush(struct pager *p)
{
	struct pager_gone *gone, *gone_tmp;
	struct pager_layer *l, *l_tmp;
	struct pager_guest *g, *g_tmp;

	if (!talk_open(p))
		return;
	loop_fd_set(&p->control, EPOLLIN);
	list_for_each (gone, gone_tmp, &p->gone, struct pager_gone, link)
		if (!talk_say_gone(p, gone))
			return;
	list_for_each (l, l_tmp, &p->layers, struct pager_layer, link)
		if (!talk_say_layer(p, l))
			return;
	list_for_each (g, g_tmp, &p->guests, struct pager_guest, link)
		if (!talk_say_guest(p, g))
			return;
	list_for_each (l, l_tmp, &p->layers, struct pager_layer, link)
		if (!talk_say_wishes(p, l))
			return;
}

void talk_gone(struct pager *p, uint32_t type, uint32_t layer, uint64_t guest)
{
	struct pager_gone *g;

	if (!talk_open(p))
		return;
	must(p->n_gone < TALK_GONE_MAX);
	g = calloc(1, sizeof(*g));
	if (!g) {
		/* The next one need not be told. */
		log_error("event=pager error=\"out of memory\"");
		keeper_kill(p);
		return;
	}
	g->type = type;
	g->layer = layer;
	g->guest = guest;
	list_add_tail(&p->gone, &g->link);
	p->n_gone++;
	talk_flush(p);
}

void talk_drop_gone(struct pager *p)
{
	struct pager_gone *g, *tmp;

	list_for_each (g, tmp, &p->gone, struct pager_gone, link) {
		list_del(&g->link);
		free(g);
	}
	p->n_gone = 0;
}

/* ---- hearing ---- */

static struct pager_layer *talk_layer(struct pager *p, uint32_t number)
{
	struct pager_layer *l, *tmp;

	list_for_each (l, tmp, &p->layers, struct pager_layer, link)
		if (l->number == number)
			return l;
	return NULL;
}

static void talk_guest_failed(struct pager *p, const struct pager_message *m)
{
	struct pager_guest *g, *tmp;
	struct err e = ERR_NULL;

	list_for_each (g, tmp, &p->guests, struct pager_guest, link) {
		if (g->id != m->guest || g->dead)
			continue;
		g->dead = true;
		err_set(&e, m->code > 0 ? m->code : EIO, "%.*s",
			(int)sizeof(m->text), m->text);
		g->failed(g->arg, &e);
		return;
	}
}

static void talk_layer_whole(struct pager *p, uint32_t number)
{
	struct pager_layer *l = talk_layer(p, number);

	if (!l || l->whole)
		return;
	l->whole = true;
	log_info("event=layer-whole dir=%s", l->dir);
	if (!l->forgotten && p->config.whole)
		p->config.whole(p->config.arg, l);
}

static void talk_disk_lost(struct pager *p, const struct pager_message *m)
{
	struct pager_layer *l = talk_layer(p, m->layer);

	if (!l)
		return;
	l->disk_lost = (struct err)ERR_NULL;
	err_set(&l->disk_lost, m->code > 0 ? m->code : EIO, "%.*s",
		(int)sizeof(m->text), m->text);
	l->disk_lost_ns = p->config.loop->now_ns;
}

static void talk_understand(struct pager *p, const struct pager_message *m)
{
	switch (m->type) {
	case PAGER_GUEST_FAILED:
		talk_guest_failed(p, m);
		break;
	case PAGER_WHOLE:
		talk_layer_whole(p, m->layer);
		break;
	case PAGER_EVICTED:
		log_debug("event=evicted layer=%u bytes=%" PRIu64, m->layer,
			  m->bytes);
		break;
	case PAGER_DISK_LOST:
		talk_disk_lost(p, m);
		break;
	case PAGER_READY:
		p->ready = true;
		log_debug(
			"event=pager-ready ms=%llu",
			(unsigned long long)(clock_mono_ns() - p->started_ns) /
				NS_PER_MS);
		break;
	default:
		log_warn("event=pager-said type=%u", m->type);
	}
}

int talk_hear(struct pager *p)
{
	struct pager_message m;

	for (;;) {
		ssize_t n = recv(p->control_fd, &m, sizeof(m), MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		if (n == 0)
			return -EPIPE;
		if (n != sizeof(m) || m.magic != PAGER_MAGIC)
			return -EPROTO;
		talk_understand(p, &m);
	}
}

void talk_ready(struct loop_fd *f, uint32_t events)
{
	struct pager *p = container_of(f, struct pager, control);
	int r = events & ~(uint32_t)EPOLLOUT ? talk_hear(p) : 0;

	if (r < 0) {
		/* Without a connection it is of no use; keeper_died() follows. */
		loop_fd_del(&p->control);
		keeper_kill(p);
	} else if (events & EPOLLOUT) {
		talk_flush(p);
	}
}
