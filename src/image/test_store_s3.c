/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Uploads to S3 in parts, against a server in this process that fails in ways
 * that a well-behaved one does not show: an error inside "200 OK", a completion
 * whose answer is lost, an upload that is forgotten, no way to list. Signatures
 * and real answers are the scenario store-s3's.
 */
#include "image/store.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/socket.h>

#define PARTS 3
#define BYTES (2ull * STORE_PART + 777)

enum mode {
	GOOD,
	ERROR_IN_200, /* of the first completion */
	LOST, /* completed, without an answer */
	FORGETFUL, /* knows no upload after the first part */
	NO_LIST,
	BUSY, /* 503 SlowDown for every other part */
};

static struct {
	int fd;
	uint16_t port;
	atomic_int mode, parts_sent, completions, created, aborted, lists;
	/* Touched by one request at a time. */
	uint64_t part[PARTS]; /* sizes, 0: not there */
	uint64_t object;
	bool upload;
} srv;

static char top[200];

/* ---- the server: one connection after another ---- */

struct ask {
	char head[8192];
	uint64_t body;
};

static bool listen_for(int fd, struct ask *q)
{
	static char sink[1 << 16];
	size_t len = 0, start;
	uint64_t have;
	char *end, *at;

	do {
		ssize_t n =
			recv(fd, q->head + len, sizeof(q->head) - 1 - len, 0);

		if (n <= 0)
			return false;
		len += (size_t)n;
		q->head[len] = '\0';
		end = strstr(q->head, "\r\n\r\n");
	} while (!end);
	start = (size_t)(end + 4 - q->head);
	at = strstr(q->head, "Content-Length: ");
	q->body = at && at < end ? strtoull(at + 16, NULL, 10) : 0;
	for (have = len - start; have < q->body;) {
		ssize_t n = recv(fd, sink,
				 min((uint64_t)sizeof(sink), q->body - have),
				 0);

		if (n <= 0)
			return false;
		have += (uint64_t)n;
	}
	end[2] = '\0';
	return true;
}

printf_like(4, 5) static bool answer(int fd, int status, const char *more,
				     const char *fmt, ...)
{
	char body[2048], text[4096];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(body, sizeof(body), fmt, ap);
	va_end(ap);
	n = snprintf(text, sizeof(text),
		     "HTTP/1.1 %d X\r\n%sContent-Length: %d\r\n\r\n%s", status,
		     more, n, body);
	return send(fd, text, (size_t)n, MSG_NOSIGNAL) == n;
}

static bool answer_head(int fd)
{
	char text[128];
	int n = snprintf(text, sizeof(text),
			 "HTTP/1.1 %d X\r\nContent-Length: %" PRIu64 "\r\n\r\n",
			 srv.object ? 200 : 404, srv.object);

	return send(fd, text, (size_t)n, MSG_NOSIGNAL) == n;
}

static bool answer_list(int fd)
{
	char parts[1024] = "";
	size_t len = 0;

	srv.lists++;
	if (srv.mode == NO_LIST)
		return answer(fd, 405, "",
			      "<Error><Code>MethodNotAllowed</Code></Error>");
	for (unsigned i = 0; i < PARTS; i++)
		if (srv.part[i])
			len += (size_t)snprintf(
				parts + len, sizeof(parts) - len,
				"<Part><PartNumber>%u</PartNumber><Size>%" PRIu64
				"</Size><ETag>\"etag%u\"</ETag></Part>",
				i + 1, srv.part[i], i + 1);
	return answer(
		fd, 200, "",
		"<ListPartsResult><IsTruncated>false</IsTruncated>%s</ListPartsResult>",
		parts);
}

static bool answer_part(int fd, const struct ask *q, unsigned number)
{
	char etag[64];

	check(number >= 1 && number <= PARTS);
	if (srv.parts_sent++ % 2 == 0 && srv.mode == BUSY)
		return answer(fd, 503, "",
			      "<Error><Code>SlowDown</Code></Error>");
	if (srv.mode == FORGETFUL && number > 1)
		srv.upload = false;
	if (!srv.upload)
		return answer(fd, 404, "",
			      "<Error><Code>NoSuchUpload</Code></Error>");
	srv.part[number - 1] = q->body;
	snprintf(etag, sizeof(etag), "ETag: \"etag%u\"\r\n", number);
	return answer(fd, 200, etag, "%s", "");
}

