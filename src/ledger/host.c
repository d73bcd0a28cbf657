/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host memory
 *
 * The governor promises and refuses by these numbers, so none is guessed: all
 * seven must be there. A host whose /proc lacks one (an old lxcfs without
 * MemAvailable) gets a clear error instead of a herd admitted against zero.
 *
 * If a key comes twice the first one counts; later lines of a key the kernel
 * prints once are somebody's decoration.
 */
#include "ledger/host.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/parse.h"
#include "ledger/proctext.h"

#include <errno.h>
#include <string.h>

/* 60 lines today, 1.5 KB; a page would do, four leave room. */
#define MEMINFO_MAX 16384

static const struct host_key {
	const char *key;
	size_t offset;
} host_keys[] = {
	{ "MemTotal", offsetof(struct host_memory, mem_total) },
	{ "MemFree", offsetof(struct host_memory, mem_free) },
	{ "MemAvailable", offsetof(struct host_memory, mem_available) },
	{ "SwapTotal", offsetof(struct host_memory, swap_total) },
	{ "SwapFree", offsetof(struct host_memory, swap_free) },
	{ "CommitLimit", offsetof(struct host_memory, commit_limit) },
	{ "Committed_AS", offsetof(struct host_memory, committed_as) },
};

static uint64_t *host_field(struct host_memory *h, const struct host_key *k)
{
	return (uint64_t *)(void *)((char *)h + k->offset);
}

static int host_memory_line(struct host_memory *h, const char *line,
			    unsigned *seen, struct err *e)
{
	char quote[PROCTEXT_QUOTE];
	size_t i;
	int r;

	for (i = 0; i < nitems(host_keys); i++) {
		if (*seen & 1u << i || !proctext_is(line, host_keys[i].key))
			continue;
		r = proctext_bytes(line, host_field(h, &host_keys[i]));
		if (r < 0)
			return err_errno(
				e, -r, "meminfo: %s",
				proctext_quote(line, quote, sizeof(quote)));
		*seen |= 1u << i;
		break;
	}
	return 0;
}

int host_memory_parse(char *text, struct host_memory *ret, struct err *e)
{
	struct host_memory h = *ret;
	char *save = NULL, *line;
	unsigned seen = 0;
	size_t i;
	int r;

	for (line = strtok_r(text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		r = host_memory_line(&h, line, &seen, e);
		if (r < 0)
			return r;
	}
	for (i = 0; i < nitems(host_keys); i++)
		if (!(seen & 1u << i))
			return err_set(e, EPROTO, "meminfo has no %s",
				       host_keys[i].key);
	*ret = h;
	return 0;
}

static int host_overcommit_read(const char *proc_root, int *ret, struct err *e)
{
	guard_free char *path = NULL, *text = NULL;
	char quote[PROCTEXT_QUOTE];
	uint64_t n;
	int r;

	path = io_path("%s/sys/vm/overcommit_memory", proc_root);
	if (!path)
		return err_errno(e, ENOMEM, "read overcommit_memory");
	r = io_read_file(path, 64, &text, NULL, e);
	if (r < 0)
		return r;
	text[strcspn(text, "\n")] = '\0';
	/* Documentation/mm/overcommit-accounting.rst: 0, 1, 2 */
	if (parse_u64(text, &n) < 0 || n > 2)
		return err_set(e, EPROTO, "%s says %s", path,
			       proctext_quote(text, quote, sizeof(quote)));
	*ret = (int)n;
	return 0;
}

int host_memory_read(const char *proc_root, struct host_memory *ret,
		     struct err *e)
{
	guard_free char *path = NULL, *text = NULL;
	struct host_memory h = { 0 };
	int r;

	path = io_path("%s/meminfo", proc_root);
	if (!path)
		return err_errno(e, ENOMEM, "read meminfo");
	r = io_read_file(path, MEMINFO_MAX, &text, NULL, e);
	if (r < 0)
		return r;
	r = host_memory_parse(text, &h, e);
	if (r < 0)
		return r;
	r = host_overcommit_read(proc_root, &h.overcommit_memory, e);
	if (r < 0)
		return r;
	*ret = h;
	return 0;
}
