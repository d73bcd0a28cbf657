/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plans, seen from the daemon
 *
 * A plan is collected in ordinary memory, then written at one go into a memfd
 * whose size is sealed: a VMM can scribble over the plan, but it cannot make
 * the daemon's mapping of it fault by cutting it short.
 *
 * Layout, in whole pages so that the bitmap does not share one with anything
 * that is written at birth (a bitmap that nobody sets costs nothing):
 *
 *	0                 struct gmem_plan
 *	PLAN_HEADER       extents
 *	bitmap_offset     one bit per page of RAM
 *	populate_offset   ranges
 *	total_bytes
 *
 * Invariants
 *  1. Extents are sorted, adjoin, and never pass the end of the RAM; only
 *     plan_finish() asks that they reach it.
 *  2. A shared plan is the layer as it is: one extent, offset 0, not streamed.
 *  3. A view takes its sizes from the RAM size the daemon knows and from the
 *     fd, never from the memory it looks at; offsets read there are copied,
 *     then checked.
 */
#include "gmem/plan.h"
#include "base/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* Ranges to populate: a working set is a few thousand runs; this many cost
 * 1 MiB of plan. */
#define PLAN_POPULATE_MAX 65536u

struct plan {
	enum plan_mode mode;
	uint32_t flags;
	uint64_t ram_bytes;
	uint64_t next; /* where the next extent starts */
	struct gmem_extent *extents;
	uint32_t n_extents, size_extents;
	struct gmem_range *populate;
	uint32_t n_populate, size_populate;
};

static uint64_t page_up(uint64_t n)
{
	return (n + PLAN_PAGE - 1) / PLAN_PAGE * PLAN_PAGE;
}

static bool pages_ok(uint64_t start, uint64_t len, uint64_t limit)
{
	return start % PLAN_PAGE == 0 && len % PLAN_PAGE == 0 && len > 0 &&
	       start <= limit && len <= limit - start;
}

static uint64_t bitmap_bytes(uint64_t ram_bytes)
{
	return (ram_bytes / PLAN_PAGE + 7) / 8;
}

int plan_new(enum plan_mode mode, uint64_t ram_bytes, struct plan **ret,
	     struct err *e)
{
	struct plan *p;

	if (mode >= PLAN_MODE_COUNT)
		return err_set(e, EINVAL, "plan: mode %u", mode);
	if (!pages_ok(0, ram_bytes, PLAN_RAM_MAX))
		return err_set(e, EINVAL, "plan: %llu bytes of guest memory",
			       (unsigned long long)ram_bytes);
	p = calloc(1, sizeof(*p));
	if (!p)
		return err_errno(e, ENOMEM, "plan");
	p->mode = mode;
	p->ram_bytes = ram_bytes;
	*ret = p;
	return 0;
}

struct plan *plan_free(struct plan *p)
{
	if (p) {
		free(p->extents);
		free(p->populate);
		free(p);
	}
	return NULL;
}

/* Room for one more item of @item bytes. */
static int plan_grow(void **mem, uint32_t n, uint32_t *size, uint32_t limit,
		     size_t item)
{
	uint32_t want = *size ? *size * 2 : 64;
	void *m;

	if (n < *size)
		return 0;
	if (n >= limit)
		return -E2BIG;
	want = min(want, limit);
	m = reallocarray(*mem, want, item);
	if (!m)
		return -ENOMEM;
	*mem = m;
	*size = want;
	return 0;
}

int plan_add(struct plan *p, enum plan_kind kind, uint64_t len, uint64_t offset)
{
	struct gmem_extent *last;
	void *mem = p->extents;
	int r;

	if (kind >= PLAN_KIND_COUNT || len == 0 || len % PLAN_PAGE ||
	    offset % PLAN_PAGE)
		return -EINVAL;
	if (len > p->ram_bytes - p->next || offset + len < offset ||
	    offset + len > INT64_MAX)
		return -ERANGE;
	if (kind == PLAN_ZERO)
		offset = 0;
	if (p->mode == PLAN_SHARED && (kind != PLAN_LAYER || offset != p->next))
		return -EINVAL;

	last = p->n_extents ? &p->extents[p->n_extents - 1] : NULL;
	if (last && last->kind == kind &&
	    (kind == PLAN_ZERO || last->offset + last->len == offset)) {
		last->len += len;
		p->next += len;
		return 0;
	}
	r = plan_grow(&mem, p->n_extents, &p->size_extents, PLAN_EXTENTS_MAX,
		      sizeof(*p->extents));
	p->extents = mem;
	if (r < 0)
		return r;
	p->extents[p->n_extents++] = (struct gmem_extent){
		.start = p->next,
		.len = len,
		.kind = kind,
		.offset = offset,
	};
	p->next += len;
	return 0;
}

int plan_populate(struct plan *p, uint64_t start, uint64_t len)
{
	struct gmem_range *last;
	void *mem = p->populate;
	int r;

	if (start % PLAN_PAGE || len % PLAN_PAGE || len == 0)
		return -EINVAL;
	if (!pages_ok(start, len, p->ram_bytes))
		return -ERANGE;
	last = p->n_populate ? &p->populate[p->n_populate - 1] : NULL;
	if (last && last->start + last->len == start) {
		last->len += len;
		return 0;
	}
	r = plan_grow(&mem, p->n_populate, &p->size_populate, PLAN_POPULATE_MAX,
		      sizeof(*p->populate));
	p->populate = mem;
	if (r < 0)
		return r;
	p->populate[p->n_populate++] = (struct gmem_range){
		.start = start,
		.len = len,
	};
	return 0;
}

