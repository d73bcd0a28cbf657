/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's side of the pager: layers and guests, and their fds
 *
 *	client.c   the objects, what this file is
 *	talk.c     telling the pager of them
 *	keeper.c   its process
 *	hold.c     a layer's files and memory
 *
 * Invariants:
 *  1. A layer has its number, and with it its place in the counts and its NBD
 *     socket, from its making to its end; no other has it meanwhile.
 *  2. A guest's fds are here as long as the guest, a layer's as long as the
 *     layer: a pager may die any number of times.
 *  3. A layer without references goes when it is forgotten, or when its number
 *     is needed; one that has some goes with the last of them.
 *  4. After pager_leave() nothing is told any more, so what the daemon frees on
 *     its way out stays with the pager.
 *
 * It knows nothing of faults and fetches; see engine.c.
 */
#include "pager/client.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/log.h"
#include "pager/daemon.h"
#include "pager/start.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/stat.h>

/* The loop runs, so everything was adopted: has a former daemon's pager still
 * something to do? */
static void pager_settle(struct loop_timer *t)
{
	struct pager *p = container_of(t, struct pager, settle);

	if (p->older_fd < 0)
		return;
	log_info("event=pager-ended cause=\"no guests were left to it\"");
	err_drop(pidfd_send_signal(p->older_fd, SIGKILL, NULL, 0));
	fd_close(&p->older_fd);
}

/* ---- the object ---- */

