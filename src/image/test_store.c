/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stores: specs, names, a directory, interrupted uploads, keys, signatures,
 * hedges. What needs a server in this process is test_store_http.c's.
 *
 * With arguments it is a tool, for scenarios with real servers:
 *
 *	test_store [--WORD VALUE]... get OBJECT OFFSET LEN	to stdout
 *	                             all OBJECT MAX		to stdout
 *	                             head OBJECT
 *	                             put OBJECT FILE
 *	                             upload OBJECT FILE NOTE [STOP-AT]
 *	                             bench OBJECT LEN COUNT
 *
 * WORD is url, endpoint, region, credentials, ca, or ms (the deadline). It ends
 * with 0, 2 for a miss, 1 with the sentence on stderr, 3 when STOP-AT was
 * reached; counts go to stderr with --counts.
 */
#include "image/store.h"

#include "base/clock.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/parse.h"
#include "base/test.h"
#include "image/store_credentials.h"
#include "image/store_hedge.h"
#include "image/store_note.h"
#include "image/store_sign.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

#define PARTS_BYTES (2ull * STORE_PART + 12345)

static char top[200];

static uint64_t in_ms(uint64_t ms)
{
	return clock_mono_ns() + ms * NS_PER_MS;
}

static char *path_of(const char *name)
{
	char *path = io_path("%s/%s", top, name);

	check(path);
	return path;
}

static bool is_there(const char *name)
{
	guard_free char *path = path_of(name);

	return access(path, F_OK) == 0;
}

/* ---- specs and names ---- */

static int spec_check(const char *url, const char *endpoint, struct err *e)
{
	struct store_spec spec = { .name = "main" };

	snprintf(spec.url, sizeof(spec.url), "%s", url);
	snprintf(spec.endpoint, sizeof(spec.endpoint), "%s", endpoint);
	return store_check(&spec, e);
}

static void test_specs(void)
{
	static const char *const good[][2] = {
		{ "/a", "" },
		{ "dir:///a/b", "" },
		{ "http://a", "" },
		{ "http://a:80/b/c/", "" },
		{ "https://[::1]:8443/", "" },
		{ "s3://abc", "" },
		{ "s3://abc/", "" },
		{ "s3://a.b-c/d/e", "http://127.0.0.1:9000" },
	};
	static const char *const bad[][2] = {
		{ "", "" },
		{ "a/b", "" },
		{ "dir://a", "" },
		{ "ftp://a", "" },
		{ "http://", "" },
		{ "http:///a", "" },
		{ "http://a:0/", "" },
		{ "http://a:65536/", "" },
		{ "http://a:b/", "" },
		{ "http://u:p@a/", "" },
		{ "http://u@a/", "" },
		{ "http://a/?x", "" },
		{ "http://a/#x", "" },
		{ "http://a/b c", "" },
		{ "http://a/b\nc", "" },
		{ "http://a/../b", "" },
		{ "http://a", "http://b" },
		{ "/a", "http://b" },
		{ "s3://", "" },
		{ "s3://ab", "" },
		{ "s3://ABC", "" },
		{ "s3://abc//d", "" },
		{ "s3://abc/d/", "" },
		{ "s3://abc/..", "" },
		{ "s3://u:p@abc", "" },
		{ "s3://abc", "b" },
		{ "s3://abc", "http://b/c" },
		{ "s3://abc", "http://u:p@b" },
		{ "s3://abc", "s3://b" },
	};
	struct store_spec spec = { .name = "main", .url = "/a" };
	struct err e = ERR_NULL;

	for (size_t i = 0; i < nitems(good); i++)
		check(spec_check(good[i][0], good[i][1], &e) == 0);
	for (size_t i = 0; i < nitems(bad); i++) {
		check(spec_check(bad[i][0], bad[i][1], &e) == -EINVAL);
		check(strstr(e.msg, "store main: ") && !strstr(e.msg, "p@"));
	}
	check(store_check(&spec, NULL) == 0);
	memset(spec.ca, 'a', sizeof(spec.ca));
	check(store_check(&spec, &e) == -EINVAL);
	spec = (struct store_spec){ .name = "", .url = "/a" };
	check(store_check(&spec, &e) == -EINVAL);
}

