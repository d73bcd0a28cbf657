/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine with real guests: what a SHARED guest sees
 */
#include "pager/test_stream.h"

#define MEMORY_PAGES (5 * 1024u + 100) /* an odd tail */
#define THREADS 3u
#define DEADLINE (20 * NS_PER_SEC)

/* ---- bodies ---- */

struct toucher {
	struct child *c;
	pthread_t thread;
	unsigned n;
	bool bad;
};

/* In an order of its own, every page; some are written, too. */
static void *toucher_main(void *arg)
{
	struct toucher *t = arg;
	struct child *c = t->c;
	uint64_t step = 7919 + t->n * 2, page = t->n * 1000 % c->pages;

	while (c->pages % step == 0)
		step++;
	for (uint64_t i = 0; i < c->pages; i++) {
		if (page % THREADS == t->n && page % 16 == 0) {
			/* a write fault, then the rest of the page */
			c->mem[page * PAGE + 5] ^= 0xff;
			c->mem[page * PAGE + 5] ^= 0xff;
		}
		if (page % 16 && !child_page_ok(c, page))
			t->bad = true;
		page = (page + step) % c->pages;
	}
	return NULL;
}

static int body_storm(struct child *c)
{
	struct toucher t[THREADS] = { 0 };

	for (unsigned i = 0; i < THREADS; i++) {
		t[i] = (struct toucher){ .c = c, .n = i };
		if (pthread_create(&t[i].thread, NULL, toucher_main, &t[i]))
			return 2;
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(t[i].thread, NULL);
		if (t[i].bad)
			return 1;
	}
	for (uint64_t p = 0; p < c->pages; p++)
		if (!child_page_ok(c, p))
			return 1;
	return 0;
}

static int body_read(struct child *c)
{
	for (uint64_t p = 0; p < c->pages; p++)
		if (!child_page_ok(c, p))
			return 1;
	return 0;
}

static int body_one(struct child *c)
{
	return child_page_ok(c, 5) ? 0 : 1;
}

/* ---- tests ---- */

/* One guest faults everything in; the next one has no event but for zeros. */
static void test_storm(void)
{
	struct stream s;
	struct child a, b;
	struct rig r;
	uint64_t faults;

	stream_new(&s, 1, MEMORY_PAGES, 0);
	child_new(&a, &s, GUEST_SHARED, 0, body_storm);
	child_new(&b, &s, GUEST_SHARED, 0, body_read);
	rig_new(&r, DEADLINE, NULL, 3);
	rig_layer(&r, 7, &s, false);
	child_add(&a, r.engine, 1, 7);
	child_add(&b, r.engine, 2, 7);
	rig_start(&r);
	child_go(&a);
	child_end(&a);
	rig_until(&r, &r.ended, 1);
	rig_until(&r, &r.whole, 1);
	faults = rig_stat(&r.stats->layer[7].faults) -
		 rig_stat(&r.stats->layer[7].faults_zero);
	check(faults > 0);
	child_go(&b);
	child_end(&b);
	check(rig_stat(&r.stats->layer[7].faults) -
		      rig_stat(&r.stats->layer[7].faults_zero) ==
	      faults);
	check(rig_stat(&r.stats->layer[7].faults_zero) > 0);
	check(rig_stat(&r.stats->layer[7].faults_waited) > 0);
	rig_until(&r, &r.ended, 2);
	check(rig_count(&r, &r.whole) == 1 && rig_count(&r, &r.failed) == 0);
	check(rig_stat(&r.stats->layer[7].guests) == 0);
	rig_stop(&r);
	stream_end(&s);
}

/* The engine goes in the middle, again and again; another one takes over. */
static void test_restart(void)
{
	struct stream s;
	struct child a;
	struct rig r;

	stream_new(&s, 2, MEMORY_PAGES, 0);
	child_new(&a, &s, GUEST_SHARED, 0, body_storm);
	child_go(&a);
	for (unsigned i = 0; i < 4; i++) {
		rig_new(&r, DEADLINE, NULL, 2);
		rig_layer(&r, 0, &s, false);
		child_add(&a, r.engine, 1, 0);
		rig_start(&r);
		while (!rig_stat(&r.stats->layer[0].faults) &&
		       !rig_count(&r, &r.ended))
			usleep(100);
		if (i == 3)
			child_end(&a);
		rig_stop(&r);
	}
	stream_end(&s);
}

/* ---- eviction ---- */

static int body_evict(struct child *c)
{
	for (uint64_t p = 0; p < c->pages; p++)
		if (!child_page_ok(c, p))
			return 1;
	for (uint64_t p = 0; p < c->pages; p += 3)
		c->mem[p * PAGE] = 0x5a;
	child_tell(c);
	child_wait(c);
	for (uint64_t p = 0; p < c->pages; p++) {
		if (p % 3 == 0 && c->mem[p * PAGE] != 0x5a)
			return 1;
		if (p % 3 && !child_page_ok(c, p))
			return 1;
	}
	return 0;
}

