/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Process status
 *
 * Name and parent for the process tree; page tables and threads for the bill.
 *
 * VmPTE is mm_pgtables_bytes(): tables of all levels, those that map guest RAM
 * included. It has its line exactly when the process has an address space, so
 * its absence tells a zombie or a kernel thread from a living program, and
 * reading status last tells a count that the process outlived it.
 *
 * The file is read by line and not into a buffer: "Groups:" comes before what
 * we want and may name 65536 of them.
 *
 * A comm may hold any byte but zero. It ends in JSON and on terminals, so it
 * is reduced to printable ASCII here, at the border.
 */
#include "ledger/procstatus.h"

#include "base/guard.h"
#include "ledger/procdir.h"
#include "ledger/proctext.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

/* THREAD_SIZE of x86-64: 4 pages (arch/x86/include/asm/page_64_types.h). */
#define PROCSTATUS_STACK_BYTES 16384ull

uint64_t procstatus_stacks(const struct procstatus *s)
{
	return s->threads * PROCSTATUS_STACK_BYTES;
}

static void procstatus_comm(struct procstatus *s, const char *text)
{
	while (*text == ' ' || *text == '\t')
		text++;
	proctext_quote(text, s->comm, sizeof(s->comm));
}

int procstatus_line(struct procstatus *s, const char *line)
{
	uint64_t n;
	int r;

	if (proctext_is(line, "Name")) {
		procstatus_comm(s, line + strlen("Name:"));
	} else if (proctext_is(line, "PPid")) {
		r = proctext_number(line, &n);
		if (r < 0)
			return r;
		if (n > INT_MAX)
			return -ERANGE;
		s->ppid = (pid_t)n;
	} else if (proctext_is(line, "VmPTE")) {
		r = proctext_bytes(line, &s->tables);
		if (r < 0)
			return r;
		s->has_memory = true;
	} else if (proctext_is(line, "Threads")) {
		r = proctext_number(line, &n);
		if (r < 0)
			return r;
		/* futex(2): a thread id has at most 30 bits */
		if (n >= 1u << 30)
			return -ERANGE;
		s->threads = n;
	}
	return 0;
}

int procstatus_read(int dir_fd, pid_t pid, struct procstatus *ret,
		    struct err *e)
{
	struct procstatus s = { 0 };
	guard_file FILE *f = NULL;
	guard_free char *line = NULL;
	char quote[PROCTEXT_QUOTE];
	size_t size = 0;
	int r;

	r = procdir_stream(dir_fd, pid, "status", &f, e);
	if (r < 0)
		return r;
	while (getline(&line, &size, f) >= 0) {
		r = procstatus_line(&s, line);
		if (r < 0)
			return err_errno(
				e, -r, "status of process %d: %s", (int)pid,
				proctext_quote(line, quote, sizeof(quote)));
	}
	/* a process that went between open and read leaves an empty file */
	if (ferror(f) || s.threads == 0)
		return procdir_gone(pid, e);
	*ret = s;
	return 0;
}
