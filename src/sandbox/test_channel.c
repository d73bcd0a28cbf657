/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent channel against an agent that tries everything: a socket pair, one
 * loop, and allocations that can be told to fail.
 *
 * channel.c and buf.c are compiled in here, with our allocator; the library's
 * own are then not linked.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/test.h"
#include "base/test_sweep.h"

#define calloc sweep_calloc
#define realloc sweep_realloc
#define free sweep_free
#include "base/buf.c"
#include "sandbox/channel.c"
#undef calloc
#undef realloc
#undef free

/* The agent: one end of the pair. */
static int agent_fd;
static uint8_t agent_in[2 * WIRE_FRAME_MAX];
static size_t agent_len, agent_used;

static struct loop loop;
static struct channel *channel;
static unsigned n_ready, n_idle, n_broken;
static struct err broken_why;
static bool free_in_ready, free_in_broken;

/* A stream and what became of it. */
struct probe {
	struct channel_stream s;
	unsigned frames, writables, brokens;
	uint8_t last; /* type of the last frame */
	uint64_t bytes; /* DATA */
	bool keep; /* take DATA without giving credit */
	struct probe *victim; /* abandoned and wiped in a callback */
	bool free_channel; /* in a callback */
};

/* ---- owners ---- */

static void on_ready(void *arg)
{
	(void)arg;
	n_ready++;
	if (free_in_ready)
		channel = channel_free(channel);
}

static void on_broken(void *arg, const struct err *e)
{
	(void)arg;
	n_broken++;
	check(e->code > 0);
	broken_why = *e;
	if (free_in_broken)
		channel = channel_free(channel);
}

static void on_idle(void *arg)
{
	(void)arg;
	n_idle++;
}

static const struct channel_events events = {
	.ready = on_ready,
	.idle = on_idle,
	.broken = on_broken,
};

static void probe_act(struct probe *p)
{
	if (p->victim) {
		struct probe *v = p->victim;

		p->victim = NULL;
		channel_abandon(&v->s);
		/* Whoever looks at it now, looks at this. */
		memset(&v->s, 0xaa, sizeof(v->s));
	}
	if (p->free_channel) {
		p->free_channel = false;
		channel = channel_free(channel);
	}
}

static void probe_frame(struct channel_stream *s, const struct wire_frame *f)
{
	struct probe *p = container_of(s, struct probe, s);

	p->frames++;
	p->last = f->type;
	check((f->type == WIRE_RESULT) == !s->channel);
	if (f->type == WIRE_DATA) {
		p->bytes += f->len;
		if (!p->keep)
			channel_credit(s, (enum wire_channel)f->channel,
				       f->len);
	}
	probe_act(p);
}

static void probe_writable(struct channel_stream *s)
{
	struct probe *p = container_of(s, struct probe, s);

	p->writables++;
	probe_act(p);
}

static void probe_broken(struct channel_stream *s, const struct err *e)
{
	struct probe *p = container_of(s, struct probe, s);

	check(e->code > 0 && !s->channel);
	check(!n_broken); /* streams hear first */
	p->brokens++;
	probe_act(p);
}

static struct probe probe(void)
{
	struct probe p = { 0 };

	p.s.frame = probe_frame;
	p.s.writable = probe_writable;
	p.s.broken = probe_broken;
	list_init(&p.s.link);
	return p;
}

static int probe_open(struct probe *p)
{
	uint8_t mem[64];
	struct wire_out o;
	int n;

	wire_begin(&o, mem, sizeof(mem), WIRE_EXEC, 0, 0);
	wire_put_str(&o, WIRE_K_ARG, "true");
	n = wire_end(&o);
	check(n > 0);
	return channel_open(channel, &p->s, mem, (size_t)n);
}

static int probe_send(struct probe *p, size_t len)
{
	static uint8_t mem[WIRE_FRAME_MAX];

	wire_header(mem, WIRE_DATA, WIRE_STDIN, 0, (uint32_t)len);
	return channel_send(&p->s, mem, WIRE_HEADER + len);
}

