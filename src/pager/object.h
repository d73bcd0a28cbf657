/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the files of the engine share: its objects, and who may touch what
 *
 *	engine.c   the poller: what is waited for, turns, start and end
 *	layer.c    layers: what is here, prefetch, eviction, the disk's readers
 *	guest.c    guests: faults, who waits, waking and copying
 *	queue.c    the queue of a layer: what comes next
 *	fetch.c    its workers
 *	line.c     the connections of a layer to its store
 *	room.c     a layer's file that is full
 *	need.c     threads that wait for the disk
 *	present.c  which frames two files hold already
 *
 * Every field says in its struct whose it is:
 *	[const]   written before anybody else can see the object
 *	[poller]  the poller's thread only
 *	[lock]    under layer.lock
 *	[table]   under engine.table_lock
 * Of the two locks at most one is held at a time, and none across a system
 * call that can take time.
 */
#include "base/clock.h"
#include "base/list.h"
#include "image/bitmap.h"
#include "image/store.h"
#include "pager/engine.h"

#include <pthread.h>
#include <stdatomic.h>

struct frame_coder;

/* ---- frames of a layer ---- */

/*
 * One byte per frame; both layers of an image count through: memory first.
 *
 *	ABSENT ----> QUEUED     a fault [layer_want], a read [layer_need_disk]
 *	ABSENT ----> AHEAD      [layer_prefetch]
 *	AHEAD -----> QUEUED     a fault or read that overtakes the prefetch
 *	AHEAD, QUEUED -> FETCHING    a worker took it [queue_take]
 *	FETCHING --> PRESENT    it is in the file [layer_settle]
 *	FETCHING --> ABSENT     it failed; the next touch asks again
 *	FETCHING --> QUEUED     it failed, and somebody waits who came later than
 *	                        those for whom that is too late
 *	FETCHING --> RESTING    it failed, and somebody has time to wait
 *	                        [queue_rest]
 *	RESTING ---> QUEUED     for another try [queue_take]
 *	PRESENT ---> ABSENT     evicted [layer_evict]
 *
 * FETCHING is what makes a frame be fetched once per host, whoever asks.
 */
enum frame_state {
	FRAME_ABSENT,
	FRAME_AHEAD,
	FRAME_QUEUED,
	FRAME_FETCHING,
	FRAME_RESTING,
	FRAME_PRESENT,
	FRAME_STATE_COUNT,
};

#define FRAME_USED 1u /* wanted since the eviction's hand went by */
#define FRAME_EARLY 2u /* prefetched, and nobody has wanted it so far */
#define FRAME_TAKEN_AHEAD 4u /* FETCHING from AHEAD */
#define FRAME_HOPELESS 8u /* in results: no use in waiting */

struct layer_frame {
	/* QUEUED: its owner's; RESTING: layer.resting; FETCHING: results */
	struct list link;
	uint64_t asked_ns; /* since when somebody waits; 0: nobody does */
	uint64_t again_ns; /* RESTING: until then */
	struct err *why; /* in results: what went wrong, NULL: nothing */
	_Atomic uint8_t state; /* written under the lock */
	_Atomic uint8_t flags; /* FRAME_* */
	uint8_t rests; /* since it was PRESENT or nobody wanted it */
};

/* Who asked: a guest, or all readers of the disk together. Frames are taken
 * from owners in turn. */
struct owner {
	struct list turn; /* in layer.turns, while it has frames */
	struct list frames;
};

/* ---- lines ---- */

/* The store, as it was opened once. */
struct outlet {
	struct list link; /* [lock] layer.outlets */
	struct store *store; /* [const] */
	uint64_t opened_ns; /* [const] */
	unsigned n_lines; /* [lock] that are, or are being connected */
};

/* A connection to it. */
struct line {
	struct list link; /* [lock] layer.lines_busy or .lines_idle */
	struct outlet *outlet; /* [const] */
	struct store_conn *conn; /* [const]; what is in it: who has it */
	uint64_t idle_ns; /* since when */
};

