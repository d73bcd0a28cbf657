/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's turn: frames in, streams moved, frames out
 *
 * One thread, one epoll, and everything watched edge-triggered. An event only
 * sets a flag; the work is done by agent_turn(), which takes frames from the
 * port, collects children, gives every stream one step, and writes what came
 * together in a single write: an exit of the virtual machine costs more than
 * anything else done here. Turns repeat until nothing more can be done without
 * waiting. An idle agent sits in epoll_wait without a timeout.
 *
 * Back-pressure. A frame from the host is taken only while there is room to
 * answer it. So a host that does not read what we send is not read from either,
 * and nothing here grows.
 *
 * Peers. The host is trusted to ask for anything, but its bytes may be the
 * middle of a conversation that broke off: every frame is judged, and what
 * makes no sense is refused with RESULT where it would open a stream, and
 * ignored where it belongs to none. Guest processes can do no more than fill
 * their own pipes.
 *
 * 1. streams[].id is unique among those not 0; n_streams counts them.
 * 2. A stream is released only by its own functions, and RESULT was queued
 *    before unless the host is gone (HELLO).
 * 3. Nothing below agent_run() reads the clock.
 */
#include "agent/agent.h"
#include "agent/get.h"
#include "agent/machine.h"
#include "agent/put.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Children collected in one turn: a fork bomb's zombies must not keep us from
 * the port. */
#define AGENT_REAP_MAX 256
#define AGENT_EVENTS_MAX 32
/* Frames taken in one turn, for the same reason. */
#define AGENT_FRAMES_MAX 64
/* Credit is given back in lumps of a quarter window: the sender has most of
 * its window left by then, and the frames stay few. */
#define AGENT_CREDIT_LUMP (WIRE_WINDOW / 4)

/* Event tags; those of streams are serial << 32 | slot << 8 | channel. */
#define AGENT_TAG_PORT UINT64_MAX
#define AGENT_TAG_SIGNAL (UINT64_MAX - 1)

static void agent_kill_group(pid_t group, int sig)
{
	kill(-group, sig);
}

const struct agent_ops agent_ops_vm = {
	.spawn = spawn_run,
	.kill = agent_kill_group,
	.machine = true,
	.root_fd = AT_FDCWD,
	.etc = "/etc",
	.proc = "/proc",
};

const struct agent_ops agent_ops_guest_of_host = {
	.spawn = spawn_run,
	.kill = agent_kill_group,
	.machine = false,
	.root_fd = AT_FDCWD,
	.etc = "/etc",
	.proc = "/proc",
};

