/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The agent: one port, its streams, and what they have in common
 */
#include "agent/exec.h"
#include "agent/identity.h"
#include "agent/port.h"
#include "agent/spawn.h"

#include <sys/epoll.h>

struct put;
struct get;

/* What the agent does to the world outside its memory, so that a test can put
 * something harmless in its place. */
struct agent_ops {
	int (*spawn)(struct spawn *s, pid_t *ret_pid);
	/* To a whole process group. */
	void (*kill)(pid_t group, int sig);
	/* The machine is ours: clock, names, caches, power. */
	bool machine;
	/* AT_FDCWD, or the directory that PUT and GET may not leave. */
	int root_fd;
	const char *etc; /* where passwd and group are */
	const char *proc; /* where procfs is */
};

extern const struct agent_ops agent_ops_vm; /* PID 1 */
extern const struct agent_ops agent_ops_guest_of_host; /* --fd */

struct stream {
	uint32_t id; /* 0 while free */
	uint32_t serial; /* tells an event for a former user of the slot */
	uint8_t op; /* WIRE_EXEC, WIRE_PUT or WIRE_GET */
	struct exec exec;
	struct put *put;
	struct get *get;
};

struct agent {
	const struct agent_ops *ops;
	const char *broken; /* why there is no root file system, or NULL */
	int epoll_fd;
	int signal_fd;
	int null_fd;
	bool reap; /* children ended */
	bool watching_out; /* the port, for EPOLLOUT */
	bool power_off; /* asked for; at the end of the turn */
	uint64_t now_ns; /* monotonic, once per turn */
	uint32_t serial;
	unsigned n_streams;
	struct stream streams[WIRE_STREAMS_MAX];
	struct identity identity;
	struct exec_line line;
	struct port port;
};

/* Borrows @fd (non-blocking, close-on-exec). Blocks SIGCHLD and SIGPIPE. */
int agent_init(struct agent *a, const struct agent_ops *ops, int fd,
	       bool comes_back, struct err *e) must_check;
/* Kills what runs. */
void agent_deinit(struct agent *a);

/* Serve until the connection ends for good (0) or POWEROFF was asked for. */
int agent_run(struct agent *a, struct err *e) must_check;

/* Everything that can be done without waiting; true: there is more. */
bool agent_turn(struct agent *a);

/* Answer with RESULT: ERRNO and MESSAGE. Control room must be there. */
void agent_refuse(struct agent *a, uint32_t id, const struct err *e);

/* For stream kinds: end this stream, whose RESULT was queued. */
void agent_release(struct agent *a, struct stream *s);
/* Watch @fd edge-triggered, for channel @channel of @s. */
int agent_watch(struct agent *a, struct stream *s, int fd, uint8_t channel,
		uint32_t events) must_check;
/* CREDIT back to the host when enough has gathered in *consumed. */
void agent_credit(struct agent *a, uint32_t id, uint8_t channel,
		  uint32_t *consumed, uint32_t *outstanding);
/* CREDIT from the host: what may be sent again. */
void agent_credited(const struct wire_frame *f, uint32_t *credit_bytes);