static void test_names(void)
{
	static const char *const bad[] = {
		"", ".", "..", "/a", "a/", "a//b", "a/../b", "a/.", "a b", "a%b"
	};
	char longest[STORE_OBJECT_MAX + 1];

	check(store_object_ok("a") && store_object_ok("a/b.c/..d"));
	for (size_t i = 0; i < nitems(bad); i++)
		check(!store_object_ok(bad[i]));
	memset(longest, 'a', sizeof(longest));
	longest[STORE_OBJECT_MAX] = '\0';
	check(!store_object_ok(longest));
	longest[STORE_OBJECT_MAX - 1] = '\0';
	check(store_object_ok(longest));
}

/* ---- a directory ---- */

static struct store *store;
static struct store_conn *conn;

static void open_dir(void)
{
	struct store_spec spec = { .name = "main" };
	struct err e = ERR_NULL;

	snprintf(spec.url, sizeof(spec.url), "dir://%s/store", top);
	check(store_open(&spec, &store, &e) == -ENOENT);
	check(strstr(e.msg, "main"));
	snprintf(spec.url, sizeof(spec.url), "dir://%s", top);
	check(store_open(&spec, &store, &e) == 0);
	check_str(store_spec(store)->url, spec.url);
	check(store_connect(store, &conn, &e) == 0);
}

static void test_directory(void)
{
	struct err e = ERR_NULL;
	uint64_t bytes = 0;
	char *all = NULL, p[8] = "";
	size_t len = 0;

	open_dir();
	check(store_head(conn, "a/b", &bytes, in_ms(1000), &e) == STORE_MISS);
	check(store_get(conn, "a/b", 0, 1, p, in_ms(1000), &e) == STORE_MISS);
	check(store_put(conn, "a/b", "0123456789", 10, in_ms(1000), &e) == 0);
	check(store_head(conn, "a/b", &bytes, in_ms(1000), &e) == 0);
	check(bytes == 10);
	check(store_get(conn, "a/b", 3, 4, p, in_ms(1000), &e) == 0);
	check_str(p, "3456");
	check(store_get(conn, "a/b", 8, 3, p, in_ms(1000), &e) == -EBADMSG);
	check(strstr(e.msg, "a/b") && strstr(e.msg, "main"));
	check(store_get(conn, "a", 0, 1, p, in_ms(1000), &e) == -EBADMSG);
	check(store_get(conn, "a/../b", 0, 1, p, in_ms(1000), &e) == -EINVAL);
	check(store_get(conn, "a/b/c", 0, 1, p, in_ms(1000), &e) == STORE_MISS);
	check(store_put(conn, "a/b", "new", 3, in_ms(1000), &e) == 0);
	check(store_get_all(conn, "a/b", 2, &all, &len, in_ms(1000), &e) ==
	      -E2BIG);
	check(store_get_all(conn, "a/b", 3, &all, &len, in_ms(1000), &e) == 0);
	check(len == 3);
	check_str(all, "new");
	free(all);
	check(store_get(conn, "a/b", 0, 1, p, 0, &e) == -ETIMEDOUT);
	store_conn_cancel(conn, true);
	check(store_get(conn, "a/b", 0, 1, p, in_ms(1000), &e) == -ECANCELED);
	store_conn_cancel(conn, false);
	check(store_get(conn, "a/b", 0, 1, p, in_ms(1000), &e) == 0);
	check(store_counts(store).failures == 4);
}

/* ---- uploads to it ---- */

static uint64_t stop_at;

static int progress(unused void *arg, uint64_t done, uint64_t total)
{
	check(done <= total && total == PARTS_BYTES);
	return stop_at && done >= stop_at;
}

static int source(unsigned char seed)
{
	guard_free char *path = path_of("source");
	guard_free unsigned char *p = malloc(PARTS_BYTES);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	check(fd >= 0 && p);
	for (size_t i = 0; i < PARTS_BYTES; i++)
		p[i] = (unsigned char)(i * 7 + (i >> 12) + seed);
	check(io_write_full(fd, p, PARTS_BYTES) == 0);
	return fd;
}

static int
upload_by(int (*fn)(struct store_conn *c, const char *object, int fd,
		    uint64_t bytes, const char *note,
		    int (*progress)(void *arg, uint64_t done, uint64_t total),
		    void *arg, struct err *e),
	  const char *object, int fd)
{
	guard_free char *note = path_of("note");
	struct err e = ERR_NULL;
	int r = fn(conn, object, fd, PARTS_BYTES, note, progress, NULL, &e);

	if (r < 0)
		check(strstr(e.msg, object));
	return r;
}

static int upload(const char *object, int fd)
{
	return upload_by(store_upload, object, fd);
}

