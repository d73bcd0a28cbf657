/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pager for stock Firecrackers: their memory backend "Uffd"
 *
 * A Firecracker that loads a snapshot maps anonymous memory, makes a
 * userfaultfd over it, connects to our socket and says once where its regions
 * are (handshake.h); the fd comes along. Nothing is ever said back. From then
 * on its page faults are the engine's business (GUEST_COPY).
 *
 *	connected --fd and regions--> served --its process ends--> gone
 *	    |                            |
 *	    +--nonsense, silence,        +--a page will never come--> killed
 *	       end of file--> refused,
 *	       and killed, if a userfaultfd came
 *
 * Invariants:
 *  1. The socket listens before anything else is done, and nothing in here
 *     waits for a peer: Firecracker touches its memory before its load call
 *     returns, and another one may be connecting.
 *  2. A connection is kept until it has said everything, for PATIENCE at most;
 *     there are FIRECRACKER_PENDING_MAX of them. Who it is (pidfd) is asked
 *     when it connects. While no fd is free nobody is let in, and a tick looks
 *     again.
 *  3. Fail closed: a guest whose page will never come is killed, with the
 *     reason in the log. It would wait for ever otherwise, which looks like
 *     health from outside. Who is refused and gave a userfaultfd is such a
 *     guest: it does not look whether its connection is closed. Who gave none
 *     has no memory that waits for us, and is only hung up on.
 *  4. When we end ourselves nobody is killed. Each Firecracker holds its own
 *     userfaultfd, so its guest freezes at the next missing page and reads
 *     nothing wrong; but Firecracker never connects a second time, so there is
 *     no way back either.
 */
#include "pager/firecracker.h"

#include "base/clock.h"
#include "base/fdpass.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/list.h"
#include "base/log.h"
#include "image/cache.h"
#include "pager/engine.h"
#include "pager/handshake.h"
#include "pager/layer_image.h"
#include "pager/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* 6.5 */
#endif

/* For the fd and all of the text. Firecracker's own example waits half a
 * second for the fd. */
#define FIRECRACKER_PATIENCE_NS (5 * NS_PER_SEC)
#define FIRECRACKER_TICK_NS (500 * NS_PER_MS)
#define FIRECRACKER_LAYER 0u
#define FIRECRACKER_UFFD "anon_inode:[userfaultfd]"

/* A process that has connected. */
struct fcguest {
	struct list link; /* pending or served */
	struct firecracker *fc;
	uint64_t number;
	pid_t pid;
	int pidfd;
	/* pending only */
	int fd;
	int uffd; /* a userfaultfd, -1: none has come */
	uint64_t since_ns;
	size_t len;
	char *text; /* HANDSHAKE_BYTES_MAX */
};

struct firecracker {
	const struct firecracker_config *config;
	struct engine *engine;
	struct cache *cache;
	struct pager_stats stats;
	uint64_t image_bytes;
	int listen_fd, signal_fd, timer_fd;
	struct list pending, served;
	unsigned n_pending;
	bool resting; /* the listener is not watched until the next tick */
	bool starved; /* and that was said */
	uint64_t last_number;
};

/* ---- guests ---- */

static void fcguest_free(struct fcguest *x)
{
	list_del(&x->link);
	fd_close(&x->pidfd);
	fd_close(&x->fd);
	fd_close(&x->uffd);
	free(x->text);
	free(x);
}

/* No longer pending: served, or nothing. */
static void fcguest_settle(struct fcguest *x)
{
	struct firecracker *fc = x->fc;

	engine_unwatch(fc->engine, x->fd);
	list_del(&x->link);
	fc->n_pending--;
	fd_close(&x->fd);
	fd_close(&x->uffd);
	free(take(x->text));
}

