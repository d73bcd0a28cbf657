/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks over NBD: a unix socket per layer, a thread per connection
 *
 * One thread accepts on all sockets; each connection then has a thread of its
 * own, which does nothing but read, wait and send (nbd_session.c). Such a
 * thread costs some KiB: a small stack, of which little is touched.
 *
 * Invariants:
 *  1. The mutex guards the tables and the counts. Nothing that waits for a
 *     peer or for the poller is called with it.
 *  2. An export has a duplicate of the disk's fd, and lives until its last
 *     connection has ended: a layer that is gone can still be read from by who
 *     is inside, but no byte of it reaches a client (the socket is shut down
 *     before).
 *  3. A connection's fd is closed by its thread only, after it left the list:
 *     shutdown() from others never hits a stranger.
 *  4. Connections are bounded: all together, and per user that is not ours. At
 *     a bound the new one is closed; who is inside does not notice.
 *
 * Who connects is not asked for more than its user: what is exported is the
 * template's disk, read-only, and which template's is decided by who hands out
 * the directory.
 */
#include "pager/nbd.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/list.h"
#include "pager/stats.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>

/* The deepest is nbd_option()'s buffer; sanitizers need the rest. */
#define NBD_STACK_BYTES (256u << 10)
/* The number in the epoll set that is no layer's. */
#define NBD_WAKE PAGER_LAYERS_MAX
/* After accept() found no fd or memory. */
#define NBD_PAUSE_NS 100000000l

struct nbd_export {
	struct nbd *nbd;
	unsigned refs;
	bool removed;
	int listen_fd;
	char *path;
	struct nbd_disk disk; /* as we were told, but for need() and fd */
	struct nbd_disk given;
};

struct nbd_conn {
	struct nbd_export *export;
	struct list all;
	int fd;
	uid_t uid;
};

struct nbd {
	char *dir;
	int epoll_fd, wake_fd;
	pthread_t acceptor;
	bool accepting;
	pthread_attr_t attr;
	pthread_mutex_t lock; /* over everything below */
	pthread_cond_t left; /* a connection has */
	struct nbd_export *export[PAGER_LAYERS_MAX];
	struct list conns;
	unsigned n_conns;
};

static void nbd_lock(struct nbd *n)
{
	must(!pthread_mutex_lock(&n->lock));
}

static void nbd_unlock(struct nbd *n)
{
	must(!pthread_mutex_unlock(&n->lock));
}

/* The lock is held, or nobody else knows it. */
static void nbd_export_unref(struct nbd_export *x)
{
	must(x->refs > 0);
	if (--x->refs > 0)
		return;
	fd_close(&x->listen_fd);
	fd_close(&x->disk.fd);
	free(x->path);
	free(x);
}

/* ---- a connection's thread ---- */

static int nbd_conn_need(void *arg, uint64_t offset, uint64_t len)
{
	struct nbd_export *x = arg;
	int r = x->given.need(x->given.arg, offset, len);

	/* Another layer may have got the number meanwhile. */
	if (r == 0 && __atomic_load_n(&x->removed, __ATOMIC_ACQUIRE))
		r = -ESHUTDOWN;
	return r;
}

static int nbd_conn_patience(int fd, time_t seconds)
{
	struct timeval t = { .tv_sec = seconds };

	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t)) < 0)
		return -errno;
	return 0;
}

static void *nbd_conn_main(void *arg)
{
	struct nbd_conn *c = arg;
	struct nbd_export *x = c->export;
	struct nbd *n = x->nbd;
	int r = nbd_conn_patience(c->fd, NBD_NEGOTIATE_SECONDS);

	if (r == 0)
		r = nbd_negotiate(c->fd, c->fd, &x->disk);
	/* A guest may be idle, or paused, for as long as it likes. */
	if (r == 0)
		r = nbd_conn_patience(c->fd, 0);
	if (r == 0)
		err_drop(nbd_transmit(c->fd, c->fd, &x->disk));
	nbd_lock(n);
	list_del(&c->all);
	n->n_conns--;
	fd_close(&c->fd);
	nbd_export_unref(x);
	must(!pthread_cond_broadcast(&n->left));
	nbd_unlock(n);
	free(c);
	return NULL;
}