/* ---- workers ---- */

/* Frames of one job: a chunk of nothing but a few small pages may be some 100
 * bytes, so STORE_COALESCE alone is no limit. */
#define FETCH_FRAMES_MAX 64

/* A worker, and the job it has. Its own thread's but where it says other. */
struct fetch {
	struct layer *layer; /* [const] */
	pthread_t thread;
	struct frame_coder *coder;
	uint8_t *buffer; /* STORE_COALESCE */
	uint32_t ids[FETCH_FRAMES_MAX];
	bool have[FETCH_FRAMES_MAX]; /* settled, needs nothing more */
	bool keep[FETCH_FRAMES_MAX]; /* good bytes for the cache */
	bool bad[FETCH_FRAMES_MAX]; /* not what the index says */
	unsigned n;
	bool ahead;
	uint64_t deadline_ns;
	uint64_t done_ns; /* with the last job */
};

/* ---- layers ---- */

struct layer {
	struct engine *engine; /* [const], as far as .. */
	uint32_t number;
	struct index *index;
	struct store_spec spec; /* of the store, if it has one */
	bool has_store;
	int memory_fd;
	int disk_fd; /* -1: none */
	atomic_bool disk_full; /* a write had no room, and none since */
	struct pager_layer_stats *stats;
	uint32_t n_memory; /* frames of memory; those of the disk follow */
	uint32_t n_frames;
	uint32_t n_ordered;
	uint32_t
		*order; /* ids by source and offset: what touches is adjacent */
	uint32_t *rank; /* id -> place in order */
	struct layer_frame *frames; /* .. here; inside: see above */

	pthread_mutex_t lock;
	pthread_cond_t work; /* there may be something to take */
	pthread_cond_t end; /* the layer is ending */
	struct outlet *outlet; /* [lock] NULL: to be opened */
	struct list outlets; /* [lock] that one, and older ones in use */
	struct store_counts counts_past; /* [lock] of those that are no more */
	struct list lines_busy; /* [lock] */
	struct list lines_idle; /* [lock] given back last: the last one */
	bool ending; /* [lock] */
	unsigned n_alive; /* [lock] workers that have not ended */
	struct list turns; /* [lock] owners with frames */
	struct owner readers; /* [lock] the disk's, and whose guest is gone */
	struct list resting; /* [lock] frames; whose time comes first: first */
	struct list results; /* [lock] */
	struct list needs; /* [lock] */
	uint32_t ahead_at; /* [lock] prefetch: next place in order */
	bool ahead_hot; /* [lock] in its first pass: what is hot */
	bool ahead; /* [lock] there may be some left */
	unsigned ahead_busy; /* [lock] workers with such a job */
	unsigned ahead_jobs; /* [lock] taken so far */

	struct fetch *workers; /* [const] */
	unsigned n_workers;

	struct list guests; /* [poller] */
	struct list waiting; /* [poller] those with waiters */
	unsigned n_guests; /* [poller] */
	uint32_t missing; /* [poller] frames that are not PRESENT */
	bool told_whole; /* [poller] */
	uint64_t late_ns; /* [poller] who waits since then, or longer, has
			   * waited in vain for what is being settled */
	uint32_t hand; /* [poller] of the eviction's clock */
	struct store_counts counts; /* [poller] published so far */

	unsigned users; /* [table] threads inside layer_need_disk() */
	struct list leaving; /* [poller] in engine.leaving */
};

static inline enum index_layer layer_part(const struct layer *l, uint32_t id)
{
	return id < l->n_memory ? INDEX_MEMORY : INDEX_DISK;
}

static inline uint32_t layer_part_id(const struct layer *l, uint32_t id)
{
	return id < l->n_memory ? id : id - l->n_memory;
}

static inline const struct index_frame *layer_stored(const struct layer *l,
						     uint32_t id)
{
	return index_frame(l->index, layer_part(l, id), layer_part_id(l, id));
}

