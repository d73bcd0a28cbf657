/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The relay between a client that tries everything and an agent likewise: real
 * channel, socket pairs, one loop.
 */
#include "api/relay.h"

#include "agent/wire.h"
#include "base/guard.h"
#include "base/test.h"
#include "sandbox/channel.h"

#include <errno.h>
#include <sys/socket.h>

/* One end of a wire, in the test's hands. */
struct end {
	int fd;
	size_t len;
	struct wire_frame f; /* the last one read */
	size_t used; /* by it */
	uint8_t in[2 * WIRE_FRAME_MAX];
};

static struct loop loop;
static struct channel *channel;
static struct relay *relay;
static struct end client, agent;
static bool closed, lost;
static uint8_t mem[WIRE_FRAME_MAX];

/* ---- the relay's and the channel's owner ---- */

static struct channel *on_channel(void *arg, struct err *e)
{
	(void)arg;
	if (!channel)
		err_set(e, ESRCH, "no channel");
	return channel;
}

static void on_closed(void *arg)
{
	(void)arg;
	must(!closed);
	closed = true;
}

static const struct relay_events relay_events = { on_channel, on_closed };

static void on_ready(void *arg)
{
	(void)arg;
}

static void on_broken(void *arg, const struct err *e)
{
	(void)arg;
	check(e->code);
	channel = channel_free(channel);
	lost = true;
}

static const struct channel_events channel_events = { .ready = on_ready,
						      .broken = on_broken };

/* ---- ends ---- */

static void turn(void)
{
	struct err e = ERR_NULL;

	for (int i = 0; i < 4; i++)
		check(loop_turn(&loop, 0, &e) == 0);
}

static void end_send(struct end *n, const void *p, size_t len)
{
	check(send(n->fd, p, len, MSG_NOSIGNAL) == (ssize_t)len);
	turn();
}

/* A frame without fields. */
static void end_send_bare(struct end *n, uint8_t type, uint8_t ch,
			  uint32_t stream, uint32_t len)
{
	wire_header(mem, type, ch, stream, len);
	memset(mem + WIRE_HEADER, 'x', len);
	end_send(n, mem, WIRE_HEADER + len);
}

static void end_send_u64(struct end *n, uint8_t type, uint8_t ch,
			 uint32_t stream, uint16_t key, uint64_t v)
{
	struct wire_out o;

	wire_begin(&o, mem, sizeof(mem), type, ch, stream);
	wire_put_u64(&o, key, v);
	end_send(n, mem, (size_t)wire_end(&o));
}

/* The next frame, if one has come. */
static bool end_next(struct end *n)
{
	ssize_t r;

	n->len -= n->used;
	memmove(n->in, n->in + n->used, n->len);
	n->used = 0;
	turn();
	r = recv(n->fd, n->in + n->len, sizeof(n->in) - n->len, MSG_DONTWAIT);
	n->len += r > 0 ? (size_t)r : 0;
	turn();
	return wire_next(n->in, n->len, &n->f, &n->used, NULL) == 0;
}

static void end_expect(struct end *n, uint8_t type, uint32_t stream)
{
	check(end_next(n));
	check_str(wire_type_name(n->f.type), wire_type_name(type));
	check(n->f.stream == stream);
}

static uint64_t end_u64(const struct end *n, uint16_t key)
{
	uint64_t v = 0;

	check(wire_find_u64(&n->f, key, &v) == 0);
	return v;
}

/* ---- stage ---- */

static int pair(struct end *n)
{
	int fd[2];

	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
			 fd) == 0);
	memset(n, 0, sizeof(*n));
	n->fd = fd[0];
	return fd[1];
}

static int relay_fd;

static void stage(void)
{
	struct err e = ERR_NULL;

	closed = lost = false;
	check(loop_init(&loop, &e) == 0);
	relay_fd = pair(&client);
	check(channel_new(&loop, pair(&agent), true, &channel_events, NULL,
			  &channel, &e) == 0);
	turn();
	end_expect(&agent, WIRE_HELLO, 0);
	end_send(&agent, agent.in, agent.used); /* the same nonce */
	check(relay_new(&loop, relay_fd, &relay_events, NULL, &relay, &e) == 0);
}

