/* SPDX-License-Identifier: Apache-2.0 */
/*
 * COPY guests: huge pages
 */
#include "pager/test_stream.h"

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

int main(void)
{
	test_huge_present();
	return 0;
}
