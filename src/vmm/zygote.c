/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asking the zygote for processes
 *
 * One request, one reply, in lockstep; the wait is for a fork. A zygote that
 * does not answer in ZYGOTE_PATIENCE_MS counts as gone, and the caller starts
 * VMMs the long way until a new one is there.
 */
#include "vmm/zygote.h"
#include "vmm/spawn.h"

#include "base/fdpass.h"
#include "base/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ZYGOTE_PATIENCE_MS 5000

_Static_assert(CHILD_FDS_MAX <= FDPASS_MAX, "a request is one message");

struct zygote {
	int sock;
	int pidfd;
	struct proc_id id;
};

struct zygote *zygote_free(struct zygote *z)
{
	if (!z)
		return NULL;
	fd_close(&z->sock); /* it ends on this, and only then is reaped */
	if (z->pidfd >= 0) {
		struct pollfd p = { .fd = z->pidfd, .events = POLLIN };
		char how[64];

		if (poll(&p, 1, ZYGOTE_PATIENCE_MS) == 1)
			err_drop(proc_how_ended(z->pidfd, how, sizeof(how),
						NULL));
	}
	fd_close(&z->pidfd);
	free(z);
	return NULL;
}

int zygote_new(const char *program, const char *preload, int class_kind,
	       struct zygote **ret, struct err *e)
{
	struct zygote *z = calloc(1, sizeof(*z));
	guard_free char *room = calloc(1, ZYGOTE_TEXT_MAX);
	guard_fd int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	guard_fd int theirs = -1;
	char env[32], classes[40];
	const char *argv[] = { program, "zygote", room, NULL };
	const char *envp[] = { preload,
			       env,
			       "LC_ALL=C",
			       "MALLOC_ARENA_MAX=1",
			       class_kind ? classes : NULL,
			       NULL };
	struct spawn s = { .argv = argv, .envp = envp };
	int pair[2];
	int r;

	if (!z || !room) {
		free(z);
		return err_errno(e, ENOMEM, "zygote");
	}
	z->sock = z->pidfd = -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		r = err_errno(e, errno, "zygote: socketpair");
		zygote_free(z);
		return r;
	}
	z->sock = pair[0];
	theirs = pair[1];
	memset(room, ' ', ZYGOTE_TEXT_MAX - 1);
	snprintf(env, sizeof(env), ZYGOTE_ENV "=%d", ZYGOTE_FD);
	snprintf(classes, sizeof(classes), ZYGOTE_ENV_CLASSES "=%d",
		 class_kind);
	s.child.fds[0] = s.child.fds[1] = null_fd;
	s.child.fds[2] = STDERR_FILENO;
	s.child.fds[ZYGOTE_FD] = theirs;
	s.child.n_fds = ZYGOTE_FD + 1;
	r = spawn_run(&s, &z->id, &z->pidfd, e);
	if (r < 0) {
		zygote_free(z);
		return r;
	}
	*ret = z;
	return 0;
}

static int zygote_fill(struct zygote_request *q, const char *const *argv,
		       const struct child *c, size_t *ret_len)
{
	size_t used = 0;

	q->magic = ZYGOTE_MAGIC;
	q->n_fds = (uint32_t)c->n_fds;
	q->drop = c->drop;
	q->uid = c->uid;
	for (; argv[q->argc]; q->argc++) {
		size_t len = strlen(argv[q->argc]) + 1;

		if (len > sizeof(q->text) - used)
			return -E2BIG;
		memcpy(q->text + used, argv[q->argc], len);
		used += len;
	}
	*ret_len = offsetof(struct zygote_request, text) + used;
	return 0;
}

static int zygote_send(struct zygote *z, struct zygote_request *q, size_t len,
		       const struct child *c)
{
	int fds[CHILD_FDS_MAX];
	size_t n = 0;
	ssize_t sent;

	for (int i = 0; i < c->n_fds; i++) {
		if (c->fds[i] < 0)
			continue;
		q->fd_mask |= 1u << i;
		fds[n++] = c->fds[i];
	}
	sent = fdpass_send(z->sock, q, len, fds, n, 0);
	return sent < 0 ? (int)sent : 0;
}

static int zygote_receive(struct zygote *z, struct zygote_reply *reply,
			  int *ret_pidfd)
{
	struct pollfd p = { .fd = z->sock, .events = POLLIN };
	size_t n = 0;

	if (poll(&p, 1, ZYGOTE_PATIENCE_MS) != 1)
		return -EPIPE;
	if (fdpass_receive(z->sock, reply, sizeof(*reply), ret_pidfd, 1, &n,
			   MSG_DONTWAIT) != sizeof(*reply))
		return -EPIPE;
	return 0;
}

int zygote_fork(struct zygote *z, const char *const *argv,
		const struct child *child, const struct zygote_numbers *numbers,
		struct proc_id *ret, int *ret_pidfd, struct err *e)
{
	guard_free struct zygote_request *q = calloc(1, sizeof(*q));
	struct zygote_reply reply = { 0 };
	guard_fd int pidfd = -1;
	size_t len;
	int r;

	if (!q)
		return err_errno(e, ENOMEM, "start a VMM");
	q->numbers = *numbers;
	r = zygote_fill(q, argv, child, &len);
	if (r == 0)
		r = zygote_send(z, q, len, child);
	if (r == 0)
		r = zygote_receive(z, &reply, &pidfd);
	if (r == 0 && reply.pid < 0)
		r = reply.pid;
	if (r == 0 && pidfd < 0)
		r = -EPIPE;
	if (r < 0)
		return err_errno(e, -r, "fork a VMM from the zygote");
	r = proc_identify(reply.pid, ret);
	if (r < 0) /* it ended already: the pidfd will say how */
		*ret = (struct proc_id){ .pid = reply.pid };
	*ret_pidfd = fd_take(&pidfd);
	return 0;
}
