/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Being told that a file has grown
 *
 * One inotify instance for everybody who follows a log (a user may have only
 * 128 of them), one watch per file. Two followers of one file share its watch:
 * the kernel gives both the same number.
 *
 * What a follower waits for is not always an event of its file: that a sandbox
 * has ended, say. So everybody is also called once a second, which costs one
 * stat and one look-up each, and nothing while nobody follows.
 *
 * Invariants:
 *  1. A watch exists if and only if a follower has its number.
 *  2. The timer is armed if and only if there is a follower.
 */
#include "api/follow.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/loop.h"

#include <errno.h>
#include <stdio.h>
#include <sys/inotify.h>

/* How late the end of a log may be noticed when its file says nothing. */
#define FOLLOW_TICK_NS NS_PER_SEC

struct follow {
	struct loop *loop;
	struct loop_fd source;
	struct loop_timer timer;
	struct list followers;
	int fd;
};

/* Those of one watch, or all (-1). */
static void follow_tell(struct follow *w, int watch)
{
	struct follower *f, *tmp;

	list_for_each (f, tmp, &w->followers, struct follower, link)
		if (watch < 0 || f->watch == watch)
			f->changed(f);
}

static void follow_on_event(struct loop_fd *source, uint32_t events)
{
	struct follow *w = container_of(source, struct follow, source);
	_Alignas(struct inotify_event) char mem[4096];
	ssize_t n = read(w->fd, mem, sizeof(mem));
	size_t pos = 0;

	(void)events;
	while (n > 0 && pos < (size_t)n) {
		const struct inotify_event *event = (const void *)(mem + pos);

		/* IN_Q_OVERFLOW has -1: everybody looks. */
		follow_tell(w, event->wd);
		pos += sizeof(*event) + event->len;
	}
}

static void follow_on_timer(struct loop_timer *t)
{
	struct follow *w = container_of(t, struct follow, timer);

	if (loop_timer_set(w->loop, t, w->loop->now_ns + FOLLOW_TICK_NS,
			   follow_on_timer) < 0)
		must(!"room for a timer that was just taken out");
	follow_tell(w, -1);
}

int follow_new(struct loop *loop, struct follow **ret, struct err *e)
{
	struct follow *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return err_errno(e, ENOMEM, "follow files");
	w->loop = loop;
	w->source = (struct loop_fd)LOOP_FD_NULL;
	w->timer = (struct loop_timer)LOOP_TIMER_NULL;
	list_init(&w->followers);
	w->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	r = w->fd < 0 ? -errno
		      : loop_fd_add(loop, &w->source, w->fd, EPOLLIN,
				    follow_on_event);
	if (r < 0) {
		follow_free(w);
		return err_errno(e, -r, "follow files");
	}
	*ret = w;
	return 0;
}

struct follow *follow_free(struct follow *w)
{
	if (!w)
		return NULL;
	must(list_empty(&w->followers));
	loop_timer_del(&w->timer);
	loop_fd_del(&w->source);
	fd_close(&w->fd);
	free(w);
	return NULL;
}

int follower_start(struct follow *w, struct follower *f, int fd,
		   void (*changed)(struct follower *f), struct err *e)
{
	char path[40];
	int r;

	/* By fd: the path may be another file's by now. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	f->watch = inotify_add_watch(w->fd, path,
				     IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB);
	if (f->watch < 0)
		return err_errno(e, errno, "follow a file");
	f->follow = w;
	f->changed = changed;
	list_add_tail(&w->followers, &f->link);
	r = loop_timer_set(w->loop, &w->timer, w->loop->now_ns + FOLLOW_TICK_NS,
			   follow_on_timer);
	if (r < 0) {
		follower_stop(f);
		return err_errno(e, -r, "follow a file");
	}
	return 0;
}

void follower_stop(struct follower *f)
{
	struct follow *w = f->follow;
	struct follower *other, *tmp;

	if (!w)
		return;
	list_del(&f->link);
	f->follow = NULL;
	if (list_empty(&w->followers))
		loop_timer_del(&w->timer);
	list_for_each (other, tmp, &w->followers, struct follower, link)
		if (other->watch == f->watch)
			return;
	/* Fails when the file is gone and the kernel was quicker. */
	inotify_rm_watch(w->fd, f->watch);
}
