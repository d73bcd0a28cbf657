/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guests: page faults, who waits for what, waking and copying
 *
 *	event --> zero page    UFFDIO_ZEROPAGE, of a few pages that follow, too
 *	          page here    SHARED: UFFDIO_WAKE      COPY: UFFDIO_COPY
 *	          not here     a waiter; its frames are asked for (layer.c)
 *	          EAGAIN       a waiter that is parked; the next turn tries again
 *	          surrendered  zero from now on; its waiters are parked
 *
 * A SHARED guest maps the layer itself. When a frame comes, it is woken for the
 * whole chunk with one call, events that were not read yet included: those who
 * still lack a page fault again. A COPY guest gets the page that it asked for
 * and no more: what it does not touch it does not pay for.
 *
 * Invariants:
 *  1. Nothing here allocates, logs or formats, but adding a guest and failing
 *     one.
 *  2. A guest whose event was read is in one of: served, a waiter, parked,
 *     overflow. Overflow (more waiters than places) is answered by waking all
 *     of it, which brings the events again.
 *  3. What a COPY guest has surrendered (REMOVE) is zero from then on,
 *     whatever the image says; the REMOVEs of one read are applied before its
 *     faults are served, because the kernel hands out faults first. Its waiters
 *     no longer depend on frames: they are parked.
 *  4. While memory is being removed the kernel refuses to fill (EAGAIN) until
 *     the event was read. The fault waits beside, and other events are read
 *     meanwhile.
 *  5. A guest that failed has no layer; nothing is done for it but to notice
 *     its end. Its uffd stays open.
 *  6. The open file of a uffd is its VMM's as well. What that can do to it, as
 *     making it block, costs that guest, and no turn of the others.
 */
#include "pager/object.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "image/bitmap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

/* One read; 32 bytes each. More would let one guest keep the others waiting. */
#define GUEST_EVENTS 128
/* Zero pages filled at once: the next ones are likely next, each of them saves
 * a fault (10 us and more) and costs a page table entry. The kernel's own
 * fault-around is 16 pages, too. */
#define GUEST_ZERO_PAGES 16u
#define HUGE_BYTES (2ull << 20)
/* Times that a VMM may make its userfaultfd block. None has a reason to. */
#define GUEST_BLOCKS 4u

enum served {
	SERVED_DONE,
	SERVED_WAIT,
	SERVED_PARK,
	SERVED_FAIL,
	SERVED_COUNT,
};

/* ---- addresses ---- */

static const struct engine_region *guest_region(const struct guest *t,
						uint64_t page)
{
	uint64_t offset = page * INDEX_PAGE;

	for (unsigned i = 0; i < t->n_regions; i++)
		if (offset - t->regions[i].offset < t->regions[i].bytes)
			return &t->regions[i];
	return NULL;
}

static uint64_t guest_addr(const struct engine_region *r, uint64_t page)
{
	return r->addr + (page * INDEX_PAGE - r->offset);
}

static void guest_wake_range(const struct guest *t, uint64_t addr,
			     uint64_t bytes)
{
	struct uffdio_range r = { .start = addr, .len = bytes };

	/* Only a range that is no range could make it fail. */
	err_drop(ioctl(t->uffd, UFFDIO_WAKE, &r));
}

/* Wake whoever waits inside [offset, offset + bytes) of the layer. */
static void guest_wake(const struct guest *t, uint64_t offset, uint64_t bytes)
{
	for (unsigned i = 0; i < t->n_regions; i++) {
		const struct engine_region *r = &t->regions[i];
		uint64_t from = max(offset, r->offset);
		uint64_t to = min(offset + bytes, r->offset + r->bytes);

		if (from < to)
			guest_wake_range(t, r->addr + (from - r->offset),
					 to - from);
	}
}

static void guest_wake_all(const struct guest *t)
{
	for (unsigned i = 0; i < t->n_regions; i++)
		guest_wake_range(t, t->regions[i].addr, t->regions[i].bytes);
}

/* ---- serving ---- */

