/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pager process of a daemon
 *
 * It carries out what the daemon says (control.c), by the engine and the NBD
 * server, and reports five things back. Everything here happens on the
 * poller's thread, but for what its disks' readers ask and report.
 *
 *	SERVING --the daemon's end closes--> ALONE --the last guest ends--> end
 *	SERVING, ALONE --SIGTERM, SIGINT--> end
 *
 * Invariants:
 *  1. It lives as long as somebody may need a page: the daemon can start
 *     guests, guests fault. A guest that has failed needs nothing any more.
 *  2. It ends without a farewell: its guests' memory and their userfaultfds are
 *     held by others as well. Guests freeze at their next missing page, until
 *     another pager wakes them. So nothing here is worth waiting for.
 *  3. What one message gets wrong costs that message. A guest that cannot be
 *     served is reported, as if a page of it would never come.
 *  4. An eviction is done a slice at a time, one per turn: punching holes takes
 *     0.3 ms per MiB, and whoever faults meanwhile waits for one slice at most,
 *     not for all of a layer.
 *
 * RUN/pager.pid is written before the first message is read; a daemon that
 * finds it ends that process before it starts another pager.
 */
#include "pager/serve.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/proc.h"
#include "image/cache.h"
#include "pager/control.h"
#include "pager/engine.h"
#include "pager/nbd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>

/* Before any VMM, not before what keeps the host alive. */
#define SERVE_OOM_SCORE "-900"
/* The cache's counts are read by people. */
#define SERVE_PUBLISH_SECONDS 1
/* Messages of one turn; faults wait meanwhile. */
#define SERVE_MESSAGES 32
/* 10 ms. */
#define SERVE_SLICE_BYTES (32ull << 20)
/* An older pager has just been ended, and holds the cache still. */
#define SERVE_CACHE_TRIES 20
#define SERVE_CACHE_WAIT_US 50000

struct serve {
	const struct serve_config *config;
	struct pager_stats *stats;
	struct cache *cache; /* NULL: none */
	struct engine *engine;
	struct nbd *nbd;
	struct control *control;
	int signal_fd, timer_fd;
	int evict_fd; /* an eventfd: there is some to evict */
	struct serve_evict {
		uint64_t left, done;
	} evict[PAGER_LAYERS_MAX];
	uint32_t evict_next; /* whose slice is next: layers take turns */
	bool alone;
	uint64_t guest[PAGER_GUESTS_MAX]; /* those that are served, */
	uint32_t layer[PAGER_GUESTS_MAX]; /* and from which layer */
	unsigned n_guests;
	/* Why a layer could not be had: what its guests fail of. */
	struct err refused[PAGER_LAYERS_MAX];
};

/* ---- who is served ---- */

static bool serve_has(const struct serve *s, uint64_t guest, unsigned *ret)
{
	unsigned i;

	for (i = 0; i < s->n_guests && s->guest[i] != guest; i++)
		;
	*ret = i;
	return i < s->n_guests;
}

static void serve_drop(struct serve *s, uint64_t guest)
{
	unsigned i;

	if (serve_has(s, guest, &i)) {
		s->n_guests--;
		s->guest[i] = s->guest[s->n_guests];
		s->layer[i] = s->layer[s->n_guests];
	}
	if (s->alone && !s->n_guests)
		engine_stop(s->engine);
}

/* ---- what the engine reports ---- */

static void serve_report(struct serve *s, uint64_t guest, uint32_t layer,
			 const struct err *e)
{
	struct pager_message m = { .type = PAGER_GUEST_FAILED,
				   .guest = guest,
				   .layer = layer,
				   .code = e->code ? e->code : EIO };

	/* Long ones lose their end, here and there. */
	snprintf(m.text, sizeof(m.text), "%.*s", (int)sizeof(m.text) - 1,
		 e->msg);
	log_error("guest=%" PRIu64 " event=failed error=\"%s\"", guest, e->msg);
	control_send(s->control, &m);
}

