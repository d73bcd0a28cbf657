/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections of a layer, against an HTTP server that counts them
 */
#include "pager/test_stream.h"

#include "pager/test_http.h"

#define DISK_CHUNKS 8u
#define DISK_PAGES (DISK_CHUNKS * INDEX_CHUNK_PAGES)
#define DEADLINE (20 * NS_PER_SEC)
/* As many as an engine has that was not told. */
#define WORKERS 8
/* FETCH_IDLE_NS, and some. */
#define IDLE_US 7000000

static void stream_over_http(struct stream *s, struct http *h)
{
	*h = (struct http){ .dir = s->dir, .prefix = "/d" };
	http_start(h);
	snprintf(s->spec.url, sizeof(s->spec.url), "http://127.0.0.1:%u/d",
		 h->port);
}

/* One after another: one connection, whichever worker it lands on; after some
 * idle seconds none. */
static void test_sequence(void)
{
	uint64_t hedges;
	struct stream s;
	struct http h;
	struct rig r;

	stream_new(&s, 1, INDEX_CHUNK_PAGES, DISK_PAGES);
	stream_over_http(&s, &h);
	rig_new(&r, DEADLINE, NULL, WORKERS);
	rig_layer(&r, 0, &s, true);
	rig_start(&r);
	for (unsigned i = 0; i < DISK_CHUNKS; i++) {
		rig_need_page(&r, &s, i, true);
		usleep(2000); /* let workers fall asleep */
	}
	/* A slow one is asked for twice, over another connection. */
	hedges = rig_stat(&r.stats->layer[0].hedges);
	check(rig_stat(&r.stats->layer[0].frames_demand) == DISK_CHUNKS);
	check(h.accepted >= 1 && h.accepted <= 1 + hedges);
	usleep(IDLE_US);
	rig_need_page(&r, &s, 0, false);
	check(h.accepted >= 2);
	rig_stop(&r);
	http_end(&h);
	stream_end(&s);
}

struct asker {
	struct rig *rig;
	const struct stream *s;
	unsigned chunk;
	pthread_t thread;
};

static void *asker_main(void *arg)
{
	struct asker *t = arg;

	rig_need_page(t->rig, t->s, t->chunk, true);
	rig_need_page(t->rig, t->s, t->chunk, false);
	return NULL;
}

/* All at once: as many connections as workers, no more. */
static void test_crowd(void)
{
	struct asker t[DISK_CHUNKS];
	struct stream s;
	struct http h;
	struct rig r;

	stream_new(&s, 2, INDEX_CHUNK_PAGES, DISK_PAGES);
	stream_over_http(&s, &h);
	rig_new(&r, DEADLINE, NULL, 3);
	rig_layer(&r, 0, &s, true);
	rig_start(&r);
	for (unsigned i = 0; i < nitems(t); i++) {
		t[i] = (struct asker){ .rig = &r, .s = &s, .chunk = i };
		check(!pthread_create(&t[i].thread, NULL, asker_main, &t[i]));
	}
	for (unsigned i = 0; i < nitems(t); i++)
		check(!pthread_join(t[i].thread, NULL));
	check(h.accepted <= 3 + rig_stat(&r.stats->layer[0].hedges));
	rig_stop(&r);
	http_end(&h);
	stream_end(&s);
}

static int judge_hang(void *arg, unused const struct http_ask *q)
{
	struct http *h = arg;

	while (!h->end)
		usleep(1000);
	return 503;
}

static void *hanging_main(void *arg)
{
	struct rig *r = arg;

	check(layer_need_disk(r->engine, 0, 0, PAGE) == -ESHUTDOWN);
	return NULL;
}

static void call_remove(struct rig *r, unused void *arg)
{
	layer_remove(r->engine, 0);
}

/* A layer that goes does not wait for who hangs. */
static void test_cancel(void)
{
	struct stream s;
	struct http h;
	struct rig r;
	pthread_t thread;
	uint64_t start;

	stream_new(&s, 3, INDEX_CHUNK_PAGES, DISK_PAGES);
	stream_over_http(&s, &h);
	h.judge = judge_hang;
	h.arg = &h;
	rig_new(&r, DEADLINE, NULL, 2);
	rig_layer(&r, 0, &s, true);
	rig_start(&r);
	check(!pthread_create(&thread, NULL, hanging_main, &r));
	while (!h.accepted)
		usleep(1000);
	start = clock_mono_ns();
	rig_call(&r, call_remove, NULL);
	check(!pthread_join(thread, NULL));
	rig_stop(&r);
	check(clock_mono_ns() - start < DEADLINE / 4);
	http_end(&h);
	stream_end(&s);
}

/* ---- keys ---- */

/* Longer than LINE_REOPEN_NS. */
#define REOPEN_US 5200000

static void keys_write(const char *path, const char *key)
{
	char text[256];
	struct err e = ERR_NULL;
	int n = snprintf(text, sizeof(text),
			 "[default]\naws_access_key_id = %s\n"
			 "aws_secret_access_key = secret\n"
			 "aws_session_token = token-of-%s\n",
			 key, key);

	check(io_write_file(path, text, (size_t)n, 0600, &e) == 0);
}

struct keys {
	_Atomic char good; /* the last letter of the key that is taken */
	atomic_uint refused;
};

static int judge_keys(void *arg, const struct http_ask *q)
{
	struct keys *k = arg;
	char want[64];

	snprintf(want, sizeof(want), "Credential=key-%c/", k->good);
	if (!strstr(q->head, want)) {
		k->refused++;
		return 403;
	}
	snprintf(want, sizeof(want), "x-amz-security-token: token-of-key-%c\r",
		 k->good);
	check(strstr(q->head, want));
	return 206;
}

/* Keys are rotated while the layer lives, twice, under several readers. */
static void test_keys(void)
{
	struct keys k = { .good = 'a' };
	struct asker t[3];
	struct stream s;
	struct http h;
	struct rig r;

	stream_new(&s, 4, INDEX_CHUNK_PAGES, DISK_PAGES);
	h = (struct http){ .dir = s.dir,
			   .prefix = "/bucket",
			   .judge = judge_keys,
			   .arg = &k };
	http_start(&h);
	snprintf(s.spec.url, sizeof(s.spec.url), "s3://bucket");
	snprintf(s.spec.endpoint, sizeof(s.spec.endpoint),
		 "http://127.0.0.1:%u", h.port);
	check(snprintf(s.spec.credentials, sizeof(s.spec.credentials),
		       "%s/keys", s.dir) < (int)sizeof(s.spec.credentials));
	keys_write(s.spec.credentials, "key-a");
	rig_new(&r, DEADLINE, NULL, WORKERS);
	rig_layer(&r, 0, &s, true);
	rig_start(&r);
	rig_need_page(&r, &s, 7, true);
	for (unsigned round = 0; round < 2; round++) {
		usleep(round ? 0 : REOPEN_US); /* at once: it waits itself */
		keys_write(s.spec.credentials, round ? "key-c" : "key-b");
		k.good = round ? 'c' : 'b';
		for (unsigned i = 0; i < nitems(t); i++) {
			t[i] = (struct asker){ .rig = &r,
					       .s = &s,
					       .chunk = round * 3 + i };
			check(!pthread_create(&t[i].thread, NULL, asker_main,
					      &t[i]));
		}
		for (unsigned i = 0; i < nitems(t); i++)
			check(!pthread_join(t[i].thread, NULL));
	}
	check(k.refused > 0);
	rig_stop(&r);
	http_end(&h);
	stream_end(&s);
}

int main(void)
{
	test_sequence();
	test_crowd();
	test_cancel();
	test_keys();
	return 0;
}
