/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local cache of fetched frames
 *
 * The table of what is there is in memory: a hash by name, and a list in order
 * of use. Files hold frames and nothing else; who opens the cache reads the
 * directories. One process has a cache at a time (a lock on DIR/lock), or the
 * budget would be nobody's.
 *
 *	nothing -> WRITING [cache_put]      room is taken, a thread writes
 *	WRITING -> HERE                     renamed; in the list of use
 *	WRITING -> nothing                  the disk failed
 *	HERE    -> LEAVING [eviction, cache_forget, cache_make_way, a file that
 *	                    is gone]
 *	LEAVING -> nothing                  removed from the disk
 *
 * Only HERE is found. The two others keep a second thread from the same file
 * name while the first is at it.
 *
 * Invariants:
 *  1. `bytes` is the sum over all entries, whatever their state. Room is taken
 *     before a file is written, and given back after it was removed, so what
 *     is on the disk never exceeds the budget.
 *  2. The mutex guards everything but constants. No file is touched while it
 *     is held; a thread that sets WRITING or LEAVING owns that entry.
 *  3. Whatever goes wrong, the caller is no worse off than without a cache.
 *  4. Names are made from numbers and from ids of hex digits, nothing else.
 *
 * The order of use survives a restart in the files' times, coarsely: a hit sets
 * them when that was not done for an hour. Per hit it would cost a write of the
 * inode, and frames are used in bursts, when a guest starts.
 *
 * Not durable: nothing is synced. After a crash of the host a file may be short
 * (dropped when it is read in) or wrong (its digest is the reader's to check).
 */
#include "image/cache.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/list.h"
#include "base/parse.h"
#include "image/frame.h"
#include "image/index.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

/* What a file costs: whole blocks, of the usual size. */
#define CACHE_BLOCK 4096u
/* A disk that is full or broken is left alone for that long. */
#define CACHE_REST_NS (10 * NS_PER_SEC)
/* The order of use need not be finer after a restart. */
#define CACHE_TOUCH_NS (3600 * NS_PER_SEC)
/* 120 MB of table at worst; frames of real images are 100 KB and more, so the
 * budget ends long before. */
#define CACHE_ENTRIES_MAX (1u << 20)
#define CACHE_BUCKETS (1u << 16)
/* "im..../18446744073709551615-4294967295.tmp" */
#define CACHE_NAME_MAX (INDEX_ID_MAX + 48)

enum cache_state {
	CACHE_WRITING,
	CACHE_HERE,
	CACHE_LEAVING,
};

struct cache_entry {
	struct cache_entry *next; /* in the bucket */
	struct list use; /* HERE only; the oldest first */
	uint64_t offset;
	uint64_t touched_ns; /* monotonic; 0: before we were started */
	uint32_t len;
	enum cache_state state;
	char image[INDEX_ID_MAX];
};

struct cache {
	int dir_fd;
	int lock_fd;
	pthread_mutex_t lock; /* over everything below */
	struct cache_entry *bucket[CACHE_BUCKETS];
	struct list use;
	uint32_t n;
	uint64_t rest_until_ns;
	struct cache_counts counts;
};

static uint64_t cache_cost(uint32_t len)
{
	return ((uint64_t)len + CACHE_BLOCK - 1) / CACHE_BLOCK * CACHE_BLOCK;
}

/* "im" and hex digits; ids come from indexes, and indexes from elsewhere. */
static bool cache_id_ok(const char *id)
{
	size_t len = strnlen(id, INDEX_ID_MAX);

	if (len < 3 || len >= INDEX_ID_MAX || id[0] != 'i' || id[1] != 'm')
		return false;
	for (size_t i = 2; i < len; i++)
		if (!strchr("0123456789abcdef", id[i]))
			return false;
	return true;
}

static void cache_id_copy(char out[INDEX_ID_MAX], const char *id)
{
	size_t len = strlen(id);

	must(len < INDEX_ID_MAX);
	memcpy(out, id, len + 1);
}

static void cache_name(char out[CACHE_NAME_MAX], const char *image,
		       uint64_t offset, uint32_t len, const char *suffix)
{
	snprintf(out, CACHE_NAME_MAX, "%s/%" PRIu64 "-%" PRIu32 "%s", image,
		 offset, len, suffix);
}

static void cache_lock(struct cache *c)
{
	must(!pthread_mutex_lock(&c->lock));
}

static void cache_unlock(struct cache *c)
{
	must(!pthread_mutex_unlock(&c->lock));
}

/* ---- the table; the lock is held ---- */

static struct cache_entry **cache_slot(struct cache *c, const char *image,
				       uint64_t offset, uint32_t len)
{
	uint64_t h = 0xcbf29ce484222325ull; /* FNV-1a */
	struct cache_entry **p;

	for (const char *s = image; *s; s++)
		h = (h ^ (unsigned char)*s) * 0x100000001b3ull;
	h = (h ^ offset) * 0x9e3779b97f4a7c15ull;
	p = &c->bucket[(h >> 32) % CACHE_BUCKETS];
	while (*p && ((*p)->offset != offset || (*p)->len != len ||
		      strcmp((*p)->image, image)))
		p = &(*p)->next;
	return p;
}

static struct cache_entry *cache_add(struct cache *c, const char *image,
				     uint64_t offset, uint32_t len,
				     enum cache_state state)
{
	struct cache_entry **slot = cache_slot(c, image, offset, len);
	struct cache_entry *x = *slot ? NULL : calloc(1, sizeof(*x));

	if (!x)
		return NULL;
	x->offset = offset;
	x->len = len;
	x->state = state;
	cache_id_copy(x->image, image);
	list_init(&x->use);
	if (state == CACHE_HERE)
		list_add_tail(&c->use, &x->use);
	*slot = x;
	c->n++;
	c->counts.bytes += cache_cost(len);
	return x;
}

static void cache_remove(struct cache *c, struct cache_entry *x)
{
	struct cache_entry **slot = cache_slot(c, x->image, x->offset, x->len);

	must(*slot == x && c->counts.bytes >= cache_cost(x->len));
	*slot = x->next;
	list_del(&x->use);
	c->n--;
	c->counts.bytes -= cache_cost(x->len);
	free(x);
}

static struct cache_entry *cache_leave(struct cache_entry *x)
{
	list_del(&x->use);
	x->state = CACHE_LEAVING;
	return x;
}

/* The least recently used one, for eviction; NULL: nothing can go. */
static struct cache_entry *cache_oldest(struct cache *c)
{
	struct cache_entry *x;

	if (list_empty(&c->use))
		return NULL;
	x = list_entry(c->use.next, struct cache_entry, use);
	c->counts.evicted_bytes += cache_cost(x->len);
	return cache_leave(x);
}

static void cache_failed(struct cache *c)
{
	c->counts.errors++;
	c->rest_until_ns = clock_mono_ns() + CACHE_REST_NS;
}

/* ---- removing; the lock is not held ---- */

static void cache_drop(struct cache *c, struct cache_entry *leaving)
{
	char name[CACHE_NAME_MAX];
	int r;

	cache_name(name, leaving->image, leaving->offset, leaving->len, "");
	r = unlinkat(c->dir_fd, name, 0) < 0 && errno != ENOENT ? -errno : 0;
	cache_lock(c);
	/* One that cannot be removed is lost to the account: the alternative
	 * is to try it again for ever. */
	if (r < 0)
		cache_failed(c);
	cache_remove(c, leaving);
	cache_unlock(c);
}

/* True: there is room for @cost more, and the lock is held. False: all else is being written or
 * removed by others right now, or nothing fits at all. */
static bool cache_make_room(struct cache *c, uint64_t cost, uint32_t n)
{
	struct cache_entry *x;

	for (;;) {
		cache_lock(c);
		if (cost <= c->counts.budget &&
		    c->counts.bytes <= c->counts.budget - cost &&
		    c->n + n <= CACHE_ENTRIES_MAX)
			return true;
		x = cost <= c->counts.budget ? cache_oldest(c) : NULL;
		cache_unlock(c);
		if (!x)
			return false;
		cache_drop(c, x);
	}
}

/* ---- opening ---- */

/* A file that was found; sorted by time. */
struct cache_found {
	struct timespec time;
	uint64_t offset;
	uint32_t len;
	char image[INDEX_ID_MAX];
};

struct cache_scan {
	struct cache_found *found;
	size_t n, size;
};

static int cache_found_older(const void *a, const void *b)
{
	const struct cache_found *x = a, *y = b;

	if (x->time.tv_sec != y->time.tv_sec)
		return x->time.tv_sec < y->time.tv_sec ? -1 : 1;
	return (x->time.tv_nsec > y->time.tv_nsec) -
	       (x->time.tv_nsec < y->time.tv_nsec);
}

/* "OFFSET-STORED", and as we would write it. */
static bool cache_parse_name(const char *name, uint64_t *ret_offset,
			     uint32_t *ret_len)
{
	char copy[48], again[48];
	uint64_t offset = 0, len = 0;
	char *dash;

	if (snprintf(copy, sizeof(copy), "%s", name) >= (int)sizeof(copy))
		return false;
	dash = strchr(copy, '-');
	if (!dash)
		return false;
	*dash = '\0';
	if (parse_u64(copy, &offset) < 0 || parse_u64(dash + 1, &len) < 0 ||
	    len == 0 || len > FRAME_STORED_MAX)
		return false;
	snprintf(again, sizeof(again), "%" PRIu64 "-%" PRIu64, offset, len);
	if (strcmp(again, name))
		return false;
	*ret_offset = offset;
	*ret_len = (uint32_t)len;
	return true;
}

static struct cache_found *cache_scan_grow(struct cache_scan *s)
{
	struct cache_found *found;

	if (s->n == s->size) {
		s->size = s->size ? s->size * 2 : 1024;
		found = reallocarray(s->found, s->size, sizeof(*found));
		if (!found)
			return NULL;
		s->found = found;
	}
	return &s->found[s->n];
}

static bool cache_is_temporary(const char *name)
{
	size_t len = strlen(name);

	return isdigit((unsigned char)*name) && len > 4 &&
	       !strcmp(name + len - 4, ".tmp");
}

/* What is half or not whole goes; what is not ours stays, uncounted. */
static int cache_scan_file(struct cache_scan *s, int fd, const char *image,
			   const char *name)
{
	struct cache_found *f = NULL;
	struct stat st = { 0 };
	uint64_t offset = 0;
	uint32_t len = 0;

	if (cache_is_temporary(name)) {
		err_drop(unlinkat(fd, name, 0));
		return 0;
	}
	if (!cache_parse_name(name, &offset, &len) ||
	    fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != len) {
		err_drop(unlinkat(fd, name, 0));
		return 0;
	}
	f = cache_scan_grow(s);
	if (!f)
		return -ENOMEM;
	*f = (struct cache_found){ .time = st.st_mtim,
				   .offset = offset,
				   .len = len };
	cache_id_copy(f->image, image);
	s->n++;
	return 0;
}

static DIR *cache_opendir(int at, const char *name)
{
	int fd = openat(at, name,
			O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;

	if (fd >= 0 && !d)
		close(fd);
	return d;
}

static int cache_scan_image(struct cache_scan *s, int dir_fd, const char *image)
{
	guard_dir DIR *d = cache_opendir(dir_fd, image);
	size_t before = s->n;
	struct dirent *x;
	int r = 0;

	if (!d)
		return 0;
	while (r == 0 && (x = readdir(d)))
		r = cache_scan_file(s, dirfd(d), image, x->d_name);
	if (r == 0 && s->n == before)
		err_drop(unlinkat(dir_fd, image, AT_REMOVEDIR));
	return r;
}

static int cache_scan(struct cache *c, struct cache_scan *s)
{
	guard_dir DIR *d = cache_opendir(c->dir_fd, ".");
	struct dirent *x;
	int r = 0;

	if (!d)
		return -errno;
	while (r == 0 && (x = readdir(d)))
		if (cache_id_ok(x->d_name))
			r = cache_scan_image(s, c->dir_fd, x->d_name);
	if (s->n)
		qsort(s->found, s->n, sizeof(*s->found), cache_found_older);
	for (size_t i = 0; r == 0 && i < s->n; i++)
		if (!cache_add(c, s->found[i].image, s->found[i].offset,
			       s->found[i].len, CACHE_HERE))
			r = -ENOMEM;
	return r;
}

static int cache_open_dir(struct cache *c, const char *dir, struct err *e)
{
	int r = io_mkdirs(dir, 0700, e);

	if (r < 0)
		return r;
	c->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (c->dir_fd < 0)
		return err_errno(e, errno, "open %s", dir);
	c->lock_fd = openat(c->dir_fd, "lock",
			    O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (c->lock_fd < 0)
		return err_errno(e, errno, "open %s/lock", dir);
	if (flock(c->lock_fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK
			       ? err_set(e, EBUSY,
					 "%s is in use by another process", dir)
			       : err_errno(e, errno, "lock %s/lock", dir);
	return 0;
}

int cache_open(const char *dir, uint64_t budget, struct cache **ret,
	       struct err *e)
{
	struct cache_scan scan = { 0 };
	struct cache *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return err_errno(e, ENOMEM, "cache");
	c->dir_fd = c->lock_fd = -1;
	must(!pthread_mutex_init(&c->lock, NULL));
	list_init(&c->use);
	c->counts.budget = budget;
	r = cache_open_dir(c, dir, e);
	if (r == 0) {
		r = cache_scan(c, &scan);
		if (r < 0)
			err_errno(e, -r, "read %s", dir);
	}
	free(scan.found);
	if (r < 0) {
		cache_free(c);
		return r;
	}
	if (cache_make_room(c, 0, 0)) /* down to the budget */
		cache_unlock(c);
	*ret = c;
	return 0;
}

struct cache *cache_free(struct cache *c)
{
	struct cache_entry *x;

	if (!c)
		return NULL;
	for (unsigned i = 0; i < CACHE_BUCKETS; i++) {
		while ((x = c->bucket[i])) {
			must(x->state == CACHE_HERE); /* nobody is inside */
			cache_remove(c, x);
		}
	}
	must(c->n == 0 && c->counts.bytes == 0 && list_empty(&c->use));
	must(!pthread_mutex_destroy(&c->lock));
	fd_close(&c->lock_fd);
	fd_close(&c->dir_fd);
	free(c);
	return NULL;
}

/* ---- using ---- */

/* Is it here? It becomes the youngest then. *ret_touch: its file's times are
 * due. */
static bool cache_use(struct cache *c, const char *image, uint64_t offset,
		      uint32_t len, bool *ret_touch)
{
	uint64_t now_ns = clock_mono_ns();
	struct cache_entry *x;

	cache_lock(c);
	x = *cache_slot(c, image, offset, len);
	if (!x || x->state != CACHE_HERE) {
		c->counts.misses++;
		cache_unlock(c);
		return false;
	}
	list_del(&x->use);
	list_add_tail(&c->use, &x->use);
	*ret_touch = !x->touched_ns || now_ns - x->touched_ns > CACHE_TOUCH_NS;
	if (*ret_touch)
		x->touched_ns = now_ns;
	cache_unlock(c);
	return true;
}

static int cache_read(struct cache *c, const char *name, uint32_t len, void *p,
		      bool touch)
{
	guard_fd int fd =
		openat(c->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = io_pread_full(fd, p, len, 0);
	if (n < 0)
		return (int)n;
	if (n != (ssize_t)len)
		return -ENODATA;
	if (touch)
		err_drop(futimens(fd, NULL));
	return 0;
}

/* An entry that is no good; @r: what its file said. */
static void cache_expel(struct cache *c, const char *image, uint64_t offset,
			uint32_t len, int r)
{
	struct cache_entry *x;

	cache_lock(c);
	x = *cache_slot(c, image, offset, len);
	x = x && x->state == CACHE_HERE ? cache_leave(x) : NULL;
	if (r == -EBADMSG)
		c->counts.bad++;
	else
		c->counts.misses++;
	/* One that was evicted since we looked is no error. */
	if (x && r != -EBADMSG && r != -ENOENT)
		c->counts.errors++;
	cache_unlock(c);
	if (x)
		cache_drop(c, x);
}

bool cache_get(struct cache *c, const char *image, uint64_t offset,
	       uint32_t len, void *p)
{
	char name[CACHE_NAME_MAX];
	bool touch = false;
	int r;

	if (!cache_id_ok(image) || !cache_use(c, image, offset, len, &touch))
		return false;
	cache_name(name, image, offset, len, "");
	r = cache_read(c, name, len, p, touch);
	if (r < 0) {
		cache_expel(c, image, offset, len, r);
		return false;
	}
	cache_lock(c);
	c->counts.hits++;
	cache_unlock(c);
	return true;
}

static int cache_write_file(struct cache *c, const char *image,
			    const char *temporary, const char *name,
			    uint32_t len, const void *p)
{
	guard_fd int fd = -1;
	int r;

	for (int i = 0; fd < 0; i++) {
		fd = openat(c->dir_fd, temporary,
			    O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC |
				    O_NOFOLLOW,
			    0600);
		if (fd >= 0)
			break;
		if (errno != ENOENT || i > 0)
			return -errno;
		if (mkdirat(c->dir_fd, image, 0700) < 0 && errno != EEXIST)
			return -errno;
	}
	r = io_write_full(fd, p, len);
	if (r == 0 && renameat(c->dir_fd, temporary, c->dir_fd, name) < 0)
		r = -errno;
	if (r < 0)
		err_drop(unlinkat(c->dir_fd, temporary, 0));
	return r;
}

/* Room and a name for a frame that is not there; NULL: not now. */
static struct cache_entry *cache_begin(struct cache *c, const char *image,
				       uint64_t offset, uint32_t len)
{
	struct cache_entry *x = NULL;
	bool idle;

	cache_lock(c);
	idle = clock_mono_ns() < c->rest_until_ns ||
	       *cache_slot(c, image, offset, len) != NULL;
	cache_unlock(c);
	if (idle || !cache_make_room(c, cache_cost(len), 1))
		return NULL;
	x = cache_add(c, image, offset, len, CACHE_WRITING);
	cache_unlock(c);
	return x;
}

void cache_put(struct cache *c, const char *image, uint64_t offset,
	       uint32_t len, const void *p)
{
	char name[CACHE_NAME_MAX], temporary[CACHE_NAME_MAX];
	struct cache_entry *x;
	int r;

	if (!cache_id_ok(image) || len == 0 || len > FRAME_STORED_MAX)
		return;
	x = cache_begin(c, image, offset, len);
	if (!x)
		return;
	cache_name(name, image, offset, len, "");
	cache_name(temporary, image, offset, len, ".tmp");
	r = cache_write_file(c, image, temporary, name, len, p);
	cache_lock(c);
	if (r < 0) {
		cache_failed(c);
		cache_remove(c, x);
	} else {
		x->state = CACHE_HERE;
		x->touched_ns = clock_mono_ns();
		list_add_tail(&c->use, &x->use);
		c->counts.written_bytes += len;
	}
	cache_unlock(c);
}

void cache_forget(struct cache *c, const char *image, uint64_t offset,
		  uint32_t len)
{
	if (cache_id_ok(image))
		cache_expel(c, image, offset, len, -EBADMSG);
}

uint64_t cache_make_way(struct cache *c, int fd, uint64_t bytes)
{
	struct stat ours = { 0 }, theirs = { 0 };
	struct cache_entry *x;
	uint64_t done = 0;

	if (fstat(c->dir_fd, &ours) < 0 || fstat(fd, &theirs) < 0 ||
	    ours.st_dev != theirs.st_dev)
		return 0;
	do {
		cache_lock(c);
		c->rest_until_ns = clock_mono_ns() + CACHE_REST_NS;
		x = cache_oldest(c);
		cache_unlock(c);
		if (!x)
			break;
		done += cache_cost(x->len);
		cache_drop(c, x);
	} while (done < bytes);
	return done;
}

struct cache_counts cache_counts(struct cache *c)
{
	struct cache_counts counts;

	cache_lock(c);
	counts = c->counts;
	cache_unlock(c);
	return counts;
}
