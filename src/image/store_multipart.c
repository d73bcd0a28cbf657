/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Uploads to S3 in parts
 *
 *	(no note) --create--> note --part, part, ...--> complete --> (no note)
 *	                        ^                |
 *	                        '--interrupted---'
 *
 * A file of up to STORE_PART is one PUT. A larger one is a multipart upload,
 * whose id is in the note before the first part is sent; who comes later with
 * the same note asks the server which parts it has and sends the others. The
 * server shows the object when it is complete, not before.
 *
 * Invariants:
 *  1. A part that the server lists counts as there when it has the size that
 *     it must have. Its digest was checked when it was sent, as it was signed.
 *  2. The note is gone only when the object is there, whole; or when the
 *     upload that it names is no more.
 *  3. A note of another upload to the same store is not left to cost money:
 *     that upload is aborted first.
 *  4. "200 OK" of a completion can hold an error, and a completion whose
 *     answer was lost is asked for again: the object's size has the last word.
 *     Not where an object is replaced, for the old one may be as large.
 *
 * Parts go one after another, each from memory, because it has to be hashed
 * before it is sent.
 */
#include "image/store_s3.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/parse.h"
#include "image/store_note.h"
#include "image/store_sign.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* S3's limit. */
#define MULTIPART_PARTS_MAX 10000
/* A part at 0.25 Mbit/s, or S3 assembling 150 GB. */
#define MULTIPART_DEADLINE_NS (600 * NS_PER_SEC)
/* A page of 1000 parts, about 300 bytes each. */
#define MULTIPART_ANSWER_MAX ((size_t)1 << 20)

typedef char multipart_etag[TRANSFER_ETAG_MAX];

struct multipart {
	struct store_conn *c;
	const struct store_upload *u;
	struct store_note note;
	char id[S3_QUERY_MAX - 128]; /* escaped */
	unsigned n;
	multipart_etag *etag; /* n; "": that part is not there */
	char *mem; /* one part */
};

/* One request, as an argument for store_repeat(). */
struct multipart_try {
	struct store_call call;
	struct s3_request q;
	struct transfer_answer a;
};

static int multipart_try(struct store_conn *c, struct store_call *call,
			 struct err *e)
{
	struct multipart_try *t =
		container_of(call, struct multipart_try, call);

	return s3_run(c, &t->q, &t->a, e);
}

/* The caller clears *a in every case. */
static int multipart_ask(struct store_conn *c, const struct s3_request *q,
			 store_try_fn fn, struct transfer_answer *a,
			 struct err *e)
{
	struct multipart_try t = { .call = { .object = q->object }, .q = *q };
	int r;

	t.q.want = TRANSFER_ALL;
	t.q.len = MULTIPART_ANSWER_MAX;
	r = store_repeat(c, fn, &t.call,
			 clock_mono_ns() + MULTIPART_DEADLINE_NS, e);
	*a = t.a;
	return r;
}

/* @query: snprintf's result. */
static int multipart_query(int query, struct err *e)
{
	if (query < 0 || query >= S3_QUERY_MAX)
		return err_set(e, EPROTO, "the upload's id is too long");
	return 0;
}

static bool multipart_set_id(struct multipart *m)
{
	return sign_escape(m->note.handle, m->id, sizeof(m->id));
}

/* ---- beginning ---- */

static int multipart_create(struct multipart *m, struct err *e)
{
	guard(transfer_answer_clear) struct transfer_answer a = { 0 };
	const struct s3_request q = { .method = "POST",
				      .object = m->u->object,
				      .query = "uploads=",
				      .body = "" };
	const char *at;
	int r = multipart_ask(m->c, &q, multipart_try, &a, e);

	if (r == STORE_MISS)
		return err_set(e, ENOENT, "there is no such bucket");
	if (r < 0)
		return r;
	store_note_init(&m->note, m->c->store, m->u);
	at = a.all;
	if (!s3_tag(&at, "UploadId", m->note.handle, sizeof(m->note.handle)) ||
	    !m->note.handle[0] || strpbrk(m->note.handle, " \t\r\n/&") ||
	    !multipart_set_id(m))
		return err_set(e, EPROTO,
			       "the server gave no usable id for the upload");
	return store_note_save(m->u->note, &m->note, e);
}