/* ---- the agent ---- */

static void turn(void)
{
	struct err e = ERR_NULL;

	check(loop_turn(&loop, 0, &e) == 0);
}

static void turns(void)
{
	for (int i = 0; i < 20; i++)
		turn();
}

static void agent_write(const void *p, size_t len)
{
	const uint8_t *at = p;

	for (int i = 0; len && i < 1000; i++) {
		ssize_t n =
			send(agent_fd, at, len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n > 0) {
			at += n;
			len -= (size_t)n;
		} else if (n < 0 && errno != EAGAIN) {
			return; /* the channel is gone */
		}
		turn();
	}
}

static void agent_frame(uint8_t type, uint8_t ch, uint32_t stream,
			const void *p, size_t len)
{
	uint8_t mem[WIRE_FRAME_MAX];

	wire_header(mem, type, ch, stream, (uint32_t)len);
	if (len)
		memcpy(mem + WIRE_HEADER, p, len);
	agent_write(mem, WIRE_HEADER + len);
}

static void agent_data(uint32_t stream, size_t len)
{
	static const uint8_t zeros[WIRE_PAYLOAD_MAX];

	agent_frame(WIRE_DATA, WIRE_STDOUT, stream, zeros, len);
}

static void agent_number(uint8_t type, uint8_t ch, uint32_t stream,
			 uint16_t key, uint64_t v)
{
	uint8_t mem[64];
	struct wire_out o;
	int n;

	wire_begin(&o, mem, sizeof(mem), type, ch, stream);
	wire_put_u64(&o, key, v);
	n = wire_end(&o);
	agent_write(mem, (size_t)n);
}

static void agent_result(uint32_t stream)
{
	agent_number(WIRE_RESULT, 0, stream, WIRE_K_CODE, 0);
}

/* The next frame for the agent; its payload is good until the next call. False
 * when there is none. */
static bool agent_next(struct wire_frame *f)
{
	memmove(agent_in, agent_in + agent_used, agent_len - agent_used);
	agent_len -= agent_used;
	agent_used = 0;
	for (int i = 0; i < 50; i++) {
		size_t used = 0;
		ssize_t n;
		int r = wire_next(agent_in, agent_len, f, &used, NULL);

		if (r == 0) {
			agent_used = used;
			return true;
		}
		memmove(agent_in, agent_in + used, agent_len - used);
		agent_len -= used;
		n = recv(agent_fd, agent_in + agent_len,
			 sizeof(agent_in) - agent_len, MSG_DONTWAIT);
		if (n > 0)
			agent_len += (size_t)n;
		turn();
	}
	return false;
}

static void agent_expect(uint8_t type, struct wire_frame *f)
{
	check(agent_next(f));
	check(f->type == type);
}

static void agent_drain(void)
{
	struct wire_frame f;

	while (agent_next(&f))
		;
}

static void agent_hello(const uint8_t *nonce)
{
	uint8_t mem[64];
	struct wire_out o;
	int n;

	wire_begin(&o, mem, sizeof(mem), WIRE_HELLO, 0, 0);
	wire_put(&o, WIRE_K_NONCE, nonce, WIRE_NONCE);
	wire_put_u64(&o, WIRE_K_VERSION, WIRE_VERSION);
	n = wire_end(&o);
	agent_write(mem, (size_t)n);
}

/* Reads the host's HELLO and gives its nonce. */
static void agent_greeted(uint8_t nonce[WIRE_NONCE])
{
	struct wire_frame f;
	struct wire_field field;
	size_t pos = 0;

	agent_expect(WIRE_HELLO, &f);
	check(wire_field_next(&f, &pos, &field) == 0);
	check(field.key == WIRE_K_NONCE && field.len == WIRE_NONCE);
	memcpy(nonce, field.p, WIRE_NONCE);
}

