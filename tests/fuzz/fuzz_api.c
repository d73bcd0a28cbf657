/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client can write into a request: its target, its body
 *
 * The first byte chooses:
 *
 *	0  a target
 *	1  the body of a create
 *	2  the body of a bake
 *	3  text that goes back to the client in JSON
 *	4  the body of a store
 *	5  the bodies of a push and a pull
 *
 * What is accepted must keep what it promises: strings without control
 * characters, numbers in range, names that are names. What is refused has a
 * sentence, and left nothing to release.
 */
#include "api/bakes.h"
#include "api/sandboxes.h"
#include "api/stores.h"
#include "api/transfers.h"
#include "api/target.h"
#include "api/utf8.h"
#include "base/guard.h"
#include "base/parse.h"
#include "sandbox/sandbox.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void refused(int r, const struct err *e)
{
	must(r < 0 && e->code == -r && e->msg[0]);
}

static void plain(const char *s)
{
	for (; *s; s++)
		must((unsigned char)*s >= ' ' && *s != 0x7f);
}

static void target(const char *text)
{
	struct target t = TARGET_NULL;
	struct err e = ERR_NULL;
	bool flag;
	int r = target_parse(text, &t, &e);

	if (r < 0) {
		refused(r, &e);
		must(!t.mem);
		return;
	}
	must(t.n_segments > 0 && t.n_segments <= TARGET_SEGMENTS_MAX);
	must(t.n_query <= TARGET_QUERY_MAX);
	for (size_t i = 0; i < t.n_segments; i++)
		plain(t.segment[i]);
	for (size_t i = 0; i < t.n_query; i++) {
		plain(t.query[i].key);
		plain(t.query[i].value);
		must(target_query(&t, t.query[i].key) == t.query[i].value);
	}
	err_drop(target_query_flag(&t, "force", &flag, &e));
	target_deinit(&t);
}

static void create(const char *text, size_t len)
{
	struct sandbox_body b = SANDBOX_BODY_NULL;
	struct err e = ERR_NULL;
	size_t bytes = 0;
	int r = sandbox_body_parse(text, len, &b, &e);

	if (r < 0) {
		refused(r, &e);
		must(!b.root && !b.env);
		return;
	}
	must(parse_name_ok(b.template));
	must(!b.name || parse_name_ok(b.name));
	must(b.net <= 1 && b.n_env <= SANDBOX_ENV_MAX);
	for (size_t i = 0; i < b.n_env; i++) {
		must(strchr(b.env[i], '=') > b.env[i]);
		bytes += strlen(b.env[i]);
	}
	must(bytes <= SANDBOX_ENV_BYTES_MAX);
	sandbox_body_deinit(&b);
}

static void bake(const char *text, size_t len)
{
	struct bake_body b = BAKE_BODY_NULL;
	const struct bake_options *o = &b.options;
	struct err e = ERR_NULL;
	int r = bake_body_parse(text, len, &b, &e);

	if (r < 0) {
		refused(r, &e);
		must(!b.root && !b.warm);
		return;
	}
	must(parse_name_ok(o->name) && o->rootfs[0] == '/');
	must(!o->kernel || o->kernel[0] == '/');
	must(!o->initrd || o->initrd[0] == '/');
	must(o->memory_bytes >= BAKE_MEMORY_MIN &&
	     o->memory_bytes <= BAKE_MEMORY_MAX);
	must(o->vcpus >= 1 && o->vcpus <= BAKE_VCPUS_MAX);
	must(o->n_warm <= BAKE_WARM_MAX);
	for (size_t i = 0; i < o->n_warm; i++)
		must(o->warm[i][0]);
	bake_body_deinit(&b);
}

static void store(const char *text, size_t len)
{
	struct store_spec s = { 0 };
	struct err e = ERR_NULL;
	int r = store_body_parse(text, len, &s, &e);

	if (r < 0) {
		refused(r, &e);
		must(!s.name[0]);
		return;
	}
	must(parse_name_ok(s.name) && s.url[0]);
	plain(s.url);
	plain(s.endpoint);
	must(!s.credentials[0] || s.credentials[0] == '/');
	must(!s.ca[0] || s.ca[0] == '/');
}

static void transfer(const char *text, size_t len)
{
	struct push_body a = { .root = NULL };
	struct pull_body b = { .root = NULL };
	struct err e = ERR_NULL;
	int r = push_body_parse(text, len, &a, &e);

	if (r < 0) {
		refused(r, &e);
		must(!a.root);
	} else {
		must(parse_name_ok(a.options.template));
		must(parse_name_ok(a.options.store));
		must(!a.options.parent || parse_name_ok(a.options.parent));
		json_decref(a.root);
	}
	e = (struct err)ERR_NULL;
	r = pull_body_parse(text, len, &b, &e);
	if (r < 0) {
		refused(r, &e);
		must(!b.root);
		return;
	}
	must(parse_name_ok(b.options.template));
	must(parse_name_ok(b.options.store));
	must(!b.options.name || parse_name_ok(b.options.name));
	json_decref(b.root);
}

static void text_out(const char *text, size_t len)
{
	json_t *j = utf8_json(text, len);
	guard_free char *out = json_dumps(j, JSON_ENCODE_ANY);
	json_t *back = json_loads(out, JSON_DECODE_ANY, NULL);
	size_t whole = utf8_whole(text, len);

	must(json_equal(j, back));
	must(whole <= len && len - whole <= 3);
	json_decref(j);
	json_decref(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	guard_free char *text = NULL;

	if (size == 0)
		return 0;
	/* exactly as long as the input, so that a read past it is seen */
	text = malloc(size);
	must(text);
	memcpy(text, data + 1, size - 1);
	text[size - 1] = '\0';
	switch (data[0]) {
	case 0:
		target(text);
		break;
	case 1:
		create(text, size - 1);
		break;
	case 2:
		bake(text, size - 1);
		break;
	case 3:
		text_out(text, size - 1);
		break;
	case 4:
		store(text, size - 1);
		break;
	case 5:
		transfer(text, size - 1);
		break;
	}
	return 0;
}