static uint64_t agent_clock_ns(void)
{
	struct timespec ts = { 0 };

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* ---- what streams share ---- */

static struct stream *agent_find(struct agent *a, uint32_t id)
{
	unsigned i, seen = 0;

	for (i = 0; seen < a->n_streams && i < WIRE_STREAMS_MAX; i++) {
		if (a->streams[i].id == id)
			return &a->streams[i];
		seen += a->streams[i].id != 0;
	}
	return NULL;
}

void agent_release(struct agent *a, struct stream *s)
{
	must(s->id && a->n_streams);
	s->id = 0;
	a->n_streams--;
}

int agent_watch(struct agent *a, struct stream *s, int fd, uint8_t channel,
		uint32_t events)
{
	struct epoll_event ev = { .events = events | EPOLLET };

	ev.data.u64 = (uint64_t)s->serial << 32 |
		      (uint64_t)(s - a->streams) << 8 | channel;
	return epoll_ctl(a->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

void agent_credit(struct agent *a, uint32_t id, uint8_t channel,
		  uint32_t *consumed, uint32_t *outstanding)
{
	struct wire_out o;

	if (*consumed < AGENT_CREDIT_LUMP || !port_has_control_room(&a->port))
		return;
	port_begin(&a->port, &o, 32, WIRE_CREDIT, channel, id);
	wire_put_u64(&o, WIRE_K_BYTES, *consumed);
	port_end(&a->port, &o);
	*outstanding -= *consumed;
	*consumed = 0;
}

void agent_credited(const struct wire_frame *f, uint32_t *credit_bytes)
{
	uint64_t bytes = 0;

	if (wire_find_u64(f, WIRE_K_BYTES, &bytes) < 0)
		return;
	/* Nobody can give back more than he was sent. */
	*credit_bytes +=
		(uint32_t)min(bytes, (uint64_t)(WIRE_WINDOW - *credit_bytes));
}

void agent_refuse(struct agent *a, uint32_t id, const struct err *e)
{
	struct wire_out o;

	port_begin(&a->port, &o, 32 + ERR_MSG_MAX, WIRE_RESULT, 0, id);
	wire_put_u64(&o, WIRE_K_ERRNO, (uint64_t)e->code);
	wire_put_str(&o, WIRE_K_MESSAGE, e->msg);
	port_end(&a->port, &o);
}

/* RESULT of what has no stream: it is done when it is answered. */
static void agent_answer(struct agent *a, uint32_t id, int r,
			 const struct err *e)
{
	struct wire_out o;

	if (r < 0) {
		agent_refuse(a, id, e);
		return;
	}
	port_begin(&a->port, &o, 32, WIRE_RESULT, 0, id);
	wire_put_u64(&o, WIRE_K_CODE, 0);
	port_end(&a->port, &o);
}

/* ---- frames for the agent as a whole ---- */

static void agent_abandon_all(struct agent *a)
{
	unsigned i;

	for (i = 0; i < WIRE_STREAMS_MAX && a->n_streams; i++) {
		if (!a->streams[i].id)
			continue;
		if (a->streams[i].op == WIRE_EXEC)
			exec_abandon(a, &a->streams[i]);
		else if (a->streams[i].op == WIRE_PUT)
			put_abandon(a, &a->streams[i]);
		else
			get_abandon(a, &a->streams[i]);
	}
	must(a->n_streams == 0);
}

/* A new host: nothing of the old one's is left, and this is the answer. */
static void agent_hello(struct agent *a, const struct wire_frame *f)
{
	struct wire_field field = { 0 };
	struct wire_out o;
	size_t pos = 0;

	while (field.key != WIRE_K_NONCE)
		if (wire_field_next(f, &pos, &field) != 0)
			return; /* killing everything for this would be harsh */
	if (field.len != WIRE_NONCE)
		return;
	agent_abandon_all(a);
	port_drop(&a->port);
	port_begin(&a->port, &o, 64, WIRE_HELLO, 0, 0);
	wire_put(&o, WIRE_K_NONCE, field.p, field.len);
	wire_put_u64(&o, WIRE_K_VERSION, WIRE_VERSION);
	port_end(&a->port, &o);
}

static void agent_identity(struct agent *a, const struct wire_frame *f)
{
	struct err e = ERR_NULL;
	int r;

	r = identity_set(&a->identity, f, a->ops->machine, &e);
	agent_answer(a, f->stream, r, &e);
}

static void agent_facts(struct agent *a, const struct wire_frame *f)
{
	struct machine_memory m = { 0 };
	struct err e = ERR_NULL;
	struct wire_out o;
	int r;

	r = machine_memory(a->ops->proc, &m, &e);
	if (r < 0) {
		agent_refuse(a, f->stream, &e);
		return;
	}
	port_begin(&a->port, &o, 128, WIRE_RESULT, 0, f->stream);
	wire_put_u64(&o, WIRE_K_CODE, 0);
	wire_put_u64(&o, WIRE_K_MEM_TOTAL, m.total_bytes);
	wire_put_u64(&o, WIRE_K_MEM_FREE, m.free_bytes);
	wire_put_u64(&o, WIRE_K_MEM_AVAILABLE, m.available_bytes);
	wire_put_u64(&o, WIRE_K_MEM_CACHED, m.cached_bytes);
	port_end(&a->port, &o);
}

static void agent_settle(struct agent *a, const struct wire_frame *f)
{
	struct err e = ERR_NULL;
	uint64_t drop = 0;
	int r = 0;

	if (wire_find_u64(f, WIRE_K_DROP, &drop) < 0)
		drop = 0;
	if (a->ops->machine)
		r = machine_settle(a->ops->proc, drop != 0, &e);
	agent_answer(a, f->stream, r, &e);
}

static void agent_poweroff(struct agent *a, const struct wire_frame *f)
{
	agent_abandon_all(a);
	if (a->ops->machine)
		machine_quiesce();
	agent_answer(a, f->stream, 0, NULL);
	a->power_off = true;
}

/* ---- dispatch ---- */

/* A slot for what @f opens; refused with RESULT when there is none. */
static struct stream *agent_open(struct agent *a, const struct wire_frame *f)
{
	struct err e = ERR_NULL;
	struct stream *s;
	unsigned i;

	if (a->broken) {
		err_set(&e, ENODEV, "%s", a->broken);
		agent_refuse(a, f->stream, &e);
		return NULL;
	}
	for (i = 0; i < WIRE_STREAMS_MAX && a->streams[i].id; i++)
		continue;
	if (i == WIRE_STREAMS_MAX) {
		err_set(&e, EAGAIN, "%s: %u streams are open",
			wire_type_name(f->type), WIRE_STREAMS_MAX);
		agent_refuse(a, f->stream, &e);
		return NULL;
	}
	s = &a->streams[i];
	*s = (struct stream){
		.id = f->stream,
		.serial = ++a->serial,
		.op = f->type,
	};
	a->n_streams++;
	return s;
}

static void agent_stream_frame(struct agent *a, struct stream *s,
			       const struct wire_frame *f)
{
	if (s->op == WIRE_EXEC)
		exec_frame(a, s, f);
	else if (s->op == WIRE_PUT)
		put_frame(a, s, f);
	else
		get_frame(a, s, f);
}

static void agent_frame(struct agent *a, const struct wire_frame *f)
{
	struct stream *s;

	if (f->type == WIRE_HELLO) {
		agent_hello(a, f);
		return;
	}
	if (f->stream == 0)
		return;
	s = agent_find(a, f->stream);
	if (s) {
		/* Opening it again would be the host's mistake; a RESULT would
		 * make it believe that the first one ended. */
		agent_stream_frame(a, s, f);
		return;
	}
	switch (f->type) {
	case WIRE_IDENTITY:
		agent_identity(a, f);
		break;
	case WIRE_EXEC:
		s = agent_open(a, f);
		if (s)
			exec_start(a, s, f);
		break;
	case WIRE_PUT:
		s = agent_open(a, f);
		if (s)
			put_start(a, s, f);
		break;
	case WIRE_GET:
		s = agent_open(a, f);
		if (s)
			get_start(a, s, f);
		break;
	case WIRE_FACTS:
		agent_facts(a, f);
		break;
	case WIRE_SETTLE:
		agent_settle(a, f);
		break;
	case WIRE_POWEROFF:
		agent_poweroff(a, f);
		break;
	default:
		break; /* for a stream that has ended */
	}
}

/* ---- the turn ---- */

/* Collect children, ours and those PID 1 inherits; true: there may be more. */
static bool agent_reap(struct agent *a)
{
	unsigned i, k;
	int status;
	pid_t pid;

	for (i = 0; i < AGENT_REAP_MAX; i++) {
		pid = waitpid(-1, &status, WNOHANG);
		if (pid <= 0) {
			a->reap = false;
			return false;
		}
		for (k = 0; k < WIRE_STREAMS_MAX; k++)
			if (a->streams[k].id && a->streams[k].op == WIRE_EXEC &&
			    a->streams[k].exec.pid == pid &&
			    !a->streams[k].exec.exited)
				exec_exited(a, &a->streams[k], status);
	}
	return true;
}

static bool agent_frames(struct agent *a)
{
	struct wire_frame f = { 0 };
	unsigned i;

	for (i = 0; i < AGENT_FRAMES_MAX; i++) {
		if (!port_has_control_room(&a->port) ||
		    port_next(&a->port, &f) != 0)
			return false;
		agent_frame(a, &f);
	}
	return true;
}

static bool agent_pump(struct agent *a)
{
	unsigned i, left = a->n_streams;
	bool more = false;
	struct stream *s;

	for (i = 0; i < WIRE_STREAMS_MAX && left; i++) {
		s = &a->streams[i];
		if (!s->id)
			continue;
		left--;
		if (s->op == WIRE_EXEC)
			more |= exec_pump(a, s);
		else if (s->op == WIRE_GET)
			more |= get_pump(a, s);
	}
	return more;
}

bool agent_turn(struct agent *a)
{
	bool more;

	a->port.starved = false;
	more = agent_frames(a);
	if (a->reap)
		more |= agent_reap(a);
	more |= agent_pump(a);
	/* While there is more, let it come together: each write is an exit of
	 * the virtual machine. */
	if (!more || a->port.starved ||
	    !port_has_data_room(&a->port, PORT_CHUNK))
		port_flush(&a->port);
	/* Who found no room may find it now; if not, EPOLLOUT will tell. */
	return more || (a->port.starved && !a->port.blocked);
}

static void agent_event(struct agent *a, const struct epoll_event *ev)
{
	struct signalfd_siginfo info;
	uint64_t tag = ev->data.u64;
	struct stream *s;

	if (tag == AGENT_TAG_PORT) {
		if (ev->events & (EPOLLIN | EPOLLHUP | EPOLLERR))
			a->port.readable = true;
		if (ev->events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
			a->port.blocked = false;
		return;
	}
	if (tag == AGENT_TAG_SIGNAL) {
		/* Only SIGCHLD is in there, and any number of children. */
		if (read(a->signal_fd, &info, sizeof(info)) > 0)
			a->reap = true;
		return;
	}
	s = &a->streams[tag >> 8 & (WIRE_STREAMS_MAX - 1)];
	if (s->id && s->serial == tag >> 32 && s->op == WIRE_EXEC)
		exec_event(s, (uint8_t)tag, ev->events);
}

/* Milliseconds until something is due, -1: nothing is. */
static int agent_timeout(const struct agent *a)
{
	uint64_t due = 0, ms;
	unsigned i, left = a->n_streams;

	for (i = 0; i < WIRE_STREAMS_MAX && left; i++) {
		const struct stream *s = &a->streams[i];

		if (!s->id)
			continue;
		left--;
		if (s->op == WIRE_EXEC && s->exec.next != EXEC_NOTHING &&
		    (!due || s->exec.due_ns < due))
			due = s->exec.due_ns;
	}
	if (!due)
		return -1;
	if (due <= a->now_ns)
		return 0;
	/* Rounded up: early would be a turn for nothing. */
	ms = (due - a->now_ns + 999999) / 1000000;
	return ms > INT_MAX ? INT_MAX : (int)ms;
}

/* EPOLLOUT only while a write is refused: a virtio port would have it after
 * every buffer the host has taken. */
static void agent_watch_port(struct agent *a)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET,
				  .data.u64 = AGENT_TAG_PORT };

	if (a->port.blocked == a->watching_out)
		return;
	a->watching_out = a->port.blocked;
	if (a->watching_out)
		ev.events |= EPOLLOUT;
	/* Modifying reports what is so already. */
	must(epoll_ctl(a->epoll_fd, EPOLL_CTL_MOD, a->port.fd, &ev) == 0);
}

int agent_run(struct agent *a, struct err *e)
{
	struct epoll_event ev[AGENT_EVENTS_MAX];
	bool more = true;
	int i, n;

	while (!a->port.closed) {
		n = epoll_wait(a->epoll_fd, ev, AGENT_EVENTS_MAX,
			       more ? 0 : agent_timeout(a));
		if (n < 0 && errno != EINTR)
			return err_errno(e, errno, "epoll_wait");
		for (i = 0; i < n; i++)
			agent_event(a, &ev[i]);
		a->now_ns = agent_clock_ns();
		more = agent_turn(a);
		agent_watch_port(a);
		if (a->power_off && (port_idle(&a->port) || a->port.blocked))
			break;
	}
	return 0;
}

/* ---- life ---- */

static int agent_add(struct agent *a, int fd, uint32_t events, uint64_t tag,
		     struct err *e)
{
	struct epoll_event ev = { .events = events, .data.u64 = tag };

	if (epoll_ctl(a->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
		return err_errno(e, errno, "epoll_ctl");
	return 0;
}

int agent_init(struct agent *a, const struct agent_ops *ops, int fd,
	       bool comes_back, struct err *e)
{
	sigset_t set;
	int r;

	a->ops = ops;
	a->broken = NULL;
	a->reap = a->power_off = a->watching_out = false;
	a->n_streams = 0;
	a->identity.n_env = 0;
	a->now_ns = agent_clock_ns();
	port_init(&a->port, fd, comes_back);

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGPIPE);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sigdelset(&set, SIGPIPE);
	a->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	a->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	a->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (a->signal_fd < 0 || a->epoll_fd < 0 || a->null_fd < 0)
		return err_errno(e, errno, "signalfd, epoll or /dev/null");
	r = agent_add(a, fd, EPOLLIN | EPOLLET, AGENT_TAG_PORT, e);
	if (r == 0)
		r = agent_add(a, a->signal_fd, EPOLLIN, AGENT_TAG_SIGNAL, e);
	return r;
}

void agent_deinit(struct agent *a)
{
	agent_abandon_all(a);
	close(a->null_fd);
	close(a->epoll_fd);
	close(a->signal_fd);
}
