/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the tests of the engine share: an image in a directory store, guests
 * that are processes of their own, and an engine on a thread
 *
 * Children are forked before there are threads; each waits for a byte in its
 * pipe and then does what its body says. A body returns 0 when all pages were
 * what they should be.
 */
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/test.h"
#include "image/frame.h"
#include "image/index_write.h"
#include "image/reference.h"
#include "pager/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#define PAGE ((uint64_t)INDEX_PAGE)
#define STREAM_OTHER_ID "im0123456789abcdef0123456789abcdef"

/* ---- an image ---- */

struct stream {
	char dir[256]; /* the store */
	struct store_spec spec;
	char id[INDEX_ID_MAX];
	void *index;
	size_t index_len;
	uint64_t pages[INDEX_LAYER_COUNT];
	uint32_t seed;
	int memory_fd, memory_ro, disk_fd;
};

/* Every 9th page, and a run of 64 in each 512. */
static inline bool stream_zero(uint64_t page)
{
	return page % 9 == 4 || page % 512 >= 448;
}

static inline bool stream_hot(uint64_t page)
{
	return !stream_zero(page) && page / 16 % 4 == 1;
}

/* Half noise, half text: compresses to about half. */
static inline void stream_page(uint32_t seed, unsigned part, uint64_t page,
			       uint8_t *p)
{
	uint64_t x = (page + 1) * 0x9e3779b97f4a7c15ull + seed * 7919ull + part;
	uint64_t *q = (uint64_t *)(void *)p;

	if (stream_zero(page)) {
		memset(p, 0, PAGE);
		return;
	}
	for (unsigned i = 0; i < PAGE / 8; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		q[i] = i % 2 ? page + 1 : x;
	}
}

static inline void stream_frame(struct stream *s, struct index_writer *w,
				struct frame_coder *c, enum index_layer l,
				uint32_t i, int fd, uint64_t *at)
{
	static uint8_t raw[INDEX_CHUNK];
	struct index_frame *f = &w->frames[l][i];
	uint64_t first = (uint64_t)(i / 2) * INDEX_CHUNK_PAGES;
	const void *stored;

	for (uint64_t p = first;
	     p < first + INDEX_CHUNK_PAGES && p < s->pages[l]; p++)
		if (!stream_zero(p) && stream_hot(p) == (i % 2 == 0))
			stream_page(s->seed, l, p, raw + PAGE * f->pages++);
	if (!f->pages)
		return;
	check(frame_encode(c, raw, f->pages, &stored, &f->stored, f->sha256) ==
	      0);
	f->offset = *at;
	f->source = (uint16_t)l;
	check(io_pwrite_full(fd, stored, f->stored, *at) == 0);
	*at += f->stored;
}

/* The disk's frames are in the pack of another image, as a parent's are. */
static inline void stream_pack(struct stream *s, struct index_writer *w,
			       enum index_layer l, const char *path)
{
	struct frame_coder *c = NULL;
	uint64_t at = 0;
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

	check(fd >= 0 && frame_coder_new(&c) == 0);
	for (uint32_t hot = 0; hot < 2; hot++)
		for (uint32_t i = hot; i < index_writer_frames(w, l); i += 2)
			stream_frame(s, w, c, l, i, fd, &at);
	w->source[l].pack_bytes = at;
	close(fd);
	frame_coder_free(c);
}

