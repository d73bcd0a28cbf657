/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A command in a guest with our stdin, stdout, stderr and signals
 *
 *	stdin -----> DATA, EOF ------>          DATA -> queue -> stdout, stderr
 *	signals ---> SIGNAL, RESIZE ->  guest   RESULT
 *	               <- CREDIT, when bytes have left a queue
 *
 * One poll() over five fds. None of the user's three is made non-blocking: that
 * flag belongs to the open file, which the shell and others share. Instead a
 * poll() comes before each call, and writes are short enough not to block
 * (PIPE_BUF is what a pipe that polls writable takes).
 *
 * 1. What the guest sends is queued until it can be written, and credited when
 *    it was: a queue holds at most one window (stream.c checks).
 * 2. stdin is read only against credit. A stdin that cannot be polled, a plain
 *    file, is always ready.
 * 3. RESULT ends the command; we end when the queues are empty.
 * 4. stdout without a reader: the command is told to go, as SIGPIPE would have
 *    done here, and that is the result. stderr without a reader is ignored, as
 *    most programs do.
 * 5. The terminal is raw only while the signals that could end us are held.
 * 6. A signal is passed on each time it comes. The third one that asks to end
 *    ends us, without waiting for the command; hanging up kills it.
 * 7. A guest that cannot run (it was paused, its VMM was stopped, its disk has
 *    no room on the host) answers nothing for ever, and does not keep us for
 *    ever: when the deadline has passed, or a signal went unanswered for the
 *    grace, we end by ourselves. Whether it is the guest that is silent or only
 *    the command is asked with the signal (stream_probe()). While it is our
 *    reader who keeps the output from coming, the deadline waits.
 */
#include "cmd/session.h"

#include "cmd/stream.h"
#include "cmd/tty.h"
#include "base/clock.h"
#include "base/guard.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* As docker has it. */
#define SESSION_PATIENCE 3

/* A terminal or a socket may take less without blocking than a pipe does, but
 * then somebody reads; PIPE_BUF is small enough to write on. */
#define SESSION_WRITE_MAX PIPE_BUF
#define SESSION_READ_MAX 65536

/* For what is left to come once our reader takes it: a pipe and a window. */
#define SESSION_REST_NS (2 * NS_PER_SEC)
#define SESSION_NEVER UINT64_MAX

/* One way out. */
struct session_out {
	int fd;
	uint8_t channel;
	struct buf queue;
	bool dead; /* nobody reads it: drop what comes */
};

struct session {
	struct stream *stream;
	bool tty;
	bool stdin; /* not at its end yet */
	int signal_fd;
	sigset_t saved_mask;
	struct sigaction saved_pipe;
	unsigned asked; /* to end */
	int asked_last; /* by this signal */
	uint64_t now_ns;
	uint64_t deadline_ns; /* or SESSION_NEVER */
	uint64_t grace_ns; /* after a signal */
	uint64_t grace_end_ns; /* or SESSION_NEVER */
	struct tty terminal; /* ours, while it is raw */
	struct session_out out[2];
	bool over; /* *result is filled */
	struct stream_result result;
};

enum {
	SESSION_STDIN,
	SESSION_SOCKET,
	SESSION_SIGNALS,
	SESSION_STDOUT,
	SESSION_STDERR,
	SESSION_FD_COUNT,
};

/* Signals become bytes of the signal fd, a pipe without a reader an error. */
static int session_signals(struct session *x, struct err *e)
{
	const struct sigaction ignore = { .sa_handler = SIG_IGN };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGQUIT);
	sigaddset(&set, SIGWINCH);
	x->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (x->signal_fd < 0)
		return err_errno(e, errno, "wait for signals");
	sigprocmask(SIG_BLOCK, &set, &x->saved_mask);
	sigaction(SIGPIPE, &ignore, &x->saved_pipe);
	return 0;
}

static int session_init(struct session *x, struct stream *s,
			const struct session_options *o, struct err *e)
{
	int r;

	*x = (struct session){
		.stream = s,
		.signal_fd = -1,
		.terminal = TTY_NULL,
		.tty = o->tty,
		.stdin = o->stdin,
		.now_ns = clock_mono_ns(),
		.deadline_ns = SESSION_NEVER,
		.grace_ns = o->grace_ns,
		.grace_end_ns = SESSION_NEVER,
		.out = { { .fd = STDOUT_FILENO,
			   .channel = WIRE_STDOUT,
			   .queue = BUF_NULL(WIRE_WINDOW) },
			 { .fd = STDERR_FILENO,
			   .channel = WIRE_STDERR,
			   .queue = BUF_NULL(WIRE_WINDOW) } },
	};
	if (o->deadline_ns && o->deadline_ns < SESSION_NEVER - x->now_ns)
		x->deadline_ns = x->now_ns + o->deadline_ns;
	r = session_signals(x, e);
	if (r < 0 || !o->tty || !o->stdin || !isatty(STDIN_FILENO))
		return r;
	return tty_init(&x->terminal, STDIN_FILENO, e);
}