void plan_set_streamed(struct plan *p)
{
	p->flags |= PLAN_STREAMED;
}

void plan_set_exact(struct plan *p)
{
	p->flags |= PLAN_EXACT;
}

static int plan_write(const struct plan *p, const struct gmem_plan *head,
		      int fd, struct err *e)
{
	void *m = mmap(NULL, head->total_bytes, PROT_READ | PROT_WRITE,
		       MAP_SHARED, fd, 0);

	if (m == MAP_FAILED)
		return err_errno(e, errno, "plan: mmap");
	memcpy(m, head, sizeof(*head));
	memcpy((char *)m + PLAN_HEADER, p->extents,
	       p->n_extents * sizeof(*p->extents));
	if (p->n_populate)
		memcpy((char *)m + head->populate_offset, p->populate,
		       p->n_populate * sizeof(*p->populate));
	munmap(m, head->total_bytes);
	return 0;
}

int plan_finish(struct plan *p, int *ret_fd, struct err *e)
{
	struct gmem_plan head = { 0 };
	guard_fd int fd = -1;
	int r;

	if (p->next != p->ram_bytes)
		return err_set(e, EINVAL,
			       "plan: extents cover %llu of %llu bytes",
			       (unsigned long long)p->next,
			       (unsigned long long)p->ram_bytes);
	if (p->mode == PLAN_SHARED && p->flags & PLAN_STREAMED)
		return err_set(e, EINVAL,
			       "plan: a shared layer cannot be streamed");
	if (p->flags & PLAN_EXACT &&
	    (p->mode == PLAN_SHARED || p->flags & PLAN_STREAMED))
		return err_set(e, EINVAL,
			       "plan: exact, and shared or streamed");
	head.magic = PLAN_MAGIC;
	head.version = PLAN_VERSION;
	head.mode = p->mode;
	head.flags = p->flags;
	head.ram_bytes = p->ram_bytes;
	head.n_extents = p->n_extents;
	head.n_populate = p->n_populate;
	head.bitmap_offset =
		page_up(PLAN_HEADER + p->n_extents * sizeof(*p->extents));
	head.populate_offset =
		page_up(head.bitmap_offset + bitmap_bytes(p->ram_bytes));
	head.total_bytes = page_up(head.populate_offset +
				   p->n_populate * sizeof(*p->populate));

	fd = memfd_create("byre-plan", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return err_errno(e, errno, "plan: memfd_create");
	if (ftruncate(fd, (off_t)head.total_bytes) < 0)
		return err_errno(e, errno, "plan: ftruncate");
	r = plan_write(p, &head, fd, e);
	if (r < 0)
		return r;
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) <
	    0)
		return err_errno(e, errno, "plan: seal");
	*ret_fd = fd_take(&fd);
	return 0;
}

/* ---- views ---- */

int plan_view_open(int fd, uint64_t ram_bytes, struct plan_view *ret,
		   struct err *e)
{
	struct plan_view v = PLAN_VIEW_NULL;
	struct stat st = { 0 };
	uint64_t offset;
	int seals;
	void *m;

	if (!pages_ok(0, ram_bytes, PLAN_RAM_MAX))
		return err_set(e, EINVAL, "plan: %llu bytes of guest memory",
			       (unsigned long long)ram_bytes);
	/* Unsealed, the VMM could cut it short under our feet. */
	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0)
		return err_errno(e, errno, "plan: read seals");
	if (!(seals & F_SEAL_SHRINK))
		return err_set(e, EPERM, "plan: not sealed");
	if (fstat(fd, &st) < 0)
		return err_errno(e, errno, "plan: fstat");
	if ((uint64_t)st.st_size < PLAN_HEADER + bitmap_bytes(ram_bytes))
		return err_set(e, EINVAL, "plan: only %lld bytes",
			       (long long)st.st_size);
	m = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (m == MAP_FAILED)
		return err_errno(e, errno, "plan: mmap");
	v.head = m;
	v.ram_bytes = ram_bytes;
	v.map_len = (uint64_t)st.st_size;

	offset = __atomic_load_n(&v.head->bitmap_offset, __ATOMIC_RELAXED);
	if (v.head->magic != PLAN_MAGIC || v.head->version != PLAN_VERSION ||
	    v.head->ram_bytes != ram_bytes || offset < PLAN_HEADER ||
	    offset > v.map_len ||
	    bitmap_bytes(ram_bytes) > v.map_len - offset) {
		plan_view_close(&v);
		return err_set(e, EINVAL, "plan: header makes no sense");
	}
	v.bitmap = (const uint8_t *)m + offset;
	*ret = v;
	return 0;
}

void plan_view_close(struct plan_view *v)
{
	union {
		const void *c;
		void *m;
	} u = { .c = v->head };

	if (v->head)
		munmap(u.m, v->map_len);
	*v = (struct plan_view)PLAN_VIEW_NULL;
}

struct gmem_report plan_view_report(const struct plan_view *v)
{
	struct gmem_report r;
	/* The shim writes the address last, so look at it first. */
	uint64_t addr =
		__atomic_load_n(&v->head->report.ram_addr, __ATOMIC_ACQUIRE);

	memcpy(&r, &v->head->report, sizeof(r));
	r.ram_addr = addr;
	return r;
}