static inline void stream_fds(struct stream *s)
{
	char path[300];

	s->memory_fd = memfd_create("memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	check(s->memory_fd >= 0);
	check(ftruncate(s->memory_fd, (off_t)(s->pages[INDEX_MEMORY] * PAGE)) ==
	      0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", s->memory_fd);
	s->memory_ro = open(path, O_RDONLY | O_CLOEXEC);
	check(s->memory_ro >= 0);
	snprintf(path, sizeof(path), "%s/disk.part", s->dir);
	s->disk_fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	check(s->disk_fd >= 0);
	check(ftruncate(s->disk_fd, (off_t)(s->pages[INDEX_DISK] * PAGE)) == 0);
}

static inline struct index *stream_index(const struct stream *s)
{
	struct index *x = NULL;
	struct err e = ERR_NULL;

	check(index_parse(s->index, s->index_len, &x, &e) == 0);
	return x;
}

static inline void stream_path_of(const struct stream *s, const char *id,
				  char out[600])
{
	char object[REFERENCE_OBJECT_MAX];

	reference_pack_object(id, object);
	snprintf(out, 600, "%s/%s", s->dir, object);
}

static inline void stream_path(const struct stream *s, char out[600])
{
	stream_path_of(s, s->id, out);
}

static inline void stream_place(const struct stream *s, const char *id,
				const char *from)
{
	struct err e = ERR_NULL;
	char to[600];

	stream_path_of(s, id, to);
	*strrchr(to, '/') = '\0';
	check(io_mkdirs(to, 0755, &e) == 0);
	stream_path_of(s, id, to);
	check(rename(from, to) == 0);
}

static inline void stream_new(struct stream *s, uint32_t seed, uint64_t memory,
			      uint64_t disk)
{
	uint64_t bytes[INDEX_LAYER_COUNT] = { memory * PAGE, disk * PAGE };
	struct index_writer w = INDEX_WRITER_NULL;
	struct err e = ERR_NULL;
	char path[600], other[600];
	struct index *x;

	*s = (struct stream){ .seed = seed, .pages = { memory, disk } };
	test_dir(s->dir, sizeof(s->dir));
	snprintf(s->spec.name, sizeof(s->spec.name), "test");
	snprintf(s->spec.url, sizeof(s->spec.url), "dir://%s", s->dir);
	check(index_writer_init(&w, bytes, &e) == 0);
	for (unsigned l = 0; l < INDEX_LAYER_COUNT; l++)
		for (uint64_t p = 0; p < s->pages[l]; p++)
			if (stream_zero(p))
				bitmap_set(&w.zeromap[l], p);
			else if (stream_hot(p))
				bitmap_set(&w.hotmap[l], p);
	snprintf(path, sizeof(path), "%s/pack", s->dir);
	snprintf(other, sizeof(other), "%s/other", s->dir);
	stream_pack(s, &w, INDEX_MEMORY, path);
	if (disk) {
		w.n_sources = 2;
		snprintf(w.source[1].id, sizeof(w.source[1].id),
			 STREAM_OTHER_ID);
		stream_pack(s, &w, INDEX_DISK, other);
		stream_place(s, STREAM_OTHER_ID, other);
	}
	check(index_writer_print(&w, &s->index, &s->index_len, &e) == 0);
	index_writer_deinit(&w);
	x = stream_index(s);
	snprintf(s->id, sizeof(s->id), "%s", index_id(x));
	index_free(x);
	stream_place(s, s->id, path);
	stream_fds(s);
}

/* As on another host: nothing fetched. */
static inline void stream_empty(struct stream *s)
{
	close(s->memory_fd);
	close(s->memory_ro);
	close(s->disk_fd);
	stream_fds(s);
}

static inline void stream_end(struct stream *s)
{
	struct err e = ERR_NULL;

	close(s->memory_fd);
	close(s->memory_ro);
	close(s->disk_fd);
	free(s->index);
	check(io_remove_tree(s->dir, &e) == 0);
}

/* ---- a guest: a process ---- */

struct child {
	const struct stream *stream;
	enum guest_kind kind;
	volatile uint8_t *mem; /* in the child; the same number in the parent */
	uint64_t pages;
	int uffd; /* in the parent: ours */
	pid_t pid;
	int go[2]; /* bytes to the child */
	int told[2]; /* bytes from the child */
};

static inline bool child_page_ok(const struct child *c, uint64_t page)
{
	uint8_t want[PAGE];

	stream_page(c->stream->seed, INDEX_MEMORY, page, want);
	return memcmp((const void *)(uintptr_t)(c->mem + page * PAGE), want,
		      PAGE) == 0;
}

/* The child's side: wait for the parent, tell it. */
static inline void child_wait(struct child *c)
{
	char b;

	if (read(c->go[0], &b, 1) != 1)
		_exit(3);
}

static inline void child_tell(struct child *c)
{
	if (write(c->told[1], "x", 1) != 1)
		_exit(3);
}

static inline int test_uffd(uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), dev;

	if (fd < 0) {
		dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
		if (dev < 0)
			test_skip("no userfaultfd for this user");
		fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
		close(dev);
	}
	check(fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0);
	return fd;
}

static inline void child_map(struct child *c, uint64_t features)
{
	bool shared = c->kind == GUEST_SHARED;
	struct uffdio_register r = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	void *p =
		mmap(NULL, c->pages * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_NORESERVE | (shared ? 0 : MAP_ANONYMOUS),
		     shared ? c->stream->memory_ro : -1, 0);

	check(p != MAP_FAILED);
	check(madvise(p, c->pages * PAGE, MADV_NOHUGEPAGE) == 0 || shared);
	c->mem = p;
	c->uffd = test_uffd(features);
	r.range.start = (uintptr_t)p;
	r.range.len = c->pages * PAGE;
	check(ioctl(c->uffd, UFFDIO_REGISTER, &r) == 0);
	/* Long runs of zeros are anonymous, and not the pager's business. */
	for (uint64_t at = 448; shared && at + 64 <= c->pages; at += 512)
		check(mmap((void *)(uintptr_t)(c->mem + at * PAGE), 64 * PAGE,
			   PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			   0) != MAP_FAILED);
}

/* In the parent: a process with the memory of @s, which runs @body. */
static inline void child_new(struct child *c, const struct stream *s,
			     enum guest_kind kind, uint64_t features,
			     int (*body)(struct child *c))
{
	uintptr_t report[2] = { 0 };
	int pidfd;

	*c = (struct child){ .stream = s,
			     .kind = kind,
			     .pages = s->pages[INDEX_MEMORY] };
	check(pipe2(c->go, O_CLOEXEC) == 0 && pipe2(c->told, O_CLOEXEC) == 0);
	c->pid = fork();
	check(c->pid >= 0);
	if (c->pid == 0) {
		/* A test that fails leaves nobody behind. */
		close(c->go[1]);
		close(c->told[0]);
		child_map(c, features);
		report[0] = (uintptr_t)c->mem;
		report[1] = (uintptr_t)c->uffd;
		check(write(c->told[1], report, sizeof(report)) ==
		      sizeof(report));
		child_wait(c);
		_exit(body(c));
	}
	close(c->go[0]);
	close(c->told[1]);
	if (read(c->told[0], report, sizeof(report)) != sizeof(report))
		test_skip("no userfaultfd for this user");
	c->mem = (volatile uint8_t *)report[0];
	pidfd = (int)syscall(SYS_pidfd_open, c->pid, 0);
	check(pidfd >= 0);
	c->uffd = (int)syscall(SYS_pidfd_getfd, pidfd, (int)report[1], 0);
	if (c->uffd < 0)
		test_skip("pidfd_getfd is not allowed here");
	close(pidfd);
}

static inline void child_go(struct child *c)
{
	check(write(c->go[1], "x", 1) == 1);
}

static inline void child_hear(struct child *c)
{
	char b;

	check(read(c->told[0], &b, 1) == 1);
}

static inline void child_add(struct child *c, struct engine *g, uint64_t number,
			     uint32_t layer)
{
	struct engine_region r = { .addr = (uintptr_t)c->mem,
				   .bytes = c->pages * PAGE,
				   .page_bytes = PAGE };
	struct err e = ERR_NULL;
	int uffd = fcntl(c->uffd, F_DUPFD_CLOEXEC, 0);
	int pidfd = (int)syscall(SYS_pidfd_open, c->pid, 0);

	check(uffd >= 0 && pidfd >= 0);
	check(guest_add(g, number, c->kind, layer, uffd, pidfd, &r, 1, &e) ==
	      0);
}

static inline void child_close(struct child *c)
{
	close(c->uffd);
	close(c->go[1]);
	close(c->told[0]);
}

/* Ends by itself, with all pages right. */
static inline void child_end(struct child *c)
{
	int status = 0;

	check(waitpid(c->pid, &status, 0) == c->pid);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	child_close(c);
}

static inline void child_kill(struct child *c)
{
	int status = 0;

	check(kill(c->pid, SIGKILL) == 0);
	check(waitpid(c->pid, &status, 0) == c->pid);
	child_close(c);
}

/* ---- an engine on a thread ---- */

struct rig {
	struct engine *engine;
	struct pager_stats *stats;
	pthread_t thread;
	int call_fd;
	void (*call)(struct rig *r, void *arg);
	void *call_arg;
	pthread_mutex_t lock;
	pthread_cond_t change;
	bool called;
	/* What the engine told, under the lock. */
	unsigned failed, ended, whole;
	uint64_t last_failed;
	struct err why;
};

static inline void rig_note(struct rig *r, unsigned *n)
{
	(*n)++;
	pthread_cond_broadcast(&r->change);
	pthread_mutex_unlock(&r->lock);
}

static inline void rig_failed(void *arg, uint64_t guest, const struct err *e)
{
	struct rig *r = arg;

	pthread_mutex_lock(&r->lock);
	r->last_failed = guest;
	r->why = *e;
	rig_note(r, &r->failed);
}

static inline void rig_ended(void *arg, unused uint64_t guest)
{
	struct rig *r = arg;

	pthread_mutex_lock(&r->lock);
	rig_note(r, &r->ended);
}

static inline void rig_whole(void *arg, unused uint32_t layer)
{
	struct rig *r = arg;

	pthread_mutex_lock(&r->lock);
	rig_note(r, &r->whole);
}

static inline unsigned rig_count(struct rig *r, const unsigned *n)
{
	unsigned v;

	pthread_mutex_lock(&r->lock);
	v = *n;
	pthread_mutex_unlock(&r->lock);
	return v;
}

static inline void rig_until(struct rig *r, const unsigned *n, unsigned least)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_sec += 60;
	pthread_mutex_lock(&r->lock);
	while (*n < least)
		check(pthread_cond_timedwait(&r->change, &r->lock, &t) == 0);
	pthread_mutex_unlock(&r->lock);
}