static void session_deinit(struct session *x)
{
	tty_deinit(&x->terminal);
	if (x->signal_fd >= 0) {
		sigaction(SIGPIPE, &x->saved_pipe, NULL);
		sigprocmask(SIG_SETMASK, &x->saved_mask, NULL);
	}
	fd_close(&x->signal_fd);
	buf_deinit(&x->out[0].queue);
	buf_deinit(&x->out[1].queue);
}

/* The end, decided here. */
static void session_end(struct session *x, int sig)
{
	x->over = true;
	x->result = (struct stream_result){ .signal = sig };
}

/* Nobody reads what is left. */
static void session_drop_all(struct session *x)
{
	for (int i = 0; i < 2; i++)
		buf_consume(&x->out[i].queue, buf_len(&x->out[i].queue));
}

/* ---- out ---- */

static int session_drop(struct session *x, struct session_out *out,
			struct err *e)
{
	size_t len = buf_len(&out->queue);

	buf_consume(&out->queue, len);
	out->dead = true;
	if (out->channel == WIRE_STDOUT && !x->over)
		session_end(x, SIGPIPE);
	return stream_credit(x->stream, out->channel, len, e);
}

static int session_write(struct session *x, struct session_out *out,
			 struct err *e)
{
	size_t len = min(buf_len(&out->queue), (size_t)SESSION_WRITE_MAX);
	ssize_t n;

	if (!len)
		return 0;
	n = write(out->fd, buf_data(&out->queue), len);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (n < 0 && (errno == EPIPE || errno == ECONNRESET || errno == EIO))
		return session_drop(x, out, e);
	if (n < 0)
		return err_errno(e, errno, "write to %s",
				 out->fd == STDOUT_FILENO ? "stdout"
							  : "stderr");
	buf_consume(&out->queue, (size_t)n);
	return stream_credit(x->stream, out->channel, (size_t)n, e);
}

static int session_data(struct session *x, const struct wire_frame *f,
			struct err *e)
{
	struct session_out *out = &x->out[f->channel == WIRE_STDERR];
	int r;

	if (f->channel == WIRE_STDIN)
		return err_set(e, EPROTO, "the agent sends on stdin");
	if (out->dead)
		return stream_credit(x->stream, f->channel, f->len, e);
	r = buf_add(&out->queue, f->payload, f->len);
	return r < 0 ? err_errno(e, -r, "queue output") : 0;
}

