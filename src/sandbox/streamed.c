/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a sandbox needs while its image is still on its way
 *
 * Its memory is a memfd that the pager fills (pager/client.h), its disk an
 * export of the pager. The VMM maps the memfd privately; the shim in it arms the
 * mapping with a userfaultfd and hands that out over a socket before anything
 * has touched guest memory. From here it goes to the pager, and the guest runs.
 * The VMM does not wait for us: what it touches in between waits in the
 * kernel.
 *
 * Invariants:
 *  1. The layer is referenced from before the VMM is started until after it is
 *     gone; so its number, and with it the name of the socket its disk is
 *     behind, stays its own.
 *  2. The pager knows the guest from the handover until after the VMM's end.
 *     What the daemon forgets when it ends itself the pager does not hear of
 *     (pager_leave).
 *  3. A guest whose page, or part of its disk, will never come is killed with
 *     the pager's reason, in every state. It could only wait for ever, and must
 *     not read zeros; nor is it the guest's disk that has an error.
 *  4. Every fd that comes back from a VMM after a daemon's death is of a
 *     process that may be hostile: the layer is checked (pager_layer_adopt);
 *     with a false userfaultfd or address it hurts nobody but itself.
 *
 * A template that is not shared is not streamed: its guests would have to have
 * a layer, and a stream, each.
 */
#include "sandbox/streamed.h"

#include "sandbox/object.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/log.h"
#include "image/image.h"
#include "pager/client.h"
#include "sandbox/stores.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define STREAMED_DEVICE "/dev/userfaultfd"
/* Of a disk that failed the VMM says that, and the pager says why; mostly
 * before, but by another socket. A reason that is much older is another's. */
#define STREAMED_WHY_WAIT_NS (200 * NS_PER_MS)
#define STREAMED_WHY_OLD_NS NS_PER_SEC

/* ---- preparing ---- */

/* An image that has become whole is local for new sandboxes, too, only when
 * nobody runs from its layer any more: until then they share that. */
static struct pager_layer *streamed_find(const struct sandbox *s)
{
	struct pager *p = s->registry->config.pager;
	struct pager_layer *l = p ? pager_layer_find(p, image_dir(s->image))
				  : NULL;

	return l && pager_layer_guests(l) ? l : NULL;
}

static int streamed_open(struct sandbox *s, struct err *e)
{
	const struct registry_config *c = &s->registry->config;
	const char *name = image_remote(s->image);
	const char *dir = image_dir(s->image);
	const struct store_spec *spec = c->stores ? stores_find(c->stores, name)
						  : NULL;

	if (!c->pager)
		return err_set(e, ENOTSUP,
			       "its memory is in store %s, and this daemon has "
			       "no pager",
			       name);
	if (!spec)
		return err_set(
			e, ENOENT,
			"its memory is in store %s, which this host does "
			"not know (byre store add %s URL)",
			name, name);
	if (!image_manifest(s->image)->share)
		return err_set(e, ENOTSUP,
			       "it shares nothing (share: none), so it cannot "
			       "be streamed: byre pull --eager");
	snprintf(s->row.store, sizeof(s->row.store), "%s", name);
	return pager_layer_open(c->pager, dir, spec, &s->streamed.layer, e);
}

static int streamed_pair(struct streamed *x, struct err *e)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_errno(e, errno, "make a socket for the VMM");
	x->sock_fd = pair[0];
	x->vmm_sock_fd = pair[1];
	/* Without it the VMM tries userfaultfd(2), which takes a privilege. */
	x->device_fd = open(STREAMED_DEVICE, O_RDWR | O_CLOEXEC);
	return 0;
}

int streamed_prepare(struct sandbox *s, struct err *e)
{
	struct streamed *x = &s->streamed;
	struct pager_layer *l = streamed_find(s);
	const char *dir = strrchr(image_dir(s->image), '/');
	int r;

	if (!l && !image_remote(s->image))
		return 0;
	if (l)
		x->layer = pager_layer_ref(l);
	r = l ? 0 : streamed_open(s, e);
	if (r < 0)
		return r;
	snprintf(s->row.layer, sizeof(s->row.layer), "%s",
		 dir ? dir + 1 : image_dir(s->image));
	return streamed_pair(x, e);
}

bool streamed_layer(const struct sandbox *s, struct workdir_layer *ret)
{
	const struct streamed *x = &s->streamed;

	if (!x->layer)
		return false;
	*ret = (struct workdir_layer){
		.fd = pager_layer_fd(x->layer),
		.nbd_dir_fd = pager_layer_nbd_dir(x->layer),
		.nbd_name = PAGER_NBD_NAME,
	};
	return true;
}

void streamed_spec(const struct sandbox *s, struct vmm_spec *spec)
{
	if (!s->streamed.layer)
		return;
	spec->streamed = true;
	spec->uffd_dev_fd = s->streamed.device_fd;
	spec->uffd_sock_fd = s->streamed.vmm_sock_fd;
}

/* ---- running ---- */

static void streamed_fail(struct sandbox *s, struct err *e)
{
	s->streamed.failed = true;
	if (s->row.state == SANDBOX_CREATING) {
		err_prefix(e, "create from %s", s->row.template);
		create_fail(s, e);
	} else if (s->vmm) {
		vmm_kill(s->vmm, e->msg);
	}
}

/* From the pager: a page will never come. */
static void streamed_page_lost(void *arg, const struct err *e)
{
	struct sandbox *s = arg;
	struct err mine = *e;

	SANDBOX_LOG(error, s, "event=page-lost error=\"%s\"", e->msg);
	err_prefix(&mine, "a page of its memory cannot be had");
	streamed_fail(s, &mine);
}

