/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The wire protocol between host and guest agent
 *
 * One byte stream in each direction (a virtio-serial port; between the CLI
 * and the daemon, an upgraded HTTP connection) carries frames:
 *
 *	offset  size  field
 *	0       2     magic 0xb47e, little-endian like everything here
 *	2       1     type (enum wire_type)
 *	3       1     channel of a DATA or CREDIT frame (enum wire_channel)
 *	4       4     stream number, chosen by the host, 0 for the connection
 *	8       4     length of the payload, at most WIRE_PAYLOAD_MAX
 *
 * Streams. Any frame of enum wire_type marked "opens" opens a stream under a
 * number not in use; the agent ends it with RESULT, always the last frame of a
 * stream. After it sent RESULT the agent ignores frames for that number until
 * it is opened again; the host sees each RESULT before it reuses a number.
 *
 * Flow control. Every stream may have WIRE_WINDOW unacknowledged payload bytes
 * of DATA under way per channel; the receiver hands back room with CREDIT once
 * the bytes have left it. A sender without credit stops reading its source. So
 * a peer that floods or never reads costs at most window x streams.
 *
 * Synchronisation. The host may vanish mid-frame (the daemon was killed). A
 * new host first sends WIRE_PAYLOAD_MAX + WIRE_HEADER bytes of zeros when it
 * cannot know that the stream is at a frame boundary, which completes any frame
 * cut short, then HELLO with a fresh nonce. The agent hunts byte by byte for
 * the magic whenever a header makes no sense. HELLO ends every stream
 * (processes are killed), and the agent answers with HELLO carrying the same
 * nonce; the host throws away everything before that answer.
 *
 * What the old connection left half sent by the agent is worse: its bytes come
 * from a guest and may imitate a header that swallows the answer. So NONCE is
 * the first field of the answer, and a host that cannot know where frames
 * begin looks for those bytes with wire_sync() before it parses anything.
 *
 * Payloads of other frames are lists of fields: u16 key, u32 length, bytes.
 * Unknown keys are skipped, except that key 0 is always malformed: a frame cut
 * short and completed by zeros is refused, not obeyed in part. A missing or
 * repeated key is the receiver's to judge. Numbers are u64 in 8 bytes. Strings
 * carry no terminator and no NUL.
 *
 * CREDIT and EOF name their channel as DATA does; the channel of every other
 * frame is 0. PUT is answered by STARTED at once, with KIND when PATH exists (a
 * link that leads somewhere counts as what it leads to); a RESULT instead of
 * it, or at any time later, says the rest is not wanted.
 */
#include "base/must.h"

#include <stdbool.h>
#include <stdint.h>

#define WIRE_MAGIC 0xb47eu
#define WIRE_VERSION 1
#define WIRE_HEADER 12
/* Large enough to amortise a virtqueue notification, small enough to sit on a
 * stack; also bounds the size of a command line with its environment. */
#define WIRE_PAYLOAD_MAX 65536u
#define WIRE_FRAME_MAX (WIRE_HEADER + WIRE_PAYLOAD_MAX)
/* Per stream, per channel. Four full frames keep the pipe busy. */
#define WIRE_WINDOW 262144u
/* Streams open at once in one guest. */
#define WIRE_STREAMS_MAX 64
/* Bytes in a NONCE. */
#define WIRE_NONCE 16
/* Name of the virtio-serial port. */
#define WIRE_PORT "byre.agent"
/* Exit code of a command ended by its timeout, as timeout(1) has it. */
#define WIRE_EXIT_TIMEOUT 124

enum wire_type {
	WIRE_NONE,
	/* connection, stream 0 */
	WIRE_HELLO, /* both ways: NONCE VERSION */
	/* host to agent */
	/* opens; ENTROPY? CLOCK? HOSTNAME? MACHINE_ID? NET? ENV*: what is absent
	 * stays as it is */
	WIRE_IDENTITY,
	WIRE_EXEC, /* opens; ARG+ ENV* CWD? USER? TIMEOUT? ROWS? COLS? STDIN? */
	WIRE_RESIZE, /* ROWS COLS */
	WIRE_SIGNAL, /* SIGNAL; to the process group */
	WIRE_CLOSE, /* the caller went away: kill what runs; RESULT follows */
	WIRE_PUT, /* opens; PATH: then ENTRY and DATA, EOF at the end */
	WIRE_GET, /* opens; PATH: agent sends ENTRY and DATA, then RESULT */
	WIRE_FACTS, /* opens; RESULT carries the MEM_ fields */
	WIRE_SETTLE, /* opens; DROP? : sync, drop caches, compact */
	WIRE_POWEROFF, /* opens; sync, unmount what can be, power off */
	/* both ways */
	WIRE_DATA, /* raw bytes for the channel in the header */
	WIRE_EOF, /* no more DATA on this channel */
	WIRE_CREDIT, /* BYTES may be sent again on this channel */
	WIRE_ENTRY, /* PATH KIND MODE UID GID MTIME SIZE LINK? */
	/* agent to host */
	WIRE_STARTED, /* PID of a command; KIND? of the PATH of a PUT */
	/* CODE or SIGNAL, TIMED_OUT?; or ERRNO and MESSAGE; a command that
	 * could not be executed has CODE 126 or 127 besides, as sh has it */
	WIRE_RESULT,
	WIRE_TYPE_COUNT,
};

enum wire_channel {
	WIRE_STDIN, /* also the file bytes of PUT and GET */
	WIRE_STDOUT,
	WIRE_STDERR, /* never used with a pty */
	WIRE_CHANNEL_COUNT,
};