static bool guest_removed(const struct guest *t, uint64_t page)
{
	return t->removed.bits && bitmap_get(&t->removed, page);
}

static bool guest_is_zero(const struct guest *t, uint64_t page)
{
	return guest_removed(t, page) ||
	       index_frame_of(t->layer->index, INDEX_MEMORY, page) ==
		       UINT32_MAX;
}

/* What became of an ioctl that fills: @r its result, @done the bytes. */
static enum served guest_filled(struct guest *t, int r, int64_t done,
				uint64_t addr, uint64_t bytes)
{
	int code = r < 0 ? errno : 0;

	if (r == 0 || done > 0)
		return SERVED_DONE;
	switch (code) {
	case EEXIST: /* somebody was faster, and may not have woken */
	case ENOENT: /* unmapped or replaced meanwhile, which wakes nobody */
		guest_wake_range(t, addr, bytes);
		return SERVED_DONE;
	case EAGAIN:
		return SERVED_PARK;
	case ESRCH: /* the process has ended */
		return SERVED_DONE;
	default:
		t->fail_code = code;
		return SERVED_FAIL;
	}
}

static enum served guest_copy(struct guest *t, const struct engine_region *r,
			      uint64_t page, const void *from)
{
	struct uffdio_copy c = {
		.dst = guest_addr(r, page),
		.src = (uintptr_t)from,
		.len = r->page_bytes,
	};
	int code = ioctl(t->uffd, UFFDIO_COPY, &c);

	return guest_filled(t, code, c.copy, c.dst, c.len);
}

static enum served guest_zero(struct guest *t, const struct engine_region *r,
			      uint64_t page)
{
	uint64_t end = (r->offset + r->bytes) / INDEX_PAGE, n = 1;
	struct uffdio_zeropage z = { 0 };
	int code;

	if (r->page_bytes != INDEX_PAGE) /* the kernel has none of that size */
		return guest_copy(t, r, page, t->engine->zeros);
	while (n < GUEST_ZERO_PAGES && page + n < end &&
	       guest_is_zero(t, page + n))
		n++;
	z.range.start = guest_addr(r, page);
	z.range.len = n * INDEX_PAGE;
	code = ioctl(t->uffd, UFFDIO_ZEROPAGE, &z);
	if (code < 0 && errno == ENOENT && n > 1) {
		/* What follows is another mapping. */
		z.range.len = INDEX_PAGE;
		z.zeropage = 0;
		code = ioctl(t->uffd, UFFDIO_ZEROPAGE, &z);
	}
	return guest_filled(t, code, z.zeropage, z.range.start, INDEX_PAGE);
}

/* Copy a page, or a huge one, of the layer; all of its frames are there. */
static enum served guest_fill(struct guest *t, const struct engine_region *r,
			      uint64_t page)
{
	uint8_t *p = t->engine->bounce;
	ssize_t n = io_pread_full(t->layer->memory_fd, p, r->page_bytes,
				  page * INDEX_PAGE);

	if (n < 0 || (uint64_t)n < r->page_bytes) {
		t->fail_code = n < 0 ? (int)-n : EIO;
		return SERVED_FAIL;
	}
	for (uint64_t i = 0; i < r->page_bytes / INDEX_PAGE; i++)
		if (guest_removed(t, page + i))
			memset(p + i * INDEX_PAGE, 0, INDEX_PAGE);
	return guest_copy(t, r, page, p);
}

/* Frames that a page of @pages needs and that are not here are asked for with
 * @want; true: there are some. @ret_used: one of them. */
static bool guest_lacks(struct guest *t, uint64_t page, uint64_t pages,
			bool want, uint64_t now_ns)
{
	struct layer *l = t->layer;
	uint32_t id = (uint32_t)(page / INDEX_CHUNK_PAGES) * 2;
	uint32_t end = (uint32_t)((page + pages - 1) / INDEX_CHUNK_PAGES) * 2;
	bool lacks = false;

	if (pages == 1) {
		id = index_frame_of(l->index, INDEX_MEMORY, page);
		if (layer_has(l, id))
			return false;
		if (want)
			layer_want(l, id, &t->owner, now_ns);
		return true;
	}
	for (; id <= end + 1; id++) {
		if (layer_has(l, id))
			continue;
		lacks = true;
		if (want)
			layer_want(l, id, &t->owner, now_ns);
	}
	return lacks;
}

