/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The head and the framing of an HTTP/1.1 response
 *
 * Pure functions over bytes, for the client; small and strict. They know what
 * doc/api.md needs: a status, a body by length, chunks or end of connection,
 * and an upgrade.
 */
#include "base/must.h"

#include <stdbool.h>
#include <stdint.h>

/* Our daemon's heads have 300 bytes. */
#define HTTP_HEAD_MAX 8192u
#define HTTP_FIELDS_MAX 64u
/* "ffffffff;extension\r\n" and trailers. */
#define HTTP_LINE_MAX 256u

enum http_framing {
	HTTP_NO_BODY,
	HTTP_LENGTH,
	HTTP_CHUNKED,
	HTTP_TILL_CLOSE,
	HTTP_UPGRADED, /* what follows is no longer HTTP */
	HTTP_FRAMING_COUNT,
};

struct http_head {
	int status; /* 101, 200 to 599 */
	enum http_framing framing;
	uint64_t length; /* HTTP_LENGTH */
	char type[64]; /* media type, lower case, without parameters */
	char upgrade[32];
};

enum {
	HTTP_MORE = 1, /* not enough bytes yet */
	HTTP_END = 2, /* the body is complete */
};

/*
 * Look for a head in @len bytes at @p. 0: *ret, and the body starts at
 * p + *ret_used. HTTP_MORE: call again with more. -EBADMSG: this is no head we
 * accept, or longer than HTTP_HEAD_MAX.
 */
int http_head_parse(const uint8_t *p, size_t len, struct http_head *ret,
		    size_t *ret_used) must_check;

enum http_chunk {
	HTTP_CHUNK_SIZE,
	HTTP_CHUNK_DATA,
	HTTP_CHUNK_CRLF, /* behind data */
	HTTP_CHUNK_TRAILER,
	HTTP_CHUNK_COUNT,
};

/* Where in a body we are. */
struct http_body {
	enum http_framing framing;
	enum http_chunk chunk;
	uint64_t left; /* of the length, or of this chunk */
	unsigned trailers;
	bool end;
};

void http_body_init(struct http_body *b, const struct http_head *h);

/*
 * What the next @len bytes at @p are: *ret_skip bytes of framing, then
 * *ret_data bytes of the body; the caller drops both. 0: there is data.
 * HTTP_MORE: more bytes are needed. HTTP_END: the body is over (with
 * HTTP_TILL_CLOSE the caller knows). -EBADMSG.
 */
int http_body_next(struct http_body *b, const uint8_t *p, size_t len,
		   size_t *ret_skip, size_t *ret_data) must_check;

/* May the connection end here? */
bool http_body_may_close(const struct http_body *b);