/* ---- accepting ---- */

static bool nbd_has_room(const struct nbd *n, uid_t uid)
{
	struct nbd_conn *c, *tmp;
	unsigned same = 0;

	if (n->n_conns >= PAGER_GUESTS_MAX)
		return false;
	if (uid == geteuid())
		return true;
	list_for_each (c, tmp, &n->conns, struct nbd_conn, all)
		same += c->uid == uid;
	return same < NBD_PER_USER_MAX;
}

static void nbd_start(struct nbd_export *x, int fd_take_)
{
	guard_fd int fd = fd_take_;
	struct nbd *n = x->nbd;
	struct ucred who = { 0 };
	socklen_t len = sizeof(who);
	struct nbd_conn *c;
	pthread_t thread;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0 ||
	    !nbd_has_room(n, who.uid))
		return;
	c = calloc(1, sizeof(*c));
	if (!c)
		return;
	*c = (struct nbd_conn){ .export = x, .fd = fd, .uid = who.uid };
	list_init(&c->all);
	if (pthread_create(&thread, &n->attr, nbd_conn_main, c)) {
		free(c);
		return;
	}
	/* It cannot end before we let go of the lock. */
	fd = -1;
	x->refs++;
	n->n_conns++;
	list_add_tail(&n->conns, &c->all);
}

/* False: out of fds or memory. */
static bool nbd_accept(struct nbd *n, uint32_t number)
{
	struct nbd_export *x;
	bool fine = true;
	int fd;

	nbd_lock(n);
	x = n->export[number];
	if (x) {
		fd = accept4(x->listen_fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			nbd_start(x, fd);
		else
			fine = errno == EAGAIN || errno == EINTR ||
			       errno == ECONNABORTED;
	}
	nbd_unlock(n);
	return fine;
}

static void *nbd_accept_main(void *arg)
{
	const struct timespec pause = { .tv_nsec = NBD_PAUSE_NS };
	struct nbd *n = arg;
	struct epoll_event event = { 0 };
	int r;

	for (;;) {
		r = epoll_wait(n->epoll_fd, &event, 1, -1);
		if (r < 0)
			must(errno == EINTR);
		if (r <= 0)
			continue;
		if (event.data.u32 == NBD_WAKE)
			return NULL;
		if (!nbd_accept(n, event.data.u32))
			nanosleep(&pause, NULL);
	}
}

/* ---- exports ---- */

static int nbd_watch(struct nbd *n, int fd, uint32_t number)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = number };

	return epoll_ctl(n->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno
								     : 0;
}

/* Only a path that we made is ours to remove. */
static int nbd_listen(struct nbd_export *x, uint32_t number, int listen_fd,
		      struct err *e)
{
	if (listen_fd >= 0) {
		x->listen_fd = fcntl(listen_fd, F_DUPFD_CLOEXEC, 0);
		return x->listen_fd < 0 ? err_errno(e, errno, "nbd") : 0;
	}
	x->path = io_path("%s/%u", x->nbd->dir, number);
	if (!x->path)
		return err_errno(e, ENOMEM, "nbd");
	return io_listen_unix(x->path, 0666, &x->listen_fd, e);
}

static int nbd_export_new(struct nbd *n, uint32_t number,
			  const struct nbd_disk *disk, int listen_fd,
			  struct nbd_export **ret, struct err *e)
{
	struct nbd_export *x = calloc(1, sizeof(*x));
	int r = 0;

	if (!x)
		return err_errno(e, ENOMEM, "nbd");
	*x = (struct nbd_export){ .nbd = n, .refs = 1, .listen_fd = -1 };
	x->given = x->disk = *disk;
	x->disk.need = nbd_conn_need;
	x->disk.arg = x;
	x->disk.fd = fcntl(disk->fd, F_DUPFD_CLOEXEC, 0);
	if (x->disk.fd < 0)
		r = err_errno(e, errno, "nbd");
	if (r == 0)
		r = nbd_listen(x, number, listen_fd, e);
	if (r < 0) {
		nbd_export_unref(x);
		return r;
	}
	*ret = x;
	return 0;
}