/* What the pager said of the disk lately; false: nothing. */
static bool streamed_disk_why(const struct sandbox *s, struct err *ret)
{
	const struct streamed *x = &s->streamed;
	uint64_t now_ns = s->registry->config.loop->now_ns;

	return x->layer && pager_layer_disk_lost(
				   x->layer, now_ns - STREAMED_WHY_OLD_NS, ret);
}

static void streamed_disk_lost(struct loop_timer *t)
{
	struct streamed *x = container_of(t, struct streamed, disk_wait);
	struct sandbox *s = container_of(x, struct sandbox, streamed);
	struct err e = ERR_NULL;

	if (!streamed_disk_why(s, &e))
		err_set(&e, EIO, "%s", x->disk_why);
	else
		err_prefix(&e, "its disk cannot be read");
	SANDBOX_LOG(error, s, "event=disk-lost error=\"%s\"", e.msg);
	streamed_fail(s, &e);
}

void streamed_disk_failed(struct sandbox *s, const char *why)
{
	struct streamed *x = &s->streamed;
	struct loop *loop = s->registry->config.loop;
	struct err e = ERR_NULL;

	if (x->failed || x->disk_wait.loop)
		return;
	snprintf(x->disk_why, sizeof(x->disk_why), "%s", why);
	if (streamed_disk_why(s, &e) ||
	    loop_timer_set(loop, &x->disk_wait,
			   loop->now_ns + STREAMED_WHY_WAIT_NS,
			   streamed_disk_lost) < 0)
		streamed_disk_lost(&x->disk_wait);
}

static int streamed_serve(struct sandbox *s, int uffd_take, uint64_t ram_addr,
			  struct err *e)
{
	return pager_guest_add(s->streamed.layer, uffd_take, vmm_pidfd(s->vmm),
			       ram_addr, s->row.memory_bytes,
			       streamed_page_lost, s, &s->streamed.guest, e);
}

static void streamed_handed_over(struct loop_fd *f, unused uint32_t events)
{
	struct streamed *x = container_of(f, struct streamed, handover);
	struct sandbox *s = container_of(x, struct sandbox, streamed);
	struct gmem_handover h = { 0 };
	struct err e = ERR_NULL;
	int uffd = -1;
	int r = plan_handover_receive(x->sock_fd, &h, &uffd, &e);

	if (r == -EAGAIN)
		return;
	loop_fd_del(&x->handover);
	fd_close(&x->sock_fd);
	if (r == 0 && h.ram_bytes != s->row.memory_bytes) {
		fd_close(&uffd);
		r = err_set(&e, EPROTO,
			    "the VMM has %" PRIu64 " bytes of memory",
			    h.ram_bytes);
	}
	if (r == 0)
		r = streamed_serve(s, uffd, h.ram_addr, &e);
	if (r == 0)
		return;
	SANDBOX_LOG(warn, s, "event=handover error=\"%s\"", e.msg);
	/* Nothing came: mostly the VMM is going, and its exit tells more. If
	 * it is not, the deadline of the create is for it. */
	if (r != -EPIPE && !s->failure.code) {
		err_prefix(&e, "create from %s", s->row.template);
		create_fail(s, &e);
	}
}

int streamed_spawned(struct sandbox *s, struct err *e)
{
	struct streamed *x = &s->streamed;
	int r;

	if (!x->layer)
		return 0;
	fd_close(&x->vmm_sock_fd);
	fd_close(&x->device_fd);
	r = loop_fd_add(s->registry->config.loop, &x->handover, x->sock_fd,
			EPOLLIN, streamed_handed_over);
	return r < 0 ? err_errno(e, -r, "wait for the VMM's memory") : 0;
}

/* ---- a former daemon's ---- */

static int streamed_take_fd(const struct sandbox *s, int number,
			    const char *what, struct err *e)
{
	int fd = (int)syscall(SYS_pidfd_getfd, vmm_pidfd(s->vmm), number, 0);

	return fd < 0 ? err_errno(e, errno, "take back %s", what) : fd;
}

static int streamed_adopt_layer(struct sandbox *s, struct err *e)
{
	const struct registry_config *c = &s->registry->config;
	guard_free char *dir = io_path("%s/images/%s", c->root, s->row.layer);
	guard_fd int fd = -1;

	if (!dir)
		return err_errno(e, ENOMEM, "adopt a layer");
	if (!c->pager)
		return err_set(e, ENOTSUP, "this daemon has no pager");
	fd = streamed_take_fd(s, vmm_layer_fd_number(), "the layer", e);
	if (fd < 0)
		return fd;
	/* A store that is not known any more is no matter when nothing is
	 * missing; otherwise the first missing page names it. */
	return pager_layer_adopt(
		c->pager, dir,
		c->stores ? stores_find(c->stores, s->row.store) : NULL, fd,
		&s->streamed.layer, e);
}

int streamed_adopt(struct sandbox *s, struct err *e)
{
	struct gmem_report report;
	int uffd, r;

	if (!s->row.layer[0])
		return 0;
	if (!s->plan.head)
		return err_set(e, EBADMSG, "its memory plan is lost");
	report = plan_view_report(&s->plan);
	r = streamed_adopt_layer(s, e);
	if (r < 0)
		return r;
	uffd = streamed_take_fd(s, vmm_uffd_fd_number(), "the userfaultfd", e);
	if (uffd < 0)
		return uffd;
	return streamed_serve(s, uffd, report.ram_addr, e);
}

void streamed_end(struct sandbox *s)
{
	struct streamed *x = &s->streamed;

	loop_fd_del(&x->handover);
	loop_timer_del(&x->disk_wait);
	fd_close(&x->sock_fd);
	fd_close(&x->vmm_sock_fd);
	fd_close(&x->device_fd);
	x->guest = pager_guest_free(x->guest);
	x->layer = pager_layer_unref(x->layer);
}