static void strike(void)
{
	relay = relay_free(relay);
	turn();
	channel = channel_free(channel);
	close(relay_fd);
	close(client.fd);
	close(agent.fd);
	loop_deinit(&loop);
}

/* Open a stream as @stream; its number on the agent's side. */
static uint32_t open_stream(uint32_t stream)
{
	end_send_bare(&client, WIRE_EXEC, 0, stream, 0);
	check(end_next(&agent));
	check(agent.f.type == WIRE_EXEC);
	return agent.f.stream;
}

static void credit(struct end *n, uint8_t ch, uint32_t stream, uint64_t bytes)
{
	end_send_u64(n, WIRE_CREDIT, ch, stream, WIRE_K_BYTES, bytes);
}

/* The client is told why, on stream 0, and hung up on. */
static void expect_refused(void)
{
	char why[256];

	end_expect(&client, WIRE_RESULT, 0);
	check(end_u64(&client, WIRE_K_ERRNO) == EPROTO);
	check(wire_find_str(&client.f, WIRE_K_MESSAGE, why, sizeof(why)) == 0);
	check(closed);
}

/* ---- tests ---- */

static void test_command(void)
{
	uint32_t a, b;

	stage();
	a = open_stream(7);
	b = open_stream(9000);
	check(a != b);
	end_send_bare(&client, WIRE_DATA, WIRE_STDIN, 9000, 5);
	end_expect(&agent, WIRE_DATA, b);
	check(agent.f.len == 5);
	end_send_bare(&client, WIRE_EOF, WIRE_STDIN, 9000, 0);
	end_expect(&agent, WIRE_EOF, b);
	end_send_u64(&client, WIRE_SIGNAL, 0, 7, WIRE_K_SIGNAL, 2);
	end_expect(&agent, WIRE_SIGNAL, a);
	check(end_u64(&agent, WIRE_K_SIGNAL) == 2);

	end_send_u64(&agent, WIRE_STARTED, 0, a, WIRE_K_PID, 42);
	end_expect(&client, WIRE_STARTED, 7);
	end_send_bare(&agent, WIRE_DATA, WIRE_STDERR, a, 3);
	end_expect(&client, WIRE_DATA, 7);
	check(client.f.channel == WIRE_STDERR && client.f.len == 3);
	end_send_u64(&agent, WIRE_RESULT, 0, a, WIRE_K_CODE, 5);
	end_expect(&client, WIRE_RESULT, 7);
	check(end_u64(&client, WIRE_K_CODE) == 5);
	check(channel_streams(channel) == 1);

	/* late frames cross the result; the number is free again */
	end_send_u64(&client, WIRE_SIGNAL, 0, 7, WIRE_K_SIGNAL, 2);
	credit(&client, WIRE_STDERR, 7, 3);
	check(!end_next(&agent));
	a = open_stream(7);
	check(a != b);
	check(!closed);
	strike();
}

/* Credit passes from end to end, and nobody may have more of it. */
static void test_credit(void)
{
	uint32_t a;

	stage();
	a = open_stream(1);
	for (uint32_t sent = 0; sent < WIRE_WINDOW; sent += WIRE_PAYLOAD_MAX) {
		end_send_bare(&client, WIRE_DATA, WIRE_STDIN, 1,
			      WIRE_PAYLOAD_MAX);
		end_expect(&agent, WIRE_DATA, a);
	}
	check(!end_next(&client)); /* none of our own invention */
	credit(&agent, WIRE_STDIN, a, 100000);
	end_expect(&client, WIRE_CREDIT, 1);
	check(client.f.channel == WIRE_STDIN);
	check(end_u64(&client, WIRE_K_BYTES) == 100000);
	end_send_bare(&client, WIRE_DATA, WIRE_STDIN, 1, 60000);
	end_expect(&agent, WIRE_DATA, a);
	end_send_bare(&client, WIRE_DATA, WIRE_STDIN, 1, 40001);
	expect_refused();
	end_expect(&agent, WIRE_CLOSE, a);
	strike();

	stage();
	a = open_stream(1);
	end_send_bare(&agent, WIRE_DATA, WIRE_STDOUT, a, 60000);
	end_send_bare(&agent, WIRE_DATA, WIRE_STDOUT, a, 60000);
	end_expect(&client, WIRE_DATA, 1);
	end_expect(&client, WIRE_DATA, 1);
	credit(&client, WIRE_STDOUT, 1, 120000); /* more than a lump */
	end_expect(&agent, WIRE_CREDIT, a);
	check(agent.f.channel == WIRE_STDOUT);
	check(end_u64(&agent, WIRE_K_BYTES) == 120000);
	credit(&client, WIRE_STDERR, 1, 1);
	expect_refused();
	strike();
}