/* A page, or a huge one, whose frames are here was touched. Of a huge one any
 * part may be zero, and so in no frame. */
static void guest_used(const struct guest *t, uint64_t page, uint64_t pages)
{
	uint32_t last = UINT32_MAX, id;

	for (uint64_t i = 0; i < pages; i++) {
		id = index_frame_of(t->layer->index, INDEX_MEMORY, page + i);
		if (id == UINT32_MAX || id == last)
			continue;
		layer_used(t->layer, id);
		last = id;
	}
}

static bool guest_all_zero(const struct guest *t, uint64_t page, uint64_t pages)
{
	for (uint64_t i = 0; i < pages; i++)
		if (!guest_is_zero(t, page + i))
			return false;
	return true;
}

/* Give the guest its page, if that can be done now. */
static enum served guest_serve(struct guest *t, const struct engine_region *r,
			       uint64_t page)
{
	if (t->kind == GUEST_SHARED) {
		guest_wake_range(t, guest_addr(r, page), INDEX_PAGE);
		return SERVED_DONE;
	}
	return guest_fill(t, r, page);
}

static void guest_latency(struct guest *t, uint64_t since_ns)
{
	uint64_t us = (clock_mono_ns() - since_ns) / 1000;
	unsigned b = us ? 64 - (unsigned)__builtin_clzll(us) : 0;

	PAGER_COUNT(t->layer->stats->latency[min(b, PAGER_LATENCY_BUCKETS - 1)],
		    1);
}

/* ---- waiters ---- */

static struct waiter *guest_waiter(struct guest *t, uint64_t page)
{
	for (unsigned i = 0; i < t->n_waiters; i++)
		if (t->waiters[i].page == page)
			return &t->waiters[i];
	return NULL;
}

/* Its parked waiters are tried again, at the end of a turn. */
static void guest_park(struct guest *t)
{
	if (list_empty(&t->in_parked))
		list_add_tail(&t->engine->parked, &t->in_parked);
}

static void guest_wait(struct guest *t, uint64_t page, uint64_t pages,
		       bool parked, uint64_t now_ns)
{
	struct waiter *w = guest_waiter(t, page);

	if (parked)
		guest_park(t);
	if (list_empty(&t->in_waiting))
		list_add_tail(&t->layer->waiting, &t->in_waiting);
	if (w) {
		w->parked = w->parked || parked;
		return;
	}
	if (t->n_waiters == GUEST_WAITERS) {
		t->overflow = true;
		return;
	}
	t->waiters[t->n_waiters++] = (struct waiter){
		.page = page,
		.pages = (uint32_t)pages,
		.since_ns = now_ns,
		.parked = parked,
	};
}

/* Its place is taken by the last one. */
static void guest_waiter_done(struct guest *t, struct waiter *w)
{
	guest_latency(t, w->since_ns);
	*w = t->waiters[--t->n_waiters];
}

static void guest_waiters_end(struct guest *t)
{
	if (!t->n_waiters && !t->overflow)
		list_del(&t->in_waiting);
}

bool guest_waits_for(const struct layer *l, const struct waiter *w, uint32_t id)
{
	uint64_t first = (uint64_t)(id / 2) * INDEX_CHUNK_PAGES;

	if (w->pages == 1)
		return index_frame_of(l->index, INDEX_MEMORY, w->page) == id;
	return w->page < first + INDEX_CHUNK_PAGES &&
	       first < w->page + w->pages;
}

/* ---- ends ---- */

static void guest_detach(struct guest *t)
{
	struct layer *l = t->layer;

	source_del(t->engine, &t->events);
	list_del(&t->in_waiting);
	list_del(&t->in_parked);
	list_del(&t->in_failing);
	t->n_waiters = 0;
	t->overflow = false;
	if (!l)
		return;
	layer_disown(l, &t->owner);
	list_del(&t->in_layer);
	t->layer = NULL;
	PAGER_SET(l->stats->guests, --l->n_guests);
}