static void serve_guest_failed(void *arg, uint64_t guest, const struct err *e)
{
	struct serve *s = arg;
	unsigned i;

	if (serve_has(s, guest, &i))
		serve_report(s, guest, s->layer[i], e);
	serve_drop(s, guest);
}

static void serve_guest_ended(void *arg, uint64_t guest)
{
	struct serve *s = arg;

	log_debug("guest=%" PRIu64 " event=ended", guest);
	serve_drop(s, guest);
}

static void serve_layer_whole(void *arg, uint32_t layer)
{
	struct serve *s = arg;
	struct pager_message m = { .type = PAGER_WHOLE, .layer = layer };

	log_info("layer=%u event=whole", layer);
	control_send(s->control, &m);
}

/* On a thread of the disk's. */
static void serve_disk_lost(void *arg, uint32_t layer, const struct err *e)
{
	struct serve *s = arg;
	struct pager_message m = { .type = PAGER_DISK_LOST,
				   .layer = layer,
				   .code = e->code ? e->code : EIO };

	snprintf(m.text, sizeof(m.text), "%.*s", (int)sizeof(m.text) - 1,
		 e->msg);
	log_error("layer=%u event=disk-lost error=\"%s\"", layer, e->msg);
	control_send(s->control, &m);
}

static const struct engine_events serve_events = {
	.guest_failed = serve_guest_failed,
	.guest_ended = serve_guest_ended,
	.layer_whole = serve_layer_whole,
	.disk_lost = serve_disk_lost,
};

/* ---- what the daemon says ---- */

/* A reader of the disk's need(): on a thread of its own. */
struct serve_disk {
	struct engine *engine;
	uint32_t layer;
};

static int serve_need(void *arg, uint64_t offset, uint64_t len)
{
	const struct serve_disk *d = arg;

	return layer_need_disk(d->engine, d->layer, offset, len);
}

static int serve_add_disk(struct serve *s, uint32_t layer, uint64_t bytes,
			  int fd, int listen_fd, struct err *e)
{
	/* Threads may look at it for as long as the process lives. */
	static struct serve_disk disks[PAGER_LAYERS_MAX];
	struct nbd_disk d = { .bytes = bytes,
			      .fd = fd,
			      .need = serve_need,
			      .arg = &disks[layer],
			      .stats = &s->stats->layer[layer] };

	disks[layer] =
		(struct serve_disk){ .engine = s->engine, .layer = layer };
	return nbd_add(s->nbd, layer, &d, listen_fd, e);
}

static int serve_layer(struct serve *s, struct control_packet *p, struct err *e)
{
	const struct pager_message *m = &p->message;
	struct index *x = NULL;
	uint64_t disk_bytes;
	char id[INDEX_ID_MAX];
	int r = index_open(p->fd[0], &x, e);

	if (r < 0)
		return r;
	disk_bytes = index_layer_bytes(x, INDEX_DISK);
	snprintf(id, sizeof(id), "%s", index_id(x));
	r = layer_add(s->engine, m->layer, x,
		      m->store.url[0] ? &m->store : NULL, p->fd[1], p->fd[2],
		      e);
	if (r < 0)
		return r;
	if (disk_bytes)
		r = serve_add_disk(s, m->layer, disk_bytes, p->fd[2], p->fd[3],
				   e);
	if (r < 0) {
		layer_remove(s->engine, m->layer);
		return r;
	}
	log_info("layer=%u event=added image=%s store=%s", m->layer, id,
		 m->store.name);
	return 0;
}