/* ---- both ---- */

static int begin_unready(bool fresh)
{
	struct err e = ERR_NULL;
	int fds[2], r;

	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
	agent_fd = fds[1];
	agent_len = agent_used = 0;
	n_ready = n_idle = n_broken = 0;
	free_in_ready = false;
	free_in_broken = true;
	channel = NULL;
	r = channel_new(&loop, fds[0], fresh, &events, NULL, &channel, &e);
	check(r == 0 || e.code == -r);
	return r;
}

static void begin(void)
{
	uint8_t nonce[WIRE_NONCE];

	check(begin_unready(true) == 0);
	agent_greeted(nonce);
	agent_hello(nonce);
	turns();
	check(n_ready == 1 && n_broken == 0);
}

static void end(void)
{
	channel = channel_free(channel);
	close(agent_fd);
	check(loop.n_fds == 0);
	check(sweep_balance == 0);
}

/* ---- tests ---- */

static void test_greeting(void)
{
	uint8_t nonce[WIRE_NONCE], other[WIRE_NONCE] = { 1, 2, 3 };
	struct probe p = probe();
	struct wire_frame f;

	/* Opened before the answer: goes out behind HELLO. */
	check(begin_unready(true) == 0);
	check(probe_open(&p) == 0);
	agent_greeted(nonce);
	agent_expect(WIRE_EXEC, &f);
	check(f.stream == p.s.number && f.stream != 0);
	/* Somebody else's answer, frames and rubbish before ours. */
	agent_hello(other);
	agent_result(p.s.number);
	agent_write("rubbish\x7e\xb4\xff", 10);
	turns();
	check(n_ready == 0 && p.frames == 0);
	agent_hello(nonce);
	turns();
	check(n_ready == 1);
	agent_result(p.s.number);
	turns();
	check(p.frames == 1 && p.last == WIRE_RESULT && !p.s.channel);
	check(channel_streams(channel) == 0 && n_idle == 1);
	/* A second answer is none. */
	agent_hello(nonce);
	turns();
	check(n_ready == 1 && n_broken == 0);
	end();
}

static void test_resync(void)
{
	uint8_t nonce[WIRE_NONCE], head[WIRE_HEADER], zeros[1000];

	/* Not fresh: enough zeros to end any frame that was cut short. */
	check(begin_unready(false) == 0);
	for (size_t got = 0; got < WIRE_FRAME_MAX; turn()) {
		size_t want = WIRE_FRAME_MAX - got;
		ssize_t n = recv(agent_fd, zeros, min(want, sizeof(zeros)),
				 MSG_DONTWAIT);

		for (ssize_t i = 0; i < n; i++)
			check(zeros[i] == 0);
		got += n > 0 ? (size_t)n : 0;
	}
	agent_greeted(nonce);
	/* What was under way imitates a header that would swallow the rest. */
	wire_header(head, WIRE_DATA, WIRE_STDOUT, 1, WIRE_PAYLOAD_MAX);
	agent_write(head, sizeof(head));
	agent_hello(nonce);
	turns();
	check(n_ready == 1 && n_broken == 0);
	end();
}