static void call_evict(struct rig *r, void *arg)
{
	*(uint64_t *)arg = layer_evict(r->engine, 0, UINT64_MAX);
}

static void test_evict(void)
{
	struct pager_layer_stats *l;
	uint64_t bytes = 0, data = 0;
	struct stream s;
	struct child a;
	struct rig r;
	struct stat st;

	stream_new(&s, 3, MEMORY_PAGES, 0);
	for (uint64_t p = 0; p < MEMORY_PAGES; p++)
		data += stream_zero(p) ? 0 : PAGE;
	child_new(&a, &s, GUEST_SHARED, 0, body_evict);
	rig_new(&r, DEADLINE, NULL, 2);
	l = &r.stats->layer[0];
	rig_layer(&r, 0, &s, false);
	child_add(&a, r.engine, 1, 0);
	rig_start(&r);
	child_go(&a);
	child_hear(&a);
	rig_until(&r, &r.whole, 1);
	check(rig_stat(&l->memory_present_bytes) == data);
	rig_call(&r, call_evict, &bytes);
	check(bytes == data && rig_stat(&l->memory_present_bytes) == 0);
	check(rig_stat(&l->evicted_bytes) == data);
	check(fstat(s.memory_fd, &st) == 0 && st.st_blocks == 0);
	child_go(&a);
	child_end(&a);
	check(rig_stat(&l->filled_bytes) == 2 * data);
	rig_stop(&r);
	stream_end(&s);
}

/* ---- damage, absence ---- */

static void test_damage(void)
{
	struct stream s, good;
	struct child a, b;
	char path[600];
	struct rig r;
	int fd;

	stream_new(&s, 4, MEMORY_PAGES, 0);
	stream_new(&good, 5, MEMORY_PAGES, 0);
	stream_path(&s, path);
	fd = open(path, O_RDWR | O_CLOEXEC);
	check(fd >= 0);
	for (off_t at = 100; at < lseek(fd, 0, SEEK_END); at += 4096)
		check(pwrite(fd, "damage", 6, at) == 6);
	close(fd);
	child_new(&a, &s, GUEST_SHARED, 0, body_one);
	child_new(&b, &good, GUEST_SHARED, 0, body_storm);
	rig_new(&r, DEADLINE / 10, NULL, 2);
	rig_layer(&r, 0, &s, false);
	rig_layer(&r, 1, &good, false);
	child_add(&a, r.engine, 11, 0);
	child_add(&b, r.engine, 12, 1);
	rig_start(&r);
	child_go(&a);
	child_go(&b);
	rig_until(&r, &r.failed, 1);
	check(r.last_failed == 11 && r.why.code == EBADMSG);
	check(strstr(r.why.msg, "damaged") && strstr(r.why.msg, s.id));
	child_end(&b);
	/* frozen, not fed zeros */
	check(waitpid(a.pid, NULL, WNOHANG) == 0);
	check(rig_stat(&r.stats->layer[0].bad_frames) >= 3);
	check(rig_stat(&r.stats->layer[0].failed_guests) == 1);
	child_kill(&a);
	rig_until(&r, &r.ended, 1);
	rig_stop(&r);
	stream_end(&s);
	stream_end(&good);
}

static void test_away(void)
{
	const struct timespec pause = { .tv_nsec = 300000000 };
	char away[300];
	struct stream s;
	struct child a;
	struct rig r;

	stream_new(&s, 6, MEMORY_PAGES, 0);
	snprintf(away, sizeof(away), "%s-away", s.dir);
	check(rename(s.dir, away) == 0);
	child_new(&a, &s, GUEST_SHARED, 0, body_storm);
	rig_new(&r, DEADLINE, NULL, 2);
	rig_layer(&r, 0, &s, false);
	child_add(&a, r.engine, 1, 0);
	rig_start(&r);
	child_go(&a);
	nanosleep(&pause, NULL);
	check(waitpid(a.pid, NULL, WNOHANG) == 0);
	check(rename(away, s.dir) == 0);
	child_end(&a);
	check(rig_stat(&r.stats->layer[0].retries) > 0);
	rig_stop(&r);

	/* and for good */
	stream_empty(&s);
	check(rename(s.dir, away) == 0);
	child_new(&a, &s, GUEST_SHARED, 0, body_one);
	rig_new(&r, 500 * NS_PER_MS, NULL, 2);
	rig_layer(&r, 0, &s, false);
	child_add(&a, r.engine, 1, 0);
	rig_start(&r);
	child_go(&a);
	rig_until(&r, &r.failed, 1);
	check(r.why.msg[0]);
	child_kill(&a);
	rig_stop(&r);
	check(rename(away, s.dir) == 0);
	stream_end(&s);
}