enum wire_key {
	WIRE_K_NONE,
	WIRE_K_NONCE, /* 16 bytes */
	WIRE_K_VERSION,
	WIRE_K_ENTROPY, /* 32 to 512 bytes */
	WIRE_K_CLOCK, /* ns since 1970 */
	WIRE_K_HOSTNAME,
	WIRE_K_MACHINE_ID, /* 32 hex digits */
	WIRE_K_ENV, /* "NAME=value"; in IDENTITY: for every later command */
	WIRE_K_ARG,
	WIRE_K_CWD, /* "/" when absent */
	WIRE_K_USER, /* name, uid, or either with ":group" */
	WIRE_K_TIMEOUT, /* ns; at the end SIGTERM, SIGKILL two seconds later */
	WIRE_K_ROWS, /* ROWS and COLS in EXEC ask for a pty */
	WIRE_K_COLS,
	WIRE_K_STDIN, /* 1: stdin will be sent; absent: /dev/null */
	WIRE_K_SIGNAL, /* number */
	WIRE_K_PATH,
	WIRE_K_KIND, /* enum wire_kind */
	WIRE_K_MODE,
	WIRE_K_UID,
	WIRE_K_GID,
	WIRE_K_MTIME, /* ns since 1970 */
	WIRE_K_SIZE,
	WIRE_K_LINK, /* target of a symbolic link */
	WIRE_K_DROP, /* 1: drop the page cache too */
	WIRE_K_BYTES,
	WIRE_K_PID,
	WIRE_K_CODE,
	WIRE_K_TIMED_OUT, /* 1 */
	WIRE_K_ERRNO,
	WIRE_K_MESSAGE,
	WIRE_K_MEM_TOTAL, /* bytes, /proc/meminfo inside the guest */
	WIRE_K_MEM_FREE,
	WIRE_K_MEM_AVAILABLE,
	WIRE_K_MEM_CACHED,
	WIRE_K_NET, /* 1: the network card is connected, configure it */
	WIRE_K_COUNT,
};

/* What an ENTRY is. Paths in ENTRY are relative to what was named, "" for the
 * thing itself; directories come before what is in them. */
enum wire_kind {
	WIRE_KIND_FILE, /* SIZE bytes of DATA follow */
	WIRE_KIND_DIR,
	WIRE_KIND_LINK,
	WIRE_KIND_COUNT,
};

struct wire_frame {
	uint8_t type;
	uint8_t channel;
	uint32_t stream;
	uint32_t len;
	const uint8_t *payload;
};

/* ---- reading a byte stream ---- */

enum {
	WIRE_MORE = 1, /* not a whole frame yet */
};

/*
 * Look at @len bytes at @p. 0: one whole frame in *ret, *ret_used bytes from
 * @p on are done with (including garbage skipped while hunting for the magic);
 * its payload points into @p. WIRE_MORE: need more; *ret_used bytes of garbage
 * can be dropped. Never fails and never needs more than WIRE_FRAME_MAX bytes
 * at once. *ret_skipped (may be NULL) is the number of garbage bytes passed.
 */
int wire_next(const uint8_t *p, size_t len, struct wire_frame *ret,
	      size_t *ret_used, size_t *ret_skipped) must_check;

/*
 * Find the agent's answer to a HELLO with @nonce among bytes of unknown origin.
 * 0: *ret_used bytes from @p on are done with, frames follow. WIRE_MORE: not
 * there yet; *ret_used bytes can be dropped, less than WIRE_FRAME_MAX stay.
 */
int wire_sync(const uint8_t *p, size_t len, const uint8_t nonce[WIRE_NONCE],
	      size_t *ret_used) must_check;

/* ---- writing frames ---- */

/* A frame under construction in the caller's memory. Overflow is remembered,
 * not fatal: wire_end() tells. */
struct wire_out {
	uint8_t *p;
	size_t size;
	size_t len;
	bool overflow;
};

/* @mem holds at least WIRE_HEADER bytes, WIRE_FRAME_MAX is always enough. */
void wire_begin(struct wire_out *o, void *mem, size_t size, uint8_t type,
		uint8_t channel, uint32_t stream);
void wire_put(struct wire_out *o, uint16_t key, const void *p, size_t len);
void wire_put_str(struct wire_out *o, uint16_t key, const char *s);
void wire_put_u64(struct wire_out *o, uint16_t key, uint64_t v);
/* Raw payload (DATA). */
void wire_put_raw(struct wire_out *o, const void *p, size_t len);
/* Patches the length in. The frame's size in bytes, or -EMSGSIZE. */
int wire_end(struct wire_out *o) must_check;

/* Just a header, for DATA whose payload is already in place behind it. */
void wire_header(uint8_t out[WIRE_HEADER], uint8_t type, uint8_t channel,
		 uint32_t stream, uint32_t len);

/* ---- reading fields ---- */

struct wire_field {
	uint16_t key;
	uint32_t len;
	const uint8_t *p;
};

/* Next field at *pos (start with 0): 0, WIRE_MORE at the end, -EBADMSG when
 * the payload is malformed. */
int wire_field_next(const struct wire_frame *f, size_t *pos,
		    struct wire_field *ret) must_check;

/* 0, -EBADMSG when not 8 bytes. */
int wire_field_u64(const struct wire_field *f, uint64_t *ret) must_check;
/* The first field with @key: 0, -ENOENT, -EBADMSG. */
int wire_find_u64(const struct wire_frame *f, uint16_t key,
		  uint64_t *ret) must_check;
/* A string copied and terminated: 0, -ENOENT, -EBADMSG (NUL inside),
 * -ENAMETOOLONG. */
int wire_find_str(const struct wire_frame *f, uint16_t key, char *out,
		  size_t size) must_check;

const char *wire_type_name(uint8_t type);