static void test_streams(void)
{
	static struct probe p[WIRE_STREAMS_MAX + 1];
	struct wire_frame f;

	begin();
	for (int i = 0; i <= WIRE_STREAMS_MAX; i++)
		p[i] = probe();
	for (int i = 0; i < WIRE_STREAMS_MAX; i++) {
		check(probe_open(&p[i]) == 0);
		agent_expect(WIRE_EXEC, &f);
		check(f.stream == p[i].s.number);
		for (int j = 0; j < i; j++)
			check(p[j].s.number != f.stream);
	}
	check(channel_streams(channel) == WIRE_STREAMS_MAX);
	check(probe_open(&p[WIRE_STREAMS_MAX]) == -EMFILE);
	/* An abandoned one counts until its RESULT. */
	channel_abandon(&p[3].s);
	channel_abandon(&p[3].s);
	agent_expect(WIRE_CLOSE, &f);
	check(probe_open(&p[WIRE_STREAMS_MAX]) == -EMFILE);
	agent_result(f.stream);
	turns();
	check(p[3].frames == 0);
	check(probe_open(&p[WIRE_STREAMS_MAX]) == 0);
	/* Frames for numbers that are not open, and of types an agent has no
	 * business with. */
	agent_result(12345);
	agent_data(0, 100);
	for (uint8_t type = 0; type < 40; type++)
		if (type != WIRE_RESULT && type != WIRE_HELLO)
			agent_frame(type, 0, p[0].s.number, "", 0);
	agent_frame(WIRE_DATA, 77, p[0].s.number, "x", 1);
	turns();
	check(!n_broken && !p[0].brokens && p[0].s.channel);
	for (int i = 0; i <= WIRE_STREAMS_MAX; i++)
		channel_abandon(&p[i].s);
	end();
}

static void test_credit_to_agent(void)
{
	struct probe p = probe();

	begin();
	check(probe_open(&p) == 0);
	for (unsigned i = 0; i < WIRE_WINDOW / WIRE_PAYLOAD_MAX; i++)
		check(probe_send(&p, WIRE_PAYLOAD_MAX) == 0);
	check(p.s.credit[WIRE_STDIN] == 0);
	check(probe_send(&p, 1) == -EAGAIN);
	check(probe_send(&p, 0) == 0);
	agent_drain();
	/* More than it ever got is not believed. */
	agent_number(WIRE_CREDIT, WIRE_STDIN, p.s.number, WIRE_K_BYTES,
		     WIRE_WINDOW + 1ull);
	agent_number(WIRE_CREDIT, WIRE_STDIN, p.s.number, WIRE_K_BYTES, ~0ull);
	agent_frame(WIRE_CREDIT, WIRE_STDIN, p.s.number, "junk", 4);
	turns();
	check(p.s.credit[WIRE_STDIN] == 0 && p.writables == 0);
	agent_number(WIRE_CREDIT, WIRE_STDIN, p.s.number, WIRE_K_BYTES, 1000);
	turns();
	check(p.s.credit[WIRE_STDIN] == 1000 && p.writables == 1);
	check(probe_send(&p, 1001) == -EAGAIN);
	check(probe_send(&p, 1000) == 0);
	channel_abandon(&p.s);
	check(probe_send(&p, 0) == -EPIPE);
	end();
}

/* Credit frames the agent gets, for one channel. */
static uint64_t agent_credits(void)
{
	struct wire_frame f;
	uint64_t sum = 0, n;

	while (agent_next(&f))
		if (f.type == WIRE_CREDIT &&
		    wire_find_u64(&f, WIRE_K_BYTES, &n) == 0)
			sum += n;
	return sum;
}

static void test_credit_from_agent(void)
{
	struct probe p = probe();

	begin();
	p.keep = true;
	check(probe_open(&p) == 0);
	agent_drain();
	for (unsigned i = 0; i < WIRE_WINDOW / WIRE_PAYLOAD_MAX; i++)
		agent_data(p.s.number, WIRE_PAYLOAD_MAX);
	turns();
	check(p.bytes == WIRE_WINDOW && !n_broken);
	check(agent_credits() == 0);
	/* In lumps. */
	channel_credit(&p.s, WIRE_STDOUT, 1);
	check(agent_credits() == 0);
	channel_credit(&p.s, WIRE_STDOUT, WIRE_WINDOW / 2);
	check(agent_credits() == WIRE_WINDOW / 2 + 1);
	/* Abandoned: all of it comes back, and what still comes too. */
	channel_abandon(&p.s);
	check(agent_credits() == WIRE_WINDOW / 2 - 1);
	for (int i = 0; i < 20; i++)
		agent_data(1, WIRE_PAYLOAD_MAX);
	check(agent_credits() == 20ull * WIRE_PAYLOAD_MAX);
	agent_result(1);
	turns();
	check(channel_streams(channel) == 0 && !n_broken);
	end();

	/* One byte more than granted breaks it. */
	begin();
	p = probe();
	p.keep = true;
	check(probe_open(&p) == 0);
	for (unsigned i = 0; i < WIRE_WINDOW / WIRE_PAYLOAD_MAX; i++)
		agent_data(p.s.number, WIRE_PAYLOAD_MAX);
	agent_data(p.s.number, 1);
	turns();
	check(n_broken == 1 && p.brokens == 1 && broken_why.code == EPROTO);
	end();
}

