/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Foreign text of /proc: meminfo, status, maps, smaps
 *
 * The first byte chooses the parser:
 *
 *	0  meminfo, whole
 *	1  status, by line
 *	2  maps, by line
 *	3  smaps, by line
 *
 * What is accepted must be sane: a mapping is whole pages and not empty, a name
 * and a sentence are printable ASCII, numbers were not touched by a refusal.
 */
#include "ledger/host.h"
#include "ledger/procstatus.h"
#include "ledger/proctext.h"
#include "ledger/smaps.h"
#include "ledger/vmas.h"

#include "base/guard.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum procfs_file {
	FILE_MEMINFO,
	FILE_STATUS,
	FILE_MAPS,
	FILE_SMAPS,
	FILE_COUNT,
};

static void printable(const char *s)
{
	for (; *s; s++)
		must(*s >= ' ' && *s <= '~');
}

static void meminfo(char *text)
{
	struct host_memory h = { .mem_total = 7, .swap_free = 7 };
	struct err e = ERR_NULL;
	int r = host_memory_parse(text, &h, &e);

	if (r == 0)
		return;
	must(e.code == -r && e.msg[0]);
	printable(e.msg);
	must(h.mem_total == 7 && h.swap_free == 7);
}

static void status_line(struct procstatus *s, const char *line)
{
	if (procstatus_line(s, line) < 0)
		return;
	must(strlen(s->comm) < sizeof(s->comm));
	printable(s->comm);
	must(s->ppid >= 0);
	must(procstatus_stacks(s) / 16384 == s->threads);
}

static void maps_line(const char *line)
{
	struct vma v = { 0 };

	if (vma_parse(line, &v) < 0) {
		must(v.end == 0);
		return;
	}
	must(v.start < v.end && v.start % 4096 == 0 && v.end % 4096 == 0);
	must(!v.special || !v.inode);
}

static void smaps_entry(void *ctx, const struct smaps_entry *entry)
{
	unsigned *n = ctx;

	must(entry->vma.start < entry->vma.end);
	(*n)++;
}

static void lines(enum procfs_file file, char *text)
{
	struct procstatus status = { 0 };
	unsigned entries = 0, headings = 0;
	struct smaps smaps = { .fn = smaps_entry, .ctx = &entries };
	struct vma v = { 0 };
	char *save = NULL, *line;

	for (line = strtok_r(text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		if (file == FILE_STATUS)
			status_line(&status, line);
		else if (file == FILE_MAPS)
			maps_line(line);
		else if (smaps_line(&smaps, line) == 0 &&
			 vma_parse(line, &v) == 0)
			headings++;
	}
	smaps_end(&smaps);
	must(entries == headings);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	guard_free char *text = NULL;
	enum procfs_file file;

	if (size == 0)
		return 0;
	file = data[0] % FILE_COUNT;
	text = strndup((const char *)data + 1, size - 1);
	must(text);
	if (file == FILE_MEMINFO)
		meminfo(text);
	else
		lines(file, text);
	return 0;
}
