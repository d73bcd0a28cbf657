/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bake's guest
 *
 * Events reach us from three sides (process, channel, timer); the first failure
 * wins and is told once, the rest is silence until rig_off().
 */
#include "template/rig.h"

#include "base/guard.h"
#include "base/io.h"

#include <errno.h>
#include <string.h>

static void rig_fail(struct rig *g, int code, const char *what)
{
	struct err e = ERR_NULL;
	char line[160];

	if (g->failed || g->ending)
		return;
	g->failed = true;
	loop_timer_del(&g->timer);
	/* The console says why a kernel died, the VMM's log why a VMM did. */
	console_last_line(g->dir->log_path, line, sizeof(line));
	if (!*line)
		console_last_line(g->dir->vmm_log_path, line, sizeof(line));
	err_set(&e, code, "%s: %s%s%s%s", g->doing, what,
		*line ? " (last line of its console: " : "", line,
		*line ? ")" : "");
	g->events->failed(g, &e);
}

static void rig_overdue(struct loop_timer *t)
{
	rig_fail(container_of(t, struct rig, timer), ETIMEDOUT,
		 "no answer within the time limit");
}

static void rig_maybe_up(struct rig *g)
{
	if (!g->running || !g->agent_up)
		return;
	loop_timer_del(&g->timer);
	g->events->up(g);
}

static void rig_channel_ready(void *arg)
{
	struct rig *g = arg;

	g->agent_up = true;
	rig_maybe_up(g);
}

static void rig_channel_broken(void *arg, const struct err *e)
{
	struct rig *g = arg;

	g->channel = channel_free(g->channel);
	/* Mostly the VMM is ending and will tell better. */
	if (g->vmm && vmm_state(g->vmm) != VMM_ENDED && e->code == EPROTO)
		rig_fail(g, EPROTO, e->msg);
}

static const struct channel_events rig_channel_events = {
	.ready = rig_channel_ready,
	.broken = rig_channel_broken,
};

static void rig_started(void *arg, const struct err *e)
{
	struct rig *g = arg;

	if (e->code && vmm_state(g->vmm) != VMM_ENDED) {
		rig_fail(g, e->code, e->msg);
		return;
	}
	if (e->code)
		return; /* its exit follows */
	g->running = true;
	rig_maybe_up(g);
}

static void rig_disconnect(struct rig *g)
{
	channel_abandon(&g->stream);
	g->channel = channel_free(g->channel);
	g->console = console_free(g->console);
	loop_timer_del(&g->timer);
}

static void rig_stopped(void *arg, const char *why)
{
	rig_fail(arg, ENOSPC, why);
}

static void rig_disk_failed(void *arg, const char *why)
{
	rig_fail(arg, EIO, why);
}

static void rig_exited(void *arg, const char *cause, unused bool guest)
{
	struct rig *g = arg;
	char text[240];

	snprintf(text, sizeof(text), "%s", cause);
	g->vmm = vmm_free(g->vmm);
	rig_disconnect(g);
	if (g->ending)
		g->events->off(g);
	else
		rig_fail(g, EIO, text);
}

static const struct vmm_events rig_vmm_events = {
	.started = rig_started,
	.stopped = rig_stopped,
	.disk_failed = rig_disk_failed,
	.exited = rig_exited,
};

static int rig_connect(struct rig *g, struct err *e)
{
	int fd = -1;
	int r = io_connect_unix(g->dir->console_path, true, &fd, e);

	if (r == 0)
		r = console_new(g->loop, fd, g->dir->log_path, &g->console, e);
	if (r == 0)
		r = io_connect_unix(g->dir->agent_path, true, &fd, e);
	if (r == 0)
		r = channel_new(g->loop, fd, true, &rig_channel_events, g,
				&g->channel, e);
	return r;
}

int rig_start(struct rig *g, struct loop *loop, struct vmm_host *host,
	      struct workdir *dir, const struct vmm_spec *spec,
	      const struct rig_events *events, uint64_t timeout_ns,
	      struct err *e)
{
	int r;

	g->loop = loop;
	g->dir = dir;
	g->events = events;
	g->doing = spec->kernel ? "boot" : "trial restore";
	list_init(&g->stream.link);
	r = vmm_start(host, spec, &rig_vmm_events, g, &g->vmm, e);
	if (r == 0)
		r = rig_connect(g, e);
	if (r == 0 && loop_timer_set(loop, &g->timer, loop->now_ns + timeout_ns,
				     rig_overdue) < 0)
		r = err_errno(e, ENOMEM, "timer");
	return r;
}

/* ---- requests ---- */

static void rig_frame(struct channel_stream *s, const struct wire_frame *f)
{
	struct rig *g = container_of(s, struct rig, stream);

	if (f->type == WIRE_DATA) {
		if (g->output)
			g->output(g, f->payload, f->len);
		channel_credit(s, (enum wire_channel)f->channel, f->len);
	} else if (f->type == WIRE_RESULT) {
		rig_result_fn fn = g->result;

		loop_timer_del(&g->timer);
		g->result = NULL;
		if (!g->failed && fn)
			fn(g, f);
	}
}

static void rig_stream_broken(struct channel_stream *s,
			      unused const struct err *e)
{
	must(!s->channel);
}

int rig_request(struct rig *g, uint8_t *frame, size_t len, const char *doing,
		uint64_t timeout_ns, rig_output_fn output, rig_result_fn result)
{
	int r;

	if (!g->channel)
		return -EPIPE;
	g->doing = doing;
	g->output = output;
	g->result = result;
	g->stream.frame = rig_frame;
	g->stream.broken = rig_stream_broken;
	r = channel_open(g->channel, &g->stream, frame, len);
	if (r == 0)
		r = loop_timer_set(g->loop, &g->timer,
				   g->loop->now_ns + timeout_ns, rig_overdue);
	return r;
}

/* ---- off ---- */

void rig_off(struct rig *g)
{
	g->ending = true;
	if (g->vmm)
		vmm_kill(g->vmm, "the bake is done with it");
	else
		g->events->off(g);
}

void rig_deinit(struct rig *g)
{
	if (!g->loop)
		return;
	g->ending = true;
	rig_disconnect(g);
	if (g->vmm)
		vmm_kill(g->vmm, "the bake was given up");
	g->vmm = vmm_free(g->vmm);
}