/* Of all pages of frame @id. */
static inline uint64_t layer_frame_bytes(const struct layer *l, uint32_t id)
{
	return layer_stored(l, id)->pages * (uint64_t)INDEX_PAGE;
}

static inline bool layer_has(const struct layer *l, uint32_t id)
{
	return atomic_load_explicit(&l->frames[id].state,
				    memory_order_acquire) == FRAME_PRESENT;
}

static inline enum frame_state frame_state(const struct layer_frame *f)
{
	return (enum frame_state)atomic_load_explicit(&f->state,
						      memory_order_relaxed);
}

static inline void frame_set(struct layer_frame *f, enum frame_state s)
{
	atomic_store_explicit(&f->state, (uint8_t)s, memory_order_release);
}

static inline void layer_lock(struct layer *l)
{
	must(pthread_mutex_lock(&l->lock) == 0);
}

static inline void layer_unlock(struct layer *l)
{
	must(pthread_mutex_unlock(&l->lock) == 0);
}

/* Somebody waits for frame @id, which is not PRESENT: see to it that it comes.
 * @owner is of this layer. */
void layer_want(struct layer *l, uint32_t id, struct owner *owner,
		uint64_t now_ns);
/* The same with the lock held. */
void layer_want_locked(struct layer *l, uint32_t id, struct owner *owner,
		       uint64_t now_ns);
/* A fault or read hit frame @id, which is or will be PRESENT. */
void layer_used(struct layer *l, uint32_t id);
/* What @owner asked for is fetched all the same. */
void layer_disown(struct layer *l, struct owner *owner);
/* Poller: results of the workers. */
void layer_settle(struct layer *l, uint64_t now_ns);
void layer_tell_whole(struct layer *l);
/* Frame @id was settled (@code < 0: it failed); the lock is held. A failure is
 * told to those who wait since layer.late_ns or longer. */
void layer_signal(struct layer *l, uint32_t id, int code);
/* Since when that reader waits for frame @id who has waited longest of those who
 * came later than that; UINT64_MAX: there is none. The lock is held. */
uint64_t layer_readers_since(const struct layer *l, uint32_t id);
/* Its readers wait in vain. */
void layer_refuse(struct layer *l);
/* Poller: a layer that was removed is freed when nobody is in it any more. */
bool layer_reap(struct layer *l, bool wait);
struct layer *layer_find(struct engine *g, uint32_t number);

void owner_init(struct owner *o);

/* Start all of a layer's workers; end them (no waiting), wait for their end. */
int fetch_start(struct layer *l, unsigned n, struct err *e) must_check;
void fetch_end(struct layer *l);
void fetch_join(struct layer *l);
void fetch_why_free(struct err *why);

/* No point in another try when less than this is left. */
#define FETCH_LAST_NS (100 * NS_PER_MS)

/* The lock is held in all of these. */
/* The next job of @w; false: nothing to do. */
bool queue_take(struct fetch *w) must_check;
/* Frame @id waits for a worker. */
void queue_put(struct layer *l, uint32_t id, struct owner *owner);
/* Frame @id, which is FETCHING, did not come; try it again after a while. False:
 * nobody has time for that. */
bool queue_rest(struct layer *l, uint32_t id, uint64_t now_ns) must_check;
/* When the next one has rested; UINT64_MAX: none rests. */
uint64_t queue_again_ns(const struct layer *l);

/* A connection for one request; give it back after it, with its result @r: the
 * store is opened anew when it refuses our keys (-EACCES). */
int line_take(struct layer *l, struct line **ret, struct err *e) must_check;
void line_give(struct layer *l, struct line *line, int r);
/* Close what has been idle since @since_ns or longer. */
void line_close(struct layer *l, uint64_t since_ns);
/* Since when the oldest one is idle; UINT64_MAX: none is. The lock is held. */
uint64_t line_idle_ns(const struct layer *l);
/* Every request under way ends with ECANCELED. The lock is held. */
void line_cancel(struct layer *l);
/* Of all that was opened. */
struct store_counts line_counts(struct layer *l);
/* No thread has a line any more. */
void line_end(struct layer *l);

