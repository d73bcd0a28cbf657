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
 */
#include "cmd/session.h"

#include "cmd/stream.h"
#include "cmd/tty.h"
#include "base/guard.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* As docker has it. */
#define SESSION_PATIENCE 3

/* A terminal or a socket may take less without blocking than a pipe does, but
 * then somebody reads; PIPE_BUF is small enough to write on. */
#define SESSION_WRITE_MAX PIPE_BUF
#define SESSION_READ_MAX 65536

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
		.out = { { .fd = STDOUT_FILENO,
			   .channel = WIRE_STDOUT,
			   .queue = BUF_NULL(WIRE_WINDOW) },
			 { .fd = STDERR_FILENO,
			   .channel = WIRE_STDERR,
			   .queue = BUF_NULL(WIRE_WINDOW) } },
	};
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
		return stream_signal(x->stream, sig, e);
	/* The user insists, or nobody reads what is left. */
	if (!x->over)
		session_end(x, sig);
	for (int i = 0; i < 2; i++)
		buf_consume(&x->out[i].queue, buf_len(&x->out[i].queue));
	return 0;
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
	int r = 0;

	session_watch(x, p);
	if (poll(p, SESSION_FD_COUNT, -1) < 0)
		return errno == EINTR ? 0 : err_errno(e, errno, "wait");
	if (p[SESSION_SIGNALS].revents)
		r = session_signal(x, e);
	for (int i = 0; i < 2 && r == 0; i++)
		if (p[SESSION_STDOUT + i].revents)
			r = session_write(x, &x->out[i], e);
	if (p[SESSION_STDIN].revents && r == 0)
		r = session_read(x, e);
	if (r == 0 && !x->over)
		r = stream_pump(x->stream, e);
	return r < 0 ? r : session_frames(x, e);
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