static inline void rig_call_ready(void *arg, int fd)
{
	struct rig *r = arg;
	uint64_t n;

	check(read(fd, &n, sizeof(n)) == sizeof(n));
	r->call(r, r->call_arg);
	pthread_mutex_lock(&r->lock);
	r->called = true;
	pthread_cond_broadcast(&r->change);
	pthread_mutex_unlock(&r->lock);
}

/* @fn on the poller's thread; waits. */
static inline void rig_call(struct rig *r, void (*fn)(struct rig *r, void *arg),
			    void *arg)
{
	const uint64_t one = 1;

	r->call = fn;
	r->call_arg = arg;
	r->called = false;
	check(write(r->call_fd, &one, sizeof(one)) == sizeof(one));
	pthread_mutex_lock(&r->lock);
	while (!r->called)
		pthread_cond_wait(&r->change, &r->lock);
	pthread_mutex_unlock(&r->lock);
}

static inline void rig_new(struct rig *r, uint64_t deadline_ns,
			   struct cache *cache, unsigned workers)
{
	static const struct engine_events events = {
		.guest_failed = rig_failed,
		.guest_ended = rig_ended,
		.layer_whole = rig_whole,
	};
	struct err e = ERR_NULL;
	struct engine_config c = { .workers = workers,
				   .deadline_ns = deadline_ns,
				   .cache = cache,
				   .events = &events,
				   .arg = r };