static void check_same(const char *object, int fd)
{
	guard_free char *a = malloc(PARTS_BYTES);
	guard_free char *b = malloc(PARTS_BYTES);
	struct err e = ERR_NULL;

	check(a && b);
	check(io_pread_full(fd, a, PARTS_BYTES, 0) == PARTS_BYTES);
	check(store_get(conn, object, 0, PARTS_BYTES, b, in_ms(30000), &e) ==
	      0);
	check(!memcmp(a, b, PARTS_BYTES));
}

/* Entries of the directory "images". */
static unsigned images(void)
{
	guard_free char *path = path_of("images");
	guard_dir DIR *d = opendir(path);
	unsigned n = 0;

	check(d);
	while (readdir(d))
		n++;
	return n - 2;
}

/* Overwrite what the interrupted upload wrote behind its last full part: a
 * crash may have left anything there. */
static void tear_partial(void)
{
	guard_free char *path = path_of("images/x");
	struct store_note n = { 0 };
	guard_free char *note = path_of("note");
	struct err e = ERR_NULL;

	check(store_note_load(note, &n, &e) == 0);
	guard_free char *partial = io_path("%s.%s", path, n.handle);
	guard_fd int fd = open(partial, O_WRONLY | O_CLOEXEC);

	check(fd >= 0);
	check(io_pwrite_full(fd, "torn", 4, STORE_PART + 100) == 0);
}

static void test_upload(void)
{
	guard_fd int fd = source(1);

	stop_at = STORE_PART + (3 << 20);
	check(upload("images/x", fd) == -ECANCELED);
	check(is_there("note") && !is_there("images/x"));
	check(images() == 1);
	tear_partial();
	stop_at = 0;
	check(upload("images/x", fd) == 0);
	check(!is_there("note") && images() == 1);
	check_same("images/x", fd);
	/* It is there: nothing is written again. */
	check(upload("images/x", fd) == 0);
	/* A note of another upload: its half goes. */
	stop_at = STORE_PART;
	check(upload("images/y", fd) == -ECANCELED);
	check(images() == 2);
	stop_at = 0;
	check(upload("images/z", fd) == 0);
	check(images() == 2 && is_there("images/z"));
	check_same("images/z", fd);
	/* A file that shrank; a note that is garbage. */
	check(ftruncate(fd, STORE_PART) == 0);
	guard_free char *note = path_of("note");
	struct err e = ERR_NULL;

	check(io_write_file(note, "what?", 5, 0600, &e) == 0);
	check(upload("images/w", fd) == -EBADMSG);
	check(!is_there("images/w"));
}

/* What is there has the right size and wrong bytes. */
static void test_replace(void)
{
	guard_free char *path = path_of("images/r");
	guard_fd int fd = source(2);
	guard_fd int old = -1;
	char byte = 0;

	check(upload("images/r", fd) == 0);
	old = open(path, O_RDWR | O_CLOEXEC);
	check(old >= 0 && io_pwrite_full(old, "flip", 4, 12345) == 0);
	check(upload("images/r", fd) == 0); /* left alone */
	check(io_pread_full(old, &byte, 1, 12345) == 1 && byte == 'f');
	/* Interrupted: the old one is still there, whole. */
	stop_at = STORE_PART + (3 << 20);
	check(upload_by(store_replace, "images/r", fd) == -ECANCELED);
	check(is_there("note") && is_there("images/r"));
	stop_at = 0;
	check(upload_by(store_replace, "images/r", fd) == 0);
	check(!is_there("note"));
	check_same("images/r", fd);
	/* Who has it open reads on what was there. */
	check(io_pread_full(old, &byte, 1, 12345) == 1 && byte == 'f');
}

/* ---- keys ---- */

static int keys_from(const char *text, struct credentials *c, struct err *e)
{
	char copy[512];

	snprintf(copy, sizeof(copy), "%s", text);
	*c = (struct credentials){ 0 };
	return credentials_parse(copy, c, e);
}