static void fcguest_kill(const struct fcguest *x)
{
	if (pidfd_send_signal(x->pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
		log_error("guest=%" PRIu64 " event=kill pid=%d error=\"%s\"",
			  x->number, x->pid, strerror(errno));
}

/* The uffd is closed after the kill: nobody reads zeros in between. */
static void fcguest_refuse(struct fcguest *x, const char *why)
{
	bool waits = x->uffd >= 0;

	log_warn("guest=%" PRIu64 " event=refused pid=%d action=%s"
		 " error=\"%s\"",
		 x->number, x->pid, waits ? "kill" : "close", why);
	if (waits)
		fcguest_kill(x);
	fcguest_settle(x);
	fcguest_free(x);
}

static struct fcguest *fcguest_find(struct firecracker *fc, uint64_t number)
{
	struct fcguest *x, *tmp;

	list_for_each (x, tmp, &fc->served, struct fcguest, link)
		if (x->number == number)
			return x;
	return NULL;
}

/* ---- what the engine reports ---- */

static void firecracker_failed(void *arg, uint64_t guest, const struct err *e)
{
	struct fcguest *x = fcguest_find(arg, guest);

	must(x);
	log_error("guest=%" PRIu64 " event=failed pid=%d action=kill"
		  " error=\"%s\"",
		  guest, x->pid, e->msg);
	fcguest_kill(x);
	/* The engine keeps its userfaultfd until it has ended. */
	fcguest_free(x);
}

static void firecracker_ended(void *arg, uint64_t guest)
{
	struct fcguest *x = fcguest_find(arg, guest);

	must(x);
	log_info("guest=%" PRIu64 " event=ended pid=%d", guest, x->pid);
	fcguest_free(x);
}

static void firecracker_whole(unused void *arg, unused uint32_t layer)
{
	log_info("event=whole");
}

static const struct engine_events firecracker_events = {
	.guest_failed = firecracker_failed,
	.guest_ended = firecracker_ended,
	.layer_whole = firecracker_whole,
};

/* ---- the handshake ---- */

static bool fcguest_is_uffd(int fd)
{
	char path[32], to[sizeof(FIRECRACKER_UFFD) + 1];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, to, sizeof(to));
	return n == (ssize_t)strlen(FIRECRACKER_UFFD) &&
	       !memcmp(to, FIRECRACKER_UFFD, (size_t)n);
}

/* Fds that came. NULL, or what is wrong with them; a userfaultfd among them is
 * kept all the same. */
static const char *fcguest_take_fds(struct fcguest *x, const int *fds_take,
				    size_t n)
{
	bool more = n > 1 || x->uffd >= 0;

	for (size_t i = 0; i < n; i++) {
		if (x->uffd < 0 && fcguest_is_uffd(fds_take[i]))
			x->uffd = fds_take[i];
		else
			close(fds_take[i]);
	}
	return more          ? "more than one fd"
	       : x->uffd < 0 ? "the fd is no userfaultfd"
			     : NULL;
}

/* All is said: serve it. */
static void fcguest_serve(struct fcguest *x,
			  const struct engine_region *regions, unsigned n)
{
	struct firecracker *fc = x->fc;
	guard_fd int uffd = fcntl(x->uffd, F_DUPFD_CLOEXEC, 0);
	guard_fd int pidfd = fcntl(x->pidfd, F_DUPFD_CLOEXEC, 0);
	uint64_t bytes = 0;
	struct err e = ERR_NULL;
	int r;

	r = uffd < 0 || pidfd < 0 ? err_errno(&e, errno, "keep its fds")
				  : guest_add(fc->engine, x->number, GUEST_COPY,
					      FIRECRACKER_LAYER, fd_take(&uffd),
					      fd_take(&pidfd), regions, n, &e);
	if (r < 0) {
		fcguest_refuse(x, e.msg);
		return;
	}
	for (unsigned i = 0; i < n; i++)
		bytes += regions[i].bytes;
	fcguest_settle(x);
	list_add_tail(&fc->served, &x->link);
	log_info("guest=%" PRIu64 " event=connected pid=%d regions=%u"
		 " bytes=%" PRIu64 " page_bytes=%" PRIu64,
		 x->number, x->pid, n, bytes, regions[0].page_bytes);
}

/* What there is so far; @end: there will be no more. */
static void fcguest_judge(struct fcguest *x, bool end)
{
	struct engine_region regions[ENGINE_REGIONS_MAX];
	struct err e = ERR_NULL;
	unsigned n = 0;
	int r;

	if (x->uffd < 0) {
		if (end)
			fcguest_refuse(x, x->len ? "no fd came with it"
						 : "it said nothing");
		return;
	}
	r = handshake_parse(x->text, x->len, x->fc->image_bytes, regions, &n,
			    &e);
	if (r == -EAGAIN && !end && x->len < HANDSHAKE_BYTES_MAX)
		return;
	if (r < 0)
		fcguest_refuse(x, e.msg);
	else
		fcguest_serve(x, regions, n);
}

static void fcguest_ready(void *arg, int fd)
{
	struct fcguest *x = arg;
	size_t room = HANDSHAKE_BYTES_MAX - x->len, n_fds = 0;
	const char *why = NULL;
	int came[FDPASS_MAX];
	ssize_t n;

	if (!room) {
		fcguest_refuse(x, "too much text without an fd");
		return;
	}
	n = fdpass_receive(fd, x->text + x->len, room, came, FDPASS_MAX, &n_fds,
			   MSG_DONTWAIT);
	if (n == -EAGAIN)
		return;
	if (n == -E2BIG)
		why = "more fds than can be received";
	else if (n < 0)
		why = strerror((int)-n);
	else if (n_fds)
		why = fcguest_take_fds(x, came, n_fds);
	if (why) {
		fcguest_refuse(x, why);
		return;
	}
	x->len += (size_t)n;
	fcguest_judge(x, n == 0);
}

/* ---- connections ---- */

static int firecracker_pidfd(int fd, pid_t *ret_pid)
{
	struct ucred who = { 0 };
	socklen_t len = sizeof(who), pidfd_len = sizeof(int);
	int pidfd = -1;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0)
		return -errno;
	*ret_pid = who.pid;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &pidfd_len) == 0)
		return pidfd;
	pidfd = pidfd_open(who.pid, 0);
	return pidfd < 0 ? -errno : pidfd;
}