/* A client that does not read costs a window and no more, in few bytes. */
static void test_slow_client(void)
{
	uint64_t got = 0, frames = 0;
	uint32_t a;

	stage();
	a = open_stream(1);
	for (uint32_t i = 0; i < WIRE_WINDOW; i++) {
		wire_header(mem, WIRE_DATA, WIRE_STDOUT, a, 1);
		mem[WIRE_HEADER] = (uint8_t)i;
		end_send(&agent, mem, WIRE_HEADER + 1);
	}
	end_send_u64(&agent, WIRE_RESULT, 0, a, WIRE_K_CODE, 0);
	while (end_next(&client) && client.f.type == WIRE_DATA) {
		for (uint32_t i = 0; i < client.f.len; i++)
			check(client.f.payload[i] == (uint8_t)got++);
		frames++;
	}
	check(client.f.type == WIRE_RESULT);
	check(got == WIRE_WINDOW);
	check(frames < WIRE_WINDOW); /* those that had to wait were joined */
	check(!closed && !lost);
	strike();
}

/* Frames outside credit are bounded too: the stream ends, the rest lives. */
static void test_entry_flood(void)
{
	uint32_t a, b;
	int n;

	stage();
	a = open_stream(1);
	b = open_stream(2);
	for (n = 0; n < 1000; n++) {
		end_send_bare(&agent, WIRE_ENTRY, 0, a, 60000);
		if (channel_streams(channel) == 2 && end_next(&agent))
			break;
	}
	check(agent.f.type == WIRE_CLOSE && agent.f.stream == a);
	check(n > 70 && n < 200); /* 4 MiB and four windows */
	while (end_next(&client) && client.f.type == WIRE_ENTRY)
		;
	check(client.f.type == WIRE_RESULT && client.f.stream == 1);
	check(end_u64(&client, WIRE_K_ERRNO) == ENOBUFS);
	end_send_u64(&agent, WIRE_RESULT, 0, b, WIRE_K_CODE, 0);
	end_expect(&client, WIRE_RESULT, 2);
	check(!closed && !lost);
	strike();
}

