/* SPDX-License-Identifier: Apache-2.0 */
/*
 * COPY guests, readers of the disk, the cache, stores that are away
 */
#include "pager/test_stream.h"

#include "image/cache.h"

#include <dirent.h>

#define MEMORY_PAGES (3 * 1024u + 512)
#define DISK_PAGES (2 * 1024u + 40)
#define DEADLINE (20 * NS_PER_SEC)
/* More than a guest has places for waiters. */
#define CROWD 150u
#define HUGE_BYTES (2ull << 20)

static bool page_is_zero(const struct child *c, uint64_t page)
{
	for (uint64_t i = 0; i < PAGE; i++)
		if (c->mem[page * PAGE + i])
			return false;
	return true;
}

static int body_read(struct child *c)
{
	for (uint64_t p = 0; p < c->pages; p++)
		if (!child_page_ok(c, p))
			return 1;
	return 0;
}

/* ---- COPY ---- */

#define GONE_FROM 100u
#define GONE_PAGES 300u

static int body_remove(struct child *c)
{
	void *gone = (void *)(uintptr_t)(c->mem + GONE_FROM * PAGE);

	for (uint64_t p = 0; p < c->pages; p++)
		if (!child_page_ok(c, p))
			return 1;
	c->mem[50 * PAGE] = 77;
	if (madvise(gone, GONE_PAGES * PAGE, MADV_DONTNEED))
		return 2;
	for (uint64_t p = GONE_FROM - 10; p < GONE_FROM + GONE_PAGES + 10; p++)
		if (p - GONE_FROM < GONE_PAGES ? !page_is_zero(c, p)
					       : !child_page_ok(c, p))
			return 1;
	/* written, surrendered again: zero again */
	c->mem[(GONE_FROM + 1) * PAGE] = 1;
	if (madvise(gone, GONE_PAGES * PAGE, MADV_DONTNEED))
		return 2;
	return page_is_zero(c, GONE_FROM + 1) && c->mem[50 * PAGE] == 77 ? 0
									 : 1;
}

#define SURRENDERS 400u
#define SURRENDER_PAGES 8u

struct surrender {
	struct child *c;
	uint64_t first;
	pthread_t thread;
	bool bad;
};

/* Surrender a few pages and touch them, again and again. */
static void *surrender_main(void *arg)
{
	struct surrender *t = arg;
	volatile uint8_t *p = t->c->mem + t->first * PAGE;

	for (unsigned i = 0; i < SURRENDERS; i++) {
		if (madvise((void *)(uintptr_t)p, SURRENDER_PAGES * PAGE,
			    MADV_DONTNEED))
			_exit(2);
		for (unsigned n = 0; n < SURRENDER_PAGES; n++) {
			t->bad = t->bad || p[n * PAGE + 9];
			p[n * PAGE + 9] = 1;
		}
	}
	return NULL;
}

/* Faults while memory is being surrendered: EAGAIN must not lose any. */
static int body_race(struct child *c)
{
	struct surrender t[3] = { 0 };

	for (unsigned i = 0; i < 3; i++) {
		t[i] = (struct surrender){ .c = c,
					   .first = c->pages - 16 * (i + 1) };
		if (pthread_create(&t[i].thread, NULL, surrender_main, &t[i]))
			return 2;
	}
	for (uint64_t p = 0; p < c->pages - 64; p++)
		if (!child_page_ok(c, p))
			return 1;
	for (unsigned i = 0; i < 3; i++) {
		pthread_join(t[i].thread, NULL);
		if (t[i].bad)
			return 1;
	}
	return 0;
}