/* An agent that does not read: the queue is bounded, and everybody is told
 * when there is room again. */
static void test_full_queue(void)
{
	static struct probe p[24];
	struct wire_frame f = { 0 };
	uint8_t mem[WIRE_HEADER];
	unsigned told = 0;
	int r;

	begin();
	for (int i = 0; i < 24; i++) {
		p[i] = probe();
		check(probe_open(&p[i]) == 0);
	}
	for (int i = 0; i < 24; i++)
		while (p[i].s.credit[WIRE_STDIN] &&
		       probe_send(&p[i], WIRE_PAYLOAD_MAX) == 0)
			;
	check(probe_send(&p[23], WIRE_PAYLOAD_MAX) == -EAGAIN);
	check(p[23].s.credit[WIRE_STDIN] == WIRE_WINDOW);
	/* In the callback of each, the next one goes away; of the fifth, the
	 * one that comes two later. */
	for (int i = 0; i < 20; i += 2)
		p[i].victim = &p[i + 1];
	agent_drain();
	for (int i = 0; i < 20; i += 2)
		check(p[i].writables && !p[i + 1].writables);
	for (int i = 0; i < 24; i++)
		told += p[i].writables;
	check(told >= 14 && !n_broken);
	for (int i = 0; i < 24; i++)
		if (i >= 20 || i % 2 == 0)
			channel_abandon(&p[i].s);
	end();

	/* Owners cannot take the room of what we have to say ourselves. */
	begin();
	p[0] = probe();
	check(probe_open(&p[0]) == 0);
	while (probe_send(&p[0], 0) == 0)
		;
	do
		wire_header(mem, WIRE_SIGNAL, 0, 0, 0);
	while ((r = channel_send(&p[0].s, mem, WIRE_HEADER)) == 0);
	check(r == -ENOBUFS);
	channel_abandon(&p[0].s);
	while (agent_next(&f) && f.type != WIRE_CLOSE)
		;
	check(f.type == WIRE_CLOSE && n_broken == 0);
	end();
}

static void test_closed(void)
{
	struct probe p[3] = { probe(), probe(), probe() };

	/* With a frame cut short at the end. */
	begin();
	for (int i = 0; i < 3; i++)
		check(probe_open(&p[i]) == 0);
	p[0].victim = &p[1];
	agent_drain();
	agent_write("\x7e\xb4\x0f", 3);
	shutdown(agent_fd, SHUT_RDWR);
	turns();
	check(n_broken == 1 && broken_why.code == ECONNRESET && !channel);
	check(p[0].brokens == 1 && p[1].brokens == 0 && p[2].brokens == 1);
	end();

	/* Nobody frees it: every call says so. */
	begin();
	free_in_broken = false;
	p[0] = probe();
	shutdown(agent_fd, SHUT_RDWR);
	turns();
	check(n_broken == 1 && channel);
	check(probe_open(&p[0]) == -EPIPE);
	channel_abandon(&p[0].s);
	channel_credit(&p[0].s, WIRE_STDOUT, 100);
	end();
}