int nbd_add(struct nbd *n, uint32_t number, const struct nbd_disk *disk,
	    int listen_fd, struct err *e)
{
	struct nbd_export *x = NULL;
	int r;

	if (number >= PAGER_LAYERS_MAX || n->export[number])
		return err_set(e, EEXIST, "nbd: number %u", number);
	r = nbd_export_new(n, number, disk, listen_fd, &x, e);
	if (r < 0)
		return r;
	must(x);
	nbd_lock(n);
	n->export[number] = x;
	r = nbd_watch(n, x->listen_fd, number);
	nbd_unlock(n);
	if (r < 0) {
		nbd_remove(n, number);
		return err_errno(e, -r, "nbd: watch %u", number);
	}
	return 0;
}

void nbd_remove(struct nbd *n, uint32_t number)
{
	struct nbd_export *x = NULL;
	struct nbd_conn *c, *tmp;

	nbd_lock(n);
	if (number < PAGER_LAYERS_MAX)
		x = n->export[number];
	if (x) {
		n->export[number] = NULL;
		__atomic_store_n(&x->removed, true, __ATOMIC_RELEASE);
		if (x->path)
			err_drop(unlink(x->path));
		/* Out of the epoll set with it. */
		fd_close(&x->listen_fd);
		list_for_each (c, tmp, &n->conns, struct nbd_conn, all)
			if (c->export == x)
				err_drop(shutdown(c->fd, SHUT_RDWR));
		nbd_export_unref(x);
	}
	nbd_unlock(n);
}

unsigned nbd_count(struct nbd *n)
{
	unsigned count;

	nbd_lock(n);
	count = n->n_conns;
	nbd_unlock(n);
	return count;
}

/* ---- life ---- */

static int nbd_open(struct nbd *n, const char *dir, struct err *e)
{
	int r;

	n->dir = strdup(dir);
	if (!n->dir)
		return err_errno(e, ENOMEM, "nbd");
	r = io_mkdirs(dir, 0711, e);
	if (r < 0)
		return r;
	if (chmod(dir, 0711) < 0) /* whatever the umask */
		return err_errno(e, errno, "chmod %s", dir);
	n->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	n->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (n->epoll_fd < 0 || n->wake_fd < 0)
		return err_errno(e, errno, "nbd: epoll");
	r = nbd_watch(n, n->wake_fd, NBD_WAKE);
	if (r == 0)
		r = -pthread_create(&n->acceptor, NULL, nbd_accept_main, n);
	n->accepting = r == 0;
	return r < 0 ? err_errno(e, -r, "nbd: accept") : 0;
}

int nbd_new(const char *dir, struct nbd **ret, struct err *e)
{
	struct nbd *n = calloc(1, sizeof(*n));
	int r;

	if (!n)
		return err_errno(e, ENOMEM, "nbd");
	n->epoll_fd = n->wake_fd = -1;
	list_init(&n->conns);
	must(!pthread_mutex_init(&n->lock, NULL));
	must(!pthread_cond_init(&n->left, NULL));
	must(!pthread_attr_init(&n->attr));
	must(!pthread_attr_setstacksize(&n->attr, NBD_STACK_BYTES));
	must(!pthread_attr_setdetachstate(&n->attr, PTHREAD_CREATE_DETACHED));
	r = nbd_open(n, dir, e);
	if (r < 0) {
		nbd_free(n);
		return r;
	}
	*ret = n;
	return 0;
}

struct nbd *nbd_free(struct nbd *n)
{
	const uint64_t one = 1;

	if (!n)
		return NULL;
	if (n->accepting) {
		must(write(n->wake_fd, &one, sizeof(one)) == sizeof(one));
		must(!pthread_join(n->acceptor, NULL));
	}
	for (uint32_t i = 0; i < PAGER_LAYERS_MAX; i++)
		nbd_remove(n, i);
	nbd_lock(n);
	while (n->n_conns > 0)
		must(!pthread_cond_wait(&n->left, &n->lock));
	nbd_unlock(n);
	must(list_empty(&n->conns));
	must(!pthread_attr_destroy(&n->attr));
	must(!pthread_cond_destroy(&n->left));
	must(!pthread_mutex_destroy(&n->lock));
	fd_close(&n->epoll_fd);
	fd_close(&n->wake_fd);
	free(n->dir);
	free(n);
	return NULL;
}
