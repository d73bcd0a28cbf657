/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One count of memory: who is counted, and what came out
 *
 * Reading the page tables of a herd takes from milliseconds to a second, so it
 * is a worker's job. The worker must not touch the registry, nor may a sandbox
 * be kept from dying meanwhile; so the loop first writes down everything that
 * is needed to count (pids, addresses, a pidfd of our own each), the worker
 * counts by that, and the loop makes the answer.
 *
 *	loop: count_add_* --> worker: count_run --> loop: count_json
 *
 * Invariants:
 *  1. While the worker has it, nobody else looks into a struct count, but for
 *     `owner`, which the worker does not touch.
 *  2. A pid's numbers count only if its pidfd says afterwards that the process
 *     still lived: one that ended, or a pid that was reused, is left out, and
 *     so are errors it caused.
 *  3. Any other error fails the whole count: a ledger with a hole in it would
 *     be believed.
 *
 * Of a template, present + remote + zero is configured: what is in a file or in
 * the layer it streams into, what only the store has, what is nowhere. A
 * streamed layer is a memfd; its pages are a file's to whoever maps them, so a
 * guest's clean ones are `shared`, and the layer is billed once, as resident.
 *
 * A template that was replaced is gone, and its image's files are; but its guests
 * map the memory, which stays in the page cache until the last of them ends.
 * That is a row of its own, found by asking the guests.
 *
 * billed is what the templates hold once, plus what each sandbox has for
 * itself; promised is what the guests believe they have.
 */
#include "api/count.h"

#include "api/utf8.h"
#include "base/guard.h"
#include "image/image.h"
#include "ledger/overhead.h"
#include "ledger/pagemap.h"
#include "ledger/resident.h"
#include "template/template.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>

int count_new(struct mem *owner, const char *proc_root, struct count **ret,
	      struct err *e)
{
	struct count *c = calloc(1, sizeof(*c));

	if (c) {
		c->owner = owner;
		c->proc_root = strdup(proc_root);
		c->templates = json_array();
		c->replaced = json_object();
	}
	if (!c || !c->proc_root || !c->templates || !c->replaced) {
		count_free(c);
		return err_errno(e, ENOMEM, "count memory");
	}
	*ret = c;
	return 0;
}

struct count *count_free(struct count *c)
{
	if (!c)
		return NULL;
	for (size_t i = 0; i < c->n_sandboxes; i++) {
		free(c->sandboxes[i].m.surrendered);
		fd_close(&c->sandboxes[i].pidfd);
	}
	free(c->sandboxes);
	free(c->proc_root);
	json_decref(c->templates);
	json_decref(c->replaced);
	free(c);
	return NULL;
}

/* ---- before ---- */

static int count_room(struct count *c)
{
	struct count_sandbox *more;
	size_t size;

	if (c->n_sandboxes < c->size)
		return 0;
	size = max(c->size * 2, (size_t)16);
	more = reallocarray(c->sandboxes, size, sizeof(*more));
	if (!more)
		return -ENOMEM;
	c->sandboxes = more;
	c->size = size;
	return 0;
}

int count_add_sandbox(struct count *c, const struct sandbox *s, struct err *e)
{
	struct count_sandbox *row;

	if (count_room(c) < 0)
		return err_errno(e, ENOMEM, "count memory");
	row = &c->sandboxes[c->n_sandboxes];
	*row = (struct count_sandbox){ .pidfd = -1 };
	if (!sandbox_memory(s, &row->m))
		return 0;
	row->pidfd = fcntl(row->m.pidfd, F_DUPFD_CLOEXEC, 0);
	if (row->pidfd < 0) {
		int code = errno;

		free(row->m.surrendered);
		return err_errno(e, code, "count memory of sandbox %s",
				 row->m.id);
	}
	row->m.pidfd = -1; /* the registry's, to close when it likes */
	c->n_sandboxes++;
	return 0;
}

static int count_add_row(struct count *c, const struct template_info *t,
			 uint64_t bytes, uint64_t zero_bytes, bool replaced,
			 struct err *e)
{
	json_t *row = json_pack(
		"{s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "name",
		utf8_json_text(t->name), "configured", (json_int_t)bytes,
		"resident", (json_int_t)t->resident_bytes, "zero",
		(json_int_t)zero_bytes, "present", (json_int_t)t->present_bytes,
		"streamed", (json_int_t)t->streamed_bytes, "remote",
		(json_int_t)t->remote_bytes, "replaced", replaced);

	if (json_array_append_new(c->templates, row) < 0)
		return err_errno(e, ENOMEM, "count memory");
	c->templates_bytes += t->resident_bytes;
	return 0;
}

int count_add_template(struct count *c, const struct template_info *t,
		       struct err *e)
{
	const struct image_manifest *m = t->manifest;

