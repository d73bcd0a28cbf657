/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Progress of something long, on stderr
 *
 *	[######..............] 2/6 boot: waiting for the agent (3 s)
 *	[######..............] 31.5 MiB of 105 MiB, 9.8 MiB/s upload: ... (3 s)
 *
 * The rate is the step's: bytes since it began, by the time since.
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

/* "31.5 MiB of 105 MiB, 9.8 MiB/s " */
static void progress_amount(const struct progress *p, uint64_t now_ns,
			    char *out, size_t size)
{
	uint64_t ms = (now_ns - p->step_ns) / NS_PER_MS;
	char done[16], total[16], rate[16];

	out[0] = '\0';
	if (!p->bytes) {
		snprintf(out, size, "%u/%u ", p->done, p->total);
		return;
	}
	if (!p->total_bytes)
		return;
	snprintf(out, size, "%s of %s, %s/s ",
		 format_bytes(p->done_bytes, done),
		 format_bytes(p->total_bytes, total),
		 format_bytes((p->done_bytes - p->first_bytes) * 1000 /
				      max(ms, (uint64_t)1),
			      rate));
}

static unsigned progress_full(const struct progress *p)
{
	if (p->bytes)
		return p->total_bytes
			       ? (unsigned)(min(p->done_bytes, p->total_bytes) *
					    PROGRESS_BAR / p->total_bytes)
			       : 0;
	return p->total ? min(p->done, p->total) * PROGRESS_BAR / p->total : 0;
}

static void progress_draw(struct progress *p, uint64_t now_ns)
{
	char bar[PROGRESS_BAR + 1], amount[80], line[400];
	uint16_t rows, cols;
	int n;

	memset(bar, '.', PROGRESS_BAR);
	memset(bar, '#', progress_full(p));
	bar[PROGRESS_BAR] = '\0';
	progress_amount(p, now_ns, amount, sizeof(amount));
	n = snprintf(line, sizeof(line), "[%s] %s%s (%llu s)", bar, amount,
		     p->step,
		     (unsigned long long)((now_ns - p->start_ns) / NS_PER_SEC));
	tty_size(&rows, &cols);
	if (n >= cols)
		line[min((size_t)cols - 1, sizeof(line) - 1)] = '\0';
	fprintf(stderr, "\r%s\033[K", line);
	p->shown = true;
}

/* Is it another step than the one shown? Remembers it. */
static bool progress_begin(struct progress *p, const char *step,
			   const char *detail, uint64_t now_ns)
{
	char text[sizeof(p->step)];

	snprintf(text, sizeof(text), "%s%s%s", step, *detail ? ": " : "",
		 detail);
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 127)
			*c = '?';
	if (!strcmp(text, p->step))
		return false;
	memcpy(p->step, text, sizeof(text));
	p->step_ns = now_ns;
	return true;
}

void progress_step(struct progress *p, const char *step, const char *detail,
		   unsigned done, unsigned total, uint64_t now_ns)
{
	progress_begin(p, step, detail, now_ns);
	p->done = done;
	p->total = total;
	if (p->terminal)
		progress_draw(p, now_ns);
	else
		fprintf(stderr, "%u/%u %s\n", done, total, p->step);
}

void progress_bytes(struct progress *p, const char *step, const char *detail,
		    uint64_t done, uint64_t total, uint64_t now_ns)
{
	bool fresh = progress_begin(p, step, detail, now_ns);

	p->bytes = true;
	if (fresh || done < p->first_bytes)
		p->first_bytes = done;
	p->done_bytes = done;
	p->total_bytes = total;
	if (p->terminal)
		progress_draw(p, now_ns);
	else if (fresh)
		fprintf(stderr, "%s\n", p->step);
}

void progress_tick(struct progress *p, uint64_t now_ns)
{
	if (p->terminal && p->step[0])
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
