/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One NBD connection: what a client may say, and what it gets
 *
 * The protocol is fixed newstyle, as in doc/proto.md of the NBD project, as
 * little of it as QEMU needs to read a disk:
 *
 *	negotiation   greeting, options (GO, INFO, EXPORT_NAME, ABORT)
 *	transmission  requests and simple replies, one after another
 *
 * The client is a VMM: it may be under its guest's control. Everything it sends
 * is read into buffers of fixed size, whose length is checked first; it can
 * end its own connection, and that is all.
 *
 * Invariants:
 *  1. A request gets exactly one reply, and in order. Bytes that follow a
 *     request (writes) are read away, or the connection ends. So it does when
 *     the pager goes: the client connects to the next one and asks again, while
 *     an error would be its guest's.
 *  2. Before a reply says "no error" all of its bytes are in the file. What
 *     can then still fail is the local disk; a simple reply cannot take its
 *     promise back, so the connection ends.
 *  3. Nothing is ever written to the disk.
 *  4. No allocation: a thread per connection is cheap only if it is empty. Data
 *     goes from the page cache to the socket (sendfile).
 */
#include "pager/nbd_session.h"

#include "base/err.h"
#include "base/io.h"
#include "pager/stats.h"

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>

#define NBD_MAGIC 0x4e42444d41474943ull /* NBDMAGIC */
#define NBD_OPTION_MAGIC 0x49484156454f5054ull /* IHAVEOPT */
#define NBD_ANSWER_MAGIC 0x0003e889045565a9ull
#define NBD_REQUEST_MAGIC 0x25609513u
#define NBD_REPLY_MAGIC 0x67446698u

enum {
	/* both sides of the greeting */
	NBD_FIXED_NEWSTYLE = 1 << 0,
	NBD_NO_ZEROES = 1 << 1,
	/* of the export */
	NBD_HAS_FLAGS = 1 << 0,
	NBD_READ_ONLY = 1 << 1,
	NBD_CAN_MULTI_CONN = 1 << 8,
	/* information */
	NBD_INFO_EXPORT = 0,
	NBD_INFO_BLOCK_SIZE = 3,
	/* errors of requests */
	NBD_EPERM = 1,
	NBD_EIO = 5,
	NBD_EINVAL = 22,
	NBD_ENOSPC = 28,
	/* the zeros behind an export's flags, once upon a time reserved */
	NBD_ZEROES = 124,
};

enum nbd_option {
	NBD_OPT_EXPORT_NAME = 1,
	NBD_OPT_ABORT = 2,
	NBD_OPT_INFO = 6,
	NBD_OPT_GO = 7,
};

enum nbd_answer {
	NBD_REP_ACK = 1,
	NBD_REP_INFO = 3,
	NBD_REP_ERR_UNSUP = 0x80000001u,
	NBD_REP_ERR_INVALID = 0x80000003u,
	NBD_REP_ERR_UNKNOWN = 0x80000006u,
};

enum nbd_command {
	NBD_CMD_READ = 0,
	NBD_CMD_WRITE = 1,
	NBD_CMD_DISC = 2,
	NBD_CMD_FLUSH = 3,
	NBD_CMD_TRIM = 4,
	NBD_CMD_CACHE = 5,
	NBD_CMD_WRITE_ZEROES = 6,
};

#define NBD_FLAGS (NBD_HAS_FLAGS | NBD_READ_ONLY | NBD_CAN_MULTI_CONN)

struct nbd_greeting {
	uint64_t magic;
	uint64_t option_magic;
	uint16_t flags;
} __attribute__((packed));

struct nbd_option_header {
	uint64_t magic;
	uint32_t option;
	uint32_t len;
} __attribute__((packed));

struct nbd_answer_header {
	uint64_t magic;
	uint32_t option;
	uint32_t type;
	uint32_t len;
} __attribute__((packed));

struct nbd_info_export {
	uint16_t type;
	uint64_t bytes;
	uint16_t flags;
} __attribute__((packed));

struct nbd_info_block_size {
	uint16_t type;
	uint32_t least;
	uint32_t preferred;
	uint32_t most;
} __attribute__((packed));

/* After EXPORT_NAME. */
struct nbd_export_reply {
	uint64_t bytes;
	uint16_t flags;
	uint8_t zeroes[NBD_ZEROES];
} __attribute__((packed));

struct nbd_request {
	uint32_t magic;
	uint16_t flags;
	uint16_t command;
	uint64_t cookie;
	uint64_t offset;
	uint32_t len;
} __attribute__((packed));

struct nbd_reply {
	uint32_t magic;
	uint32_t error;
	uint64_t cookie;
} __attribute__((packed));

struct nbd_session {
	int in, out;
	const struct nbd_disk *disk;
	bool no_zeroes;
};

static int nbd_read(struct nbd_session *s, void *p, size_t len)
{
	ssize_t n = io_read_full(s->in, p, len);

	if (n < 0)
		return (int)n;
	return n == (ssize_t)len ? 0 : -ECONNRESET;
}

