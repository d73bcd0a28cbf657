/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pager's end of the socket to the daemon
 *
 * Receiving is done by the poller, which must never wait: it asks for what is
 * there. Sending is done by a thread with a queue: a daemon that is busy must
 * not stop page faults, and "this guest has failed" must not be lost.
 *
 * Invariants:
 *  1. A packet that is handed on has the magic, a known type, numbers within
 *     their tables, terminated texts, and exactly the fds of its type.
 *  2. Every fd that arrived is closed by control_done(), or was taken.
 *  3. The queue is bounded: one message per guest and layer, and answers.
 *     Beyond that (a daemon that asks for evictions and does not listen) the
 *     new message is dropped.
 */
#include "pager/control.h"

#include "base/fdpass.h"
#include "base/guard.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

/* Twice what guests and layers can say. */
#define CONTROL_QUEUE_MAX (2 * (PAGER_GUESTS_MAX + PAGER_LAYERS_MAX))

struct control_out {
	struct control_out *next;
	struct pager_message message;
};

struct control {
	int fd; /* borrowed */
	pthread_t sender;
	bool sending;
	pthread_mutex_t lock; /* over everything below */
	pthread_cond_t more;
	struct control_out *first, **last;
	unsigned n;
	bool stop;
};

/* ---- receiving ---- */

static unsigned control_fds_of(uint32_t type)
{
	switch (type) {
	case PAGER_LAYER:
		return 4;
	case PAGER_GUEST:
		return 2;
	default:
		return 0;
	}
}

static bool control_text_ok(const char *s, size_t size)
{
	return strnlen(s, size) < size;
}

static bool control_store_ok(const struct store_spec *s)
{
	return control_text_ok(s->name, sizeof(s->name)) &&
	       control_text_ok(s->url, sizeof(s->url)) &&
	       control_text_ok(s->endpoint, sizeof(s->endpoint)) &&
	       control_text_ok(s->region, sizeof(s->region)) &&
	       control_text_ok(s->credentials, sizeof(s->credentials)) &&
	       control_text_ok(s->ca, sizeof(s->ca));
}

static bool control_guest_ok(const struct pager_message *m)
{
	return m->ram_bytes > 0 && m->ram_addr % INDEX_PAGE == 0 &&
	       m->ram_bytes % INDEX_PAGE == 0 &&
	       m->ram_addr <= UINT64_MAX - m->ram_bytes;
}

/* NULL, or what is wrong; @len is negative when it is too long. */
static const char *control_judge(const struct control_packet *p, ssize_t len)
{
	const struct pager_message *m = &p->message;

	if (len != sizeof(*m))
		return "length";
	if (m->magic != PAGER_MAGIC)
		return "magic";
	if (m->type < PAGER_LAYER || m->type > PAGER_EVICT)
		return "type";
	if (p->n_fds != control_fds_of(m->type))
		return "number of fds";
	if (m->layer >= PAGER_LAYERS_MAX)
		return "layer";
	if (!control_text_ok(m->text, sizeof(m->text)) ||
	    !control_store_ok(&m->store))
		return "text";
	if ((m->type == PAGER_GUEST || m->type == PAGER_GUEST_GONE) &&
	    m->guest == 0)
		return "guest";
	if (m->type == PAGER_GUEST && !control_guest_ok(m))
		return "memory of the guest";
	return NULL;
}

int control_receive(struct control *c, struct control_packet *ret,
		    struct err *e)
{
	size_t n_fds = 0;
	const char *why;
	ssize_t n;

	memset(ret, 0, sizeof(*ret));
	n = fdpass_receive(c->fd, &ret->message, sizeof(ret->message), ret->fd,
			   nitems(ret->fd), &n_fds, MSG_DONTWAIT);
	if (n == -EAGAIN)
		return -EAGAIN;
	if (n == -ECONNRESET || (n == 0 && !n_fds))
		return CONTROL_GONE;
	if (n < 0 && n != -EMSGSIZE && n != -E2BIG)
		return err_errno(e, (int)-n, "receive from the daemon");
	ret->n_fds = (unsigned)n_fds;
	why = n == -E2BIG ? "number of fds" : control_judge(ret, n);
	if (!why)
		return 0;
	control_done(ret);
	return err_set(e, EPROTO, "a message of the daemon: %s", why);
}

void control_done(struct control_packet *p)
{
	for (unsigned i = 0; i < p->n_fds; i++)
		fd_close(&p->fd[i]);
	p->n_fds = 0;
}

/* ---- sending ---- */

static void control_transmit(struct control *c, const struct pager_message *m)
{
	ssize_t n;

	do {
		n = send(c->fd, m, sizeof(*m), MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	/* Anything else: the daemon is gone; the next one has its own. */
}

static void *control_main(void *arg)
{
	struct control *c = arg;
	struct control_out *o;

	must(!pthread_mutex_lock(&c->lock));
	while (!c->stop) {
		o = c->first;
		if (!o) {
			must(!pthread_cond_wait(&c->more, &c->lock));
			continue;
		}
		c->first = o->next;
		if (!c->first)
			c->last = &c->first;
		c->n--;
		must(!pthread_mutex_unlock(&c->lock));
		control_transmit(c, &o->message);
		free(o);
		must(!pthread_mutex_lock(&c->lock));
	}
	must(!pthread_mutex_unlock(&c->lock));
	return NULL;
}

void control_send(struct control *c, const struct pager_message *m)
{
	struct control_out *o = malloc(sizeof(*o));

	if (!o)
		return;
	*o = (struct control_out){ .message = *m };
	o->message.magic = PAGER_MAGIC;
	must(!pthread_mutex_lock(&c->lock));
	if (c->n < CONTROL_QUEUE_MAX) {
		*c->last = o;
		c->last = &o->next;
		c->n++;
		o = NULL;
		must(!pthread_cond_signal(&c->more));
	}
	must(!pthread_mutex_unlock(&c->lock));
	free(o);
}

int control_new(int fd, struct control **ret, struct err *e)
{
	struct control *c = calloc(1, sizeof(*c));
	int type = 0, r;
	socklen_t len = sizeof(type);

	if (!c)
		return err_errno(e, ENOMEM, "control");
	c->fd = fd;
	c->last = &c->first;
	must(!pthread_mutex_init(&c->lock, NULL));
	must(!pthread_cond_init(&c->more, NULL));
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
	    type != SOCK_SEQPACKET)
		r = err_set(e, ENOTSOCK, "fd %d is no SOCK_SEQPACKET socket",
			    fd);
	else if ((r = -pthread_create(&c->sender, NULL, control_main, c)) < 0)
		err_errno(e, -r, "control");
	c->sending = r == 0;
	if (r < 0) {
		control_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

struct control *control_free(struct control *c)
{
	struct control_out *o;

	if (!c)
		return NULL;
	if (c->sending) {
		must(!pthread_mutex_lock(&c->lock));
		c->stop = true;
		must(!pthread_cond_signal(&c->more));
		must(!pthread_mutex_unlock(&c->lock));
		/* A send() that waits for the daemon ends with this. */
		err_drop(shutdown(c->fd, SHUT_RDWR));
		must(!pthread_join(c->sender, NULL));
	}
	while ((o = c->first)) {
		c->first = o->next;
		free(o);
	}
	must(!pthread_cond_destroy(&c->more));
	must(!pthread_mutex_destroy(&c->lock));
	free(c);
	return NULL;
}