/* ---- prefetch ---- */

static void call_prefetch(struct rig *r, void *arg)
{
	struct err e = ERR_NULL;

	check(layer_prefetch(r->engine, 0, *(bool *)arg, &e) == 0);
}

static void test_prefetch(void)
{
	struct pager_layer_stats *l;
	uint64_t hot = 0, data = 0;
	bool all = false;
	struct stream s;
	struct child a;
	struct rig r;

	stream_new(&s, 7, MEMORY_PAGES, 2048);
	for (uint64_t p = 0; p < MEMORY_PAGES; p++) {
		hot += stream_hot(p) ? PAGE : 0;
		data += stream_zero(p) ? 0 : PAGE;
	}
	child_new(&a, &s, GUEST_SHARED, 0, body_read);
	rig_new(&r, DEADLINE, NULL, 2);
	l = &r.stats->layer[0];
	rig_layer(&r, 0, &s, true);
	child_add(&a, r.engine, 1, 0);
	rig_start(&r);
	rig_call(&r, call_prefetch, &all);
	while (rig_stat(&l->memory_present_bytes) < hot)
		usleep(1000);
	usleep(20000);
	check(rig_stat(&l->memory_present_bytes) == hot);
	all = true;
	rig_call(&r, call_prefetch, &all);
	rig_until(&r, &r.whole, 1);
	check(rig_stat(&l->memory_present_bytes) == data);
	child_go(&a);
	child_end(&a);
	check(rig_stat(&l->faults) == rig_stat(&l->faults_zero));
	check(rig_stat(&l->frames_demand) == 0);
	rig_stop(&r);

	/* whoever comes next finds what is there */
	rig_new(&r, DEADLINE, NULL, 2);
	rig_layer(&r, 0, &s, true);
	check(rig_stat(&r.stats->layer[0].memory_present_bytes) == data);
	rig_start(&r);
	rig_until(&r, &r.whole, 1);
	rig_stop(&r);
	stream_end(&s);
}

/* Guest and prefetch want the same at once: each frame is fetched once. */
static void test_overtake(void)
{
	struct pager_layer_stats *l;
	bool all = true;
	struct stream s;
	struct child a;
	struct rig r;

	stream_new(&s, 10, MEMORY_PAGES, 2048);
	child_new(&a, &s, GUEST_SHARED, 0, body_storm);
	rig_new(&r, DEADLINE, NULL, 1);
	l = &r.stats->layer[0];
	rig_layer(&r, 0, &s, true);
	child_add(&a, r.engine, 1, 0);
	rig_start(&r);
	child_go(&a);
	rig_call(&r, call_prefetch, &all);
	child_end(&a);
	rig_until(&r, &r.whole, 1);
	check(rig_stat(&l->filled_bytes) ==
	      rig_stat(&l->memory_present_bytes) +
		      rig_stat(&l->disk_present_bytes));
	rig_stop(&r);
	stream_end(&s);
}

/* ---- the herd ---- */

#define HERD 6u

/* Guests that ask for everything at once all come to their end. */
static void test_herd(void)
{
	struct child c[HERD];
	struct stream s[2];
	struct rig r;

	stream_new(&s[0], 8, MEMORY_PAGES, 0);
	stream_new(&s[1], 9, MEMORY_PAGES, 0);
	for (unsigned i = 0; i < HERD; i++)
		child_new(&c[i], &s[i % 2], GUEST_SHARED, 0,
			  i < 2 ? body_storm : body_read);
	rig_new(&r, DEADLINE, NULL, 2);
	rig_layer(&r, 0, &s[0], false);
	rig_layer(&r, 1, &s[1], false);
	for (unsigned i = 0; i < HERD; i++)
		child_add(&c[i], r.engine, i + 1, i % 2);
	rig_start(&r);
	for (unsigned i = 0; i < HERD; i++)
		child_go(&c[i]);
	for (unsigned i = 0; i < HERD; i++)
		child_end(&c[i]);
	rig_until(&r, &r.ended, HERD);
	/* each frame once, whoever asked */
	for (unsigned i = 0; i < 2; i++)
		check(rig_stat(&r.stats->layer[i].filled_bytes) ==
		      rig_stat(&r.stats->layer[i].memory_present_bytes));
	check(rig_count(&r, &r.failed) == 0);
	rig_stop(&r);
	stream_end(&s[0]);
	stream_end(&s[1]);
}

int main(void)
{
	test_storm();
	test_restart();
	test_evict();
	test_damage();
	test_away();
	test_prefetch();
	test_overtake();
	test_herd();
	return 0;
}