static int serve_guest(struct serve *s, struct control_packet *p, struct err *e)
{
	const struct pager_message *m = &p->message;
	struct engine_region region = { .addr = m->ram_addr,
					.bytes = m->ram_bytes,
					.page_bytes = INDEX_PAGE };
	unsigned i;
	int r;

	if (serve_has(s, m->guest, &i))
		return err_set(e, EEXIST, "guest %" PRIu64 " is served",
			       m->guest);
	if (s->refused[m->layer].code) {
		*e = s->refused[m->layer];
		return -e->code;
	}
	if (s->n_guests == PAGER_GUESTS_MAX)
		return err_set(e, ENOSPC, "%u guests are served",
			       PAGER_GUESTS_MAX);
	r = guest_add(s->engine, m->guest, GUEST_SHARED, m->layer,
		      fd_take(&p->fd[0]), fd_take(&p->fd[1]), &region, 1, e);
	if (r < 0)
		return r;
	s->guest[s->n_guests] = m->guest;
	s->layer[s->n_guests++] = m->layer;
	log_debug("guest=%" PRIu64 " event=added layer=%u", m->guest, m->layer);
	return 0;
}

static void serve_evict_kick(struct serve *s)
{
	const uint64_t one = 1;

	must(write(s->evict_fd, &one, sizeof(one)) == sizeof(one));
}

static void serve_evict(struct serve *s, const struct pager_message *m)
{
	struct serve_evict *x = &s->evict[m->layer];

	/* Asked once more before it is done: one eviction, one answer. */
	x->left = max(x->left, m->bytes);
	serve_evict_kick(s);
}

static void serve_evict_slice(struct serve *s, uint32_t layer)
{
	struct serve_evict *x = &s->evict[layer];
	uint64_t slice = s->config->slice_bytes ? s->config->slice_bytes
						: SERVE_SLICE_BYTES;
	struct pager_message answer = { .type = PAGER_EVICTED, .layer = layer };
	uint64_t want = min(x->left, slice);
	uint64_t got = layer_evict(s->engine, layer, want);

	x->done += got;
	x->left -= min(x->left, got);
	if (x->left && got >= want)
		return;
	answer.bytes = x->done; /* or there is no more to be had */
	*x = (struct serve_evict){ 0 };
	control_send(s->control, &answer);
}

/* One slice of one layer; the rest in turns that serve faults, too. */
static void serve_evict_some(void *arg, int fd)
{
	struct serve *s = arg;
	uint64_t times = 0;
	bool more = false;

	if (read(fd, &times, sizeof(times)) != sizeof(times))
		return;
	for (uint32_t n = 0; n < PAGER_LAYERS_MAX; n++) {
		s->evict_next = (s->evict_next + 1) % PAGER_LAYERS_MAX;
		if (!s->evict[s->evict_next].left)
			continue;
		serve_evict_slice(s, s->evict_next);
		break;
	}
	for (uint32_t n = 0; n < PAGER_LAYERS_MAX; n++)
		more |= s->evict[n].left != 0;
	if (more)
		serve_evict_kick(s);
}

static int serve_message(struct serve *s, struct control_packet *p,
			 struct err *e)
{
	const struct pager_message *m = &p->message;
	int r;

	switch (m->type) {
	case PAGER_LAYER:
		r = serve_layer(s, p, e);
		s->refused[m->layer] = r < 0 ? *e : (struct err)ERR_NULL;
		return r;
	case PAGER_GUEST:
		return serve_guest(s, p, e);
	case PAGER_GUEST_GONE:
		guest_forget(s->engine, m->guest);
		serve_drop(s, m->guest);
		return 0;
	case PAGER_LAYER_GONE:
		nbd_remove(s->nbd, m->layer);
		layer_remove(s->engine, m->layer);
		s->refused[m->layer] = (struct err)ERR_NULL;
		s->evict[m->layer] = (struct serve_evict){ 0 };
		return 0;
	case PAGER_PREFETCH:
		return layer_prefetch(s->engine, m->layer, m->all != 0, e);
	case PAGER_EVICT:
		serve_evict(s, m);
		return 0;
	default: /* control.c lets no other through */
		return err_set(e, EPROTO, "message %u", m->type);
	}
}

static void serve_alone(struct serve *s)
{
	log_info("event=alone guests=%u", s->n_guests);
	engine_unwatch(s->engine, s->config->control_fd);
	s->alone = true;
	if (!s->n_guests)
		engine_stop(s->engine);
}

