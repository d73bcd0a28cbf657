/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Identity: what must differ between two guests restored from one image
 *
 * Random numbers first. Copies of one memory image hold one random state; until
 * it is reseeded they would invent the same keys. The host's entropy is
 * credited and the generator reseeded at once, instead of whenever the kernel
 * would find the time. Then the clock, which stood still in the image, and the
 * names. All of that happens before the answer, and so before any command.
 *
 * This is on the path of every create, under an emulator in the worst case,
 * where each kernel path taken for the first time costs as much as the work
 * itself. Hence: few system calls, and what they work on was opened before.
 */
#include "agent/identity.h"
#include "agent/net.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* What the kernel's host name holds (__NEW_UTS_LEN). */
#define IDENTITY_NAME_MAX 64
#define IDENTITY_ENTROPY_MIN 32
#define IDENTITY_ENTROPY_MAX 512
#define IDENTITY_MACHINE_ID 32

/* The fields of one frame, judged before any of them is obeyed. */
struct identity_news {
	struct wire_field entropy;
	bool has_clock;
	uint64_t clock_ns;
	char hostname[IDENTITY_NAME_MAX + 1];
	char machine_id[IDENTITY_MACHINE_ID + 1];
	uint64_t net;
};

static int identity_add_env(struct identity *id, size_t *used,
			    const struct wire_field *f)
{
	const void *eq = memchr(f->p, '=', f->len);

	if (!eq || eq == f->p || memchr(f->p, 0, f->len))
		return -EINVAL;
	if (id->n_env == IDENTITY_ENV_MAX)
		return -E2BIG;
	/* Fits: each string's terminator is shorter than the field header that
	 * came with it. */
	must(f->len < sizeof(id->text) - *used);
	memcpy(id->text + *used, f->p, f->len);
	id->text[*used + f->len] = 0;
	id->env[id->n_env++] = id->text + *used;
	*used += f->len + 1;
	return 0;
}

static int identity_read(struct identity *id, const struct wire_frame *f,
			 struct identity_news *n, struct err *e)
{
	struct wire_field field = { 0 };
	size_t pos = 0, used = 0;
	int r;

	while ((r = wire_field_next(f, &pos, &field)) == 0) {
		switch (field.key) {
		case WIRE_K_ENTROPY:
			n->entropy = field;
			if (field.len < IDENTITY_ENTROPY_MIN ||
			    field.len > IDENTITY_ENTROPY_MAX)
				r = -EINVAL;
			break;
		case WIRE_K_CLOCK:
			n->has_clock = true;
			r = wire_field_u64(&field, &n->clock_ns);
			break;
		case WIRE_K_HOSTNAME:
			r = wire_find_str(f, field.key, n->hostname,
					  sizeof(n->hostname));
			break;
		case WIRE_K_MACHINE_ID:
			r = wire_find_str(f, field.key, n->machine_id,
					  sizeof(n->machine_id));
			if (r == 0 &&
			    strspn(n->machine_id, "0123456789abcdef") !=
				    IDENTITY_MACHINE_ID)
				r = -EINVAL;
			break;
		case WIRE_K_NET:
			r = wire_field_u64(&field, &n->net);
			break;
		case WIRE_K_ENV:
			if (!used) /* the first: they replace what was */
				id->n_env = 0;
			r = identity_add_env(id, &used, &field);
			break;
		default:
			break;
		}
		if (r < 0)
			break;
	}
	if (r == WIRE_MORE)
		return 0;
	id->n_env = 0;
	return err_errno(e, -r, "identity: field %u", field.key);
}

/* Opened before the snapshot, so that a restored guest looks up no path: each
 * component costs as much as the write it leads to. -1: not there. */
static struct {
	int random;
	int hostname, machine_id, dbus_id;
} identity_fd = { -1, -1, -1, -1 };

