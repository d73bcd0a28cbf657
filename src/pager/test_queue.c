/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames that do not come: who waits for them waits, nobody else does
 */
#include "pager/test_stream.h"

#define DISK_CHUNKS 8u
#define DISK_PAGES (DISK_CHUNKS * INDEX_CHUNK_PAGES)
#define MEMORY_PAGES (2 * INDEX_CHUNK_PAGES)
#define DEADLINE (20 * NS_PER_SEC)
/* What waits for nobody is done by then, on a machine that has others. */
#define SOON (DEADLINE / 4)
/* More frames that do not come than there are workers. */
#define WORKERS 2
#define BAD 4u

struct reader {
	struct rig *rig;
	const struct stream *s;
	unsigned chunk;
	pthread_t thread;
	int result;
	uint64_t took_ns;
};

static void *reader_main(void *arg)
{
	struct reader *t = arg;
	uint64_t start = clock_mono_ns();

	t->result = rig_read_page(t->rig, t->s, t->chunk, true);
	t->took_ns = clock_mono_ns() - start;
	return NULL;
}

static void reader_start(struct reader *t, struct rig *r,
			 const struct stream *s, unsigned chunk)
{
	*t = (struct reader){ .rig = r, .s = s, .chunk = chunk };
	check(!pthread_create(&t->thread, NULL, reader_main, t));
}

/* Flip, or flip back, a bit of the disk's hot frames of chunks [0, @n). */
static void spoil(const struct stream *s, unsigned n)
{
	struct index *x = stream_index(s);
	char path[600];
	uint8_t b;
	int fd;

	stream_path_of(s, STREAM_OTHER_ID, path);
	fd = open(path, O_RDWR | O_CLOEXEC);
	check(fd >= 0);
	for (unsigned i = 0; i < n; i++) {
		uint64_t at = index_frame(x, INDEX_DISK, 2 * i)->offset + 20;

		check(io_pread_full(fd, &b, 1, at) == 1);
		b ^= 1;
		check(io_pwrite_full(fd, &b, 1, at) == 0);
	}
	close(fd);
	index_free(x);
}

/* Bad frames, more than there are workers: a good one comes at once, and they
 * come when they have been mended. */
static void test_bad(void)
{
	struct pager_layer_stats *l;
	struct reader t[BAD], good;
	struct stream s;
	struct rig r;

	stream_new(&s, 1, INDEX_CHUNK_PAGES, DISK_PAGES);
	spoil(&s, BAD);
	rig_new(&r, DEADLINE, NULL, WORKERS);
	l = &r.stats->layer[0];
	rig_layer(&r, 0, &s, true);
	rig_start(&r);
	for (unsigned i = 0; i < BAD; i++)
		reader_start(&t[i], &r, &s, i);
	while (rig_stat(&l->bad_frames) < 4 * WORKERS)
		usleep(1000);
	reader_start(&good, &r, &s, DISK_CHUNKS - 1);
	check(!pthread_join(good.thread, NULL));
	check(good.result == 0 && good.took_ns < SOON);
	usleep(3000000);
	/* Three tries, then some rests of 50 ms to 2 s. */
	check(rig_stat(&l->bad_frames) < BAD * 20);
	check(rig_stat(&l->retries) >= BAD);
	spoil(&s, BAD);
	for (unsigned i = 0; i < BAD; i++) {
		check(!pthread_join(t[i].thread, NULL));
		check(t[i].result == 0 && t[i].took_ns < DEADLINE);
	}
	rig_stop(&r);
	stream_end(&s);
}

static int body_read(struct child *c)
{
	for (uint64_t p = 0; p < c->pages; p++)
		if (!child_page_ok(c, p))
			return 1;
	return 0;
}

/* Ahead of demand a frame that is bad has three tries: two retries. */
static void test_bad_ahead(void)
{
	struct pager_layer_stats *l;
	struct stream s;
	struct rig r;

	stream_new(&s, 5, INDEX_CHUNK_PAGES, DISK_PAGES);
	spoil(&s, 1);
	rig_new(&r, DEADLINE, NULL, WORKERS);
	l = &r.stats->layer[0];
	rig_layer(&r, 0, &s, true);
	rig_start(&r);
	rig_call(&r, rig_prefetch_all, NULL);
	/* Two frames of memory, and the disk's but for one. */
	while (rig_stat(&l->frames_prefetch) < 2 + 2 * DISK_CHUNKS - 1 ||
	       rig_stat(&l->bad_frames) < 3)
		usleep(1000);
	usleep(200000);
	check(rig_stat(&l->bad_frames) == 3 && rig_stat(&l->retries) == 2);
	rig_stop(&r);
	stream_end(&s);
}

