/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The answer to a request, as it comes in (internal to the stores)
 *
 * Fed with the lines of a head and the pieces of a body by whatever speaks
 * HTTP; knows no socket.
 */
#include "image/store_transfer.h"

struct answer {
	const struct transfer_request *q;
	struct err lie; /* judged no good before its end; code 0: not */
	bool head_done; /* of the final answer, no "100 Continue" */
	size_t head_bytes, said_len, error_bytes;
	bool encoded, has_length, has_range;
	uint64_t length, first, last;
	uint64_t pause_ns; /* the server asked for that */
	bool direct; /* a range goes to q->into, not to memory of our own */
	char *own;
	size_t room, got;
	struct transfer_answer out; /* status, etag, said as they come */
};

void answer_init(struct answer *a, const struct transfer_request *q,
		 bool direct);
void answer_deinit(struct answer *a);

/* Whether to go on; a->lie or the status says why not. */
bool answer_head(struct answer *a, const char *line, size_t len) must_check;
bool answer_body(struct answer *a, const void *p, size_t len) must_check;

/* Has it been judged whatever becomes of the rest? *ret as of a try. */
bool answer_decided(const struct answer *a, int *ret, struct err *e);
/* After the last byte: 0 or what is wrong, as of a try. */
int answer_end(const struct answer *a, struct err *e) must_check;
/* The body of a good answer: into the request's memory, or to *ret. */
int answer_deliver(struct answer *a, struct transfer_answer *ret,
		   struct err *e) must_check;