static bool answer_complete(int fd, const struct ask *q)
{
	bool first = srv.completions++ == 0;

	check(q->body > 0);
	if (!srv.upload)
		return answer(fd, 404, "",
			      "<Error><Code>NoSuchUpload</Code></Error>");
	if (first && srv.mode == ERROR_IN_200)
		return answer(fd, 200, "",
			      " \n<Error><Code>InternalError</Code></Error>");
	srv.upload = false;
	for (unsigned i = 0; i < PARTS; i++)
		srv.object += srv.part[i];
	if (srv.mode == LOST)
		return false;
	return answer(
		fd, 200, "",
		"<CompleteMultipartUploadResult></CompleteMultipartUploadResult>");
}

static bool answer_create(int fd)
{
	srv.created++;
	srv.upload = true;
	memset(srv.part, 0, sizeof(srv.part));
	return answer(fd, 200, "", "<X><UploadId>id=%d+</UploadId></X>",
		      srv.created);
}

static bool serve_one(int fd, const struct ask *q)
{
	const char *part = strstr(q->head, "partNumber=");
	const char *id = strstr(q->head, "uploadId=id%3D");

	check(strstr(q->head, "Authorization: AWS4-HMAC-SHA256 "));
	check(strstr(q->head, "x-amz-security-token: tok\r\n"));
	check(!strstr(q->head, "secret"));
	if (!strncmp(q->head, "HEAD ", 5))
		return answer_head(fd);
	if (strstr(q->head, "?uploads="))
		return answer_create(fd);
	check(id);
	if (part)
		return answer_part(fd, q, (unsigned)atoi(part + 11));
	if (!strncmp(q->head, "GET ", 4))
		return answer_list(fd);
	if (!strncmp(q->head, "POST ", 5))
		return answer_complete(fd, q);
	check(!strncmp(q->head, "DELETE ", 7));
	srv.aborted++;
	srv.upload = false;
	return answer(fd, 204, "", "%s", "");
}

