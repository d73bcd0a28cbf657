/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Progress of something long, on stderr
 *
 *	[######..............] 2/6 boot: waiting for the agent (3 s)
 *
 * The line never reaches the terminal's last column, so that it stays one line,
 * and shows printable characters only: details may quote a guest. Without a
 * terminal each step is a line of its own when it begins, which is what a log
 * wants.
 */
#include "cmd/progress.h"

#include "cmd/tty.h"
#include "base/clock.h"
#include "base/parse.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PROGRESS_BAR 20

void progress_init(struct progress *p, bool verbose, uint64_t now_ns)
{
	*p = (struct progress){
		.terminal = isatty(STDERR_FILENO),
		.verbose = verbose,
		.start_ns = now_ns,
		.step_ns = now_ns,
		.kept = BUF_NULL(PROGRESS_KEEP_MAX),
	};
}

static void progress_clear(struct progress *p)
{
	if (p->shown)
		fputs("\r\033[K", stderr);
	p->shown = false;
}

void progress_deinit(struct progress *p)
{
	progress_clear(p);
	buf_deinit(&p->kept);
}

static void progress_draw(struct progress *p, uint64_t now_ns)
{
	char bar[PROGRESS_BAR + 1], line[300];
	uint16_t rows, cols;
	unsigned full = 0;
	int n;

	if (p->total)
		full = min(p->done, p->total) * PROGRESS_BAR / p->total;
	memset(bar, '.', PROGRESS_BAR);
	memset(bar, '#', full);
	bar[PROGRESS_BAR] = '\0';
	n = snprintf(line, sizeof(line), "[%s] %u/%u %s (%llu s)", bar, p->done,
		     p->total, p->step,
		     (unsigned long long)((now_ns - p->start_ns) / NS_PER_SEC));
	tty_size(&rows, &cols);
	if (n >= cols)
		line[min((size_t)cols - 1, sizeof(line) - 1)] = '\0';
	fprintf(stderr, "\r%s\033[K", line);
	p->shown = true;
}

void progress_step(struct progress *p, const char *step, const char *detail,
		   unsigned done, unsigned total, uint64_t now_ns)
{
	snprintf(p->step, sizeof(p->step), "%s%s%s", step, *detail ? ": " : "",
		 detail);
	for (char *c = p->step; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 127)
			*c = '?';
	p->done = done;
	p->total = total;
	p->step_ns = now_ns;
	if (p->terminal)
		progress_draw(p, now_ns);
	else
		fprintf(stderr, "%u/%u %s\n", done, total, p->step);
}

void progress_tick(struct progress *p, uint64_t now_ns)
{
	if (p->terminal && p->total)
		progress_draw(p, now_ns);
}

/* Keep the end. */
static void progress_keep(struct progress *p, const char *text, size_t len)
{
	size_t room;

	if (len > PROGRESS_KEEP_MAX) {
		text += len - PROGRESS_KEEP_MAX;
		len = PROGRESS_KEEP_MAX;
	}
	room = buf_room(&p->kept);
	if (room < len)
		buf_consume(&p->kept, len - room);
	/* Out of memory: it is only for a person to read. */
	if (buf_add(&p->kept, text, len) < 0)
		buf_consume(&p->kept, buf_len(&p->kept));
}

void progress_output(struct progress *p, const char *text, size_t len)
{
	if (!p->verbose) {
		progress_keep(p, text, len);
		return;
	}
	progress_clear(p);
	fwrite(text, 1, len, stderr);
}

void progress_failed(struct progress *p)
{
	size_t len = buf_len(&p->kept);

	progress_clear(p);
	if (!len)
		return;
	fwrite(buf_data(&p->kept), 1, len, stderr);
	if (buf_data(&p->kept)[len - 1] != '\n')
		putc('\n', stderr);
}