/* Once: what does not work now is left to the bucket's own rules. */
static void multipart_abort(struct store_conn *c, const struct store_note *n)
{
	guard(transfer_answer_clear) struct transfer_answer a = { 0 };
	char query[S3_QUERY_MAX] = "uploadId=";
	size_t skip = strlen(query);
	const struct s3_request q = { .method = "DELETE",
				      .object = n->object,
				      .query = query,
				      .want = TRANSFER_ALL,
				      .len = MULTIPART_ANSWER_MAX };
	struct err e = ERR_NULL;

	c->deadline_ns = clock_mono_ns() + MULTIPART_DEADLINE_NS;
	if (sign_escape(n->handle, query + skip, sizeof(query) - skip))
		err_drop(s3_run(c, &q, &a, &e));
}

/* Quotes, spelt in one way or the other, do not count. */
static bool multipart_clean_etag(const char *s, multipart_etag out)
{
	size_t n, skip = !strncmp(s, "&quot;", 6) ? 6 : s[0] == '"';

	s += skip;
	n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmn"
		      "opqrstuvwxyz0123456789-_.+=");
	if (!n || n >= TRANSFER_ETAG_MAX ||
	    (s[n] && s[n] != '"' && strcmp(s + n, "&quot;") != 0))
		return false;
	memcpy(out, s, n);
	out[n] = '\0';
	return true;
}

static uint64_t multipart_size(const struct multipart *m, unsigned i)
{
	uint64_t at = (uint64_t)i * STORE_PART;

	return min((uint64_t)STORE_PART, m->u->bytes - at);
}

/* One <Part> of a list. */
static void multipart_found(struct multipart *m, const char *part)
{
	char number[16], size[24], etag[TRANSFER_ETAG_MAX];
	const char *at_number = part, *at_size = part, *at_etag = part;
	uint64_t i, bytes;

	if (s3_tag(&at_number, "PartNumber", number, sizeof(number)) &&
	    s3_tag(&at_size, "Size", size, sizeof(size)) &&
	    s3_tag(&at_etag, "ETag", etag, sizeof(etag)) &&
	    parse_u64(number, &i) == 0 && parse_u64(size, &bytes) == 0 &&
	    i >= 1 && i <= m->n &&
	    bytes == multipart_size(m, (unsigned)i - 1) &&
	    !multipart_clean_etag(etag, m->etag[i - 1]))
		m->etag[i - 1][0] = '\0';
}

/* A page of the list; *marker is 0 behind the last one. */
static void multipart_page(struct multipart *m, char *text, uint64_t *marker)
{
	char word[16];
	const char *at = text;
	uint64_t next = 0;

	if (s3_tag(&at, "IsTruncated", word, sizeof(word)) &&
	    !strcmp(word, "true")) {
		at = text;
		if (!s3_tag(&at, "NextPartNumberMarker", word, sizeof(word)) ||
		    parse_u64(word, &next) < 0 || next <= *marker)
			next = 0;
	}
	*marker = next;
	for (char *part = strstr(text, "<Part>"); part;) {
		char *behind = strstr(part + 1, "<Part>");

		if (behind)
			behind[-1] = '\0';
		multipart_found(m, part);
		part = behind;
	}
}

/* Which parts the server has; STORE_MISS when it has no such upload. */
static int multipart_list(struct multipart *m, struct err *e)
{
	uint64_t marker = 0;

	do {
		guard(transfer_answer_clear) struct transfer_answer a = { 0 };
		char query[S3_QUERY_MAX];
		struct s3_request q = { .object = m->u->object,
					.query = query };
		int r = multipart_query(snprintf(query, sizeof(query),
						 "part-number-marker=%" PRIu64
						 "&uploadId=%s",
						 marker, m->id),
					e);

		if (r == 0)
			r = multipart_ask(m->c, &q, multipart_try, &a, e);
		if (r != 0)
			return r;
		multipart_page(m, a.all, &marker);
	} while (marker);
	return 0;
}