static void serve_control(void *arg, unused int fd)
{
	struct serve *s = arg;
	struct control_packet p;
	struct err e;
	int r;

	for (unsigned i = 0; i < SERVE_MESSAGES; i++) {
		e = (struct err)ERR_NULL;
		r = control_receive(s->control, &p, &e);
		if (r == -EAGAIN)
			return;
		if (r == CONTROL_GONE || (r < 0 && r != -EPROTO)) {
			serve_alone(s);
			return;
		}
		if (r == 0) {
			r = serve_message(s, &p, &e);
			if (r < 0 && p.message.type == PAGER_GUEST)
				serve_report(s, p.message.guest,
					     p.message.layer, &e);
			control_done(&p);
		}
		if (r < 0)
			log_error("event=message type=%u layer=%u error=\"%s\"",
				  p.message.type, p.message.layer, e.msg);
	}
}

/* ---- signals, counts ---- */

static void serve_signal(void *arg, int fd)
{
	struct serve *s = arg;
	struct signalfd_siginfo info = { 0 };

	if (read(fd, &info, sizeof(info)) != sizeof(info))
		return;
	log_info("event=stop signal=%u guests=%u", info.ssi_signo, s->n_guests);
	engine_stop(s->engine);
}

static void serve_publish(void *arg, int fd)
{
	struct serve *s = arg;
	struct cache_counts c = cache_counts(s->cache);
	uint64_t times = 0;

	if (read(fd, &times, sizeof(times)) != sizeof(times))
		return;
	PAGER_SET(s->stats->cache_bytes, c.bytes);
	PAGER_SET(s->stats->cache_budget, c.budget);
	PAGER_SET(s->stats->cache_hits, c.hits);
	PAGER_SET(s->stats->cache_misses, c.misses);
	PAGER_SET(s->stats->cache_evicted_bytes, c.evicted_bytes);
	PAGER_SET(s->stats->cache_errors, c.errors);
}

/* ---- start ---- */

static int serve_map_stats(struct serve *s, struct err *e)
{
	struct stat st = { 0 };
	void *p;

	if (fstat(s->config->stats_fd, &st) < 0)
		return err_errno(e, errno, "the counts' fd");
	if ((uint64_t)st.st_size < sizeof(*s->stats))
		return err_set(e, EINVAL,
			       "the counts' fd has %" PRIu64 " bytes",
			       (uint64_t)st.st_size);
	p = mmap(NULL, sizeof(*s->stats), PROT_READ | PROT_WRITE, MAP_SHARED,
		 s->config->stats_fd, 0);
	if (p == MAP_FAILED)
		return err_errno(e, errno, "map the counts");
	s->stats = p;
	PAGER_COUNT(s->stats->starts, 1);
	return 0;
}

static int serve_pid_file(const struct serve *s, struct err *e)
{
	guard_free char *path = io_path("%s/pager.pid", s->config->run);
	struct proc_id id = { 0 };
	char line[64];
	int r = proc_identify(getpid(), &id);

	if (r < 0)
		return err_errno(e, -r, "who am I");
	if (!path)
		return err_errno(e, ENOMEM, "pager.pid");
	snprintf(line, sizeof(line), "%d %" PRIu64 "\n", id.pid,
		 id.start_ticks);
	return io_write_file(path, line, strlen(line), 0600, e);
}

/* A pager without a cache is slower, not worse. */
static void serve_open_cache(struct serve *s)
{
	guard_free char *dir = io_path("%s/cache", s->config->root);
	struct err e = ERR_NULL;
	int r = -ENOMEM;

	if (!s->config->cache_bytes)
		return;
	for (int i = 0; dir && i < SERVE_CACHE_TRIES; i++) {
		r = cache_open(dir, s->config->cache_bytes, &s->cache, &e);
		if (r != -EBUSY)
			break;
		usleep(SERVE_CACHE_WAIT_US);
	}
	if (r < 0)
		log_warn("event=cache error=\"%s\"", e.msg);
}

