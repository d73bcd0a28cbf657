/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /v1/stores: where templates are pushed to and pulled from
 *
 *	{"name": "lab", "url": "s3://images/byre", "region": "eu-north-1",
 *	 "credentials": "/etc/byre/lab.credentials"}
 *
 * A store is a few strings, and none of them is a secret: credentials are the
 * path of a file that the daemon reads, or its environment. So what is shown is
 * what was given.
 *
 * Invariants:
 *  1. Paths are absolute: the daemon's working directory is not the client's.
 *  2. A store from which a template streams stays: its guests' pages are there.
 */
#include "api/stores.h"

#include "api/fields.h"
#include "api/handlers.h"
#include "api/request.h"
#include "api/server.h"
#include "api/utf8.h"
#include "base/guard.h"
#include "base/log.h"
#include "sandbox/stores.h"
#include "template/template.h"

#include <errno.h>
#include <microhttpd.h>
#include <stddef.h>
#include <stdio.h>

struct store_body {
	const char *name, *url, *endpoint, *region, *credentials, *ca;
};

#define STORE_FIELD(text, size, needed)                                 \
	{                                                               \
		.key = #text, .kind = FIELD_TEXT, .required = (needed), \
		.offset = offsetof(struct store_body, text), .lo = 1,   \
		.hi = sizeof(((struct store_spec *)0)->size) - 1        \
	}

static const struct field store_fields[] = {
	{ .key = "name",
	  .kind = FIELD_NAME,
	  .required = true,
	  .offset = offsetof(struct store_body, name) },
	STORE_FIELD(url, url, true),
	STORE_FIELD(endpoint, endpoint, false),
	STORE_FIELD(region, region, false),
	STORE_FIELD(credentials, credentials, false),
	STORE_FIELD(ca, ca, false),
};

static int store_body_path(const char *key, const char *path, struct err *e)
{
	if (path && *path != '/')
		return err_set(e, EINVAL, "key %s must be an absolute path",
			       key);
	return 0;
}

int store_body_parse(const char *text, size_t len, struct store_spec *ret,
		     struct err *e)
{
	guard_json json_t *root = NULL;
	struct store_body b = { .endpoint = "", .region = "" };
	struct store_spec s = { 0 };
	int r;

	r = fields_parse(text, len, store_fields, nitems(store_fields), &b,
			 &root, e);
	if (r == 0)
		r = store_body_path("credentials", b.credentials, e);
	if (r == 0)
		r = store_body_path("ca", b.ca, e);
	if (r < 0)
		return r;
	snprintf(s.name, sizeof(s.name), "%s", b.name);
	snprintf(s.url, sizeof(s.url), "%s", b.url);
	snprintf(s.endpoint, sizeof(s.endpoint), "%s", b.endpoint);
	snprintf(s.region, sizeof(s.region), "%s", b.region);
	snprintf(s.credentials, sizeof(s.credentials), "%s",
		 b.credentials ? b.credentials : "");
	snprintf(s.ca, sizeof(s.ca), "%s", b.ca ? b.ca : "");
	r = store_check(&s, e);
	if (r < 0)
		return r;
	*ret = s;
	return 0;
}

/* Null when it was not given. */
static json_t *store_json_text(const char *text)
{
	return utf8_json_text(*text ? text : NULL);
}

static json_t *store_json(const struct store_spec *s)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "name",
			 utf8_json_text(s->name), "url", utf8_json_text(s->url),
			 "endpoint", store_json_text(s->endpoint), "region",
			 store_json_text(s->region), "credentials",
			 store_json_text(s->credentials), "ca",
			 store_json_text(s->ca));
}

void handle_stores(struct request *rq)
{
	const struct stores *stores = rq->api->config.stores;
	json_t *list = json_array();

	for (size_t i = 0; list && i < (stores ? stores_count(stores) : 0); i++)
		if (json_array_append_new(
			    list, store_json(stores_get(stores, i))) < 0) {
			json_decref(list);
			list = NULL;
		}
	request_answer(rq, MHD_HTTP_OK, list);
}

void handle_store_add(struct request *rq)
{
	struct stores *stores = rq->api->config.stores;
	struct store_spec spec;
	struct err e = ERR_NULL;
	const char *text;
	size_t len;
	int r;

	text = request_text(rq, &len);
	r = store_body_parse(text, len, &spec, &e);
	if (r < 0)
		err_prefix(&e, "add store");
	else if (!stores)
		r = err_set(&e, ENOTSUP, "this daemon keeps no stores");
	else
		r = stores_add(stores, &spec, &e);
	if (r < 0) {
		request_answer_error(rq, &e);
		return;
	}
	log_info("store=%s request=add url=%s", spec.name, spec.url);
	request_answer(rq, MHD_HTTP_CREATED, store_json(&spec));
}

void handle_store_remove(struct request *rq)
{
	const struct api_config *config = &rq->api->config;
	const char *user = templates_user_of(config->templates, rq->param);
	struct err e = ERR_NULL;
	int r;

	if (user)
		r = err_set(&e, EBUSY,
			    "remove store %s: template %s streams from it",
			    rq->param, user);
	else if (!config->stores)
		r = err_set(&e, ENOENT, "remove store %s: no such store",
			    rq->param);
	else
		r = stores_remove(config->stores, rq->param, &e);
	if (r < 0) {
		request_answer_error(rq, &e);
		return;
	}
	log_info("store=%s request=remove", rq->param);
	request_answer_empty(rq);
}