/* An agent that does not read stops the client, who loses nothing. */
static void test_slow_agent(void)
{
	uint64_t sent = 0, got = 0;
	uint32_t a;

	stage();
	a = open_stream(1);
	wire_header(mem, WIRE_ENTRY, 0, 1, 60000);
	memset(mem + WIRE_HEADER, 'e', 60000);
	for (size_t at = 0;;) {
		ssize_t n = send(client.fd, mem + at, WIRE_HEADER + 60000 - at,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		turn();
		if (n < 0)
			break; /* nobody reads us any more */
		at += (size_t)n;
		if (at < WIRE_HEADER + 60000)
			continue;
		at = 0;
		sent++;
		check(sent < 1000);
	}
	check(sent > CHANNEL_QUEUE_MAX / 60012);
	for (int i = 0; i < 1000 && got < sent; i++) {
		struct err e = ERR_NULL;

		while (end_next(&agent)) {
			check(agent.f.type == WIRE_ENTRY);
			check(agent.f.stream == a && agent.f.len == 60000);
			got++;
		}
		/* it comes back by itself, after RELAY_RETRY_NS */
		check(loop_turn(&loop, 10, &e) == 0);
	}
	check(got >= sent);
	check(!closed && !lost);
	strike();
}

static void test_refused(void)
{
	static const uint8_t types[] = {
		WIRE_HELLO,    WIRE_IDENTITY, WIRE_SETTLE,
		WIRE_POWEROFF, WIRE_STARTED,  WIRE_RESULT,
	};

	for (size_t i = 0; i < nitems(types); i++) {
		stage();
		end_send_bare(&client, types[i], 0, 1, 0);
		expect_refused();
		check(!end_next(&agent));
		strike();
	}
	stage(); /* number in use; it is closed with the rest */
	open_stream(3);
	end_send_bare(&client, WIRE_EXEC, 0, 3, 0);
	expect_refused();
	end_expect(&agent, WIRE_CLOSE, agent.f.stream);
	strike();
	stage(); /* the connection's number */
	end_send_bare(&client, WIRE_EXEC, 0, 0, 0);
	expect_refused();
	strike();
	stage(); /* not frames at all */
	end_send(&client, "GET / HTTP/1.1\r\n\r\n", 18);
	expect_refused();
	strike();
	stage(); /* a client has no output */
	open_stream(3);
	end_send_bare(&client, WIRE_DATA, WIRE_STDOUT, 3, 1);
	expect_refused();
	strike();
}

static void test_agent_lost(void)
{
	stage();
	open_stream(1);
	open_stream(2);
	close(agent.fd);
	turn();
	check(lost);
	for (uint32_t i = 1; i <= 2; i++) {
		end_expect(&client, WIRE_RESULT, i);
		check(end_u64(&client, WIRE_K_ERRNO) == ECONNRESET);
	}
	/* the connection stays, and says why nothing can be opened */
	end_send_bare(&client, WIRE_EXEC, 0, 3, 0);
	end_expect(&client, WIRE_RESULT, 3);
	check(end_u64(&client, WIRE_K_ERRNO) == ESRCH);
	check(!closed);
	agent.fd = dup(client.fd);
	strike();
}

static void test_hang_up(void)
{
	uint32_t a;

	stage();
	a = open_stream(1);
	close(client.fd);
	turn();
	check(closed);
	end_expect(&agent, WIRE_CLOSE, a);
	client.fd = dup(agent.fd);
	strike();

	/* found out in the middle of sending, from inside the channel */
	stage();
	a = open_stream(1);
	end_send_bare(&agent, WIRE_DATA, WIRE_STDOUT, a, 60000);
	shutdown(client.fd, SHUT_RD);
	turn();
	check(!closed);
	end_send_bare(&agent, WIRE_DATA, WIRE_STDOUT, a, 60000);
	end_expect(&agent, WIRE_CLOSE, a);
	check(closed);
	check(!lost);
	strike();
}

static void test_many(void)
{
	stage();
	for (uint32_t i = 1; i <= WIRE_STREAMS_MAX; i++)
		open_stream(i);
	end_send_bare(&client, WIRE_EXEC, 0, 1000, 0);
	end_expect(&client, WIRE_RESULT, 1000);
	check(end_u64(&client, WIRE_K_ERRNO) == EMFILE);
	check(!end_next(&agent));
	check(!closed);
	strike();
}

/* Sent ahead, and in the smallest of pieces. */
static void test_pieces(void)
{
	struct wire_out o;
	size_t len;

	stage();
	wire_begin(&o, mem, sizeof(mem), WIRE_EXEC, 0, 77);
	wire_put_str(&o, WIRE_K_ARG, "true");
	len = (size_t)wire_end(&o);
	relay_feed(relay, mem, 5);
	check(!end_next(&agent));
	for (size_t i = 5; i < len; i++)
		end_send(&client, mem + i, 1);
	check(end_next(&agent));
	check(agent.f.type == WIRE_EXEC && agent.used == len);
	check(!memcmp(agent.f.payload, mem + WIRE_HEADER, agent.f.len));
	strike();
}

int main(void)
{
	test_command();
	test_credit();
	test_slow_client();
	test_entry_flood();
	test_slow_agent();
	test_refused();
	test_agent_lost();
	test_hang_up();
	test_many();
	test_pieces();
	return 0;
}