static void guest_bury(struct guest *t)
{
	guest_detach(t);
	source_del(t->engine, &t->ended);
	list_del(&t->in_engine);
	list_add_tail(&t->engine->graves, &t->in_engine);
	t->engine->n_guests--;
}

static void guest_fail(struct guest *t, const struct err *e)
{
	struct engine *g = t->engine;

	PAGER_COUNT(t->layer->stats->failed_guests, 1);
	guest_detach(t);
	if (g->events.guest_failed)
		g->events.guest_failed(g->config.arg, t->number, e);
}

/* All of @failing, for the reason @e, or each for its own. A callback may take
 * others off the list. */
static void guest_fail_all(struct list *failing, const struct err *e)
{
	while (!list_empty(failing)) {
		struct guest *t =
			list_entry(failing->next, struct guest, in_failing);
		struct err own = ERR_NULL;

		if (!e)
			err_errno(&own, t->fail_code,
				  "fill a page of the guest's memory");
		guest_fail(t, e ? e : &own);
	}
}

void guest_refused(struct layer *l, uint32_t id, const struct err *e)
{
	struct list failing = LIST_INIT(failing);
	struct guest *t, *tmp;

	list_for_each (t, tmp, &l->waiting, struct guest, in_waiting) {
		for (unsigned i = 0; i < t->n_waiters; i++) {
			if (t->waiters[i].parked ||
			    t->waiters[i].since_ns > l->late_ns ||
			    !guest_waits_for(l, &t->waiters[i], id))
				continue;
			list_add_tail(&failing, &t->in_failing);
			break;
		}
		/* Who is not on our list asks again. */
		if (t->overflow && list_empty(&t->in_failing)) {
			t->overflow = false;
			guest_wake_all(t);
		}
	}
	guest_fail_all(&failing, e);
}

void guest_orphan(struct layer *l)
{
	struct list failing = LIST_INIT(failing);
	struct guest *t, *tmp;
	struct err e = ERR_NULL;

	err_set(&e, ESHUTDOWN, "the layer of the guest is closed");
	list_for_each (t, tmp, &l->guests, struct guest, in_layer) {
		list_del(&t->in_failing);
		list_add_tail(&failing, &t->in_failing);
	}
	guest_fail_all(&failing, &e);
}

static void guest_ended(struct source *s, unused uint32_t events,
			unused uint64_t now_ns)
{
	struct guest *t = container_of(s, struct guest, ended);
	struct engine *g = t->engine;
	bool failed = !t->layer;

	guest_bury(t);
	if (!failed && g->events.guest_ended)
		g->events.guest_ended(g->config.arg, t->number);
}

/* ---- arrivals ---- */

/* Waiter @w, whose frame came or whose time it is; true: it is done. */
static bool guest_try(struct guest *t, struct waiter *w, uint64_t now_ns)
{
	const struct engine_region *r = guest_region(t, w->page);
	enum served s;

	if (guest_all_zero(t, w->page, w->pages))
		s = guest_zero(t, r, w->page);
	else if (guest_lacks(t, w->page, w->pages, true, now_ns))
		s = SERVED_WAIT;
	else
		s = guest_serve(t, r, w->page);
	w->parked = s == SERVED_PARK;
	if (w->parked)
		guest_park(t);
	return s != SERVED_WAIT && s != SERVED_PARK;
}

/* Those of @t that wait for frame @id. */
static void guest_arrived_one(struct guest *t, uint32_t id, uint64_t now_ns)
{
	struct layer *l = t->layer;
	bool wake = false;

	for (unsigned i = t->n_waiters; i-- > 0;) {
		struct waiter *w = &t->waiters[i];

		if (w->parked || !guest_waits_for(l, w, id))
			continue;
		if (t->kind == GUEST_COPY && !guest_try(t, w, now_ns))
			continue;
		wake = true;
		guest_waiter_done(t, w);
	}
	if (t->kind == GUEST_SHARED && wake && !t->overflow)
		guest_wake(t, (uint64_t)(id / 2) * INDEX_CHUNK, INDEX_CHUNK);
	if (t->overflow) {
		t->overflow = false;
		guest_wake_all(t);
	}
	guest_waiters_end(t);
}