static void *serve(unused void *arg)
{
	static struct ask q;

	for (;;) {
		guard_fd int fd = accept4(srv.fd, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			return NULL;
		while (listen_for(fd, &q) && serve_one(fd, &q))
			;
	}
}

static pthread_t server_start(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	pthread_t thread;

	srv.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	check(srv.fd >= 0 && !bind(srv.fd, (struct sockaddr *)&a, len));
	check(!listen(srv.fd, 64));
	check(!getsockname(srv.fd, (struct sockaddr *)&a, &len));
	srv.port = ntohs(a.sin_port);
	check(!pthread_create(&thread, NULL, serve, NULL));
	return thread;
}

/* ---- the client ---- */

static uint64_t stop_at;

static int progress(unused void *arg, uint64_t done, unused uint64_t total)
{
	return stop_at && done >= stop_at;
}

/* One upload by a connection of its own, which may stop behind @stop bytes. */
static int upload_by(bool replace, int fd, uint64_t stop, struct err *e)
{
	struct store_spec spec = { .name = "cloud", .url = "s3://bucket/pre" };
	guard_free char *note = io_path("%s/note", top);
	struct store_conn *c = NULL;
	struct store *s = NULL;
	int r;

	stop_at = stop;
	snprintf(spec.endpoint, sizeof(spec.endpoint), "http://127.0.0.1:%u",
		 srv.port);
	check(store_open(&spec, &s, e) == 0);
	check(store_connect(s, &c, e) == 0);
	r = (replace ? store_replace : store_upload)(c, "images/x", fd, BYTES,
						     note, progress, NULL, e);
	store_conn_free(c);
	store_free(s);
	return r;
}

static int upload(int fd, uint64_t stop, struct err *e)
{
	return upload_by(false, fd, stop, e);
}

static bool note_is_there(void)
{
	guard_free char *note = io_path("%s/note", top);

	return access(note, F_OK) == 0;
}

static void behave(enum mode mode)
{
	srv.mode = mode;
	srv.parts_sent = srv.completions = srv.created = 0;
	srv.aborted = srv.lists = 0;
	srv.object = 0;
	srv.upload = false;
}

static void test_whole(int fd, enum mode mode)
{
	struct err e = ERR_NULL;

	behave(mode);
	check(upload(fd, 0, &e) == 0);
	check(srv.object == BYTES && !note_is_there());
	check(srv.created == 1 && !srv.aborted);
	check(srv.part[PARTS - 1] == BYTES - 2ull * STORE_PART);
	/* Once more: it is there. */
	srv.parts_sent = 0;
	check(upload(fd, 0, &e) == 0 && srv.parts_sent == 0);
}

/* Goes on; or, where parts cannot be listed, begins anew. */
static void test_resume(int fd, enum mode mode)
{
	struct err e = ERR_NULL;

	behave(mode);
	check(upload(fd, STORE_PART, &e) == -ECANCELED);
	check(note_is_there() && srv.parts_sent == 1);
	check(upload(fd, 0, &e) == 0);
	check(srv.lists == 1 && srv.object == BYTES && !note_is_there());
	check(srv.parts_sent == (mode == NO_LIST ? 1 + PARTS : PARTS));
	check(srv.aborted == (mode == NO_LIST));
	check(srv.created == (mode == NO_LIST ? 2 : 1));
}

/* A part there of another size is sent again. */
static void test_short_part(int fd)
{
	struct err e = ERR_NULL;

	behave(GOOD);
	check(upload(fd, 2ull * STORE_PART, &e) == -ECANCELED);
	srv.part[0]--;
	check(upload(fd, 0, &e) == 0);
	check(srv.parts_sent == PARTS + 1 && srv.object == BYTES);
}

static void test_forgetful(int fd)
{
	struct err e = ERR_NULL;

	behave(FORGETFUL);
	check(upload(fd, 0, &e) == -ESTALE);
	check(strstr(e.msg, "forgotten") && strstr(e.msg, "images/x"));
	check(!note_is_there() && !srv.object);
	behave(GOOD);
	check(upload(fd, 0, &e) == 0);
}

/* One of that size is there: it is sent all the same. When the last answer is
 * lost, its size says nothing. */
static void test_replace(int fd)
{
	struct err e = ERR_NULL;

	behave(GOOD);
	srv.object = BYTES;
	check(upload(fd, 0, &e) == 0 && srv.parts_sent == 0);
	check(upload_by(true, fd, STORE_PART, &e) == -ECANCELED);
	check(srv.parts_sent == 1 && note_is_there());
	srv.object = 0; /* the server's sum begins */
	check(upload_by(true, fd, 0, &e) == 0);
	check(srv.parts_sent == PARTS && srv.created == 1);
	check(srv.object == BYTES && !note_is_there());
	behave(LOST);
	check(upload_by(true, fd, 0, &e) == -ESTALE);
	check(strstr(e.msg, "begin again") && !note_is_there());
}

int main(void)
{
	guard_free char *path = NULL;
	struct err e = ERR_NULL;
	pthread_t thread;

	unsetenv("http_proxy");
	unsetenv("all_proxy");
	unsetenv("ALL_PROXY");
	setenv("AWS_ACCESS_KEY_ID", "key", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
	setenv("AWS_SESSION_TOKEN", "tok", 1);
	test_dir(top, sizeof(top));
	path = io_path("%s/file", top);
	check(path);
	guard_fd int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	check(fd >= 0 && ftruncate(fd, BYTES) == 0);
	thread = server_start();
	test_whole(fd, GOOD);
	test_whole(fd, ERROR_IN_200);
	test_whole(fd, LOST);
	test_whole(fd, BUSY);
	test_resume(fd, GOOD);
	test_resume(fd, NO_LIST);
	test_short_part(fd);
	test_forgetful(fd);
	test_replace(fd);
	shutdown(srv.fd, SHUT_RDWR);
	check(!pthread_join(thread, NULL));
	fd_close(&srv.fd);
	check(io_remove_tree(top, &e) == 0);
	return 0;
}
