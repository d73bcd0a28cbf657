/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A command from EXEC to RESULT
 *
 *	EXEC -> running -> exited -> RESULT
 *
 * The process leads a session and a group of its own; signals go to the group.
 * Its output is read only while the host has given credit and the port has
 * room, so a child that floods stops in its own pipe. Its input is written to
 * the pipe directly; what does not fit waits in a ring, mapped when first
 * needed, and is credited to the host once it has left.
 *
 * All descriptors are edge-triggered, and "ready" remembers the edge: a stream
 * that waits for credit needs no call to epoll to be silent, and a pipe whose
 * writer is gone cannot spin.
 *
 * The end. RESULT comes when the process was reaped and each output is at its
 * end. A grandchild in the background can hold a pipe open for ever, so after a
 * short grace an output also counts as ended when it is drained; and, should
 * the grandchild keep writing, once the bytes that lay in the pipe when the
 * process ended are delivered. Waiting for credit has no limit: slow readers
 * get every byte.
 *
 * 1. Between exec_start() and RESULT the stream's pid is ours: it is running,
 *    or a zombie, or its number was free for less than the grace.
 * 2. in.len <= in.outstanding <= WIRE_WINDOW: the ring cannot overflow.
 * 3. With a tty, in.fd and out[0].fd are the same descriptor, owned by out[0].
 */
#include "agent/agent.h"
#include "agent/pty.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* From SIGTERM to SIGKILL, and how long a background process may keep the end
 * of its parent's output from being seen: the host's contract in wire.h. */
#define EXEC_KILL_NS 2000000000ull
#define EXEC_GRACE_NS 200000000ull
/* As sh has it. */
#define EXEC_CODE_DENIED 126
#define EXEC_CODE_MISSING 127
/* Control-D, which ends the input of a terminal. */
#define EXEC_TTY_EOF 4

static char exec_default_path[] =
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
static char exec_default_term[] = "TERM=xterm";
static char exec_root_dir[] = "/";

/* ---- the command line ---- */

/* A terminated copy of a string field; NULL when it contains a NUL. */
static char *exec_line_copy(struct exec_line *l, const struct wire_field *f)
{
	char *s = l->text + l->used;

	if (memchr(f->p, 0, f->len))
		return NULL;
	/* Each terminator is shorter than the field's header was. */
	must(f->len < sizeof(l->text) - l->used);
	memcpy(s, f->p, f->len);
	s[f->len] = 0;
	l->used += f->len + 1;
	return s;
}

/* Set one "NAME=value"; the last one wins. */
static int exec_line_env(struct exec_line *l, char *var)
{
	char *eq = strchr(var, '=');
	size_t name;
	unsigned i;

	if (!eq || eq == var)
		return -EINVAL;
	name = (size_t)(eq - var) + 1;
	for (i = 0; i < l->n_env; i++)
		if (!strncmp(l->env[i], var, name))
			break;
	if (i == EXEC_ENV_MAX)
		return -E2BIG;
	l->env[i] = var;
	if (i == l->n_env)
		l->n_env++;
	return 0;
}

static int exec_line_u16(const struct wire_field *f, uint16_t *ret)
{
	uint64_t v = 0;
	int r;

	r = wire_field_u64(f, &v);
	if (r < 0)
		return r;
	if (v > UINT16_MAX)
		return -ERANGE;
	*ret = (uint16_t)v;
	return 0;
}

static int exec_line_field(struct exec_line *l, const struct wire_field *f)
{
	char *s;
	uint64_t v = 0;
	int r;

	switch (f->key) {
	case WIRE_K_ARG:
	case WIRE_K_ENV:
	case WIRE_K_CWD:
	case WIRE_K_USER:
		s = exec_line_copy(l, f);
		if (!s)
			return -EBADMSG;
		if (f->key == WIRE_K_ENV)
			return exec_line_env(l, s);
		if (f->key == WIRE_K_CWD)
			l->cwd = s;
		else if (f->key == WIRE_K_USER)
			l->user = s;
		else
			l->args[l->n_args++] = s;
		return 0;
	case WIRE_K_ROWS:
		l->tty = true;
		return exec_line_u16(f, &l->rows);
	case WIRE_K_COLS:
		l->tty = true;
		return exec_line_u16(f, &l->cols);
	case WIRE_K_STDIN:
		r = wire_field_u64(f, &v);
		l->has_stdin = v != 0;
		return r;
	case WIRE_K_TIMEOUT:
		return wire_field_u64(f, &l->timeout_ns);
	default:
		return 0;
	}
}