static void test_credentials(void)
{
	static const char good[] = "# mine\n[other]\naws_access_key_id = no\n"
				   "[default]\r\n; x\naws_access_key_id=KEY\n\n"
				   "aws_secret_access_key =  se/cr=et \n"
				   "region = x\naws_session_token=tok\n";
	static const char *const bad[] = {
		"",
		"[default]\n",
		"aws_access_key_id=a\n",
		"[default]\naws_access_key_id=zzz\n",
		"[default]\naws_secret_access_key=zzz\n",
		"[default]\naws_access_key_id=zzz b\naws_secret_access_key=c\n",
		"[default]\nzzz\n"
	};
	guard_free char *path = path_of("keys");
	struct credentials c;
	struct err e = ERR_NULL;

	check(keys_from(good, &c, &e) == 0);
	check_str(c.key, "KEY");
	check_str(c.secret, "se/cr=et");
	check_str(c.token, "tok");
	for (size_t i = 0; i < nitems(bad); i++) {
		check(keys_from(bad[i], &c, &e) == -EINVAL);
		check(!strstr(e.msg, "zzz"));
	}
	check(io_write_file(path, good, strlen(good), 0640, &e) == 0);
	check(credentials_load(path, &c, &e) == -EACCES);
	check(strstr(e.msg, "600"));
	check(chmod(path, 0600) == 0);
	check(credentials_load(path, &c, &e) == 0);
	check_str(c.key, "KEY");
	credentials_wipe(&c);
	check(!c.key[0] && !c.secret[0]);
	unsetenv("AWS_ACCESS_KEY_ID");
	unsetenv("AWS_SECRET_ACCESS_KEY");
	unsetenv("AWS_SESSION_TOKEN");
	check(credentials_load("", &c, &e) == 0 && !c.key[0]);
	setenv("AWS_ACCESS_KEY_ID", "zzz", 1);
	check(credentials_load("", &c, &e) == -EINVAL);
	check(!strstr(e.msg, "zzz"));
	setenv("AWS_SECRET_ACCESS_KEY", "s", 1);
	check(credentials_load("", &c, &e) == 0);
	check_str(c.secret, "s");
	unsetenv("AWS_ACCESS_KEY_ID");
	unsetenv("AWS_SECRET_ACCESS_KEY");
}

/* Without keys nothing is written, and nobody is asked. */
static void test_no_keys(void)
{
	struct store_spec spec = { .name = "cloud",
				   .url = "s3://bucket",
				   .endpoint = "http://127.0.0.1:1" };
	struct store *s = NULL;
	struct store_conn *c = NULL;
	struct err e = ERR_NULL;

	check(store_open(&spec, &s, &e) == 0);
	check(store_connect(s, &c, &e) == 0);
	check(store_put(c, "a", "x", 1, in_ms(60000), &e) == -EACCES);
	check(strstr(e.msg, "AWS_ACCESS_KEY_ID"));
	check(store_counts(s).requests == 0);
	store_conn_free(c);
	store_free(s);
}

/* The two examples of the published documentation whose signed headers are
 * ours. */
static void test_sign(void)
{
	static const struct {
		const char *query, *signature;
	} t[] = {
		{ "lifecycle=",
		  "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543" },
		{ "max-keys=2&prefix=J",
		  "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7" },
	};
	const struct credentials c = {
		.key = "AKIAIOSFODNN7EXAMPLE",
		.secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	};
	char out[SIGN_AUTHORIZATION_MAX], date[SIGN_DATE_MAX], escaped[16];

	sign_date(1369353600 * NS_PER_SEC, date);
	check_str(date, "20130524T000000Z");
	for (size_t i = 0; i < nitems(t); i++) {
		struct sign s = { .method = "GET",
				  .host = "examplebucket.s3.amazonaws.com",
				  .path = "/",
				  .query = t[i].query,
				  .region = "us-east-1" };

		digest_of("", 0, s.payload);
		sign_v4(&s, &c, date, out);
		check(strstr(out, t[i].signature));
	}
	check(sign_escape("a/b=~+", escaped, sizeof(escaped)));
	check_str(escaped, "a%2Fb%3D~%2B");
	check(sign_escape("/////", escaped, sizeof(escaped)));
	check(!sign_escape("/////a", escaped, sizeof(escaped)));
}

/* ---- hedges ---- */

