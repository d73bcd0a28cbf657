/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GET /v1/sandboxes/ID/logs: what the guest said on its console
 *
 * The log is a plain file that the daemon itself writes (sandbox/console.h);
 * it is streamed from there, piece by piece as the client takes it. Reading it
 * in the loop is an exception to the rule that nothing there may wait for a
 * disk: it is at most CONSOLE_LOG_MAX, was written by this host moments ago,
 * and lies in the page cache.
 *
 *	read to the end --follow, still alive--> park until the file changes
 *	                --else-----------------> end of the answer
 *
 * Invariants:
 *  1. Whether the sandbox lives is asked before the last read: its last words
 *     are never missed.
 *  2. Without follow the answer ends where the log ended when it was asked
 *     for, however fast the guest writes.
 *  3. When the log's older half was cut away under a reader, it goes on with
 *     what is new; what it had not read of the older half is lost.
 */
#include "api/follow.h"
#include "api/handlers.h"
#include "api/request.h"
#include "api/server.h"
#include "base/guard.h"
#include "sandbox/console.h"
#include "sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

struct logs {
	struct request *rq;
	int fd;
	char id[SANDBOX_ID_MAX];
	bool follow;
	struct follower follower;
	uint64_t pos;
	uint64_t end; /* without follow */
};

static bool logs_alive(const struct logs *l)
{
	struct sandbox *s = registry_find(l->rq->api->config.registry, l->id);

	if (!s)
		return false;
	switch (sandbox_info(s).state) {
	case SANDBOX_CREATING:
	case SANDBOX_RUNNING:
	case SANDBOX_PAUSED:
		return true;
	case SANDBOX_EXITED:
	case SANDBOX_FAILED:
	case SANDBOX_STATE_COUNT:
		break;
	}
	return false;
}

/* The file has shrunk below what was read: its newer half has moved to the
 * front, and what follows that is news. */
static void logs_mind_cut(struct logs *l)
{
	struct stat st = { 0 };

	if (fstat(l->fd, &st) == 0 && (uint64_t)st.st_size < l->pos)
		l->pos = min((uint64_t)st.st_size,
			     (uint64_t)CONSOLE_LOG_MAX / 2);
}

static ssize_t logs_read(struct request *rq, char *p, size_t size)
{
	struct logs *l = rq->op;
	bool more = l->follow && logs_alive(l);
	ssize_t n;

	if (l->follow)
		logs_mind_cut(l);
	else
		size = min(size, (size_t)(l->end - l->pos));
	do
		n = pread(l->fd, p, size, (off_t)l->pos);
	while (n < 0 && errno == EINTR);
	if (n > 0) {
		l->pos += (uint64_t)n;
		return n;
	}
	return n == 0 && more ? 0 : -1;
}

static void logs_changed(struct follower *f)
{
	struct logs *l = container_of(f, struct logs, follower);

	request_more(l->rq);
}

static struct logs *logs_free(struct logs *l)
{
	if (!l)
		return NULL;
	follower_stop(&l->follower);
	fd_close(&l->fd);
	free(l);
	return NULL;
}

static void logs_freep(struct logs **l)
{
	logs_free(*l);
}

static void logs_end(struct request *rq)
{
	logs_free(rq->op);
}

static int logs_new(struct request *rq, const struct sandbox *s, bool follow,
		    struct logs **ret, struct err *e)
{
	guard(logs_freep) struct logs *l = calloc(1, sizeof(*l));
	const char *path = sandbox_console_path(s);
	struct stat st = { 0 };

	if (!l)
		return err_errno(e, ENOMEM, "read logs");
	l->rq = rq;
	l->follow = follow;
	snprintf(l->id, sizeof(l->id), "%s", sandbox_info(s).id);
	l->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (l->fd < 0 || fstat(l->fd, &st) < 0)
		return err_errno(e, errno, "open %s", path);
	l->end = (uint64_t)st.st_size;
	if (follow) {
		int r = follower_start(rq->api->follow, &l->follower, l->fd,
				       logs_changed, e);

		if (r < 0)
			return r;
	}
	*ret = take(l);
	return 0;
}

void handle_logs(struct request *rq)
{
	struct sandbox *s = registry_find(rq->api->config.registry, rq->param);
	struct err e = ERR_NULL;
	struct logs *l = NULL;
	bool follow;
	int r;

	r = target_query_flag(&rq->target, "follow", &follow, &e);
	if (r == 0 && !s)
		r = err_set(&e, ENOENT, "logs of sandbox %s: no such sandbox",
			    rq->param);
	if (r == 0)
		r = logs_new(rq, s, follow, &l, &e);
	if (r < 0) {
		request_answer_error(rq, &e);
		return;
	}
	request_answer_stream(rq, "text/plain", logs_read, l, logs_end);
}