void guest_arrived(struct layer *l, uint32_t id, uint64_t now_ns)
{
	struct list failing = LIST_INIT(failing);
	struct guest *t, *tmp;

	list_for_each (t, tmp, &l->waiting, struct guest, in_waiting) {
		guest_arrived_one(t, id, now_ns);
		if (t->fail_code)
			list_add_tail(&failing, &t->in_failing);
	}
	guest_fail_all(&failing, NULL);
}

void guest_retry(struct guest *t, uint64_t now_ns)
{
	struct list failing = LIST_INIT(failing);

	for (unsigned i = t->n_waiters; i-- > 0;)
		if (t->waiters[i].parked &&
		    guest_try(t, &t->waiters[i], now_ns))
			guest_waiter_done(t, &t->waiters[i]);
	if (t->overflow) {
		t->overflow = false;
		guest_wake_all(t);
	}
	guest_waiters_end(t);
	if (t->fail_code)
		list_add_tail(&failing, &t->in_failing);
	guest_fail_all(&failing, NULL);
}

/* ---- events ---- */

/* Who waits for surrendered pages waits for no frame any more, whether it comes
 * or fails; nor need those who had no place wait for others' frames. */
static void guest_remove_pages(struct guest *t, uint64_t page, uint64_t pages)
{
	bool any = t->overflow;

	bitmap_set_run(&t->removed, page, pages);
	for (unsigned i = 0; i < t->n_waiters; i++) {
		struct waiter *w = &t->waiters[i];

		if (w->page < page + pages && page < w->page + w->pages)
			w->parked = any = true;
	}
	if (any)
		guest_park(t);
}

static void guest_remove(struct guest *t, uint64_t start, uint64_t end)
{
	if (!t->removed.bits)
		return;
	for (unsigned i = 0; i < t->n_regions; i++) {
		const struct engine_region *r = &t->regions[i];
		uint64_t from = max(start, r->addr);
		uint64_t to = min(end, r->addr + r->bytes);

		if (from < to)
			guest_remove_pages(
				t, (from - r->addr + r->offset) / INDEX_PAGE,
				(to - from) / INDEX_PAGE);
	}
}

/* The fault's page, the first of a huge one; false: not of our regions. */
static bool guest_locate(const struct guest *t, uint64_t addr,
			 const struct engine_region **ret, uint64_t *ret_page)
{
	for (unsigned i = 0; i < t->n_regions; i++) {
		const struct engine_region *r = &t->regions[i];

		if (addr - r->addr >= r->bytes)
			continue;
		*ret = r;
		*ret_page = (r->offset +
			     (addr - r->addr) / r->page_bytes * r->page_bytes) /
			    INDEX_PAGE;
		return true;
	}
	return false;
}

static enum served guest_fault(struct guest *t, uint64_t addr, uint64_t now_ns)
{
	struct pager_layer_stats *stats = t->layer->stats;
	const struct engine_region *r = NULL;
	uint64_t page = 0, pages;
	enum served s;

	PAGER_COUNT(stats->faults, 1);
	if (!guest_locate(t, addr, &r, &page)) {
		t->fail_code = EFAULT;
		return SERVED_FAIL;
	}
	pages = r->page_bytes / INDEX_PAGE;
	if (guest_all_zero(t, page, pages)) {
		PAGER_COUNT(stats->faults_zero, 1);
		s = guest_zero(t, r, page);
	} else if (guest_lacks(t, page, pages, true, now_ns)) {
		PAGER_COUNT(stats->faults_waited, 1);
		s = SERVED_WAIT;
	} else {
		PAGER_COUNT(stats->faults_present, 1);
		guest_used(t, page, pages);
		s = guest_serve(t, r, page);
	}
	if (s == SERVED_DONE)
		guest_latency(t, now_ns);
	else if (s != SERVED_FAIL)
		guest_wait(t, page, pages, s == SERVED_PARK, now_ns);
	return s;
}