/* Freed in each of its callbacks. */
static void test_free_inside(void)
{
	uint8_t nonce[WIRE_NONCE];
	struct probe p = probe(), q = probe();

	check(begin_unready(true) == 0);
	free_in_ready = true;
	agent_greeted(nonce);
	agent_hello(nonce);
	turns();
	check(n_ready == 1 && !channel);
	end();

	for (int which = 0; which < 4; which++) {
		begin();
		p = probe();
		q = probe();
		check(probe_open(&p) == 0 && probe_open(&q) == 0);
		agent_drain();
		p.free_channel = true;
		if (which == 0) {
			agent_data(p.s.number, 10);
			agent_data(q.s.number, 10);
			agent_result(q.s.number);
		} else if (which == 1) {
			agent_result(p.s.number);
			agent_result(q.s.number);
		} else if (which == 2) {
			shutdown(agent_fd, SHUT_RDWR);
		} else {
			channel = channel_free(channel);
		}
		turns();
		check(!channel && q.frames == 0 && q.brokens == 1);
		check(!p.s.channel && !q.s.channel && n_broken == 0);
		end();
	}
}

static void test_rubbish(void)
{
	static uint8_t mem[100000];
	unsigned seed = 1;

	for (int round = 0; round < 150; round++) {
		struct probe p[4] = { probe(), probe(), probe(), probe() };

		begin();
		for (int i = 0; i < 4; i++)
			check(probe_open(&p[i]) == 0);
		p[1].keep = true;
		for (int n = 0; n < 40 && channel; n++) {
			size_t len = (size_t)rand_r(&seed) % 3000;
			uint8_t type = (uint8_t)(rand_r(&seed) %
						 (WIRE_TYPE_COUNT + 2));

			for (size_t i = 0; i < len; i++)
				mem[i] = (uint8_t)rand_r(&seed);
			if (round % 3 == 0)
				agent_write(mem, len);
			else
				agent_frame(type, (uint8_t)(rand_r(&seed) % 4),
					    1 + (uint32_t)rand_r(&seed) % 6,
					    mem, len);
			if (n == 20)
				channel_abandon(&p[round % 4].s);
		}
		for (int i = 0; i < 4; i++)
			channel_abandon(&p[i].s);
		end();
	}
}

/* A life from end to end; each allocation in it fails once. */
static void sweep_life(void)
{
	static uint8_t mem[WIRE_PAYLOAD_MAX];
	struct probe p[4] = { probe(), probe(), probe(), probe() };
	bool open[4] = { false };
	uint8_t nonce[WIRE_NONCE];
	struct wire_frame f;

	if (begin_unready(false) < 0) {
		close(agent_fd);
		return;
	}
	for (int i = 0; i < 4 && channel; i++)
		open[i] = probe_open(&p[i]) == 0;
	turns();
	if (channel && agent_next(&f) && f.type == WIRE_HELLO) {
		memcpy(nonce, f.payload + 6, WIRE_NONCE);
		agent_hello(nonce);
	}
	for (int i = 0; i < 4 && channel; i++)
		if (open[i])
			agent_frame(WIRE_DATA, WIRE_STDOUT, p[i].s.number, mem,
				    sizeof(mem));
	turns();
	if (channel && open[0])
		err_drop(probe_send(&p[0], sizeof(mem)));
	channel_abandon(&p[1].s);
	channel_abandon(&p[2].s);
	if (channel && open[3] && p[3].s.channel)
		agent_result(p[3].s.number);
	turns();
	for (int i = 0; i < 4; i++)
		channel_abandon(&p[i].s);
	turns();
	channel = channel_free(channel);
	close(agent_fd);
}

static void sweep_whole_life(void)
{
	sweep_life();
	check(loop.n_fds == 0);
}

int main(void)
{
	struct err e = ERR_NULL;

	check(loop_init(&loop, &e) == 0);
	test_greeting();
	test_resync();
	test_streams();
	test_credit_to_agent();
	test_credit_from_agent();
	test_full_queue();
	test_closed();
	test_free_inside();
	test_rubbish();
	sweep(sweep_whole_life, 5);
	loop_deinit(&loop);
	return 0;
}