	return count_add_row(c, t, m->memory_bytes, m->zero_bytes, false, e);
}

int count_add_replaced(struct count *c, const struct sandbox_layer *l,
		       struct err *e)
{
	char name[80];
	struct template_info t = {
		.name = name,
		.present_bytes = l->bytes - l->zero_bytes,
	};

	if (json_object_get(c->replaced, l->image))
		return 0;
	if (json_object_set_new(c->replaced, l->image, json_true()) < 0)
		return err_errno(e, ENOMEM, "count memory");
	/* Two of one name would be taken for one another. */
	snprintf(name, sizeof(name), "%s (replaced)", l->template);
	err_drop(file_resident(l->fd, &t.resident_bytes, NULL));
	return count_add_row(c, &t, l->bytes, l->zero_bytes, true, e);
}

/* ---- the worker's part ---- */

static bool count_ended(const struct count_sandbox *row)
{
	struct pollfd p = { .fd = row->pidfd, .events = POLLIN };

	return poll(&p, 1, 0) > 0;
}

static int count_sandbox(const struct count *c, struct count_sandbox *row,
			 struct err *e)
{
	struct overhead overhead = { 0 };
	int r;

	r = pagemap_count(c->proc_root, row->m.pid, row->m.ram_addr,
			  row->m.ram_bytes, row->m.surrendered, PAGEMAP_AUTO,
			  &row->buckets, NULL, e);
	if (r == 0)
		r = overhead_count(c->proc_root, row->m.pid, row->m.ram_addr,
				   row->m.ram_bytes, &overhead, e);
	row->vmm_bytes = overhead_sum(&overhead);
	/* A process that ends loses its memory before its pidfd says so. */
	if (r == -ESRCH || count_ended(row)) {
		row->gone = true;
		return 0;
	}
	return r < 0 ? err_prefix(e, "sandbox %s", row->m.id) : 0;
}

void count_run(struct worker_job *job)
{
	struct count *c = container_of(job, struct count, job);
	int r = host_memory_read(c->proc_root, &c->host, &c->err);

	for (size_t i = 0; r == 0 && i < c->n_sandboxes; i++) {
		struct err e = ERR_NULL;

		r = count_sandbox(c, &c->sandboxes[i], &e);
		if (r < 0)
			c->err = e;
	}
}

/* ---- afterwards ---- */

static json_t *count_json_row(const struct count_sandbox *row)
{
	const struct buckets *b = &row->buckets;

	return json_pack(
		"{s:s, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "id",
		row->m.id, "template", utf8_json_text(row->m.template),
		"configured", (json_int_t)row->m.ram_bytes, "shared",
		(json_int_t)b->shared, "private", (json_int_t)b->private,
		"swapped", (json_int_t)b->swapped, "zero", (json_int_t)b->zero,
		"balloon", (json_int_t)b->balloon, "absent",
		(json_int_t)b->absent, "vmm", (json_int_t)row->vmm_bytes);
}

static json_t *count_json_host(const struct count *c)
{
	uint64_t promised = 0, billed = c->templates_bytes;

	for (size_t i = 0; i < c->n_sandboxes; i++) {
		const struct count_sandbox *row = &c->sandboxes[i];

		if (row->gone)
			continue;
		promised += row->m.ram_bytes;
		billed += row->buckets.private + row->vmm_bytes;
	}
	return json_pack("{s:I, s:I, s:I, s:I, s:i, s:I, s:I}", "mem_total",
			 (json_int_t)c->host.mem_total, "mem_available",
			 (json_int_t)c->host.mem_available, "committed_as",
			 (json_int_t)c->host.committed_as, "commit_limit",
			 (json_int_t)c->host.commit_limit, "overcommit_memory",
			 c->host.overcommit_memory, "promised",
			 (json_int_t)promised, "billed", (json_int_t)billed);
}

static json_t *count_json_rows(const struct count *c)
{
	json_t *rows = json_array();

	for (size_t i = 0; rows && i < c->n_sandboxes; i++) {
		if (c->sandboxes[i].gone)
			continue;
		if (json_array_append_new(
			    rows, count_json_row(&c->sandboxes[i])) < 0) {
			json_decref(rows);
			rows = NULL;
		}
	}
	return rows;
}

json_t *count_json(const struct count *c)
{
	return json_pack("{s:o, s:O, s:o}", "host", count_json_host(c),
			 "templates", c->templates, "sandboxes",
			 count_json_rows(c));
}

json_t *count_json_sandbox(const struct count *c, const char *id,
			   bool *ret_found)
{
	*ret_found = false;
	for (size_t i = 0; i < c->n_sandboxes; i++) {
		const struct count_sandbox *row = &c->sandboxes[i];

		if (row->gone || strcmp(row->m.id, id) != 0)
			continue;
		*ret_found = true;
		return count_json_row(row);
	}
	return NULL;
}