static void test_copy(void)
{
	struct child a, b, d;
	struct stream s;
	struct rig r;

	stream_new(&s, 1, MEMORY_PAGES, 0);
	child_new(&a, &s, GUEST_COPY, UFFD_FEATURE_EVENT_REMOVE, body_remove);
	child_new(&b, &s, GUEST_COPY, UFFD_FEATURE_EVENT_REMOVE, body_race);
	child_new(&d, &s, GUEST_COPY, 0, body_read);
	rig_new(&r, DEADLINE, NULL, 2);
	rig_layer(&r, 0, &s, false);
	child_add(&a, r.engine, 1, 0);
	child_add(&b, r.engine, 2, 0);
	child_add(&d, r.engine, 3, 0);
	rig_start(&r);
	child_go(&a);
	child_go(&b);
	child_end(&a);
	child_end(&b);
	child_go(&d);
	child_end(&d);
	check(rig_stat(&r.stats->layer[0].faults_present) > 0);
	check(rig_stat(&r.stats->layer[0].faults_zero) > 0);
	check(rig_count(&r, &r.failed) == 0);
	rig_stop(&r);
	stream_end(&s);
}

/* ---- huge pages ---- */

static int body_huge(struct child *c)
{
	void *gone = (void *)(uintptr_t)(c->mem + HUGE_BYTES);
	int r = body_read(c);

	if (r)
		return r;
	if (madvise(gone, HUGE_BYTES, MADV_DONTNEED))
		return 2;
	return page_is_zero(c, HUGE_BYTES / PAGE + 3) && child_page_ok(c, 1)
		       ? 0
		       : 1;
}