/* Variables every command has. What the command brought itself is there
 * already and stays; then come the template's, the user's, ours. */
static int exec_line_defaults(struct exec_line *l, const struct identity *id,
			      const struct user *u)
{
	char *weak[IDENTITY_ENV_MAX + 5], *eq;
	unsigned n = 0, i, k;
	int len;

	for (i = 0; i < id->n_env; i++)
		weak[n++] = id->env[i];
	len = snprintf(l->own, sizeof(l->own), "HOME=%s", u->home);
	weak[n++] = l->own;
	len += 1 + snprintf(l->own + len + 1, sizeof(l->own) - (size_t)len - 1,
			    "USER=%s", u->name);
	weak[n++] = l->own + strlen(l->own) + 1;
	snprintf(l->own + len + 1, sizeof(l->own) - (size_t)len - 1,
		 "LOGNAME=%s", u->name);
	weak[n++] = l->own + len + 1;
	weak[n++] = exec_default_path;
	if (l->tty)
		weak[n++] = exec_default_term;

	for (i = 0; i < n; i++) {
		eq = strchr(weak[i], '=');
		for (k = 0; k < l->n_env; k++)
			if (!strncmp(l->env[k], weak[i],
				     (size_t)(eq - weak[i]) + 1))
				break;
		if (k < l->n_env)
			continue;
		if (l->n_env == EXEC_ENV_MAX)
			return -E2BIG;
		l->env[l->n_env++] = weak[i];
	}
	l->env[l->n_env] = NULL;
	return 0;
}

static int exec_line_read(struct exec_line *l, const struct wire_frame *f,
			  struct err *e)
{
	struct wire_field field = { 0 };
	size_t pos = 0;
	int r;

	l->n_args = l->n_env = 0;
	l->has_stdin = l->tty = false;
	l->rows = l->cols = 0;
	l->timeout_ns = 0;
	l->used = 0;
	l->cwd = exec_root_dir;
	l->user = NULL;
	while ((r = wire_field_next(f, &pos, &field)) == 0) {
		r = exec_line_field(l, &field);
		if (r < 0)
			break;
	}
	if (r < 0)
		return err_errno(e, -r, "exec: field %u", field.key);
	if (l->n_args == 0)
		return err_set(e, EINVAL, "exec: no command");
	l->args[l->n_args] = NULL;
	return 0;
}

static const char *exec_line_path(const struct exec_line *l)
{
	unsigned i;

	for (i = 0; i < l->n_env; i++)
		if (!strncmp(l->env[i], "PATH=", 5))
			return l->env[i] + 5;
	return exec_default_path + 5;
}

/* ---- starting ---- */

static void exec_close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* One pipe: @ours non-blocking, @theirs not (O_NONBLOCK belongs to each end,
 * and programs do not expect it). */
static int exec_pipe(int *ours, int *theirs, bool we_read, struct err *e)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_errno(e, errno, "make a pipe");
	*ours = fds[we_read ? 0 : 1];
	*theirs = fds[we_read ? 1 : 0];
	if (fcntl(*ours, F_SETFL, O_NONBLOCK) < 0)
		return err_errno(e, errno, "make a pipe non-blocking");
	return 0;
}

/* Our ends into @x, the child's into @theirs. */
static int exec_open(struct agent *a, struct exec *x, const struct user *u,
		     int theirs[3], struct err *e)
{
	const struct exec_line *l = &a->line;
	int r;

	if (l->tty) {
		r = pty_open(l->rows, l->cols, u ? u->uid : 0, &x->out[0].fd,
			     &theirs[0], e);
		if (r < 0)
			return r;
		x->in.fd = x->out[0].fd;
		return 0;
	}
	if (l->has_stdin) {
		r = exec_pipe(&x->in.fd, &theirs[0], false, e);
		if (r < 0)
			return r;
	}
	r = exec_pipe(&x->out[0].fd, &theirs[1], true, e);
	if (r < 0)
		return r;
	return exec_pipe(&x->out[1].fd, &theirs[2], true, e);
}

