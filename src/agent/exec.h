/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Commands: one process group each, its three streams, its end
 */
#include "agent/wire.h"

#include <sys/types.h>

struct agent;
struct stream;

/* One payload cannot hold more fields than this. */
#define EXEC_ARGS_MAX (WIRE_PAYLOAD_MAX / 6)
#define EXEC_ENV_MAX 1500

/* A command line being taken apart; shared by all commands, used by one at a
 * time. */
struct exec_line {
	unsigned n_args, n_env;
	bool has_stdin, tty;
	uint16_t rows, cols;
	uint64_t timeout_ns;
	char *cwd, *user;
	size_t used; /* of text */
	char *args[EXEC_ARGS_MAX + 1];
	char *env[EXEC_ENV_MAX + 1];
	char own[512]; /* variables that we add */
	char text[WIRE_PAYLOAD_MAX];
};

enum exec_next {
	EXEC_NOTHING, /* due_ns is 0 */
	EXEC_TERM, /* the timeout */
	EXEC_KILL, /* it ignored SIGTERM */
	EXEC_GRACE, /* it ended; others may hold its pipes open */
};

struct exec_in {
	int fd; /* -1: closed, what comes is dropped */
	bool ready, watched, eof;
	uint32_t outstanding; /* received, not yet credited */
	uint32_t consumed; /* of these, gone */
	uint8_t *ring; /* WIRE_WINDOW bytes once the child is slow */
	uint32_t start, len;
};

struct exec_out {
	int fd; /* -1: ended */
	bool ready, hup;
	uint32_t credit_bytes;
	uint32_t owed_bytes; /* in the pipe when the child had ended */
};

struct exec {
	pid_t pid;
	bool tty, exited, timed_out;
	int status;
	enum exec_next next;
	uint64_t due_ns;
	struct exec_in in;
	struct exec_out out[2]; /* WIRE_STDOUT, WIRE_STDERR */
};

/* EXEC. The stream has ended already when it could not be started. */
void exec_start(struct agent *a, struct stream *s, const struct wire_frame *f);
/* Any other frame of the stream. */
void exec_frame(struct agent *a, struct stream *s, const struct wire_frame *f);
/* Epoll says so. */
void exec_event(struct stream *s, uint8_t channel, uint32_t events);
/* The process was reaped. */
void exec_exited(struct agent *a, struct stream *s, int status);
/* Move what can be moved, do what is due; true: there is more. May end the
 * stream. */
bool exec_pump(struct agent *a, struct stream *s);
/* The host is gone: kill, say nothing. */
void exec_abandon(struct agent *a, struct stream *s);
