/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a fault on a streamed layer costs
 *
 *	fault IMAGE_DIR
 *
 * The image is packed into a store of its own, then, in one process with the
 * pager's engine:
 *
 *	cached   two threads touch every page that is not zero, in random order,
 *	         frames come from the local cache: touch to resume
 *	later    another guest of the same layer, against a private mapping of
 *	         the image's complete memory file: the same touches
 *	stream   everything fetched ahead over HTTP, against curl fetching the
 *	         pack from the same server; on loopback, and at 1 Gbit/s with
 *	         a round trip of 20 ms
 *
 * Ratios of one run count; the machine is shared.
 */
#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/proc.h"
#include "cmd/range_server.h"
#include "cmd/sample.h"
#include "cmd/throttle.h"
#include "image/cache.h"
#include "image/image.h"
#include "image/index.h"
#include "image/pack.h"
#include "image/reference.h"
#include "pager/engine.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define THREADS 2
#define ROUNDS 3
/* A store in another place. */
#define FAR_NS (20 * NS_PER_MS)
#define FAR_BITS 1000000000ull

static struct pager_stats stats;

static void die(const char *what, const struct err *e)
{
	fprintf(stderr, "fault: %s%s%s\n", what, e ? ": " : "",
		e ? e->msg : "");
	exit(1);
}

