/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeping a pager process alive
 *
 *	NONE --keeper_start--> RUNNING --died--> RUNNING (another)
 *	                                    \--> NONE: a pause, or no layers
 *
 * A pager may be killed at any time; what it leaves is in fds that the daemon
 * holds, so the next one is told everything and goes on, at once: all guests
 * wait for it. Only where pagers die young, one after the other (the machine is
 * out of memory, the binary is gone, a message ends each of them), there is a
 * pause before the next one, longer each time; the guests wait on their
 * missing pages, frozen and unharmed. One that was up and lived ends that row,
 * however often it happens.
 *
 * Invariants:
 *  1. p->pidfd is set exactly while a process of ours may live; it ends in
 *     keeper_died() (or the daemon ends, and lets it live).
 *  2. A pager of a former daemon is ended before the first of ours is started:
 *     two never serve one userfaultfd.
 *  3. Everything is unmarked between one pager's death and the next one's first
 *     message; but a guest that was given up stays given up.
 */
#include "pager/daemon.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/log.h"
#include "pager/start.h"

#include <errno.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <sys/socket.h>

/* To be told of hundreds of guests, and to serve what waits for it, takes a
 * pager some tens of milliseconds; who lived longer was of use. */
#define KEEPER_YOUNG_NS (100 * NS_PER_MS)
/* The first pause and the last; each is a fifth longer than the one before. 20
 * young deaths in a row are pauses below 400 ms, with a start (20 ms) below the
 * half second that a killed pager may cost a guest. From the 26th on it is a
 * start per second, which keeps no core busy. */
#define KEEPER_PAUSE_MIN_NS (10 * NS_PER_MS)
#define KEEPER_PAUSE_MAX_NS NS_PER_SEC

static void keeper_again(struct loop_timer *t);

void keeper_later(struct pager *p, uint64_t ns)
{
	struct loop *loop = p->config.loop;

	if (loop_timer_set(loop, &p->again, loop->now_ns + ns, keeper_again) <
	    0)
		log_error("event=pager error=\"out of memory\"");
}

void keeper_kill(struct pager *p)
{
	err_drop(pidfd_send_signal(p->pidfd, SIGKILL, NULL, 0));
}

void keeper_close(struct pager *p)
{
	loop_fd_del(&p->control);
	loop_fd_del(&p->death);
	loop_timer_del(&p->again);
	fd_close(&p->control_fd);
	fd_close(&p->pidfd);
	p->proc = (struct proc_id){ 0 };
}

static void keeper_unmark(struct pager *p)
{
	struct pager_layer *l, *l_tmp;
	struct pager_guest *g, *g_tmp;

	talk_drop_gone(p);
	list_for_each (l, l_tmp, &p->layers, struct pager_layer, link) {
		l->told = false;
		l->prefetch = !l->whole;
		l->evict_bytes = 0;
	}
	list_for_each (g, g_tmp, &p->guests, struct pager_guest, link)
		g->told = false;
}

/* One more has died young. */
static void keeper_longer_pause(struct pager *p)
{
	uint64_t ns = p->pause_ns + p->pause_ns / 5;

	p->pause_ns = min(max(ns, KEEPER_PAUSE_MIN_NS), KEEPER_PAUSE_MAX_NS);
}

static void keeper_restart(struct pager *p)
{
	struct err e = ERR_NULL;

	if (keeper_start(p, &e) == 0)
		return;
	log_error("event=pager-start error=\"%s\"", e.msg);
	keeper_longer_pause(p);
	keeper_later(p, p->pause_ns);
}

static void keeper_again(struct loop_timer *t)
{
	struct pager *p = container_of(t, struct pager, again);

	if (p->pidfd < 0)
		keeper_restart(p);
	else
		talk_flush(p);
}

static void keeper_died(struct loop_fd *f, unused uint32_t events)
{
	struct pager *p = container_of(f, struct pager, death);
	char how[64] = "ended";

	if (proc_how_ended(p->pidfd, how, sizeof(how), NULL) == -EAGAIN)
		return;
	/* Its last words; a guest that it gave up stays given up. */
	if (p->control.loop)
		err_drop(talk_hear(p));
	if (p->ready &&
	    p->config.loop->now_ns >= p->started_ns + KEEPER_YOUNG_NS)
		p->pause_ns = 0;
	else
		keeper_longer_pause(p);
	log_warn("event=pager-died pid=%d cause=\"%s\" guests=%u pause_ms=%llu "
		 "log=%s/pager.log",
		 p->proc.pid, how, p->n_guests,
		 (unsigned long long)(p->pause_ns / NS_PER_MS), p->root);
	keeper_close(p);
	keeper_unmark(p);
	if (list_empty(&p->layers))
		return; /* the first layer starts the next */
	if (p->pause_ns)
		keeper_later(p, p->pause_ns);
	else
		keeper_restart(p);
}

static int keeper_watch(struct pager *p, struct err *e)
{
	int r = loop_fd_add(p->config.loop, &p->death, p->pidfd, EPOLLIN,
			    keeper_died);

	if (r == 0)
		r = loop_fd_add(p->config.loop, &p->control, p->control_fd,
				EPOLLIN, talk_ready);
	return r < 0 ? err_errno(e, -r, "watch the pager") : 0;
}

static int keeper_spawn(struct pager *p, struct err *e)
{
	struct start s = {
		.program = p->program,
		.root = p->root,
		.run = p->run,
		.cache_bytes = p->config.cache_bytes,
		.stats_fd = p->stats_fd,
	};
	guard_fd int theirs = -1;
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_errno(e, errno, "start the pager");
	p->control_fd = pair[0];
	theirs = pair[1];
	s.control_fd = theirs;
	r = start_pager(&s, &p->proc, &p->pidfd, e);
	return r < 0 ? r : keeper_watch(p, e);
}

int keeper_start(struct pager *p, struct err *e)
{
	uint64_t now_ns = clock_mono_ns();
	int r;

	must(p->pidfd < 0);
	if (p->older_fd >= 0) {
		start_end(p->older_fd);
		fd_close(&p->older_fd);
	}
	p->started_ns = now_ns;
	p->ready = false;
	r = keeper_spawn(p, e);
	if (r < 0) {
		if (p->pidfd >= 0)
			start_end(p->pidfd);
		keeper_close(p);
		return r;
	}
	log_info("event=pager-started pid=%d layers=%s guests=%u ms=%llu",
		 p->proc.pid, list_empty(&p->layers) ? "none" : "told",
		 p->n_guests,
		 (unsigned long long)(clock_mono_ns() - now_ns) / NS_PER_MS);
	talk_flush(p);
	return 0;
}