static int pager_init_stats(struct pager *p, struct err *e)
{
	p->stats_fd = memfd_create("byre-pager-stats",
				   MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (p->stats_fd < 0 ||
	    ftruncate(p->stats_fd, sizeof(struct pager_stats)) < 0 ||
	    fcntl(p->stats_fd, F_ADD_SEALS,
		  F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
		return err_errno(e, errno, "pager: memory for its counts");
	p->stats = mmap(NULL, sizeof(struct pager_stats),
			PROT_READ | PROT_WRITE, MAP_SHARED, p->stats_fd, 0);
	if (p->stats == MAP_FAILED) {
		p->stats = NULL;
		return err_errno(e, errno, "pager: map its counts");
	}
	return 0;
}

static int pager_init(struct pager *p, const struct pager_config *config,
		      struct err *e)
{
	int r;

	p->config = *config;
	p->root = strdup(config->root);
	p->run = strdup(config->run);
	p->program = config->program ? strdup(config->program) : NULL;
	if (!p->root || !p->run || (config->program && !p->program))
		return err_errno(e, ENOMEM, "pager");
	r = pager_init_stats(p, e);
	if (r < 0)
		return r;
	p->older_fd = start_older(p->run);
	if (p->older_fd >= 0 &&
	    loop_timer_set(config->loop, &p->settle, 0, pager_settle) < 0)
		return err_errno(e, ENOMEM, "pager");
	return 0;
}

int pager_new(const struct pager_config *config, struct pager **ret,
	      struct err *e)
{
	struct pager *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return err_errno(e, ENOMEM, "pager");
	list_init(&p->layers);
	list_init(&p->guests);
	list_init(&p->gone);
	p->stats_fd = p->older_fd = -1;
	p->pidfd = p->control_fd = -1;
	p->death = p->control = (struct loop_fd)LOOP_FD_NULL;
	r = pager_init(p, config, e);
	if (r < 0) {
		pager_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

void pager_leave(struct pager *p)
{
	if (!p || p->left)
		return;
	talk_flush(p);
	p->left = true;
	loop_timer_del(&p->settle);
	keeper_close(p);
	talk_drop_gone(p);
}

pid_t pager_pid(const struct pager *p)
{
	return p->proc.pid;
}

const struct pager_stats *pager_stats(const struct pager *p)
{
	return p->stats;
}

/* ---- layers ---- */

static void pager_layer_free(struct pager_layer *l)
{
	if (!l)
		return;
	list_del(&l->link);
	hold_deinit(&l->hold);
	fd_close(&l->listen_fd);
	fd_close(&l->nbd_dir_fd);
	free(l->dir);
	free(l);
}

static void pager_layer_close(struct pager_layer *l)
{
	struct pager *p = l->pager;

	must(l->guests == 0);
	list_del(&l->link);
	p->taken[l->number] = false;
	if (l->told)
		talk_gone(p, PAGER_LAYER_GONE, l->number, 0);
	pager_layer_free(l);
}

struct pager *pager_free(struct pager *p)
{
	struct pager_layer *l, *tmp;

	if (!p)
		return NULL;
	pager_leave(p);
	must(list_empty(&p->guests));
	list_for_each (l, tmp, &p->layers, struct pager_layer, link)
		pager_layer_close(l);
	fd_close(&p->older_fd);
	fd_close(&p->stats_fd);
	if (p->stats)
		munmap(p->stats, sizeof(*p->stats));
	free(p->root);
	free(p->run);
	free(p->program);
	free(p);
	return NULL;
}

/* A number that is free: @want if it is, else the first, else that of a layer
 * that nobody uses. */
static int pager_number(struct pager *p, bool wanted, uint32_t want,
			uint32_t *ret)
{
	struct pager_layer *l, *tmp;

	if (wanted && want < PAGER_LAYERS_MAX && !p->taken[want]) {
		*ret = want;
		return 0;
	}
	for (uint32_t i = 0; i < PAGER_LAYERS_MAX; i++) {
		if (p->taken[i])
			continue;
		*ret = i;
		return 0;
	}
	list_for_each (l, tmp, &p->layers, struct pager_layer, link) {
		if (l->refs)
			continue;
		*ret = l->number;
		pager_layer_close(l);
		return 0;
	}
	return -ENOSPC;
}

/* VMMs that run as users of their own reach the socket through a directory fd,
 * each the one of its own layer; nobody else gets past RUN. */
static int pager_layer_listen(struct pager_layer *l, const struct pager *p,
			      struct err *e)
{
	guard_free char *dir = io_path("%s/nbd/%u", p->run, l->number);
	guard_free char *path =
		io_path("%s/nbd/%u/" PAGER_NBD_NAME, p->run, l->number);
	int r;

	if (!dir || !path)
		return err_errno(e, ENOMEM, "layer");
	r = io_mkdirs(dir, 0711, e);
	if (r < 0)
		return r;
	l->nbd_dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (l->nbd_dir_fd < 0 || chmod(dir, 0711) < 0) /* whatever the umask */
		return err_errno(e, errno, "open %s", dir);
	return io_listen_unix(path, 0666, &l->listen_fd, e);
}

static int pager_layer_fill(struct pager_layer *l, struct pager *p,
			    const char *dir, const struct store_spec *store,
			    int memory_fd, struct err *e)
{
	int r = hold_init(&l->hold, dir, l->number, memory_fd, e);

	if (r == 0)
		r = pager_layer_listen(l, p, e);
	if (r < 0)
		return r;
	l->dir = strdup(dir);
	if (!l->dir)
		return err_errno(e, ENOMEM, "layer %s", dir);
	l->pager = p;
	l->refs = 1;
	l->prefetch = true;
	if (store)
		l->store = *store;
	return 0;
}

static int pager_layer_new(struct pager *p, uint32_t number, const char *dir,
			   const struct store_spec *store, int memory_fd,
			   struct pager_layer **ret, struct err *e)
{
	struct pager_layer *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return err_errno(e, ENOMEM, "layer %s", dir);
	list_init(&l->link);
	l->hold = (struct hold)HOLD_NULL;
	l->listen_fd = l->nbd_dir_fd = -1;
	l->number = number;
	r = pager_layer_fill(l, p, dir, store, memory_fd, e);
	if (r == 0 && p->pidfd < 0 && !p->again.loop)
		r = keeper_start(p, e);
	if (r < 0) {
		pager_layer_free(l);
		return r;
	}
	memset(&p->stats->layer[number], 0, sizeof(p->stats->layer[0]));
	p->taken[number] = true;
	list_add_tail(&p->layers, &l->link);
	talk_flush(p);
	*ret = l;
	return 0;
}

static int pager_left(const struct pager *p, const char *dir, struct err *e)
{
	return p->left ? err_set(e, ECANCELED, "layer %s: the daemon ends", dir)
		       : 0;
}

int pager_layer_open(struct pager *p, const char *dir,
		     const struct store_spec *store, struct pager_layer **ret,
		     struct err *e)
{
	struct pager_layer *l = pager_layer_find(p, dir);
	uint32_t number = 0;
	int r = pager_left(p, dir, e);

	if (r < 0)
		return r;
	if (l) {
		*ret = pager_layer_ref(l);
		return 0;
	}
	r = pager_number(p, hold_number(dir, &number), number, &number);
	if (r < 0)
		return err_set(e, ENOSPC,
			       "layer %s: %u are streamed already, and all in "
			       "use",
			       dir, PAGER_LAYERS_MAX);
	return pager_layer_new(p, number, dir, store, -1, ret, e);
}

int pager_layer_adopt(struct pager *p, const char *dir,
		      const struct store_spec *store, int memory_fd,
		      struct pager_layer **ret, struct err *e)
{
	struct pager_layer *l = pager_layer_find(p, dir);
	uint32_t number = 0;
	int r = pager_left(p, dir, e);

	if (r < 0)
		return r;
	if (l && !hold_is(&l->hold, memory_fd))
		return err_set(e, EBADMSG,
			       "layer %s: the VMM holds another memory of it",
			       dir);
	if (l) {
		*ret = pager_layer_ref(l);
		return 0;
	}
	if (access(dir, F_OK) < 0)
		return err_errno(e, errno, "layer %s", dir);
	/* The name of the socket that the guests' disk is behind. */
	if (!hold_number(dir, &number) || number >= PAGER_LAYERS_MAX ||
	    p->taken[number])
		return err_set(e, EBADMSG,
			       "layer %s: %s/disk.boot does not say which "
			       "number it had",
			       dir, dir);
	return pager_layer_new(p, number, dir, store, memory_fd, ret, e);
}

struct pager_layer *pager_layer_find(const struct pager *p, const char *dir)
{
	for (struct list *i = p->layers.next; i != &p->layers; i = i->next) {
		struct pager_layer *l = list_entry(i, struct pager_layer, link);

		if (!l->forgotten && !strcmp(l->dir, dir))
			return l;
	}
	return NULL;
}

struct pager_layer *pager_layer_ref(struct pager_layer *l)
{
	l->refs++;
	return l;
}

struct pager_layer *pager_layer_unref(struct pager_layer *l)
{
	if (!l)
		return NULL;
	must(l->refs > 0);
	if (--l->refs == 0 && l->forgotten)
		pager_layer_close(l);
	return NULL;
}

void pager_forget(struct pager *p, const char *dir)
{
	struct pager_layer *l = pager_layer_find(p, dir);

	/* Whoever has it open keeps it; the next daemon finds `disk`. */
	hold_forget(dir);
	if (!l)
		return;
	l->forgotten = true;
	if (l->refs == 0)
		pager_layer_close(l);
}

int pager_layer_nbd_dir(const struct pager_layer *l)
{
	return l->nbd_dir_fd;
}

const char *pager_layer_dir(const struct pager_layer *l)
{
	return l->dir;
}

uint32_t pager_layer_number(const struct pager_layer *l)
{
	return l->number;
}

unsigned pager_layer_guests(const struct pager_layer *l)
{
	return l->guests;
}

bool pager_layer_whole(const struct pager_layer *l)
{
	return l->whole;
}

bool pager_layer_disk_lost(const struct pager_layer *l, uint64_t since_ns,
			   struct err *ret)
{
	if (!l->disk_lost.code || l->disk_lost_ns < since_ns)
		return false;
	*ret = l->disk_lost;
	return true;
}

int pager_layer_fd(const struct pager_layer *l)
{
	return l->hold.vmm_fd;
}

int pager_layer_memory_fd(const struct pager_layer *l)
{
	return l->hold.memory_fd;
}

int pager_layer_disk_fd(const struct pager_layer *l)
{
	return l->hold.disk_fd;
}

const struct index *pager_layer_index(const struct pager_layer *l)
{
	return l->hold.index;
}

const struct pager_layer_stats *pager_layer_stats(const struct pager_layer *l)
{
	return &l->pager->stats->layer[l->number];
}

int pager_layer_prefetch(struct pager_layer *l, bool all)
{
	if (l->pager->left)
		return -ECANCELED;
	l->prefetch = true;
	l->all |= all;
	talk_flush(l->pager);
	return 0;
}

int pager_layer_evict(struct pager_layer *l, uint64_t bytes)
{
	if (l->pager->left)
		return -ECANCELED;
	l->evict_bytes = max(l->evict_bytes, bytes);
	talk_flush(l->pager);
	return 0;
}

/* ---- guests ---- */

int pager_guest_add(struct pager_layer *l, int uffd_take, int pidfd,
		    uint64_t ram_addr, uint64_t ram_bytes,
		    void (*failed)(void *arg, const struct err *e), void *arg,
		    struct pager_guest **ret, struct err *e)
{
	guard_fd int uffd = uffd_take;
	struct pager *p = l->pager;
	struct pager_guest *g;
	int r = pager_left(p, l->dir, e);

	if (r < 0)
		return r;
	if (p->n_guests == PAGER_GUESTS_MAX)
		return err_set(e, ENOSPC, "the pager serves %u guests already",
			       PAGER_GUESTS_MAX);
	g = calloc(1, sizeof(*g));
	if (!g)
		return err_errno(e, ENOMEM, "guest of layer %s", l->dir);
	g->pidfd = fcntl(pidfd, F_DUPFD_CLOEXEC, 0);
	if (g->pidfd < 0) {
		r = err_errno(e, errno, "guest of layer %s", l->dir);
		free(g);
		return r;
	}
	g->layer = pager_layer_ref(l);
	l->guests++;
	g->id = ++p->last_guest;
	g->uffd = fd_take(&uffd);
	g->ram_addr = ram_addr;
	g->ram_bytes = ram_bytes;
	g->failed = failed;
	g->arg = arg;
	list_add_tail(&p->guests, &g->link);
	p->n_guests++;
	talk_flush(p);
	*ret = g;
	return 0;
}

struct pager_guest *pager_guest_free(struct pager_guest *g)
{
	struct pager *p;

	if (!g)
		return NULL;
	p = g->layer->pager;
	list_del(&g->link);
	p->n_guests--;
	g->layer->guests--;
	if (g->told)
		talk_gone(p, PAGER_GUEST_GONE, g->layer->number, g->id);
	fd_close(&g->uffd);
	fd_close(&g->pidfd);
	pager_layer_unref(g->layer);
	free(g);
	return NULL;
}