#define TRY(call)                        \
	do {                             \
		struct err e = ERR_NULL; \
		if ((call) < 0)          \
			die(#call, &e);  \
	} while (0)

/* ---- the pages, in random order ---- */

struct touches {
	uint64_t *page;
	size_t n;
};

static struct touches touches_of(const struct index *x)
{
	struct bitmap zero = index_zeromap(x, INDEX_MEMORY);
	struct touches t = { malloc(zero.n * sizeof(uint64_t)), 0 };

	for (uint64_t i = 0; i < zero.n; i++)
		if (!bitmap_get(&zero, i))
			t.page[t.n++] = i;
	srandom(1);
	for (size_t i = t.n; i > 1; i--) {
		size_t j = (size_t)random() % i;
		uint64_t swap = t.page[j];

		t.page[j] = t.page[i - 1];
		t.page[i - 1] = swap;
	}
	return t;
}

struct toucher {
	pthread_t thread;
	const uint8_t *ram;
	const struct touches *t;
	unsigned first;
	struct sample us;
};

static void *toucher_main(void *arg)
{
	struct toucher *w = arg;

	for (size_t i = w->first; i < w->t->n; i += THREADS) {
		uint64_t from = clock_mono_ns();

		(void)*(volatile const uint8_t *)(w->ram +
						  w->t->page[i] * INDEX_PAGE);
		err_drop(sample_add(&w->us,
				    (double)(clock_mono_ns() - from) / 1e3));
	}
	return NULL;
}

/* All touches by THREADS threads; *ret_us sorted samples, result in ns. */
static uint64_t touch_all(const uint8_t *ram, const struct touches *t,
			  struct sample *ret_us)
{
	struct toucher w[THREADS] = { 0 };
	uint64_t from = clock_mono_ns(), took;

	for (unsigned i = 0; i < THREADS; i++) {
		w[i].ram = ram;
		w[i].t = t;
		w[i].first = i;
		pthread_create(&w[i].thread, NULL, toucher_main, &w[i]);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(w[i].thread, NULL);
	took = clock_mono_ns() - from;
	for (unsigned i = 0; i < THREADS; i++) {
		for (size_t k = 0; k < w[i].us.n; k++)
			err_drop(sample_add(ret_us, w[i].us.v[k]));
		sample_deinit(&w[i].us);
	}
	return took;
}

/* ---- a guest and a pager in one process ---- */

struct bed {
	struct engine *engine;
	pthread_t poller;
	struct cache *cache;
	int memory_fd;
	uint64_t bytes;
	uint64_t guests;
};

static void no_failed(unused void *arg, unused uint64_t guest,
		      const struct err *e)
{
	die("guest failed", e);
}

static void no_ended(unused void *arg, unused uint64_t guest)
{
}

static volatile int whole;

static void now_whole(unused void *arg, unused uint32_t layer)
{
	whole = 1;
}

static const struct engine_events events = { .guest_failed = no_failed,
					     .guest_ended = no_ended,
					     .layer_whole = now_whole };

static void *poller_main(void *arg)
{
	struct err e = ERR_NULL;

	if (engine_run(arg, &e) < 0)
		die("engine", &e);
	return NULL;
}

/* Layer 0 of the index in @index_path, streamed from @url; its workers run
 * once bed_run() is called. */
static void bed_make(struct bed *b, const char *index_path, const char *url,
		     const char *cache_dir)
{
	struct engine_config config = { .deadline_ns = PAGER_DEADLINE_NS,
					.stats = &stats,
					.events = &events };
	struct store_spec spec = { .name = "bench" };
	struct index *x;
	int fd = open(index_path, O_RDONLY | O_CLOEXEC);

	memset(b, 0, sizeof(*b));
	snprintf(spec.url, sizeof(spec.url), "%s", url);
	TRY(index_open(fd, &x, &e));
	close(fd);
	b->bytes = index_layer_bytes(x, INDEX_MEMORY);
	b->memory_fd = memfd_create("bench", MFD_CLOEXEC);
	if (ftruncate(b->memory_fd, (off_t)b->bytes) < 0)
		die("ftruncate", NULL);
	if (cache_dir)
		TRY(cache_open(cache_dir, 4ull << 30, &b->cache, &e));
	config.cache = b->cache;
	TRY(engine_new(&config, &b->engine, &e));
	TRY(layer_add(b->engine, 0, x, &spec, b->memory_fd, -1, &e));
}

static void bed_run(struct bed *b)
{
	pthread_create(&b->poller, NULL, poller_main, b->engine);
}

static uint8_t *bed_guest(struct bed *b)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct engine_region region = { .bytes = b->bytes,
					.page_bytes = INDEX_PAGE };
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	char path[64];
	uint8_t *ram;
	int ro;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", b->memory_fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	ram = mmap(NULL, b->bytes, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_NORESERVE, ro, 0);
	close(ro);
	if (ram == MAP_FAILED || uffd < 0 || ioctl(uffd, UFFDIO_API, &api) < 0)
		die("userfaultfd", NULL);
	reg.range = (struct uffdio_range){ (uintptr_t)ram, b->bytes };
	if (ioctl(uffd, UFFDIO_REGISTER, &reg) < 0)
		die("register", NULL);
	region.addr = (uintptr_t)ram;
	TRY(guest_add(b->engine, ++b->guests, GUEST_SHARED, 0, uffd, pidfd,
		      &region, 1, &e));
	return ram;
}

static void bed_free(struct bed *b)
{
	engine_stop(b->engine);
	pthread_join(b->poller, NULL);
	engine_free(b->engine);
	cache_free(b->cache);
	close(b->memory_fd);
}

/* ---- the three measures ---- */

static void print_us(const char *what, struct sample *us, uint64_t took_ns)
{
	printf("%-28s n %zu  p50 %.1f us  p99 %.1f us  p99.9 %.1f us  max %.0f us"
	       "  all %.0f ms\n",
	       what, us->n, sample_percentile(us, 50),
	       sample_percentile(us, 99), us->v[us->n - us->n / 1000 - 1],
	       sample_percentile(us, 100), (double)took_ns / 1e6);
}

static void measure_cached(const char *index_path, const char *url,
			   const char *cache_dir, const struct touches *t,
			   const char *memory_path)
{
	for (int round = 0; round < ROUNDS + 1; round++) {
		struct sample us = SAMPLE_NULL, later = SAMPLE_NULL,
			      file = SAMPLE_NULL;
		uint64_t took, later_ns = 0, file_ns = 0, before;
		uint8_t *ram, *ram2, *plain;
		struct bed b;
		int fd;

		bed_make(&b, index_path, url, cache_dir);
		ram = bed_guest(&b);
		ram2 = bed_guest(&b);
		bed_run(&b);
		took = touch_all(ram, t, &us);
		if (round == 0) /* filled the cache */
			goto next;
		print_us("cached, two threads", &us, took);
		before = PAGER_GET(stats.layer[0].faults);
		fd = open(memory_path, O_RDONLY | O_CLOEXEC);
		plain = mmap(NULL, b.bytes, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_NORESERVE, fd, 0);
		for (int k = 0; k < 2; k++) { /* the first warms the cache */
			sample_deinit(&file);
			file = (struct sample)SAMPLE_NULL;
			madvise(plain, b.bytes, MADV_DONTNEED);
			file_ns = touch_all(plain, t, &file);
		}
		later_ns = touch_all(ram2, t, &later);
		print_us("later guest", &later, later_ns);
		print_us("complete file, private", &file, file_ns);
		printf("later / file: %.2f, events %llu\n",
		       (double)later_ns / (double)file_ns,
		       (unsigned long long)(PAGER_GET(stats.layer[0].faults) -
					    before));
		munmap(plain, b.bytes);
		close(fd);
	next:
		bed_free(&b);
		munmap(ram, b.bytes);
		munmap(ram2, b.bytes);
		sample_deinit(&us);
		sample_deinit(&later);
		sample_deinit(&file);
	}
}

/* Memory's frames are the front of the pack: curl fetches the same bytes. */
static void measure_stream(const char *what, const char *index_path,
			   const char *url, const char *object)
{
	char pack_url[256], range[64];
	const char *curl[] = { "curl", "-sS",       "-r",     range,
			       "-o",   "/dev/null", pack_url, NULL };

	snprintf(pack_url, sizeof(pack_url), "%s/%s", url, object);
	for (int round = 0; round < ROUNDS; round++) {
		guard_free char *out = NULL;
		uint64_t from, curl_ns, ours_ns, fetched;
		struct bed b;

		whole = 0;
		fetched = PAGER_GET(stats.layer[0].fetched_bytes);
		bed_make(&b, index_path, url, NULL);
		TRY(layer_prefetch(b.engine, 0, true, &e));
		from = clock_mono_ns();
		bed_run(&b);
		while (!whole)
			usleep(200);
		ours_ns = clock_mono_ns() - from;
		bed_free(&b);
		fetched = PAGER_GET(stats.layer[0].fetched_bytes) - fetched;
		snprintf(range, sizeof(range), "0-%llu",
			 (unsigned long long)fetched - 1);
		from = clock_mono_ns();
		TRY(proc_run(curl, 4096, &out, &e));
		curl_ns = clock_mono_ns() - from;
		printf("stream %s, %.0f MB: %.0f MB/s, curl %.0f MB/s, ratio %.2f\n",
		       what, (double)fetched / 1e6,
		       (double)fetched * 1e3 / (double)ours_ns,
		       (double)fetched * 1e3 / (double)curl_ns,
		       (double)curl_ns / (double)ours_ns);
	}
}

int main(int argc, char **argv)
{
	char dir[] = "/tmp/byre-fault-XXXXXX", object[REFERENCE_OBJECT_MAX];
	guard_free char *index_path = NULL, *pack_path = NULL, *to = NULL,
			*where = NULL, *cache_dir = NULL, *memory_path = NULL;
	struct range_server *server;
	struct throttle *throttle;
	struct image *image;
	struct index *x;
	struct touches t;
	uint64_t shared;
	char url[64];
	int fd;

	if (argc != 2)
		die("usage: fault IMAGE_DIR", NULL);
	if (!mkdtemp(dir))
		die(dir, NULL);
	TRY(image_open(argv[1], &image, &e));
	TRY(pack_make(image, NULL, dir, NULL, NULL, &shared, &e));
	index_path = io_path("%s/index", dir);
	pack_path = io_path("%s/pack", dir);
	cache_dir = io_path("%s/cache", dir);
	memory_path = io_path("%s/memory", argv[1]);
	fd = open(index_path, O_RDONLY | O_CLOEXEC);
	TRY(index_open(fd, &x, &e));
	close(fd);
	reference_pack_object(index_id(x), object);
	to = io_path("%s/%s", dir, object);
	where = io_path("%s/images/%s", dir, index_id(x));
	TRY(io_mkdirs(where, 0700, &e));
	if (rename(pack_path, to) < 0)
		die(to, NULL);
	t = touches_of(x);
	TRY(range_server_new(dir, &server, &e));
	snprintf(url, sizeof(url), "http://127.0.0.1:%u",
		 range_server_port(server));

	measure_cached(index_path, url, cache_dir, &t, memory_path);
	measure_stream("loopback", index_path, url, object);
	TRY(throttle_new(range_server_port(server), FAR_NS / 2, FAR_BITS,
			 &throttle, &e));
	snprintf(url, sizeof(url), "http://127.0.0.1:%u",
		 throttle_port(throttle));
	measure_stream("1 Gbit/s, 20 ms", index_path, url, object);
	throttle_free(throttle);

	range_server_free(server);
	index_free(x);
	image_unref(image);
	free(t.page);
	err_drop(io_remove_tree(dir, NULL));
	return 0;
}