/* What the note says, if it is any good; a new upload otherwise. */
static int multipart_begin(struct multipart *m, struct err *e)
{
	int r = store_note_load(m->u->note, &m->note, e);

	if (r < 0)
		return r;
	if (r == 0 && store_note_fits(&m->note, m->c->store, m->u) &&
	    multipart_set_id(m)) {
		r = multipart_list(m, e);
		/* A server that cannot list, or has nothing to list. */
		if (r != STORE_MISS && r != -EPROTO)
			return r;
		memset(m->etag, 0, m->n * sizeof(*m->etag));
	}
	if (r != STORE_MISS && store_note_ours(&m->note, m->c->store))
		multipart_abort(m->c, &m->note);
	return multipart_create(m, e);
}

/* ---- parts ---- */

static int multipart_read(const struct multipart *m, uint64_t at, size_t len,
			  struct err *e)
{
	ssize_t n = io_pread_full(m->u->fd, m->mem, len, at);

	if (n < 0)
		return err_errno(e, (int)-n, "read the file to upload");
	if ((size_t)n < len)
		return err_set(e, EBADMSG,
			       "the file to upload is shorter than it was");
	return 0;
}

static int multipart_send(struct multipart *m, unsigned i, struct err *e)
{
	guard(transfer_answer_clear) struct transfer_answer a = { 0 };
	char query[S3_QUERY_MAX];
	size_t len = multipart_size(m, i);
	const struct s3_request q = { .method = "PUT",
				      .object = m->u->object,
				      .query = query,
				      .body = m->mem,
				      .body_len = len };
	int r = multipart_query(snprintf(query, sizeof(query),
					 "partNumber=%u&uploadId=%s", i + 1,
					 m->id),
				e);

	if (r == 0)
		r = multipart_read(m, (uint64_t)i * STORE_PART, len, e);
	if (r == 0)
		r = multipart_ask(m->c, &q, multipart_try, &a, e);
	if (r == STORE_MISS)
		return err_set(
			e, ESTALE,
			"the server has forgotten the upload; begin again");
	if (r < 0)
		return r;
	if (!multipart_clean_etag(a.etag, m->etag[i]))
		return err_set(e, EPROTO, "the server gave no ETag for a part");
	return 0;
}

static int multipart_tell(const struct store_conn *c,
			  const struct store_upload *u, uint64_t done,
			  struct err *e)
{
	if (u->progress && u->progress(u->arg, done, u->bytes))
		return err_set(e, ECANCELED, "cancelled");
	return store_conn_check(c, e);
}

static int multipart_parts(struct multipart *m, struct err *e)
{
	uint64_t done = 0;
	int r = 0;

	for (unsigned i = 0; r == 0 && i < m->n; i++) {
		if (!m->etag[i][0])
			r = multipart_send(m, i, e);
		done += multipart_size(m, i);
		if (r == 0)
			r = multipart_tell(m->c, m->u, done, e);
	}
	return r;
}

/* ---- the end ---- */

static char *multipart_text(const struct multipart *m)
{
	guard_free char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	fputs("<CompleteMultipartUpload>", f);
	for (unsigned i = 0; i < m->n; i++)
		fprintf(f,
			"<Part><PartNumber>%u</PartNumber><ETag>\"%s\"</ETag></Part>",
			i + 1, m->etag[i]);
	fputs("</CompleteMultipartUpload>", f);
	/* Closed, the text is there; it may be too short for want of memory. */
	if (fclose(f) != 0)
		return NULL;
	return take(text);
}

static int multipart_complete_try(struct store_conn *c, struct store_call *call,
				  struct err *e)
{
	struct multipart_try *t =
		container_of(call, struct multipart_try, call);
	char code[64] = "no code";
	const char *at;
	int r = s3_run(c, &t->q, &t->a, e);

	if (r != 0 || strstr(t->a.all, "<CompleteMultipartUploadResult"))
		return r;
	at = t->a.all;
	if (!s3_tag(&at, "Code", code, sizeof(code)) ||
	    code[strspn(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmn"
			      "opqrstuvwxyz")])
		return err_set(e, EPROTO,
			       "the server did not say that it is complete");
	err_set(e, EPROTO, "the server cannot complete it (%s)", code);
	return strcmp(code, "InternalError") ? -EPROTO : STORE_AGAIN;
}