static void guest_events(struct guest *t, const struct uffd_msg *m, unsigned n,
			 uint64_t now_ns)
{
	struct list failing = LIST_INIT(failing);

	for (unsigned i = 0; i < n; i++)
		if (m[i].event == UFFD_EVENT_REMOVE)
			guest_remove(t, m[i].arg.remove.start,
				     m[i].arg.remove.end);
		else if (m[i].event == UFFD_EVENT_FORK)
			close((int)m[i].arg.fork.ufd);
	for (unsigned i = 0; i < n && !t->fail_code; i++)
		if (m[i].event == UFFD_EVENT_PAGEFAULT)
			guest_fault(t, m[i].arg.pagefault.address, now_ns);
	if (t->fail_code)
		list_add_tail(&failing, &t->in_failing);
	guest_fail_all(&failing, NULL);
}

/* The VMM shares the open file and can make it block, and then everybody's
 * faults would wait for one guest's. Kernels since 6.10 can be told not to; on
 * older ones guest_unblock() leaves it an instant. */
static ssize_t guest_read(int uffd, void *p, size_t len)
{
	struct iovec v = { .iov_base = p, .iov_len = len };
	ssize_t n = preadv2(uffd, &v, 1, -1, RWF_NOWAIT);

	return n < 0 && errno == EOPNOTSUPP ? read(uffd, p, len) : n;
}

/* Of a userfaultfd that blocks, epoll says EPOLLERR without end, and not
 * whether there are faults. False: the guest has failed. */
static bool guest_unblock(struct guest *t)
{
	struct err e = ERR_NULL;
	int r = io_set_nonblock(t->uffd, true);

	if (r == 0 && t->blocked++ < GUEST_BLOCKS)
		return true;
	if (r < 0)
		err_errno(&e, -r, "make a userfaultfd not block");
	else
		err_set(&e, EPROTO,
			"its process keeps making the userfaultfd block");
	guest_fail(t, &e);
	return false;
}

static void guest_ready(struct source *s, uint32_t events, uint64_t now_ns)
{
	struct guest *t = container_of(s, struct guest, events);
	struct uffd_msg m[GUEST_EVENTS] = { 0 };
	struct err e = ERR_NULL;
	ssize_t n;

	if (events & EPOLLERR && !guest_unblock(t))
		return;
	n = guest_read(t->uffd, m, sizeof(m));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	/* Not what the end of its process looks like: there is nothing to
	 * read then. */
	if (n <= 0) {
		err_errno(&e, n < 0 ? errno : EIO, "read page faults");
		guest_fail(t, &e);
		return;
	}
	guest_events(t, m, (unsigned)((size_t)n / sizeof(m[0])), now_ns);
}

/* ---- start ---- */

static int guest_check(const struct layer *l, enum guest_kind kind,
		       const struct engine_region *r, struct err *e)
{
	uint64_t bytes = index_layer_bytes(l->index, INDEX_MEMORY);

	if (r->page_bytes != INDEX_PAGE &&
	    (r->page_bytes != HUGE_BYTES || kind != GUEST_COPY))
		return err_set(e, EINVAL, "pages of %llu bytes",
			       (unsigned long long)r->page_bytes);
	if (!r->bytes || r->bytes % r->page_bytes || r->addr % r->page_bytes ||
	    r->offset % INDEX_PAGE || r->addr + r->bytes < r->addr)
		return err_set(e, EINVAL, "a region is not whole pages");
	if (r->offset > bytes || r->bytes > bytes - r->offset)
		return err_set(e, EINVAL,
			       "a region ends behind the image's memory");
	return 0;
}

void guest_free(struct guest *t)
{
	if (!t)
		return;
	list_del(&t->in_engine);
	bitmap_deinit(&t->removed);
	fd_close(&t->uffd);
	fd_close(&t->pidfd);
	free(t);
}

static void guest_freep(struct guest **t)
{
	guest_free(*t);
}