	log_set_level(LOG_LEVEL_ERROR); /* reads fail on purpose */
	*r = (struct rig){ .lock = PTHREAD_MUTEX_INITIALIZER,
			   .change = PTHREAD_COND_INITIALIZER };
	r->stats = calloc(1, sizeof(*r->stats));
	check(r->stats);
	c.stats = r->stats;
	check(engine_new(&c, &r->engine, &e) == 0);
	r->call_fd = eventfd(0, EFD_CLOEXEC);
	check(r->call_fd >= 0);
	check(engine_watch(r->engine, r->call_fd, rig_call_ready, r) == 0);
}

static inline void rig_layer(struct rig *r, uint32_t number,
			     const struct stream *s, bool disk)
{
	struct err e = ERR_NULL;
	int code = layer_add(r->engine, number, stream_index(s), &s->spec,
			     s->memory_fd, disk ? s->disk_fd : -1, &e);

	if (code < 0)
		fprintf(stderr, "%s\n", e.msg);
	check(code == 0);
}

static inline void *rig_main(void *arg)
{
	struct rig *r = arg;
	struct err e = ERR_NULL;

	check(engine_run(r->engine, &e) == 0);
	return NULL;
}

static inline void rig_start(struct rig *r)
{
	check(pthread_create(&r->thread, NULL, rig_main, r) == 0);
}

static inline void rig_stop(struct rig *r)
{
	engine_stop(r->engine);
	check(pthread_join(r->thread, NULL) == 0);
	r->engine = engine_free(r->engine);
	close(r->call_fd);
	free(r->stats);
}

static inline void rig_prefetch_all(struct rig *r, unused void *arg)
{
	struct err e = ERR_NULL;

	check(layer_prefetch(r->engine, 0, true, &e) == 0);
}

static inline uint64_t rig_stat(const uint64_t *n)
{
	return PAGER_GET(*n);
}

/* Read a page of the disk that is in the hot frame of @chunk, or in its cold
 * one; it is right, or what layer_need_disk() said. */
static inline int rig_read_page(struct rig *r, const struct stream *s,
				unsigned chunk, bool hot)
{
	uint64_t page = chunk * (uint64_t)INDEX_CHUNK_PAGES;
	uint8_t got[PAGE], want[PAGE];
	int code;

	while (stream_zero(page) || stream_hot(page) != hot)
		page++;
	code = layer_need_disk(r->engine, 0, page * PAGE, PAGE);
	if (code < 0)
		return code;
	check(io_pread_full(s->disk_fd, got, PAGE, page * PAGE) ==
	      (ssize_t)PAGE);
	stream_page(s->seed, INDEX_DISK, page, want);
	check(memcmp(got, want, PAGE) == 0);
	return 0;
}

static inline void rig_need_page(struct rig *r, const struct stream *s,
				 unsigned chunk, bool hot)
{
	check(rig_read_page(r, s, chunk, hot) == 0);
}