static void exec_close(struct exec *x)
{
	if (x->in.fd == x->out[0].fd)
		x->in.fd = -1; /* a tty has one descriptor */
	exec_close_fd(&x->in.fd);
	exec_close_fd(&x->out[0].fd);
	exec_close_fd(&x->out[1].fd);
	if (x->in.ring)
		munmap(x->in.ring, WIRE_WINDOW);
	x->in.ring = NULL;
}

static void exec_end(struct agent *a, struct stream *s)
{
	exec_close(&s->exec);
	agent_release(a, s);
}

/* RESULT for a command that was never executed. */
static void exec_refuse(struct agent *a, struct stream *s, unsigned code,
			const struct err *e)
{
	struct wire_out o;

	port_begin(&a->port, &o, 64 + ERR_MSG_MAX, WIRE_RESULT, 0, s->id);
	if (code)
		wire_put_u64(&o, WIRE_K_CODE, code);
	wire_put_u64(&o, WIRE_K_ERRNO, (uint64_t)e->code);
	wire_put_str(&o, WIRE_K_MESSAGE, e->msg);
	port_end(&a->port, &o);
	exec_end(a, s);
}

/* The child ended before it became the program: say where. */
static unsigned exec_why(const struct exec_line *l, const struct spawn *sp,
			 struct err *e)
{
	switch (sp->stage) {
	case SPAWN_FAILED_USER:
		err_errno(e, sp->error, "become user %s", l->user);
		return EXEC_CODE_DENIED;
	case SPAWN_FAILED_CWD:
		err_errno(e, sp->error, "enter %s", l->cwd);
		return EXEC_CODE_DENIED;
	case SPAWN_FAILED_EXEC:
		err_errno(e, sp->error, "exec %s", l->args[0]);
		return sp->error == ENOENT ? EXEC_CODE_MISSING
					   : EXEC_CODE_DENIED;
	case SPAWN_FAILED_SETUP:
	case SPAWN_STARTED:
	case SPAWN_STAGE_COUNT:
		break;
	}
	err_errno(e, sp->error, "prepare %s", l->args[0]);
	return EXEC_CODE_DENIED;
}

static int exec_spawn(struct agent *a, struct stream *s,
		      const struct user *user, struct spawn *sp, struct err *e)
{
	int theirs[3] = { -1, -1, -1 }, i, r;
	struct exec_line *l = &a->line;
	struct exec *x = &s->exec;

	r = exec_open(a, x, user, theirs, e);
	if (r == 0) {
		*sp = (struct spawn){
			.argv = l->args,
			.envp = l->env,
			.path = exec_line_path(l),
			.cwd = l->cwd,
			.user = user,
			.tty = l->tty,
		};
		for (i = 0; i < 3; i++)
			sp->fd[i] = theirs[i] >= 0 ? theirs[i]
				    : l->tty       ? theirs[0]
						   : a->null_fd;
		r = a->ops->spawn(sp, &x->pid);
		if (r < 0)
			err_errno(e, -r, "start a process");
	}
	for (i = 0; i < 3; i++)
		exec_close_fd(&theirs[i]);
	return r;
}

static int exec_watch(struct agent *a, struct stream *s)
{
	struct exec *x = &s->exec;
	int r;

	if (x->tty) {
		x->in.watched = true;
		return agent_watch(a, s, x->out[0].fd, WIRE_STDOUT,
				   EPOLLIN | EPOLLOUT);
	}
	r = agent_watch(a, s, x->out[0].fd, WIRE_STDOUT, EPOLLIN);
	if (r == 0)
		r = agent_watch(a, s, x->out[1].fd, WIRE_STDERR, EPOLLIN);
	return r;
}