/* The last word. */
static int multipart_is_there(struct store_conn *c,
			      const struct store_upload *u, struct err *e)
{
	struct store_call call = { .object = u->object };
	int r = store_repeat(c, s3_head, &call,
			     clock_mono_ns() + MULTIPART_DEADLINE_NS, e);

	if (r == 0 && call.bytes != u->bytes)
		return STORE_MISS;
	return r;
}

static int multipart_complete(struct multipart *m, struct err *e)
{
	guard(transfer_answer_clear) struct transfer_answer a = { 0 };
	guard_free char *text = multipart_text(m);
	char query[S3_QUERY_MAX];
	struct s3_request q = { .method = "POST",
				.object = m->u->object,
				.query = query,
				.body = text };
	int r = multipart_query(
		snprintf(query, sizeof(query), "uploadId=%s", m->id), e);

	if (r < 0)
		return r;
	if (!text)
		return err_errno(e, ENOMEM, "complete the upload");
	q.body_len = strlen(text);
	r = multipart_ask(m->c, &q, multipart_complete_try, &a, e);
	if (r < 0)
		return r;
	if (r == STORE_MISS && m->u->replace)
		return err_set(
			e, ESTALE,
			"the server's last answer was lost, and what it holds may be what it held before; begin again");
	/* A miss may mean that it was completed already. */
	r = multipart_is_there(m->c, m->u, e);
	if (r == STORE_MISS)
		return err_set(
			e, EBADMSG,
			"the object is not as large as what was uploaded");
	return r;
}

static int multipart_run(struct multipart *m, struct err *e)
{
	int r = multipart_begin(m, e);

	if (r == 0)
		r = multipart_parts(m, e);
	if (r == 0)
		r = multipart_complete(m, e);
	return r;
}

static int multipart_large(struct store_conn *c, const struct store_upload *u,
			   struct err *e)
{
	uint64_t n = (u->bytes + STORE_PART - 1) / STORE_PART;
	struct multipart m = { .c = c, .u = u, .n = (unsigned)n };
	int r;

	if (n > MULTIPART_PARTS_MAX)
		return err_set(e, EFBIG, "S3 takes %u parts of %u MiB at most",
			       MULTIPART_PARTS_MAX, STORE_PART >> 20);
	m.etag = calloc(n, sizeof(*m.etag));
	m.mem = malloc(STORE_PART);
	if (m.etag && m.mem)
		r = multipart_run(&m, e);
	else
		r = err_errno(e, ENOMEM, "upload");
	free(m.mem);
	free(m.etag);
	/* An upload that cannot be continued must not be tried again. */
	if (r == -ESTALE)
		store_note_remove(u->note);
	return r;
}

/* In one request; the note can only be another upload's. */
static int multipart_small(struct store_conn *c, const struct store_upload *u,
			   struct err *e)
{
	guard_free char *mem = malloc(u->bytes + 1);
	struct multipart m = { .c = c, .u = u, .mem = mem };
	struct store_call call = { .object = u->object,
				   .from = mem,
				   .len = u->bytes };
	int r;

	if (!mem)
		return err_errno(e, ENOMEM, "upload");
	r = store_note_load(u->note, &m.note, e);
	if (r < 0)
		return r;
	if (r == 0 && store_note_ours(&m.note, c->store))
		multipart_abort(c, &m.note);
	r = multipart_read(&m, 0, u->bytes, e);
	if (r == 0)
		r = store_repeat(c, s3_put, &call,
				 clock_mono_ns() + MULTIPART_DEADLINE_NS, e);
	return r;
}

int s3_upload(struct store_conn *c, const struct store_upload *u, struct err *e)
{
	int r = s3_may_write(c, e);

	if (r == 0)
		r = u->replace ? STORE_MISS : multipart_is_there(c, u, e);
	if (r == STORE_MISS)
		r = u->bytes > STORE_PART ? multipart_large(c, u, e)
					  : multipart_small(c, u, e);
	/* Whoever cancels now is late: the object is there. */
	if (r == 0 && u->progress)
		u->progress(u->arg, u->bytes, u->bytes);
	if (r == 0)
		store_note_remove(u->note);
	return r;
}