static void firecracker_patience(struct firecracker *fc, bool on)
{
	const struct itimerspec every = {
		.it_interval.tv_nsec = on ? (long)FIRECRACKER_TICK_NS : 0,
		.it_value.tv_nsec = on ? (long)FIRECRACKER_TICK_NS : 0,
	};

	err_drop(timerfd_settime(fc->timer_fd, 0, &every, NULL));
}

static int firecracker_pend(struct firecracker *fc, int fd_take_)
{
	struct fcguest *x = calloc(1, sizeof(*x));
	int r = 0;

	if (!x) {
		close(fd_take_);
		return -ENOMEM;
	}
	*x = (struct fcguest){ .fc = fc,
			       .number = ++fc->last_number,
			       .fd = fd_take_,
			       .uffd = -1,
			       .since_ns = clock_mono_ns() };
	list_init(&x->link);
	x->pidfd = firecracker_pidfd(x->fd, &x->pid);
	x->text = malloc(HANDSHAKE_BYTES_MAX);
	if (x->pidfd < 0)
		r = x->pidfd;
	else if (!x->text)
		r = -ENOMEM;
	else
		r = engine_watch(fc->engine, x->fd, fcguest_ready, x);
	if (r < 0) {
		fcguest_free(x);
		return r;
	}
	list_add_tail(&fc->pending, &x->link);
	if (!fc->n_pending++)
		firecracker_patience(fc, true);
	return 0;
}

/* No fd is free, or no memory. Who connects waits in the backlog, for which
 * epoll would not stop waking us. */
static void firecracker_rest(struct firecracker *fc, int code)
{
	if (!fc->starved)
		log_warn("event=starved error=\"accept: %s\"", strerror(code));
	fc->starved = fc->resting = true;
	engine_unwatch(fc->engine, fc->listen_fd);
	firecracker_patience(fc, true);
}

static void firecracker_accept(void *arg, int listen_fd)
{
	struct firecracker *fc = arg;
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int r;

	if (fd < 0) {
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			firecracker_rest(fc, errno);
		return;
	}
	fc->starved = false;
	/* The one who has been silent for longest makes room. */
	if (fc->n_pending == FIRECRACKER_PENDING_MAX)
		fcguest_refuse(
			list_entry(fc->pending.next, struct fcguest, link),
			"too many connections that say nothing");
	r = firecracker_pend(fc, fd);
	if (r < 0)
		log_warn("event=refused error=\"%s\"", strerror(-r));
}

