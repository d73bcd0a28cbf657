/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Smaps
 *
 * A heading like a line of maps, then some twenty "Key: n kB" lines, for each
 * mapping. To make it, the kernel walks all page tables and looks at every
 * page's map count, guest RAM included: 11 ms for a VMM of 1220 mappings with
 * 63 k pages present in RAM, 17 ms and 3 MB of text when RAM is 3000 mappings.
 * That is why it is the last resort of overhead.c and not the first.
 *
 * Only three keys are of use. They come in the kernel's order, but nothing
 * here depends on it.
 */
#include "ledger/smaps.h"

#include "base/guard.h"
#include "ledger/procdir.h"
#include "ledger/proctext.h"

#include <errno.h>
#include <string.h>

void smaps_end(struct smaps *s)
{
	if (s->open)
		s->fn(s->ctx, &s->entry);
	s->open = false;
}

static uint64_t *smaps_field(struct smaps_entry *entry, const char *line)
{
	if (proctext_is(line, "Pss"))
		return &entry->pss;
	if (proctext_is(line, "Anonymous"))
		return &entry->anonymous;
	if (proctext_is(line, "SwapPss"))
		return &entry->swap_pss;
	return NULL;
}

int smaps_line(struct smaps *s, const char *line)
{
	struct vma vma = { 0 };
	uint64_t *field;

	/* keys begin with a capital, headings with a lower-case hex digit */
	if (*line < 'A' || *line > 'Z') {
		if (vma_parse(line, &vma) < 0)
			return -EINVAL;
		smaps_end(s);
		s->entry = (struct smaps_entry){ .vma = vma };
		s->open = true;
		return 0;
	}
	if (!s->open || !strchr(line, ':'))
		return -EINVAL;
	field = smaps_field(&s->entry, line);
	return field ? proctext_bytes(line, field) : 0;
}

int smaps_read(int dir_fd, pid_t pid, smaps_fn fn, void *ctx, struct err *e)
{
	struct smaps s = { .fn = fn, .ctx = ctx };
	guard_file FILE *f = NULL;
	guard_free char *line = NULL;
	char quote[PROCTEXT_QUOTE];
	size_t size = 0;
	int r;

	r = procdir_stream(dir_fd, pid, "smaps", &f, e);
	if (r < 0)
		return r;
	while (getline(&line, &size, f) >= 0) {
		r = smaps_line(&s, line);
		if (r < 0)
			return err_errno(
				e, -r, "smaps of process %d: %s", (int)pid,
				proctext_quote(line, quote, sizeof(quote)));
	}
	if (ferror(f))
		return procdir_gone(pid, e);
	smaps_end(&s);
	return 0;
}