/* The pages of frame @id into their layer's file. -ENOSPC: it has no room, and the
 * cache has none left to give. */
int room_place(struct layer *l, uint32_t id, const void *raw) must_check;
/* No use in fetching frame @id now: its file is still full. */
bool room_lacks(struct layer *l, uint32_t id) must_check;

/* Mark what @fd holds: frames of @part that are there with all of their pages
 * become PRESENT. */
int present_scan(struct layer *l, enum index_layer part, int fd,
		 struct err *e) must_check;

/* ---- the poller's sources ---- */

struct source {
	void (*ready)(struct source *s, uint32_t events, uint64_t now_ns);
	int fd; /* -1: not watched */
};

int source_add(struct engine *g, struct source *s) must_check;
void source_del(struct engine *g, struct source *s);

/* ---- guests ---- */

/* Pages that one guest waits for. More vCPUs than that, or more asynchronous
 * faults, and the guest is woken as a whole; whoever had no page asks again. */
#define GUEST_WAITERS 64

struct waiter {
	uint64_t page; /* in the layer */
	uint32_t pages; /* 1, or those of a huge page */
	uint64_t since_ns; /* event read */
	bool parked; /* not for a frame: the kernel said EAGAIN, or the page was
		      * surrendered */
};

struct guest {
	uint64_t number; /* [const], as far as .. */
	enum guest_kind kind;
	struct engine *engine;
	struct layer *layer; /* NULL: failed */
	int uffd, pidfd;
	struct engine_region regions[ENGINE_REGIONS_MAX];
	unsigned n_regions;
	struct bitmap removed; /* .. here; COPY: pages of the layer */

	struct source events, ended; /* [poller], all of these */
	struct waiter waiters[GUEST_WAITERS];
	unsigned n_waiters;
	bool overflow;
	unsigned blocked; /* times that the uffd was made to block */
	int fail_code; /* the kernel refused to fill a page: why */
	struct list in_engine; /* engine.guests or .graves */
	struct list in_layer;
	struct list in_waiting; /* layer.waiting */
	struct list in_parked; /* engine.parked */
	struct list in_failing;
	struct owner owner; /* [lock] of its layer */
};

/* Frame @id is here. */
void guest_arrived(struct layer *l, uint32_t id, uint64_t now_ns);
/* Does @w wait for frame @id? */
bool guest_waits_for(const struct layer *l, const struct waiter *w,
		     uint32_t id);
/* Frame @id will not come for those who wait for it since layer.late_ns or
 * longer. */
void guest_refused(struct layer *l, uint32_t id, const struct err *e);
void guest_retry(struct guest *t, uint64_t now_ns);
/* All guests of a layer that goes. */
void guest_orphan(struct layer *l);
void guest_free(struct guest *t);

/* ---- the engine ---- */

struct engine {
	struct engine_config config; /* [const] */
	struct engine_events events; /* [const] */
	int epoll_fd, kick_fd; /* [const] */
	uint8_t *bounce; /* [poller] a huge page */
	const uint8_t *zeros; /* [const] a huge page of them */
	struct source kick; /* [poller] */
	struct list watches; /* [poller] */
	struct list guests; /* [poller] */
	unsigned n_guests;
	struct list parked; /* [poller] */
	struct list graves; /* [poller] guests and watches of this turn */
	struct list watch_graves;
	struct list leaving; /* [poller] layers */
	atomic_bool stop;
	atomic_bool deaf; /* nobody settles any more */

	pthread_mutex_t table_lock;
	pthread_cond_t quiet; /* a layer's last user has left */
	struct layer *layers[PAGER_LAYERS_MAX]; /* [table], written by poller */
};

void engine_kick(struct engine *g); /* any thread */

static inline void engine_lock(struct engine *g)
{
	must(pthread_mutex_lock(&g->table_lock) == 0);
}

static inline void engine_unlock(struct engine *g)
{
	must(pthread_mutex_unlock(&g->table_lock) == 0);
}