/* Read away. */
static int nbd_skip(struct nbd_session *s, uint32_t len)
{
	char waste[4096];
	size_t n;
	int r = 0;

	for (; r == 0 && len > 0; len -= (uint32_t)n) {
		n = min(len, sizeof(waste));
		r = nbd_read(s, waste, n);
	}
	return r;
}

/* ---- negotiation ---- */

static int nbd_greet(struct nbd_session *s)
{
	struct nbd_greeting g = {
		.magic = htobe64(NBD_MAGIC),
		.option_magic = htobe64(NBD_OPTION_MAGIC),
		.flags = htobe16(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES),
	};
	uint32_t flags = 0;
	int r = io_write_full(s->out, &g, sizeof(g));

	if (r == 0)
		r = nbd_read(s, &flags, sizeof(flags));
	if (r < 0)
		return r;
	flags = be32toh(flags);
	if (flags & ~(uint32_t)(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES))
		return -EPROTO;
	s->no_zeroes = flags & NBD_NO_ZEROES;
	return 0;
}

static int nbd_answer(struct nbd_session *s, uint32_t option,
		      enum nbd_answer type, const void *p, uint32_t len)
{
	struct nbd_answer_header h = {
		.magic = htobe64(NBD_ANSWER_MAGIC),
		.option = htobe32(option),
		.type = htobe32(type),
		.len = htobe32(len),
	};
	int r = io_write_full(s->out, &h, sizeof(h));

	if (r == 0 && len)
		r = io_write_full(s->out, p, len);
	return r;
}

static bool nbd_is_export(const void *name, uint32_t len)
{
	return len == strlen(NBD_EXPORT) && !memcmp(name, NBD_EXPORT, len);
}

/* The data of GO and INFO: length, name, number of wishes, wishes. We say what
 * we have to say whatever is wished. */
static enum nbd_answer nbd_judge_info(const uint8_t *data, uint32_t len)
{
	uint32_t name_len = 0;
	uint16_t wishes = 0;

	if (len < sizeof(name_len) + sizeof(wishes))
		return NBD_REP_ERR_INVALID;
	memcpy(&name_len, data, sizeof(name_len));
	name_len = be32toh(name_len);
	len -= (uint32_t)(sizeof(name_len) + sizeof(wishes));
	if (name_len > len)
		return NBD_REP_ERR_INVALID;
	memcpy(&wishes, data + sizeof(name_len) + name_len, sizeof(wishes));
	if (len - name_len != be16toh(wishes) * sizeof(uint16_t))
		return NBD_REP_ERR_INVALID;
	return nbd_is_export(data + sizeof(name_len), name_len)
		       ? NBD_REP_ACK
		       : NBD_REP_ERR_UNKNOWN;
}

/* 1: transmission begins. */
static int nbd_option_info(struct nbd_session *s, uint32_t option,
			   const uint8_t *data, uint32_t len)
{
	struct nbd_info_export export = {
		.type = htobe16(NBD_INFO_EXPORT),
		.bytes = htobe64(s->disk->bytes),
		.flags = htobe16(NBD_FLAGS),
	};
	struct nbd_info_block_size size = {
		.type = htobe16(NBD_INFO_BLOCK_SIZE),
		.least = htobe32(1),
		.preferred = htobe32(4096),
		.most = htobe32(NBD_REQUEST_MAX),
	};
	enum nbd_answer judged = nbd_judge_info(data, len);
	int r = 0;

	if (judged == NBD_REP_ACK)
		r = nbd_answer(s, option, NBD_REP_INFO, &export,
			       sizeof(export));
	if (r == 0 && judged == NBD_REP_ACK)
		r = nbd_answer(s, option, NBD_REP_INFO, &size, sizeof(size));
	if (r == 0)
		r = nbd_answer(s, option, judged, NULL, 0);
	if (r < 0)
		return r;
	return judged == NBD_REP_ACK && option == NBD_OPT_GO;
}

/* The old way: no answer but the export's facts, or the end. */
static int nbd_option_name(struct nbd_session *s, const uint8_t *data,
			   uint32_t len)
{
	struct nbd_export_reply reply = {
		.bytes = htobe64(s->disk->bytes),
		.flags = htobe16(NBD_FLAGS),
	};
	int r;

	if (!nbd_is_export(data, len))
		return -ENOENT;
	r = io_write_full(s->out, &reply,
			  sizeof(reply) - (s->no_zeroes ? NBD_ZEROES : 0));
	return r < 0 ? r : 1;
}