static struct guest *guest_new(struct engine *g, uint64_t number, int uffd_take,
			       int pidfd_take)
{
	struct guest *t = calloc(1, sizeof(*t));

	if (!t) {
		fd_close(&uffd_take);
		fd_close(&pidfd_take);
		return NULL;
	}
	t->number = number;
	t->engine = g;
	t->uffd = uffd_take;
	t->pidfd = pidfd_take;
	t->events = (struct source){ .ready = guest_ready, .fd = -1 };
	t->ended = (struct source){ .ready = guest_ended, .fd = -1 };
	list_init(&t->in_engine);
	list_init(&t->in_layer);
	list_init(&t->in_waiting);
	list_init(&t->in_parked);
	list_init(&t->in_failing);
	owner_init(&t->owner);
	return t;
}

static struct guest *guest_find(const struct engine *g, uint64_t number)
{
	struct guest *t, *tmp;

	list_for_each (t, tmp, &g->guests, struct guest, in_engine)
		if (t->number == number)
			return t;
	return NULL;
}

/* The last step: from here on events come. */
static int guest_watch(struct guest *t, struct err *e)
{
	int r = io_set_nonblock(t->uffd, true);

	if (r < 0)
		return err_errno(e, -r, "make a userfaultfd not block");
	if (t->pidfd >= 0) {
		t->ended.fd = t->pidfd;
		r = source_add(t->engine, &t->ended);
		if (r < 0)
			return err_errno(e, -r, "watch a guest's process");
	}
	t->events.fd = t->uffd;
	r = source_add(t->engine, &t->events);
	if (r < 0) {
		source_del(t->engine, &t->ended);
		return err_errno(e, -r, "watch a userfaultfd");
	}
	return 0;
}

static int guest_regions(struct guest *t, const struct layer *l,
			 const struct engine_region *regions, unsigned n,
			 struct err *e)
{
	int r = 0;

	if (n == 0 || n > ENGINE_REGIONS_MAX)
		return err_set(e, EINVAL, "%u regions, 1 to %u can be", n,
			       ENGINE_REGIONS_MAX);
	for (unsigned i = 0; i < n && r == 0; i++) {
		r = guest_check(l, t->kind, &regions[i], e);
		t->regions[i] = regions[i];
	}
	t->n_regions = n;
	if (r == 0 && t->kind == GUEST_COPY) {
		r = bitmap_init(&t->removed,
				index_layer_bytes(l->index, INDEX_MEMORY) /
					INDEX_PAGE);
		if (r < 0)
			err_errno(e, -r, "make a guest");
	}
	return r;
}

int guest_add(struct engine *g, uint64_t guest, enum guest_kind kind,
	      uint32_t layer, int uffd_take, int pidfd_take,
	      const struct engine_region *regions, unsigned n_regions,
	      struct err *e)
{
	guard(guest_freep) struct guest *t =
		guest_new(g, guest, uffd_take, pidfd_take);
	struct layer *l = layer_find(g, layer);
	int r;

	if (!t)
		return err_errno(e, ENOMEM, "make a guest");
	if (!l)
		return err_set(e, ENOENT, "there is no layer %u", layer);
	if (guest_find(g, guest))
		return err_set(e, EEXIST, "there is a guest %llu",
			       (unsigned long long)guest);
	if (g->n_guests >= PAGER_GUESTS_MAX)
		return err_set(e, ENOSPC, "%u guests, no more can be",
			       PAGER_GUESTS_MAX);
	t->kind = kind;
	r = guest_regions(t, l, regions, n_regions, e);
	if (r == 0)
		r = guest_watch(t, e);
	if (r < 0)
		return r;
	t->layer = l;
	list_add_tail(&l->guests, &t->in_layer);
	list_add_tail(&g->guests, &t->in_engine);
	g->n_guests++;
	PAGER_SET(l->stats->guests, ++l->n_guests);
	guest_wake_all(t);
	take(t);
	return 0;
}

void guest_forget(struct engine *g, uint64_t guest)
{
	struct guest *t = guest_find(g, guest);

	if (t)
		guest_bury(t);
}