/* Memory of huge pages, at an address that both sides know. */
static bool huge_map(struct child *c)
{
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	void *p = mmap(NULL, c->pages * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	if (p == MAP_FAILED)
		return false;
	c->mem = p;
	c->uffd = test_uffd(UFFD_FEATURE_EVENT_REMOVE);
	reg.range.start = (uintptr_t)p;
	reg.range.len = c->pages * PAGE;
	check(ioctl(c->uffd, UFFDIO_REGISTER, &reg) == 0);
	return true;
}

static void *huge_main(void *arg)
{
	check(body_huge(arg) == 0);
	return NULL;
}

/* In this process; where there are no huge pages, there is nothing to see. */
static void test_huge(void)
{
	struct engine_region region = { .page_bytes = HUGE_BYTES };
	struct err e = ERR_NULL;
	struct stream s;
	struct child c;
	struct rig r;
	pthread_t thread;

	stream_new(&s, 2, MEMORY_PAGES, 0);
	c = (struct child){ .stream = &s, .pages = 2 * HUGE_BYTES / PAGE };
	if (huge_map(&c)) {
		rig_new(&r, DEADLINE, NULL, 2);
		rig_layer(&r, 0, &s, false);
		region.addr = (uintptr_t)c.mem;
		region.bytes = c.pages * PAGE;
		check(guest_add(r.engine, 1, GUEST_COPY, 0, c.uffd, -1, &region,
				1, &e) == 0);
		rig_start(&r);
		check(pthread_create(&thread, NULL, huge_main, &c) == 0);
		check(pthread_join(thread, NULL) == 0);
		check(rig_stat(&r.stats->layer[0].faults) == 3);
		rig_stop(&r);
		check(munmap((void *)(uintptr_t)c.mem, region.bytes) == 0);
	}
	stream_end(&s);
}

/* ---- more waiters than places ---- */

static void *crowd_main(void *arg)
{
	struct child *c = arg;
	static _Atomic uint64_t next;

	return child_page_ok(c, next++ * 41 % c->pages) ? NULL : c;
}

static int body_crowd(struct child *c)
{
	pthread_t t[CROWD];
	int bad = 0;
	void *r;

	for (unsigned i = 0; i < CROWD; i++)
		if (pthread_create(&t[i], NULL, crowd_main, c))
			return 2;
	for (unsigned i = 0; i < CROWD; i++) {
		pthread_join(t[i], &r);
		bad |= r != NULL;
	}
	return bad;
}

/* A layer whose store is away, and a crowd that waits for it, hold up nobody;
 * when it is back all come to their end. */
static void test_crowd(void)
{
	char path[600], away[300];
	struct stream s, good;
	struct child a, b, d;
	struct rig r;

	stream_new(&s, 3, MEMORY_PAGES, 0);
	stream_new(&good, 4, MEMORY_PAGES, 0);
	stream_path(&s, path);
	snprintf(away, sizeof(away), "%s/away", s.dir);
	check(rename(path, away) == 0);
	child_new(&a, &s, GUEST_SHARED, 0, body_crowd);
	child_new(&d, &s, GUEST_COPY, 0, body_crowd);
	child_new(&b, &good, GUEST_SHARED, 0, body_read);
	rig_new(&r, DEADLINE, NULL, 2);
	rig_layer(&r, 0, &s, false);
	rig_layer(&r, 1, &good, false);
	child_add(&a, r.engine, 1, 0);
	child_add(&d, r.engine, 2, 0);
	child_add(&b, r.engine, 3, 1);
	rig_start(&r);
	child_go(&a);
	child_go(&d);
	while (rig_stat(&r.stats->layer[0].faults_waited) < 200)
		usleep(1000);
	child_go(&b);
	child_end(&b);
	check(waitpid(a.pid, NULL, WNOHANG) == 0);
	check(rename(away, path) == 0);
	child_end(&a);
	child_end(&d);
	check(rig_count(&r, &r.failed) == 0);
	rig_stop(&r);
	stream_end(&s);
	stream_end(&good);
}

/* ---- the disk ---- */

struct reader {
	struct rig *rig;
	const struct stream *s;
	unsigned n;
	pthread_t thread;
	int result;
};

static void *reader_main(void *arg)
{
	struct reader *t = arg;
	uint8_t got[PAGE], want[PAGE];

	for (uint64_t i = 0; i < DISK_PAGES; i++) {
		uint64_t page = (i * 31 + t->n * 500) % DISK_PAGES;

		t->result = layer_need_disk(t->rig->engine, 0, page * PAGE + 9,
					    1000);
		if (t->result < 0)
			return NULL;
		check(io_pread_full(t->s->disk_fd, got, PAGE, page * PAGE) ==
		      (ssize_t)PAGE);
		stream_page(t->s->seed, INDEX_DISK, page, want);
		check(memcmp(got, want, PAGE) == 0);
	}
	return NULL;
}

static void readers(struct rig *r, struct stream *s, int want)
{
	struct reader t[3];

	for (unsigned i = 0; i < 3; i++) {
		t[i] = (struct reader){ .rig = r, .s = s, .n = i };
		check(pthread_create(&t[i].thread, NULL, reader_main, &t[i]) ==
		      0);
	}
	for (unsigned i = 0; i < 3; i++) {
		check(pthread_join(t[i].thread, NULL) == 0);
		check(t[i].result == want);
	}
}

static void test_disk(void)
{
	uint64_t bytes = DISK_PAGES * PAGE;
	struct stream s;
	struct rig r;

	stream_new(&s, 5, 1024, DISK_PAGES);
	rig_new(&r, DEADLINE, NULL, 2);
	rig_layer(&r, 0, &s, true);
	rig_start(&r);
	readers(&r, &s, 0);
	check(layer_need_disk(r.engine, 0, 0, bytes) == 0);
	check(layer_need_disk(r.engine, 0, bytes, 0) == 0);
	check(layer_need_disk(r.engine, 0, bytes, 1) == -EINVAL);
	check(layer_need_disk(r.engine, 0, UINT64_MAX, 2) == -EINVAL);
	check(layer_need_disk(r.engine, 1, 0, 1) == -ESHUTDOWN);
	check(layer_disk_fd(r.engine, 0) >= 0);
	check(layer_disk_fd(r.engine, 1) == -1);
	check(rig_stat(&r.stats->layer[0].disk_present_bytes) ==
	      rig_stat(&r.stats->layer[0].filled_bytes));
	rig_stop(&r);

	/* What was fetched ahead of them is counted when it is read. */
	stream_empty(&s);
	rig_new(&r, DEADLINE, NULL, 2);
	rig_layer(&r, 0, &s, true);
	rig_start(&r);
	rig_call(&r, rig_prefetch_all, NULL);
	rig_until(&r, &r.whole, 1);
	check(rig_stat(&r.stats->layer[0].prefetch_hits) == 0);
	check(pager_prefetch_waste(&r.stats->layer[0]) ==
	      rig_stat(&r.stats->layer[0].frames_prefetch));
	readers(&r, &s, 0);
	check(rig_stat(&r.stats->layer[0].prefetch_hits) ==
	      2 * ((DISK_PAGES + 1023) / 1024));
	/* Of the memory, which nobody reads. */
	check(pager_prefetch_waste(&r.stats->layer[0]) == 2);
	check(rig_stat(&r.stats->layer[0].frames_demand) == 0);
	rig_stop(&r);
	stream_end(&s);
}

static void call_remove(struct rig *r, unused void *arg)
{
	layer_remove(r->engine, 0);
}

/* The store is away: by the deadline; the layer goes; the engine stops. */
static void test_disk_ends(void)
{
	char away[300];
	struct stream s;
	struct rig r;
	struct reader t;

	stream_new(&s, 6, 1024, DISK_PAGES);
	snprintf(away, sizeof(away), "%s-away", s.dir);
	check(rename(s.dir, away) == 0);
	rig_new(&r, 300 * NS_PER_MS, NULL, 2);
	rig_layer(&r, 0, &s, true);
	rig_start(&r);
	check(layer_need_disk(r.engine, 0, 0, 1) < 0);
	rig_stop(&r);

	for (unsigned i = 0; i < 2; i++) {
		rig_new(&r, DEADLINE, NULL, 2);
		rig_layer(&r, 0, &s, true);
		rig_start(&r);
		t = (struct reader){ .rig = &r, .s = &s };
		check(pthread_create(&t.thread, NULL, reader_main, &t) == 0);
		usleep(100000);
		if (i == 0)
			rig_call(&r, call_remove, NULL);
		else
			engine_stop(r.engine);
		check(pthread_join(t.thread, NULL) == 0);
		check(t.result == -ESHUTDOWN);
		rig_stop(&r);
	}
	check(rename(away, s.dir) == 0);
	stream_end(&s);
}

/* ---- the cache ---- */

/* Change a byte in every file below @dir. */
static void spoil(const char *dir)
{
	char path[1024];
	struct dirent *d;
	DIR *list = opendir(dir);
	int fd;

	check(list);
	while ((d = readdir(list))) {
		snprintf(path, sizeof(path), "%s/%s", dir, d->d_name);
		if (d->d_type == DT_DIR && d->d_name[0] != '.')
			spoil(path);
		if (d->d_type != DT_REG)
			continue;
		fd = open(path, O_WRONLY | O_CLOEXEC);
		check(fd >= 0 && pwrite(fd, "spoiled", 7, 8) == 7);
		close(fd);
	}
	closedir(list);
}

static void cache_round(struct stream *s, struct cache *cache,
			struct pager_layer_stats *ret)
{
	struct child a;
	struct rig r;

	child_new(&a, s, GUEST_SHARED, 0, body_read);
	rig_new(&r, DEADLINE, cache, 2);
	rig_layer(&r, 0, s, false);
	child_add(&a, r.engine, 1, 0);
	rig_start(&r);
	child_go(&a);
	child_end(&a);
	engine_stop(r.engine);
	check(pthread_join(r.thread, NULL) == 0);
	r.engine = engine_free(r.engine);
	*ret = r.stats->layer[0];
	close(r.call_fd);
	free(r.stats);
}

static void test_cache(void)
{
	struct pager_layer_stats l;
	struct cache *cache = NULL;
	struct err e = ERR_NULL;
	char dir[256], away[300];
	struct stream s;

	stream_new(&s, 7, MEMORY_PAGES, 0);
	test_dir(dir, sizeof(dir));
	check(cache_open(dir, 1u << 30, &cache, &e) == 0);
	cache_round(&s, cache, &l);
	check(l.fetched_bytes > 0 && l.cached_bytes == 0);

	/* From the cache alone. */
	snprintf(away, sizeof(away), "%s-away", s.dir);
	stream_empty(&s);
	check(rename(s.dir, away) == 0);
	cache_round(&s, cache, &l);
	check(l.fetched_bytes == 0 && l.cached_bytes > 0);

	/* The cache is spoiled: fetched again, and the cache mended. */
	check(rename(away, s.dir) == 0);
	stream_empty(&s);
	spoil(dir);
	cache_round(&s, cache, &l);
	check(l.fetched_bytes > 0 && l.cached_bytes == 0 && l.bad_frames > 0);
	stream_empty(&s);
	cache_round(&s, cache, &l);
	check(l.fetched_bytes == 0 && l.cached_bytes > 0 && !l.bad_frames);
	cache_free(cache);
	check(io_remove_tree(dir, &e) == 0);
	stream_end(&s);
}

/* ---- a pack that ends early ---- */

/* Only the frame that is cut is missing, though its range came as a whole. */
static void test_short(void)
{
	struct pager_layer_stats *l;
	uint64_t frames = 0;
	char path[600];
	struct index *x;
	struct stream s;
	struct stat st;
	struct rig r;

	stream_new(&s, 9, MEMORY_PAGES, 0);
	x = stream_index(&s);
	for (uint32_t i = 0; i < index_frames(x, INDEX_MEMORY); i++)
		frames += index_frame(x, INDEX_MEMORY, i)->stored != 0;
	index_free(x);
	stream_path(&s, path);
	check(stat(path, &st) == 0 && truncate(path, st.st_size - 1) == 0);
	rig_new(&r, DEADLINE, NULL, 2);
	l = &r.stats->layer[0];
	rig_layer(&r, 0, &s, false);
	rig_start(&r);
	rig_call(&r, rig_prefetch_all, NULL);
	while (rig_stat(&l->frames_prefetch) < frames - 1)
		usleep(1000);
	usleep(400000);
	check(rig_stat(&l->frames_prefetch) == frames - 1);
	check(rig_count(&r, &r.whole) == 0);
	rig_stop(&r);
	stream_end(&s);
}

/* ---- what fails ---- */

static int body_hot(struct child *c)
{
	return child_page_ok(c, 16) ? 0 : 1;
}

/* A prefetch gives up; who came to want its frame meanwhile need not. */
static void test_patience(void)
{
	char path[600], away[300];
	struct stream s;
	struct child a;
	struct rig r;

	stream_new(&s, 10, MEMORY_PAGES, 0);
	stream_path(&s, path);
	snprintf(away, sizeof(away), "%s/away", s.dir);
	check(rename(path, away) == 0);
	child_new(&a, &s, GUEST_SHARED, 0, body_hot);
	rig_new(&r, 2 * NS_PER_SEC, NULL, 2);
	rig_layer(&r, 0, &s, false);
	child_add(&a, r.engine, 1, 0);
	rig_start(&r);
	rig_call(&r, rig_prefetch_all, NULL);
	usleep(1000000);
	child_go(&a);
	usleep(1300000);
	check(rig_count(&r, &r.failed) == 0);
	check(rename(away, path) == 0);
	child_end(&a);
	rig_stop(&r);
	stream_end(&s);
}

static void failing_start(struct rig *r, struct stream *s, struct child *a,
			  const struct store_spec *store, uint64_t bytes)
{
	struct engine_region region = { .page_bytes = PAGE };
	struct err e = ERR_NULL;

	child_new(a, s, GUEST_SHARED, 0, body_hot);
	rig_new(r, DEADLINE, NULL, 2);
	check(layer_add(r->engine, 0, stream_index(s), store, s->memory_fd, -1,
			&e) == 0);
	region.addr = (uintptr_t)a->mem;
	region.bytes = bytes;
	check(guest_add(r->engine, 5, GUEST_SHARED, 0,
			fcntl(a->uffd, F_DUPFD_CLOEXEC, 0), -1, &region, 1,
			&e) == 0);
	rig_start(r);
}

static void failing_end(struct rig *r, struct child *a, int code,
			const char *why)
{
	rig_until(r, &r->failed, 1);
	check(r->last_failed == 5 && r->why.code == code);
	check(strstr(r->why.msg, why));
	check(waitpid(a->pid, NULL, WNOHANG) == 0);
	child_kill(a);
	rig_stop(r);
}

static void test_failing(void)
{
	struct stream s;
	struct child a;
	struct rig r;

	stream_new(&s, 11, MEMORY_PAGES, 0);
	failing_start(&r, &s, &a, NULL, MEMORY_PAGES * PAGE);
	child_go(&a);
	failing_end(&r, &a, ENODATA, "has no store");

	failing_start(&r, &s, &a, &s.spec, 8 * PAGE);
	child_go(&a);
	failing_end(&r, &a, EFAULT, "fill a page");

	failing_start(&r, &s, &a, &s.spec, MEMORY_PAGES * PAGE);
	rig_call(&r, call_remove, NULL);
	failing_end(&r, &a, ESHUTDOWN, "closed");

	/* As a full file system would */
	check(fcntl(s.memory_fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
	failing_start(&r, &s, &a, &s.spec, MEMORY_PAGES * PAGE);
	child_go(&a);
	failing_end(&r, &a, EPERM, "write ");
	stream_end(&s);
}

/* ---- what is refused ---- */

static void test_refused(void)
{
	struct engine_region good = { .bytes = PAGE, .page_bytes = PAGE };
	struct engine_region bad[] = {
		{ .bytes = PAGE, .page_bytes = 8192 },
		{ .bytes = HUGE_BYTES, .page_bytes = HUGE_BYTES },
		{ .bytes = 100, .page_bytes = PAGE },
		{ .bytes = PAGE, .page_bytes = PAGE, .addr = 5 },
		{ .bytes = PAGE, .page_bytes = PAGE, .offset = 1024 * PAGE },
		{ .bytes = 2048 * PAGE, .page_bytes = PAGE },
		{ .bytes = PAGE, .page_bytes = PAGE, .addr = -PAGE },
	};
	struct err e = ERR_NULL;
	struct stream s;
	struct rig r;

	stream_new(&s, 8, 1024, 0);
	rig_new(&r, DEADLINE, NULL, 2);
	rig_layer(&r, 0, &s, false);
	for (unsigned i = 0; i < nitems(bad); i++)
		check(guest_add(r.engine, 1, GUEST_SHARED, 0, test_uffd(0), -1,
				&bad[i], 1, &e) == -EINVAL);
	check(guest_add(r.engine, 1, GUEST_SHARED, 9, test_uffd(0), -1, &good,
			1, &e) == -ENOENT);
	check(guest_add(r.engine, 1, GUEST_SHARED, 0, test_uffd(0), -1, &good,
			1, &e) == 0);
	check(guest_add(r.engine, 1, GUEST_SHARED, 0, test_uffd(0), -1, &good,
			1, &e) == -EEXIST);
	check(layer_add(r.engine, 0, stream_index(&s), NULL, s.memory_fd, -1,
			&e) == -EEXIST);
	check(layer_add(r.engine, PAGER_LAYERS_MAX, stream_index(&s), NULL,
			s.memory_fd, -1, &e) == -EINVAL);
	check(ftruncate(s.memory_fd, PAGE) == 0);
	check(layer_add(r.engine, 1, stream_index(&s), NULL, s.memory_fd, -1,
			&e) == -EINVAL);
	check(layer_prefetch(r.engine, 1, true, &e) == -ENOENT);
	check(layer_evict(r.engine, 1, 1) == 0);
	guest_forget(r.engine, 1);
	guest_forget(r.engine, 1);
	rig_start(&r);
	rig_stop(&r);
	stream_end(&s);
}

int main(void)
{
	test_copy();
	test_huge();
	test_crowd();
	test_disk();
	test_disk_ends();
	test_cache();
	test_short();
	test_patience();
	test_failing();
	test_refused();
	return 0;
}
