/* SPDX-License-Identifier: Apache-2.0 */
/*
 * COPY guests: huge pages, memory that is surrendered while somebody waits for
 * it, userfaultfds that are made to block
 */
#include "pager/test_stream.h"

#include <poll.h>
#include <stdatomic.h>

#define DEADLINE (20 * NS_PER_SEC)
#define HUGE_BYTES (2ull << 20)

/* ---- huge pages ---- */

/* The first page of the sixth is zero; there are hot and cold ones in all. */
#define HUGES 6u

/* This process as a guest. Huge pages are the engine's unit, whatever the
 * kernel has below: so this needs none of the system's few. */
static void huge_map(struct child *c)
{
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	uint8_t *p = mmap(NULL, (HUGES + 1) * HUGE_BYTES,
			  PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	check(p != MAP_FAILED);
	p += -(uintptr_t)p % HUGE_BYTES;
	check(madvise(p, HUGES * HUGE_BYTES, MADV_NOHUGEPAGE) == 0);
	c->mem = p;
	c->uffd = test_uffd(UFFD_FEATURE_EVENT_REMOVE);
	reg.range.start = (uintptr_t)p;
	reg.range.len = HUGES * HUGE_BYTES;
	check(ioctl(c->uffd, UFFDIO_REGISTER, &reg) == 0);
}

/* All is here before the first fault: each frame is marked as used, once, and
 * a page that is in none is not taken for one. */
static void test_huge_present(void)
{
	struct engine_region region = { .bytes = HUGES * HUGE_BYTES,
					.page_bytes = HUGE_BYTES };
	struct pager_layer_stats *l;
	struct err e = ERR_NULL;
	struct stream s;
	struct child c;
	struct rig r;

	stream_new(&s, 1, HUGES * HUGE_BYTES / PAGE, 0);
	check(stream_zero((HUGES - 1) * HUGE_BYTES / PAGE));
	c = (struct child){ .stream = &s, .pages = s.pages[INDEX_MEMORY] };
	huge_map(&c);
	rig_new(&r, DEADLINE, NULL, 2);
	l = &r.stats->layer[0];
	rig_layer(&r, 0, &s, false);
	region.addr = (uintptr_t)c.mem;
	check(guest_add(r.engine, 1, GUEST_COPY, 0, c.uffd, -1, &region, 1,
			&e) == 0);
	rig_start(&r);
	rig_call(&r, rig_prefetch_all, NULL);
	rig_until(&r, &r.whole, 1);
	for (uint64_t p = 0; p < c.pages; p++)
		check(child_page_ok(&c, p));
	check(rig_stat(&l->faults_present) == HUGES);
	check(rig_stat(&l->prefetch_hits) == rig_stat(&l->frames_prefetch));
	rig_stop(&r);
	stream_end(&s);
}

/* ---- replaced while it is waited for ---- */

struct replaced {
	const volatile uint8_t *at;
	pthread_t thread;
};

static void *replaced_main(void *arg)
{
	const struct replaced *t = arg;

	return (void *)(uintptr_t)*t->at;
}

static void touch(struct replaced *t, int uffd)
{
	struct pollfd p = { .fd = uffd, .events = POLLIN };

	check(pthread_create(&t->thread, NULL, replaced_main, t) == 0);
	check(poll(&p, 1, (int)(DEADLINE / NS_PER_MS)) == 1);
}

/* A VMM puts another mapping where a zero page is waited for, as the shim does
 * when the guest surrenders it: the page cannot be filled, and who waits must
 * look again. */
static void test_replaced(void)
{
	struct engine_region region = { .bytes = HUGES * HUGE_BYTES,
					.page_bytes = PAGE };
	struct replaced t = { 0 };
	struct err e = ERR_NULL;
	uint64_t page = 0;
	void *got = &t;
	struct stream s;
	struct child c;
	struct rig r;

	stream_new(&s, 1, HUGES * HUGE_BYTES / PAGE, 0);
	while (!stream_zero(page))
		page++;
	c = (struct child){ .stream = &s, .pages = s.pages[INDEX_MEMORY] };
	huge_map(&c);
	rig_new(&r, DEADLINE, NULL, 2);
	rig_layer(&r, 0, &s, false);
	region.addr = (uintptr_t)c.mem;
	check(guest_add(r.engine, 1, GUEST_COPY, 0, c.uffd, -1, &region, 1,
			&e) == 0);
	t.at = c.mem + page * PAGE;
	touch(&t, c.uffd);
	check(mmap((void *)(uintptr_t)t.at, PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == t.at);
	rig_start(&r);
	check(pthread_join(t.thread, &got) == 0 && !got);
	rig_stop(&r);
	stream_end(&s);
}

/* ---- surrendered while it is waited for ---- */

/* More than a guest has places for waiters, and fewer. */
#define CROWD 100u
#define ROUNDS 60u
#define SURRENDERERS 3u

struct waiting {
	struct child *c;
	uint64_t page;
	pthread_t thread;
	uint8_t got;
};

static void *waiting_main(void *arg)
{
	struct waiting *w = arg;

	w->got = w->c->mem[w->page * PAGE + 8];
	return NULL;
}

/* Threads that wait for one page each; these are not zero in the image. */
static void waiting_start(struct waiting *w, unsigned n, struct child *c)
{
	uint64_t page = 0;

	for (unsigned i = 0; i < n; i++, page++) {
		while (stream_zero(page))
			page++;
		w[i] = (struct waiting){ .c = c, .page = page, .got = 1 };
		if (pthread_create(&w[i].thread, NULL, waiting_main, &w[i]))
			_exit(2);
	}
}

static bool waiting_ended(struct waiting *w)
{
	pthread_join(w->thread, NULL);
	return w->got == 0;
}

static void surrender(const struct child *c, uint64_t page, uint64_t n)
{
	if (madvise((void *)(uintptr_t)(c->mem + page * PAGE), n * PAGE,
		    MADV_DONTNEED))
		_exit(2);
}

/* Those for whom there was no place first. */
static int body_removed(struct child *c)
{
	struct waiting w[CROWD];

	waiting_start(w, CROWD, c);
	child_wait(c);
	for (unsigned i = CROWD; i-- > 0;) {
		surrender(c, w[i].page, 1);
		if (!waiting_ended(&w[i]))
			return 1;
	}
	child_tell(c);
	child_wait(c);
	return 0;
}

static int body_one(struct child *c)
{
	return child_page_ok(c, 0) ? 0 : 1;
}

static void child_hear_soon(struct child *c)
{
	struct pollfd p = { .fd = c->told[0], .events = POLLIN };

	check(poll(&p, 1, 10000) == 1);
	child_hear(c);
}

static void away(const struct stream *s)
{
	char path[600], to[600];

	stream_path(s, path);
	snprintf(to, sizeof(to), "%s/away", s->dir);
	check(rename(path, to) == 0);
}

/* Pages that are waited for and surrendered are zero at once, and it is all one
 * that their frame then fails: it is another guest's, who has kept his. */
static void test_removed(void)
{
	struct child a, b;
	struct stream s;
	struct rig r;

	stream_new(&s, 3, 1024, 0);
	away(&s);
	child_new(&a, &s, GUEST_COPY, UFFD_FEATURE_EVENT_REMOVE, body_removed);
	child_new(&b, &s, GUEST_COPY, UFFD_FEATURE_EVENT_REMOVE, body_one);
	rig_new(&r, 3 * NS_PER_SEC, NULL, 2);
	rig_layer(&r, 0, &s, false);
	child_add(&a, r.engine, 1, 0);
	child_add(&b, r.engine, 2, 0);
	rig_start(&r);
	child_go(&a);
	while (rig_stat(&r.stats->layer[0].faults_waited) < CROWD)
		usleep(1000);
	child_go(&b);
	child_go(&a);
	child_hear_soon(&a);
	rig_until(&r, &r.failed, 1);
	usleep(20000);
	check(rig_count(&r, &r.failed) == 1 && r.last_failed == 2);
	child_go(&a);
	child_end(&a);
	child_kill(&b);
	rig_stop(&r);
	stream_end(&s);
}

struct surrenderer {
	struct child *c;
	uint64_t page;
	pthread_t thread;
	atomic_bool stop;
};

static void *surrenderer_main(void *arg)
{
	struct surrenderer *t = arg;

	while (!t->stop) {
		surrender(t->c, t->page, 8);
		t->c->mem[t->page * PAGE] = 1;
	}
	return NULL;
}

/* A second fault on each page that is waited for and was surrendered, while
 * other memory is, so that the kernel refuses many of them (EAGAIN). */
static int body_refault(struct child *c)
{
	struct surrenderer t[SURRENDERERS];
	struct waiting w[ROUNDS];

	waiting_start(w, ROUNDS, c);
	child_wait(c);
	for (unsigned i = 0; i < SURRENDERERS; i++) {
		t[i].c = c;
		t[i].page = c->pages - 16 * (i + 1);
		t[i].stop = false;
		if (pthread_create(&t[i].thread, NULL, surrenderer_main, &t[i]))
			return 2;
	}
	for (unsigned i = 0; i < ROUNDS; i++) {
		surrender(c, w[i].page, 1);
		if (c->mem[w[i].page * PAGE + 8])
			return 1;
	}
	for (unsigned i = 0; i < ROUNDS; i++)
		if (!waiting_ended(&w[i]))
			return 1;
	for (unsigned i = 0; i < SURRENDERERS; i++) {
		t[i].stop = true;
		pthread_join(t[i].thread, NULL);
	}
	child_tell(c);
	return 0;
}

static void test_refault(void)
{
	struct child a;
	struct stream s;
	struct rig r;

	stream_new(&s, 4, 1024, 0);
	away(&s);
	child_new(&a, &s, GUEST_COPY, UFFD_FEATURE_EVENT_REMOVE, body_refault);
	rig_new(&r, 2 * DEADLINE, NULL, 2);
	rig_layer(&r, 0, &s, false);
	child_add(&a, r.engine, 1, 0);
	rig_start(&r);
	child_go(&a);
	while (rig_stat(&r.stats->layer[0].faults_waited) < ROUNDS)
		usleep(1000);
	child_go(&a);
	child_hear_soon(&a);
	child_end(&a);
	rig_stop(&r);
	stream_end(&s);
}

/* ---- a userfaultfd that blocks ---- */

static void block(const struct child *c)
{
	if (fcntl(c->uffd, F_SETFL, 0) < 0)
		_exit(2);
}

static int body_block(struct child *c)
{
	block(c);
	if (!child_page_ok(c, 0))
		return 1;
	child_tell(c);
	child_wait(c);
	return child_page_ok(c, 1) ? 0 : 1;
}

/* For as long as it is served. */
static int body_block_always(struct child *c)
{
	for (uint64_t p = 0; p < c->pages; p++) {
		block(c);
		if (!child_page_ok(c, p))
			return 1;
	}
	return 0;
}

static uint64_t cpu_ns(const struct rig *r)
{
	struct timespec t;
	clockid_t clock;

	check(pthread_getcpuclockid(r->thread, &clock) == 0);
	check(clock_gettime(clock, &t) == 0);
	return (uint64_t)t.tv_sec * NS_PER_SEC + (uint64_t)t.tv_nsec;
}

/* The open file is the guest's as well. Once is forgiven, and costs no more
 * than that; who insists is failed, and its neighbour is served meanwhile. */
static void test_block(void)
{
	struct child a, b;
	struct stream s;
	struct rig r;
	uint64_t ns;

	stream_new(&s, 2, 1024, 0);
	child_new(&a, &s, GUEST_COPY, 0, body_block);
	child_new(&b, &s, GUEST_COPY, 0, body_block_always);
	rig_new(&r, DEADLINE, NULL, 2);
	rig_layer(&r, 0, &s, false);
	child_add(&a, r.engine, 1, 0);
	child_add(&b, r.engine, 2, 0);
	rig_start(&r);
	rig_call(&r, rig_prefetch_all, NULL);
	rig_until(&r, &r.whole, 1);
	child_go(&a);
	child_hear(&a);
	ns = cpu_ns(&r);
	usleep(500000);
	check(cpu_ns(&r) - ns < 50 * NS_PER_MS);
	check(fcntl(a.uffd, F_GETFL) & O_NONBLOCK);
	child_go(&b);
	rig_until(&r, &r.failed, 1);
	check(r.last_failed == 2 && strstr(r.why.msg, "block"));
	child_kill(&b);
	child_go(&a);
	child_end(&a);
	rig_until(&r, &r.ended, 1);
	check(rig_count(&r, &r.failed) == 1);
	rig_stop(&r);
	stream_end(&s);
}

int main(void)
{
	test_huge_present();
	test_replaced();
	test_removed();
	test_refault();
	test_block();
	return 0;
}