void exec_start(struct agent *a, struct stream *s, const struct wire_frame *f)
{
	struct exec_line *l = &a->line;
	struct exec *x = &s->exec;
	struct err e = ERR_NULL;
	struct spawn sp = { 0 };
	struct wire_out o;
	struct user user;
	unsigned code = 0;
	int r;

	*x = (struct exec){
		.pid = -1,
		.in = { .fd = -1, .ready = true },
		.out = { { .fd = -1, .credit_bytes = WIRE_WINDOW },
			 { .fd = -1, .credit_bytes = WIRE_WINDOW } },
	};
	r = exec_line_read(l, f, &e);
	if (r == 0) {
		user_root(&user);
		if (l->user) {
			r = user_find(a->ops->etc, l->user, &user, &e);
			code = r < 0 ? EXEC_CODE_DENIED : 0;
		}
	}
	if (r == 0) {
		r = exec_line_defaults(l, &a->identity, &user);
		if (r < 0)
			err_errno(&e, -r, "exec: environment");
	}
	if (r == 0)
		r = exec_spawn(a, s, l->user ? &user : NULL, &sp, &e);
	if (r < 0) {
		exec_refuse(a, s, code, &e);
		return;
	}
	if (sp.stage != SPAWN_STARTED) {
		code = exec_why(l, &sp, &e);
		exec_refuse(a, s, code, &e);
		return;
	}
	x->tty = l->tty;
	r = exec_watch(a, s);
	if (r < 0) {
		/* Epoll is out of memory: nobody would ever read. */
		a->ops->kill(x->pid, SIGKILL);
		err_errno(&e, -r, "watch the command");
		exec_refuse(a, s, 0, &e);
		return;
	}
	if (l->timeout_ns) {
		x->next = EXEC_TERM;
		x->due_ns = a->now_ns + l->timeout_ns;
		if (x->due_ns < a->now_ns)
			x->due_ns = UINT64_MAX;
	}
	port_begin(&a->port, &o, 32, WIRE_STARTED, 0, s->id);
	wire_put_u64(&o, WIRE_K_PID, (uint64_t)x->pid);
	port_end(&a->port, &o);
}

/* ---- input ---- */

static void exec_in_close(struct exec *x)
{
	struct exec_in *in = &x->in;

	if (!x->tty && in->fd >= 0)
		close(in->fd);
	in->fd = -1;
	in->consumed += in->len;
	in->len = 0;
}

/* As much of @p as the child takes; everything when it is gone. */
static size_t exec_in_write(struct agent *a, struct stream *s, const uint8_t *p,
			    size_t len)
{
	struct exec_in *in = &s->exec.in;
	size_t done = 0;
	ssize_t n;

	while (done < len && in->fd >= 0 && in->ready) {
		n = write(in->fd, p + done, len - done);
		if (n > 0) {
			done += (size_t)n;
		} else if (n < 0 && errno == EINTR) {
			continue;
		} else if (n < 0 && errno == EAGAIN) {
			if (in->watched) {
				in->ready = false;
			} else if (agent_watch(a, s, in->fd, WIRE_STDIN,
					       EPOLLOUT) == 0) {
				/* Adding reports what is so already, thus
				 * nothing falls between. */
				in->watched = true;
				in->ready = false;
			} else {
				exec_in_close(&s->exec);
			}
		} else {
			exec_in_close(&s->exec);
		}
	}
	return in->fd < 0 ? len : done;
}

static void exec_in_pump(struct agent *a, struct stream *s)
{
	struct exec_in *in = &s->exec.in;
	uint8_t end = EXEC_TTY_EOF;
	uint32_t span;
	size_t n;

	while (in->len && in->ready) {
		span = min(in->len, WIRE_WINDOW - in->start);
		n = exec_in_write(a, s, in->ring + in->start, span);
		if (in->len == 0)
			break; /* closed meanwhile, all accounted for */
		in->start = (in->start + (uint32_t)n) % WIRE_WINDOW;
		in->len -= (uint32_t)n;
		in->consumed += (uint32_t)n;
	}
	if (in->len == 0 && in->eof && in->fd >= 0) {
		if (!s->exec.tty)
			exec_in_close(&s->exec);
		else if (exec_in_write(a, s, &end, 1) == 1)
			in->fd = -1;
	}
	agent_credit(a, s->id, WIRE_STDIN, &in->consumed, &in->outstanding);
}