static int nbd_option(struct nbd_session *s)
{
	struct nbd_option_header h = { 0 };
	uint8_t data[NBD_OPTION_BYTES_MAX];
	uint32_t option, len;
	int r = nbd_read(s, &h, sizeof(h));

	if (r < 0)
		return r;
	option = be32toh(h.option);
	len = be32toh(h.len);
	if (be64toh(h.magic) != NBD_OPTION_MAGIC || len > sizeof(data))
		return -EPROTO;
	r = nbd_read(s, data, len);
	if (r < 0)
		return r;
	switch (option) {
	case NBD_OPT_GO:
	case NBD_OPT_INFO:
		return nbd_option_info(s, option, data, len);
	case NBD_OPT_EXPORT_NAME:
		return nbd_option_name(s, data, len);
	case NBD_OPT_ABORT:
		err_drop(nbd_answer(s, option, NBD_REP_ACK, NULL, 0));
		return -ECANCELED;
	default:
		return nbd_answer(s, option, NBD_REP_ERR_UNSUP, NULL, 0);
	}
}

int nbd_negotiate(int in_fd, int out_fd, const struct nbd_disk *d)
{
	struct nbd_session s = { .in = in_fd, .out = out_fd, .disk = d };
	int r = nbd_greet(&s);

	for (unsigned i = 0; r == 0; i++)
		r = i < NBD_OPTIONS_MAX ? nbd_option(&s) : -EPROTO;
	return r < 0 ? r : 0;
}

/* ---- transmission ---- */

static int nbd_reply(struct nbd_session *s, const struct nbd_request *q,
		     uint32_t error)
{
	struct nbd_reply reply = {
		.magic = htobe32(NBD_REPLY_MAGIC),
		.error = htobe32(error),
		.cookie = q->cookie,
	};

	return io_write_full(s->out, &reply, sizeof(reply));
}

static int nbd_send_zeros(struct nbd_session *s, uint32_t len)
{
	static const char zeros[65536];
	size_t n;
	int r = 0;

	for (; r == 0 && len > 0; len -= (uint32_t)n) {
		n = min(len, sizeof(zeros));
		r = io_write_full(s->out, zeros, n);
	}
	return r;
}

static int nbd_send_data(struct nbd_session *s, uint64_t offset, uint32_t len)
{
	off_t at = (off_t)offset;
	ssize_t n;

	while (len > 0) {
		n = sendfile(s->out, s->disk->fd, &at, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0) /* the file's end */
			return nbd_send_zeros(s, len);
		len -= (uint32_t)n;
	}
	return 0;
}

/* Lack of room on the host passes: a VMM pauses its guest for it, and asks
 * again. Everything else is for good. */
static uint32_t nbd_error(int r)
{
	return r == -ENOSPC || r == -EDQUOT ? NBD_ENOSPC : NBD_EIO;
}

static int nbd_cmd_read(struct nbd_session *s, const struct nbd_request *q)
{
	const struct nbd_disk *d = s->disk;
	uint64_t offset = be64toh(q->offset);
	uint32_t len = be32toh(q->len);
	int r;

	if (len == 0 || len > NBD_REQUEST_MAX || offset > d->bytes ||
	    len > d->bytes - offset)
		return nbd_reply(s, q, NBD_EINVAL);
	PAGER_COUNT(d->stats->disk_reads, 1);
	r = d->need(d->arg, offset, len);
	if (r == -ESHUTDOWN)
		return r;
	if (r < 0)
		return nbd_reply(s, q, nbd_error(r));
	/* Before it goes out: who has the bytes finds them counted. */
	PAGER_COUNT(d->stats->disk_read_bytes, len);
	r = nbd_reply(s, q, 0);
	return r < 0 ? r : nbd_send_data(s, offset, len);
}

/* 1: the client is done. */
static int nbd_command(struct nbd_session *s, const struct nbd_request *q)
{
	uint32_t len = be32toh(q->len);
	int r;

	switch (be16toh(q->command)) {
	case NBD_CMD_READ:
		return nbd_cmd_read(s, q);
	case NBD_CMD_WRITE:
		if (len > NBD_REQUEST_MAX)
			return -EPROTO;
		r = nbd_skip(s, len);
		return r < 0 ? r : nbd_reply(s, q, NBD_EPERM);
	case NBD_CMD_DISC:
		return 1;
	case NBD_CMD_FLUSH:
	case NBD_CMD_CACHE:
		return nbd_reply(s, q, 0);
	case NBD_CMD_TRIM:
	case NBD_CMD_WRITE_ZEROES:
		return nbd_reply(s, q, NBD_EPERM);
	default:
		return nbd_reply(s, q, NBD_EINVAL);
	}
}

int nbd_transmit(int in_fd, int out_fd, const struct nbd_disk *d)
{
	struct nbd_session s = { .in = in_fd, .out = out_fd, .disk = d };
	struct nbd_request q;
	int r;

	do {
		q = (struct nbd_request){ 0 };
		r = nbd_read(&s, &q, sizeof(q));
		if (r == 0 && be32toh(q.magic) != NBD_REQUEST_MAGIC)
			r = -EPROTO;
		if (r == 0)
			r = nbd_command(&s, &q);
	} while (r == 0);
	return r < 0 ? r : 0;
}