/* The pack of a parent is away: what is in the image's own comes at once. */
static void test_missing_pack(void)
{
	char path[600], away[700];
	struct reader t[BAD];
	struct stream s;
	struct child a;
	struct rig r;
	uint64_t start;

	stream_new(&s, 2, MEMORY_PAGES, DISK_PAGES);
	stream_path_of(&s, STREAM_OTHER_ID, path);
	snprintf(away, sizeof(away), "%s.away", path);
	check(rename(path, away) == 0);
	child_new(&a, &s, GUEST_SHARED, 0, body_read);
	rig_new(&r, DEADLINE, NULL, WORKERS);
	rig_layer(&r, 0, &s, true);
	child_add(&a, r.engine, 1, 0);
	rig_start(&r);
	for (unsigned i = 0; i < BAD; i++)
		reader_start(&t[i], &r, &s, 2 * i); /* do not touch */
	usleep(300000);
	start = clock_mono_ns();
	child_go(&a);
	child_end(&a);
	check(clock_mono_ns() - start < SOON);
	check(rename(away, path) == 0);
	for (unsigned i = 0; i < BAD; i++) {
		check(!pthread_join(t[i].thread, NULL));
		check(t[i].result == 0 && t[i].took_ns < DEADLINE);
	}
	check(rig_count(&r, &r.failed) == 0);
	rig_stop(&r);
	stream_end(&s);
}

/* ---- deadlines ---- */

#define SHORT (3 * NS_PER_SEC)
/* Between who comes first and who comes later. */
#define LATER_US 1500000

/* Two readers of one frame that never comes: each has its own deadline. */
static void test_deadlines(void)
{
	struct reader t[2];
	struct stream s;
	struct rig r;

	stream_new(&s, 3, INDEX_CHUNK_PAGES, DISK_PAGES);
	spoil(&s, 1);
	rig_new(&r, SHORT, NULL, WORKERS);
	rig_layer(&r, 0, &s, true);
	rig_start(&r);
	reader_start(&t[0], &r, &s, 0);
	usleep(LATER_US);
	reader_start(&t[1], &r, &s, 0);
	for (unsigned i = 0; i < 2; i++) {
		check(!pthread_join(t[i].thread, NULL));
		check(t[i].result == -EBADMSG);
		/* A fifth of a second early, and late as the machine is. */
		check(t[i].took_ns > SHORT - SHORT / 10);
		check(t[i].took_ns < 2 * SHORT);
	}
	/* Nobody waits: it is not tried any more, until somebody asks anew. */
	spoil(&s, 1);
	usleep(200000);
	check(rig_stat(&r.stats->layer[0].frames_demand) == 0);
	rig_need_page(&r, &s, 0, true);
	rig_stop(&r);
	stream_end(&s);
}

static int body_one(struct child *c)
{
	return child_page_ok(c, 5) ? 0 : 1;
}

/* The first guest has waited in vain; the second one, which came later, sees
 * the store come back. */
static void test_guests(void)
{
	char away[300];
	struct child a, b;
	struct stream s;
	struct rig r;

	stream_new(&s, 4, MEMORY_PAGES, 0);
	snprintf(away, sizeof(away), "%s-away", s.dir);
	check(rename(s.dir, away) == 0);
	child_new(&a, &s, GUEST_SHARED, 0, body_one);
	child_new(&b, &s, GUEST_COPY, 0, body_one);
	rig_new(&r, SHORT, NULL, WORKERS);
	rig_layer(&r, 0, &s, false);
	child_add(&a, r.engine, 1, 0);
	child_add(&b, r.engine, 2, 0);
	rig_start(&r);
	child_go(&a);
	usleep(LATER_US);
	child_go(&b);
	rig_until(&r, &r.failed, 1);
	usleep(200000);
	check(r.last_failed == 1 && rig_count(&r, &r.failed) == 1);
	check(rename(away, s.dir) == 0);
	child_end(&b);
	check(rig_count(&r, &r.failed) == 1);
	check(waitpid(a.pid, NULL, WNOHANG) == 0);
	child_kill(&a);
	rig_stop(&r);
	stream_end(&s);
}

int main(void)
{
	test_bad();
	test_bad_ahead();
	test_missing_pack();
	test_deadlines();
	test_guests();
	return 0;
}