static void exec_in_queue(struct exec_in *in, const uint8_t *p, size_t len)
{
	uint32_t at = (in->start + in->len) % WIRE_WINDOW;
	size_t span = min(len, (size_t)WIRE_WINDOW - at);

	must(len <= WIRE_WINDOW - in->len);
	memcpy(in->ring + at, p, span);
	memcpy(in->ring, p + span, len - span);
	in->len += (uint32_t)len;
}

static void exec_data(struct agent *a, struct stream *s,
		      const struct wire_frame *f)
{
	struct exec_in *in = &s->exec.in;
	size_t n = 0;
	void *mem;

	if (f->channel != WIRE_STDIN || f->len == 0)
		return;
	if (f->len > WIRE_WINDOW - in->outstanding) {
		/* More than it had credit for; its window is unusable. */
		a->ops->kill(s->exec.pid, SIGKILL);
		exec_in_close(&s->exec);
		return;
	}
	in->outstanding += f->len;
	if (in->len == 0 && !in->eof)
		n = exec_in_write(a, s, f->payload, f->len);
	if (in->eof || in->fd < 0)
		n = f->len; /* nobody reads it any more */
	if (n < f->len && !in->ring) {
		mem = mmap(NULL, WIRE_WINDOW, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (mem == MAP_FAILED) {
			exec_in_close(&s->exec);
			n = f->len;
		} else {
			in->ring = mem;
			in->start = 0;
		}
	}
	in->consumed += (uint32_t)n;
	if (n < f->len)
		exec_in_queue(in, f->payload + n, f->len - n);
}

/* ---- frames of a running command ---- */

static void exec_signal(struct agent *a, struct exec *x,
			const struct wire_frame *f)
{
	uint64_t sig = 0;

	if (wire_find_u64(f, WIRE_K_SIGNAL, &sig) < 0 || sig == 0 ||
	    sig >= (uint64_t)_NSIG || x->exited)
		return;
	a->ops->kill(x->pid, (int)sig);
}

static void exec_resize(struct exec *x, const struct wire_frame *f)
{
	uint64_t rows = 0, cols = 0;

	if (!x->tty || x->out[0].fd < 0 ||
	    wire_find_u64(f, WIRE_K_ROWS, &rows) < 0 ||
	    wire_find_u64(f, WIRE_K_COLS, &cols) < 0 || rows > UINT16_MAX ||
	    cols > UINT16_MAX)
		return;
	err_drop(pty_resize(x->out[0].fd, (uint16_t)rows, (uint16_t)cols));
}

static void exec_close_all(struct agent *a, struct exec *x)
{
	if (!x->exited) {
		a->ops->kill(x->pid, SIGHUP);
		a->ops->kill(x->pid, SIGKILL);
	}
	exec_in_close(x);
	exec_close_fd(&x->out[0].fd);
	exec_close_fd(&x->out[1].fd);
}

void exec_frame(struct agent *a, struct stream *s, const struct wire_frame *f)
{
	struct exec *x = &s->exec;

	switch (f->type) {
	case WIRE_DATA:
		exec_data(a, s, f);
		break;
	case WIRE_EOF:
		if (f->channel == WIRE_STDIN)
			x->in.eof = true;
		break;
	case WIRE_CREDIT:
		if (f->channel != WIRE_STDIN)
			agent_credited(
				f,
				&x->out[f->channel - WIRE_STDOUT].credit_bytes);
		break;
	case WIRE_SIGNAL:
		exec_signal(a, x, f);
		break;
	case WIRE_RESIZE:
		exec_resize(x, f);
		break;
	case WIRE_CLOSE:
		exec_close_all(a, x);
		break;
	default:
		break; /* of no meaning here */
	}
}

/* ---- output and end ---- */

void exec_event(struct stream *s, uint8_t channel, uint32_t events)
{
	struct exec *x = &s->exec;
	struct exec_out *out;

	if (channel == WIRE_STDIN || x->tty)
		x->in.ready |= (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0;
	if (channel == WIRE_STDIN)
		return;
	out = &x->out[channel - WIRE_STDOUT];
	out->ready |= (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0;
	out->hup |= (events & (EPOLLERR | EPOLLHUP)) != 0;
}

/* One read's worth; true: come again. */
static bool exec_out_pump(struct agent *a, struct stream *s,
			  struct exec_out *out, uint8_t channel)
{
	size_t len = min(out->credit_bytes, PORT_CHUNK);
	ssize_t n;

	if (!out->ready || out->fd < 0 || len == 0 ||
	    !port_has_data_room(&a->port, len))
		return false;
	n = read(out->fd, port_data(&a->port, len), len);
	if (n > 0) {
		port_data_commit(&a->port, channel, s->id, (size_t)n);
		out->credit_bytes -= (uint32_t)n;
		out->owed_bytes -= min(out->owed_bytes, (uint32_t)n);
		/* A pipe that gave less than asked for is empty and will make
		 * a new edge; a tty gives what it likes. After the last writer
		 * has gone there will be no more edges. */
		if ((size_t)n < len && !out->hup && !s->exec.tty)
			out->ready = false;
		return out->ready;
	}
	if (n < 0 && errno == EINTR)
		return true;
	if (n < 0 && errno == EAGAIN) {
		out->ready = false;
		return false;
	}
	/* The end; EIO is how a terminal says it. */
	if (s->exec.in.fd == out->fd)
		exec_in_close(&s->exec);
	exec_close_fd(&out->fd);
	return false;
}

static bool exec_out_done(const struct exec *x, const struct exec_out *out)
{
	if (out->fd < 0)
		return true;
	return x->next == EXEC_NOTHING && (!out->ready || !out->owed_bytes);
}

void exec_exited(struct agent *a, struct stream *s, int status)
{
	struct exec *x = &s->exec;
	int i, left;

	x->exited = true;
	x->status = status;
	x->next = EXEC_GRACE;
	x->due_ns = a->now_ns + EXEC_GRACE_NS;
	for (i = 0; i < 2; i++) {
		left = 0;
		if (x->out[i].fd >= 0 &&
		    ioctl(x->out[i].fd, FIONREAD, &left) == 0)
			x->out[i].owed_bytes = (uint32_t)left;
	}
}

static void exec_due(struct agent *a, struct exec *x)
{
	if (x->next == EXEC_NOTHING || a->now_ns < x->due_ns)
		return;
	switch (x->next) {
	case EXEC_TERM:
		x->timed_out = true;
		a->ops->kill(x->pid, SIGTERM);
		x->next = EXEC_KILL;
		x->due_ns = a->now_ns + EXEC_KILL_NS;
		break;
	case EXEC_KILL:
		a->ops->kill(x->pid, SIGKILL);
		x->next = EXEC_NOTHING;
		break;
	case EXEC_GRACE:
		x->next = EXEC_NOTHING;
		break;
	case EXEC_NOTHING:
		break;
	}
}

static void exec_result(struct agent *a, struct stream *s)
{
	struct exec *x = &s->exec;
	struct wire_out o;

	port_begin(&a->port, &o, 64, WIRE_RESULT, 0, s->id);
	if (x->timed_out) {
		/* Whoever is left of a command that had to go goes too. */
		a->ops->kill(x->pid, SIGKILL);
		wire_put_u64(&o, WIRE_K_CODE, WIRE_EXIT_TIMEOUT);
		wire_put_u64(&o, WIRE_K_TIMED_OUT, 1);
	} else if (WIFSIGNALED(x->status)) {
		wire_put_u64(&o, WIRE_K_SIGNAL, (uint64_t)WTERMSIG(x->status));
	} else {
		wire_put_u64(&o, WIRE_K_CODE, (uint64_t)WEXITSTATUS(x->status));
	}
	port_end(&a->port, &o);
	exec_end(a, s);
}

bool exec_pump(struct agent *a, struct stream *s)
{
	struct exec *x = &s->exec;
	bool more;

	exec_due(a, x);
	exec_in_pump(a, s);
	more = exec_out_pump(a, s, &x->out[0], WIRE_STDOUT);
	more |= exec_out_pump(a, s, &x->out[1], WIRE_STDERR);
	if (x->exited && exec_out_done(x, &x->out[0]) &&
	    exec_out_done(x, &x->out[1]) && port_has_control_room(&a->port)) {
		exec_result(a, s);
		return false;
	}
	return more;
}

void exec_abandon(struct agent *a, struct stream *s)
{
	if (!s->exec.exited)
		a->ops->kill(s->exec.pid, SIGKILL);
	exec_end(a, s);
}