static void test_hedge(void)
{
	static struct hedge h;
	unsigned n = 0;

	hedge_init(&h);
	check(hedge_class(1) == HEDGE_64K && hedge_class(65536) == HEDGE_64K);
	check(hedge_class(65537) == HEDGE_256K);
	check(hedge_class(SIZE_MAX) == HEDGE_MORE);
	check(hedge_delay_ns(&h, HEDGE_1M) == HEDGE_MAX_NS);
	for (int i = 0; i < 100; i++)
		hedge_learn(&h, HEDGE_1M, 100 * NS_PER_MS);
	check(hedge_delay_ns(&h, HEDGE_1M) / NS_PER_MS == 300);
	check(hedge_delay_ns(&h, HEDGE_4M) == HEDGE_MAX_NS);
	/* Two of 64 are outliers, not the 95th percentile. */
	for (int i = 0; i < 2; i++)
		hedge_learn(&h, HEDGE_1M, 1000 * NS_PER_MS);
	check(hedge_delay_ns(&h, HEDGE_1M) / NS_PER_MS == 300);
	for (int i = 0; i < 64; i++)
		hedge_learn(&h, HEDGE_1M, NS_PER_MS);
	check(hedge_delay_ns(&h, HEDGE_1M) == HEDGE_MIN_NS);
	for (int i = 0; i < 64; i++)
		hedge_learn(&h, HEDGE_1M, 9 * NS_PER_SEC);
	check(hedge_delay_ns(&h, HEDGE_1M) == HEDGE_MAX_NS);
	for (int i = 0; i < 5; i++)
		check(hedge_spend(&h));
	check(!hedge_spend(&h));
	for (int i = 0; i < 10000; i++)
		hedge_earn(&h);
	while (hedge_spend(&h))
		n++;
	check(n == 10);
}

/* ---- the tool ---- */

struct tool {
	struct store_spec spec;
	uint64_t ms, stop_at;
	bool counts;
	char **arg;
};

static void tool_die(const struct err *e)
{
	fprintf(stderr, "%s\n", e->msg);
	exit(1);
}

static uint64_t tool_number(const char *s)
{
	uint64_t n;

	if (!s || parse_u64(s, &n) < 0) {
		fprintf(stderr, "a number is missing\n");
		exit(1);
	}
	return n;
}

static const char *tool_text(const char *s)
{
	if (!s) {
		fprintf(stderr, "an argument is missing\n");
		exit(1);
	}
	return s;
}

static int tool_get(const struct tool *t, struct store_conn *c, struct err *e)
{
	uint64_t at = tool_number(t->arg[1]), len = tool_number(t->arg[2]);
	guard_free char *p = malloc(len + 1);
	int r;

	check(p);
	r = store_get(c, t->arg[0], at, len, p, in_ms(t->ms), e);
	if (r == 0)
		check(fwrite(p, 1, len, stdout) == len);
	return r;
}

static int tool_all(const struct tool *t, struct store_conn *c, struct err *e)
{
	guard_free char *all = NULL;
	size_t len;
	int r = store_get_all(c, t->arg[0], tool_number(t->arg[1]), &all, &len,
			      in_ms(t->ms), e);

	if (r == 0)
		check(fwrite(all, 1, len, stdout) == len);
	return r;
}

static int tool_head(const struct tool *t, struct store_conn *c, struct err *e)
{
	uint64_t bytes;
	int r = store_head(c, t->arg[0], &bytes, in_ms(t->ms), e);

	if (r == 0)
		printf("%" PRIu64 "\n", bytes);
	return r;
}

static int tool_put(const struct tool *t, struct store_conn *c, struct err *e)
{
	guard_free char *p = NULL;
	size_t len;
	int r = io_read_file(tool_text(t->arg[1]), 1 << 30, &p, &len, e);

	if (r == 0)
		r = store_put(c, t->arg[0], p, len, in_ms(t->ms), e);
	return r;
}

static int tool_progress(void *arg, uint64_t done, unused uint64_t total)
{
	const struct tool *t = arg;

	return t->stop_at && done >= t->stop_at;
}

static int tool_upload(const struct tool *t, struct store_conn *c,
		       struct err *e)
{
	guard_fd int fd = open(tool_text(t->arg[1]), O_RDONLY | O_CLOEXEC);
	struct stat st = { 0 };
	struct tool copy = *t;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(e, errno, "open %s", t->arg[1]);
	copy.stop_at = t->arg[2] && t->arg[3] ? tool_number(t->arg[3]) : 0;
	return store_upload(c, t->arg[0], fd, (uint64_t)st.st_size,
			    tool_text(t->arg[2]), tool_progress, &copy, e);
}