uint64_t serve_deadline_ns(void)
{
	const char *given = getenv("BYRE_PAGER_DEADLINE");
	uint64_t seconds = 0;

	if (!given || parse_u64(given, &seconds) < 0 || !seconds ||
	    seconds > UINT64_MAX / NS_PER_SEC)
		return PAGER_DEADLINE_NS;
	return seconds * NS_PER_SEC;
}

/* Blocked before there are threads, so that they have it so, too. */
static int serve_signals(struct serve *s, struct err *e)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return s->signal_fd < 0 ? err_errno(e, errno, "signalfd") : 0;
}

static int serve_watch(struct serve *s, struct err *e)
{
	const struct itimerspec every = {
		.it_interval.tv_sec = SERVE_PUBLISH_SECONDS,
		.it_value.tv_nsec = 1,
	};
	int r = engine_watch(s->engine, s->signal_fd, serve_signal, s);

	s->evict_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r == 0 && s->evict_fd < 0)
		r = -errno;
	if (r == 0)
		r = engine_watch(s->engine, s->evict_fd, serve_evict_some, s);
	if (r == 0)
		r = engine_watch(s->engine, s->config->control_fd,
				 serve_control, s);
	if (r == 0 && s->cache) {
		s->timer_fd = timerfd_create(CLOCK_MONOTONIC,
					     TFD_CLOEXEC | TFD_NONBLOCK);
		if (s->timer_fd < 0 ||
		    timerfd_settime(s->timer_fd, 0, &every, NULL) < 0)
			r = -errno;
		else
			r = engine_watch(s->engine, s->timer_fd, serve_publish,
					 s);
	}
	return r < 0 ? err_errno(e, -r, "watch") : 0;
}

static int serve_up(struct serve *s, struct err *e)
{
	guard_free char *sockets = io_path("%s/nbd", s->config->run);
	struct engine_config engine = { .deadline_ns = serve_deadline_ns(),
					.events = &serve_events,
					.arg = s };
	int r = serve_signals(s, e);

	if (r == 0)
		r = serve_map_stats(s, e);
	if (r == 0)
		r = serve_pid_file(s, e);
	if (r < 0)
		return r;
	serve_open_cache(s);
	engine.cache = s->cache;
	engine.stats = s->stats;
	r = engine_new(&engine, &s->engine, e);
	if (r == 0)
		r = control_new(s->config->control_fd, &s->control, e);
	if (r == 0)
		r = sockets ? nbd_new(sockets, &s->nbd, e)
			    : err_errno(e, ENOMEM, "pager");
	return r < 0 ? r : serve_watch(s, e);
}

void serve_protect(void)
{
	guard_fd int fd =
		open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	struct rlimit l;

	err_drop(prctl(PR_SET_NAME, "byre-pager"));
	if (fd < 0 || write(fd, SERVE_OOM_SCORE, strlen(SERVE_OOM_SCORE)) < 0)
		log_debug("event=oom_score error=\"%s\"", strerror(errno));
	if (getrlimit(RLIMIT_NOFILE, &l) == 0) {
		l.rlim_cur = l.rlim_max;
		err_drop(setrlimit(RLIMIT_NOFILE, &l));
	}
	signal(SIGPIPE, SIG_IGN);
}

int serve_daemon(const struct serve_config *config, struct err *e)
{
	const struct pager_message ready = { .type = PAGER_READY };
	/* Until the process ends: threads may look at it. */
	static struct serve s = { .signal_fd = -1,
				  .timer_fd = -1,
				  .evict_fd = -1 };
	int r;

	must(!s.config);
	s.config = config;
	serve_protect();
	r = serve_up(&s, e);
	if (r < 0)
		return r;
	log_info("event=serving root=%s run=%s cache=%" PRIu64, config->root,
		 config->run, config->cache_bytes);
	control_send(s.control, &ready);
	return engine_run(s.engine, e);
}
