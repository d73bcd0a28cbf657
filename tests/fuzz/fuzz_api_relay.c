/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client and an agent that both write what they like, and the relay between
 *
 * The input is a list of deeds: one byte what, one byte of argument, and for
 * raw bytes one of length with the bytes behind it:
 *
 *	0  a frame from the client: type from the argument, stream 0 to 3,
 *	   channel, payload
 *	1  the same from the agent
 *	2  raw bytes from the client
 *	3  raw bytes from the agent
 *	4  the client reads    5  the agent reads    6  the client hangs up
 *	7  the agent hangs up
 *
 * Nobody may crash or leak; what the client is sent is frames; after all have
 * gone nothing is open in the loop.
 */
#include "api/relay.h"

#include "agent/wire.h"
#include "base/guard.h"
#include "base/loop.h"
#include "sandbox/channel.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct stage {
	struct loop loop;
	struct channel *channel;
	struct relay *relay;
	int client, agent, relayed;
	bool closed;
	size_t in_len;
	uint8_t in[2 * WIRE_FRAME_MAX];
};

static struct channel *on_channel(void *arg, struct err *e)
{
	struct stage *s = arg;

	if (!s->channel)
		err_set(e, ESRCH, "gone");
	return s->channel;
}

static void on_closed(void *arg)
{
	struct stage *s = arg;

	must(!s->closed);
	s->closed = true;
}

static void on_ready(void *arg)
{
	(void)arg;
}

static void on_broken(void *arg, const struct err *e)
{
	struct stage *s = arg;

	must(e->code);
	s->channel = channel_free(s->channel);
}

static void turn(struct stage *s)
{
	struct err e = ERR_NULL;

	for (int i = 0; i < 3; i++)
		must(loop_turn(&s->loop, 0, &e) == 0);
}

static void pair(int fd[2])
{
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
			fd) == 0);
}

static void set(struct stage *s)
{
	static const struct channel_events channel_events = {
		.ready = on_ready,
		.broken = on_broken,
	};
	static const struct relay_events relay_events = { on_channel,
							  on_closed };
	struct err e = ERR_NULL;
	uint8_t hello[256];
	ssize_t n;
	int fd[2];

	must(loop_init(&s->loop, &e) == 0);
	pair(fd);
	s->agent = fd[0];
	must(channel_new(&s->loop, fd[1], true, &channel_events, s, &s->channel,
			 &e) == 0);
	turn(s);
	n = recv(s->agent, hello, sizeof(hello), 0);
	must(n > 0 && send(s->agent, hello, (size_t)n, 0) == n);
	pair(fd);
	s->client = fd[0];
	s->relayed = fd[1];
	must(relay_new(&s->loop, s->relayed, &relay_events, s, &s->relay, &e) ==
	     0);
	turn(s);
}

static void strike(struct stage *s)
{
	relay_free(s->relay);
	turn(s);
	channel_free(s->channel);
	fd_close(&s->client);
	fd_close(&s->agent);
	fd_close(&s->relayed);
	loop_deinit(&s->loop);
}

static void write_to(int fd, const void *p, size_t len)
{
	if (fd >= 0)
		(void)!send(fd, p, len, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* A frame that is well-formed outside; DATA and ENTRY may be large. */
static void write_frame(int fd, uint8_t arg, uint8_t more)
{
	static uint8_t mem[WIRE_FRAME_MAX];
	uint8_t type = (uint8_t)(1 + arg % (WIRE_TYPE_COUNT - 1));
	bool has_channel = type == WIRE_DATA || type == WIRE_EOF ||
			   type == WIRE_CREDIT;
	uint8_t ch = has_channel ? more / 4 % WIRE_CHANNEL_COUNT : 0;
	struct wire_out o;
	int n;

	wire_begin(&o, mem, sizeof(mem), type, ch, more % 4);
	if (type == WIRE_CREDIT)
		wire_put_u64(&o, WIRE_K_BYTES, (uint64_t)more << 9);
	else if (type == WIRE_DATA || type == WIRE_ENTRY)
		o.len += (size_t)more << 8;
	n = wire_end(&o);
	must(n > 0);
	write_to(fd, mem, (size_t)n);
}

/* What the relay sends is frames, and only what is for a client. */
static void client_reads(struct stage *s)
{
	size_t used, skipped = 0;
	struct wire_frame f;
	ssize_t n;

	if (s->client < 0)
		return;
	n = recv(s->client, s->in + s->in_len, sizeof(s->in) - s->in_len,
		 MSG_DONTWAIT);
	s->in_len += n > 0 ? (size_t)n : 0;
	for (;;) {
		int r = wire_next(s->in, s->in_len, &f, &used, &skipped);

		must(skipped == 0);
		if (r == WIRE_MORE)
			break;
		must(f.type == WIRE_DATA || f.type == WIRE_EOF ||
		     f.type == WIRE_CREDIT || f.type == WIRE_ENTRY ||
		     f.type == WIRE_STARTED || f.type == WIRE_RESULT);
		must(f.stream != 0 || f.type == WIRE_RESULT);
		s->in_len -= used;
		memmove(s->in, s->in + used, s->in_len);
	}
}

static void agent_reads(struct stage *s)
{
	static uint8_t mem[WIRE_FRAME_MAX];

	if (s->agent >= 0)
		(void)!recv(s->agent, mem, sizeof(mem), MSG_DONTWAIT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	guard_free struct stage *s = calloc(1, sizeof(*s));
	size_t pos = 0;

	must(s);
	set(s);
	while (pos + 3 <= size) {
		uint8_t deed = data[pos] % 8, a = data[pos + 1],
			b = data[pos + 2];

		pos += 3;
		switch (deed) {
		case 0:
		case 1:
			write_frame(deed ? s->agent : s->client, a, b);
			break;
		case 2:
		case 3:
			b = (uint8_t)min(b, size - pos);
			write_to(deed == 3 ? s->agent : s->client, data + pos,
				 b);
			pos += b;
			break;
		case 4:
			client_reads(s);
			break;
		case 5:
			agent_reads(s);
			break;
		case 6:
			fd_close(&s->client);
			break;
		case 7:
			fd_close(&s->agent);
			break;
		}
		turn(s);
	}
	strike(s);
	return 0;
}