static int tool_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Ranges one behind another, over and over. */
static int tool_bench(const struct tool *t, struct store_conn *c, struct err *e)
{
	uint64_t len = tool_number(t->arg[1]), n = tool_number(t->arg[2]);
	guard_free uint64_t *ns = calloc(n + 1, sizeof(*ns));
	guard_free char *p = malloc(len + 1);
	uint64_t bytes, began;
	int r = store_head(c, t->arg[0], &bytes, in_ms(t->ms), e);

	check(ns && p && n);
	if (r != 0)
		return r;
	began = clock_mono_ns();
	for (uint64_t i = 0; r == 0 && i < n; i++) {
		uint64_t at = clock_mono_ns();

		r = store_get(c, t->arg[0], i * len % (bytes - len + 1), len, p,
			      in_ms(t->ms), e);
		ns[i] = clock_mono_ns() - at;
	}
	began = clock_mono_ns() - began;
	qsort(ns, n, sizeof(*ns), tool_compare);
	printf("p50_us=%" PRIu64 " p99_us=%" PRIu64 " max_us=%" PRIu64
	       " mib_s=%" PRIu64 "\n",
	       ns[n / 2] / 1000, ns[n * 99 / 100] / 1000, ns[n - 1] / 1000,
	       (uint64_t)(n * len * NS_PER_SEC / began >> 20));
	return r;
}

static int tool_words(int argc, char **argv, struct tool *t)
{
	const struct {
		const char *word;
		char *to;
		size_t size;
	} words[] = {
		{ "--url", t->spec.url, sizeof(t->spec.url) },
		{ "--endpoint", t->spec.endpoint, sizeof(t->spec.endpoint) },
		{ "--region", t->spec.region, sizeof(t->spec.region) },
		{ "--credentials", t->spec.credentials,
		  sizeof(t->spec.credentials) },
		{ "--ca", t->spec.ca, sizeof(t->spec.ca) },
	};
	int i = 1;

	for (; i < argc && !strncmp(argv[i], "--", 2); i++) {
		if (!strcmp(argv[i], "--counts")) {
			t->counts = true;
			continue;
		}
		if (!strcmp(argv[i], "--ms"))
			t->ms = tool_number(argv[i + 1]);
		for (size_t k = 0; k < nitems(words); k++)
			if (!strcmp(argv[i], words[k].word))
				snprintf(words[k].to, words[k].size, "%s",
					 tool_text(argv[i + 1]));
		i++;
	}
	return i;
}

static int tool_run(const struct tool *t, const char *verb,
		    struct store_conn *c, struct err *e)
{
	static const struct {
		const char *verb;
		int (*run)(const struct tool *t, struct store_conn *c,
			   struct err *e);
	} verbs[] = {
		{ "get", tool_get },       { "all", tool_all },
		{ "head", tool_head },     { "put", tool_put },
		{ "upload", tool_upload }, { "bench", tool_bench },
	};

	tool_text(t->arg[0]);
	for (size_t i = 0; i < nitems(verbs); i++)
		if (!strcmp(verb, verbs[i].verb))
			return verbs[i].run(t, c, e);
	return err_set(e, EINVAL, "no such verb: %s", verb);
}

static int tool(int argc, char **argv)
{
	struct tool t = { .spec.name = "tool", .ms = 30000 };
	struct err e = ERR_NULL;
	struct store *s = NULL;
	struct store_conn *c = NULL;
	struct store_counts n;
	int i = tool_words(argc, argv, &t), r;

	if (i >= argc || store_open(&t.spec, &s, &e) < 0 ||
	    store_connect(s, &c, &e) < 0)
		tool_die(&e);
	/* argv ends with NULL; no verb looks further than its fourth. */
	t.arg = argv + i + 1;
	r = tool_run(&t, argv[i], c, &e);
	n = store_counts(s);
	if (t.counts)
		fprintf(stderr,
			"requests=%" PRIu64 " retries=%" PRIu64
			" hedges=%" PRIu64 " won=%" PRIu64 " failures=%" PRIu64
			" bytes=%" PRIu64 "\n",
			n.requests, n.retries, n.hedges, n.hedges_won,
			n.failures, n.bytes);
	store_conn_free(c);
	store_free(s);
	if (r == -ECANCELED)
		return 3;
	if (r < 0)
		tool_die(&e);
	return r == STORE_MISS ? 2 : 0;
}

int main(int argc, char **argv)
{
	struct err e = ERR_NULL;

	if (argc > 1)
		return tool(argc, argv);
	test_dir(top, sizeof(top));
	test_specs();
	test_names();
	test_directory();
	test_upload();
	test_replace();
	test_credentials();
	test_no_keys();
	test_sign();
	test_hedge();
	conn = store_conn_free(conn);
	store = store_free(store);
	check(io_remove_tree(top, &e) == 0);
	return 0;
}