static int session_frames(struct session *x, struct err *e)
{
	struct wire_frame f = { 0 };
	int r;

	while (!x->over) {
		r = stream_next(x->stream, &f, e);
		if (r == STREAM_MORE)
			return 0;
		if (r < 0)
			return r;
		if (f.type == WIRE_DATA) {
			r = session_data(x, &f, e);
		} else if (f.type == WIRE_RESULT) {
			r = stream_result(x->stream, &f, &x->result, e);
			x->over = true;
		}
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- in ---- */

static int session_read(struct session *x, struct err *e)
{
	uint64_t credit = x->stream->credit[WIRE_STDIN];
	uint8_t p[SESSION_READ_MAX];
	ssize_t n;

	n = read(STDIN_FILENO, p, (size_t)min(credit, (uint64_t)sizeof(p)));
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (n > 0)
		return stream_data(x->stream, WIRE_STDIN, p, (size_t)n, e);
	/* Its end; EIO is how a terminal that went away says it. */
	x->stdin = false;
	if (n < 0 && errno != EIO)
		return err_errno(e, errno, "read from stdin");
	return stream_eof(x->stream, WIRE_STDIN, e);
}

static int session_resize(struct session *x, struct err *e)
{
	struct wire_out *o = stream_begin(x->stream, WIRE_RESIZE);
	uint16_t rows, cols;

	tty_size(&rows, &cols);
	wire_put_u64(o, WIRE_K_ROWS, rows);
	wire_put_u64(o, WIRE_K_COLS, cols);
	return stream_send(x->stream, e);
}

/* Pass on a signal that asks to end. */
static int session_ask(struct session *x, int sig, struct err *e)
{
	int r = stream_signal(x->stream, sig, e);

	x->asked_last = sig;
	if (r < 0 || !x->grace_ns || x->grace_end_ns != SESSION_NEVER)
		return r;
	x->grace_end_ns = x->now_ns + x->grace_ns;
	return stream_probe(x->stream, e);
}

static int session_signal(struct session *x, struct err *e)
{
	struct signalfd_siginfo info = { 0 };
	int sig;

	if (read(x->signal_fd, &info, sizeof(info)) != sizeof(info))
		return 0;
	sig = (int)info.ssi_signo;
	if (sig == SIGWINCH)
		return x->tty ? session_resize(x, e) : 0;
	if (!x->over && ++x->asked < SESSION_PATIENCE)
		return session_ask(x, sig, e);
	/* The user insists, or nobody reads what is left. */
	if (!x->over)
		session_end(x, sig);
	session_drop_all(x);
	return 0;
}

/* ---- without the guest ---- */

static void session_give_up(struct session *x, int sig, const char *why)
{
	session_end(x, sig);
	x->result.timed_out = !sig;
	x->result.error = ETIMEDOUT;
	snprintf(x->result.message, sizeof(x->result.message), "%s", why);
}

/* Does our own reader keep the output from coming? */
static bool session_blocked(const struct session *x, const struct pollfd *p)
{
	for (int i = 0; i < 2; i++)
		if (buf_len(&x->out[i].queue) && !p[SESSION_STDOUT + i].revents)
			return true;
	return false;
}

static void session_due(struct session *x, bool blocked)
{
	if (stream_answered(x->stream))
		x->grace_end_ns = SESSION_NEVER;
	if (blocked && x->deadline_ns != SESSION_NEVER)
		x->deadline_ns =
			max(x->deadline_ns, x->now_ns + SESSION_REST_NS);
	if (x->over)
		return;
	if (x->now_ns >= x->grace_end_ns) {
		session_drop_all(x);
		session_give_up(x, x->asked_last, "the guest does not answer");
	} else if (x->now_ns >= x->deadline_ns) {
		session_give_up(
			x, 0, "its time is up, and the guest does not answer");
	}
}

/* For poll(): milliseconds, rounded up. */
static int session_wait_ms(const struct session *x)
{
	uint64_t due = min(x->deadline_ns, x->grace_end_ns), ms;

	if (x->over || due == SESSION_NEVER)
		return -1;
	if (due <= x->now_ns)
		return 0;
	ms = (due - x->now_ns - 1) / NS_PER_MS + 1;
	return (int)min(ms, (uint64_t)INT_MAX);
}

/* ---- all together ---- */

static void session_watch(const struct session *x, struct pollfd *p)
{
	bool in = x->stdin && !x->over && x->stream->credit[WIRE_STDIN] &&
		  !buf_len(&x->stream->out);

	/* A negative fd is not looked at. */
	p[SESSION_STDIN] = (struct pollfd){ in ? STDIN_FILENO : -1, POLLIN, 0 };
	p[SESSION_SOCKET] = (struct pollfd){ x->over ? -1 : x->stream->fd,
					     stream_events(x->stream), 0 };
	p[SESSION_SIGNALS] = (struct pollfd){ x->signal_fd, POLLIN, 0 };
	for (int i = 0; i < 2; i++)
		p[SESSION_STDOUT + i] = (struct pollfd){
			buf_len(&x->out[i].queue) ? x->out[i].fd : -1, POLLOUT,
			0
		};
}

static int session_turn(struct session *x, struct err *e)
{
	struct pollfd p[SESSION_FD_COUNT];
	bool blocked;
	int r = 0;

	session_watch(x, p);
	if (poll(p, SESSION_FD_COUNT, session_wait_ms(x)) < 0)
		return errno == EINTR ? 0 : err_errno(e, errno, "wait");
	x->now_ns = clock_mono_ns();
	blocked = session_blocked(x, p);
	if (p[SESSION_SIGNALS].revents)
		r = session_signal(x, e);
	for (int i = 0; i < 2 && r == 0; i++)
		if (p[SESSION_STDOUT + i].revents)
			r = session_write(x, &x->out[i], e);
	if (p[SESSION_STDIN].revents && r == 0)
		r = session_read(x, e);
	if (r == 0 && !x->over)
		r = stream_pump(x->stream, e);
	if (r == 0)
		r = session_frames(x, e);
	if (r == 0)
		session_due(x, blocked);
	return r;
}

int session_run(struct stream *s, const struct session_options *o,
		struct stream_result *ret, struct err *e)
{
	struct session x;
	int r;

	r = session_init(&x, s, o, e);
	if (r == 0 && !o->stdin && o->tty)
		r = stream_eof(s, WIRE_STDIN, e);
	if (r == 0)
		r = stream_pump(s, e);
	if (r == 0)
		r = session_frames(&x, e);
	while (r == 0 && (!x.over || buf_len(&x.out[0].queue) ||
			  buf_len(&x.out[1].queue)))
		r = session_turn(&x, e);
	session_deinit(&x);
	if (r == 0)
		*ret = x.result;
	return r;
}