static void firecracker_tick(void *arg, int fd)
{
	struct firecracker *fc = arg;
	uint64_t now_ns = clock_mono_ns(), times;
	struct fcguest *x, *tmp;

	if (read(fd, &times, sizeof(times)) != sizeof(times))
		return;
	list_for_each (x, tmp, &fc->pending, struct fcguest, link)
		if (now_ns - x->since_ns > FIRECRACKER_PATIENCE_NS)
			fcguest_judge(x, true);
	if (fc->resting)
		fc->resting = engine_watch(fc->engine, fc->listen_fd,
					   firecracker_accept, fc) < 0;
	if (!fc->n_pending && !fc->resting)
		firecracker_patience(fc, false);
}

static void firecracker_counts(const struct firecracker *fc)
{
	char line[PAGER_STATS_LINE];
	struct cache_counts c = { 0 };

	if (fc->cache)
		c = cache_counts(fc->cache);
	pager_layer_stats_print(&fc->stats.layer[FIRECRACKER_LAYER], line,
				sizeof(line));
	log_info("event=counts %s cache_bytes=%" PRIu64 " cache_hits=%" PRIu64
		 " cache_misses=%" PRIu64 " cache_evicted_bytes=%" PRIu64
		 " cache_errors=%" PRIu64,
		 line, c.bytes, c.hits, c.misses, c.evicted_bytes, c.errors);
}

static void firecracker_signal(void *arg, int fd)
{
	struct firecracker *fc = arg;
	struct signalfd_siginfo info = { 0 };

	if (read(fd, &info, sizeof(info)) != sizeof(info))
		return;
	firecracker_counts(fc);
	if (info.ssi_signo == SIGUSR1)
		return;
	log_info("event=stop signal=%u guests=%" PRIu64, info.ssi_signo,
		 PAGER_GET(fc->stats.layer[FIRECRACKER_LAYER].guests));
	err_drop(unlink(fc->config->socket));
	engine_stop(fc->engine);
}

/* ---- start ---- */

static int firecracker_listen(struct firecracker *fc, struct err *e)
{
	sigset_t set;
	int r;

	list_init(&fc->pending);
	list_init(&fc->served);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	r = io_listen_unix(fc->config->socket, 0600, &fc->listen_fd, e);
	if (r < 0)
		return r;
	fc->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	fc->timer_fd =
		timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (fc->signal_fd < 0 || fc->timer_fd < 0)
		return err_errno(e, errno, "signalfd, timerfd");
	return 0;
}

static void firecracker_open_cache(struct firecracker *fc)
{
	const struct firecracker_config *c = fc->config;
	struct err e = ERR_NULL;

	if (c->cache_dir && c->cache_bytes && c->store &&
	    cache_open(c->cache_dir, c->cache_bytes, &fc->cache, &e) < 0)
		log_warn("event=cache error=\"%s\"", e.msg);
}

static int firecracker_watch(struct firecracker *fc, struct err *e)
{
	int r = engine_watch(fc->engine, fc->signal_fd, firecracker_signal, fc);

	if (r == 0)
		r = engine_watch(fc->engine, fc->listen_fd, firecracker_accept,
				 fc);
	if (r == 0)
		r = engine_watch(fc->engine, fc->timer_fd, firecracker_tick,
				 fc);
	return r < 0 ? err_errno(e, -r, "watch") : 0;
}

int firecracker(const struct firecracker_config *config, struct err *e)
{
	/* Until the process ends: threads may look at it. */
	static struct firecracker fc = { .listen_fd = -1,
					 .signal_fd = -1,
					 .timer_fd = -1 };
	struct engine_config engine = { .deadline_ns = serve_deadline_ns(),
					.stats = &fc.stats,
					.events = &firecracker_events,
					.arg = &fc };
	int r;

	must(!fc.config);
	fc.config = config;
	serve_protect();
	r = firecracker_listen(&fc, e);
	if (r < 0)
		return r;
	firecracker_open_cache(&fc);
	engine.cache = fc.cache;
	r = engine_new(&engine, &fc.engine, e);
	if (r == 0)
		r = layer_add_image(fc.engine, FIRECRACKER_LAYER, config->dir,
				    config->store, &fc.image_bytes, e);
	if (r == 0)
		r = firecracker_watch(&fc, e);
	if (r < 0) {
		err_drop(unlink(config->socket));
		return r;
	}
	log_info("event=serving socket=%s image=%s bytes=%" PRIu64,
		 config->socket, config->dir, fc.image_bytes);
	return engine_run(fc.engine, e);
}