static int identity_reseed(const struct wire_field *entropy, struct err *e)
{
	union {
		struct rand_pool_info head;
		uint8_t mem[sizeof(struct rand_pool_info) +
			    IDENTITY_ENTROPY_MAX];
	} pool = { 0 };
	int r = 0;

	if (identity_fd.random < 0)
		identity_fd.random = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	if (identity_fd.random < 0)
		return err_errno(e, errno, "open /dev/urandom");
	pool.head.entropy_count = (int)entropy->len * 8;
	pool.head.buf_size = (int)entropy->len;
	memcpy(pool.head.buf, entropy->p, entropy->len);
	if (ioctl(identity_fd.random, RNDADDENTROPY, &pool) < 0 ||
	    ioctl(identity_fd.random, RNDRESEEDCRNG, 0) < 0)
		r = err_errno(e, errno, "reseed /dev/urandom");
	explicit_bzero(&pool, sizeof(pool));
	return r;
}

static int identity_set_clock(uint64_t ns, struct err *e)
{
	struct timespec ts = {
		.tv_sec = (time_t)(ns / 1000000000),
		.tv_nsec = (long)(ns % 1000000000),
	};

	if (clock_settime(CLOCK_REALTIME, &ts) < 0)
		return err_errno(e, errno, "set the clock");
	return 0;
}

/* Write "@text\n" in place. A file that is not there is nobody's identity. */
static int identity_write(int fd, const char *what, const char *text,
			  struct err *e)
{
	char line[IDENTITY_NAME_MAX + 2], old[IDENTITY_NAME_MAX + 2];
	size_t len = strlen(text);
	ssize_t n;

	if (fd < 0)
		return 0;
	memcpy(line, text, len);
	line[len++] = '\n';
	n = pread(fd, old, sizeof(old), 0);
	if (pwrite(fd, line, len, 0) != (ssize_t)len ||
	    (n > (ssize_t)len && ftruncate(fd, (off_t)len) < 0))
		return err_errno(e, errno, "write %s", what);
	return 0;
}

/*
 * Writing a name to the disk means a journal, and five seconds later a commit
 * that wakes the guest; in every sandbox, right after its birth. In memory it
 * is a store.
 */
static int identity_place_file(const char *path, int flags, const char *copy)
{
	char text[IDENTITY_NAME_MAX + 2];
	ssize_t len;
	int from, to;

	from = open(path, flags | O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0444);
	if (from < 0)
		return -1;
	len = read(from, text, sizeof(text));
	close(from);
	to = open(copy, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
	if (to < 0)
		return -1;
	if (len < 0 || write(to, text, (size_t)len) != len ||
	    mount(copy, path, NULL, MS_BIND, NULL) < 0) {
		unlink(copy);
		close(to);
		return -1;
	}
	return to;
}

void identity_place(void)
{
	mkdir("/run/byre", 0755);
	identity_fd.random = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	identity_fd.hostname =
		identity_place_file("/etc/hostname", 0, "/run/byre/hostname");
	identity_fd.machine_id = identity_place_file("/etc/machine-id", O_CREAT,
						     "/run/byre/machine-id");
	identity_fd.dbus_id = identity_place_file("/var/lib/dbus/machine-id", 0,
						  "/run/byre/dbus-machine-id");
}

int identity_set(struct identity *id, const struct wire_frame *f, bool machine,
		 struct err *e)
{
	struct identity_news n = { 0 };
	int r, first = 0;

	r = identity_read(id, f, &n, e);
	if (r < 0 || !machine)
		return r;
#define IDENTITY_TRY(call) (r = (call), first = first ? first : r)
	if (n.entropy.p)
		IDENTITY_TRY(identity_reseed(&n.entropy, e));
	if (n.has_clock)
		IDENTITY_TRY(identity_set_clock(n.clock_ns, first ? NULL : e));
	if (n.hostname[0]) {
		if (sethostname(n.hostname, strlen(n.hostname)) < 0)
			IDENTITY_TRY(err_errno(first ? NULL : e, errno,
					       "set the host name"));
		IDENTITY_TRY(identity_write(identity_fd.hostname,
					    "/etc/hostname", n.hostname,
					    first ? NULL : e));
	}
	if (n.machine_id[0]) {
		IDENTITY_TRY(identity_write(identity_fd.machine_id,
					    "/etc/machine-id", n.machine_id,
					    first ? NULL : e));
		IDENTITY_TRY(identity_write(identity_fd.dbus_id,
					    "/var/lib/dbus/machine-id",
					    n.machine_id, first ? NULL : e));
	}
	if (n.net)
		IDENTITY_TRY(net_attach(first ? NULL : e));
#undef IDENTITY_TRY
	return first;
}
