/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /v1/templates: what can be restored
 *
 * A template whose manifest cannot be read is still listed, with the reason
 * and null for everything that only the manifest knows: hiding it would leave
 * its name taken by nothing one can see.
 *
 * Evicting is advice: the pager drops what it can fetch again and no guest
 * needs at that moment; how much that was, its counters say afterwards.
 *
 * resident_bytes is asked of the kernel for each template on each request
 * (templates_info); a host has a handful of them.
 */
#include "api/templates.h"

#include "api/handlers.h"
#include "api/request.h"
#include "api/server.h"
#include "api/utf8.h"
#include "base/guard.h"
#include "base/log.h"
#include "image/image.h"
#include "pager/client.h"
#include "template/template.h"

#include <errno.h>
#include <microhttpd.h>

/* Everything that only the manifest knows; the same keys in both. */
static int template_json_manifest(json_t *j, const struct template_info *t)
{
	const struct image_manifest *m = t->manifest;
	json_t *part = json_pack(
		"{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:s, s:o, s:s, s:o, s:o,"
		" s:s, s:s, s:f, s:{s:s, s:s, s:s}}",
		"memory_bytes", (json_int_t)m->memory_bytes, "zero_bytes",
		(json_int_t)m->zero_bytes, "image_bytes",
		(json_int_t)(m->memory_bytes - m->zero_bytes),
		"workingset_bytes", (json_int_t)m->workingset_bytes,
		"resident_bytes", (json_int_t)t->resident_bytes,
		"present_bytes", (json_int_t)t->present_bytes, "remote_bytes",
		(json_int_t)t->remote_bytes, "vcpus", (json_int_t)m->vcpus,
		"kernel", utf8_json_text(m->kernel), "driver", m->driver,
		"version", utf8_json_text(m->version), "accel", m->accel, "cpu",
		utf8_json_text(m->cpu), "machine", utf8_json_text(m->machine),
		"share", m->share ? "template" : "none", "net",
		m->net ? "user" : "none", "boot_ms", m->boot_ms, "sha256",
		"memory", m->file[IMAGE_MEMORY].sha256, "state",
		m->file[IMAGE_STATE].sha256, "disk",
		m->file[IMAGE_DISK].sha256);
	int r = part ? json_object_update(j, part) : -1;

	json_decref(part);
	return r;
}

static int template_json_unread(json_t *j)
{
	static const char *const keys[] = {
		"memory_bytes",
		"zero_bytes",
		"image_bytes",
		"workingset_bytes",
		"resident_bytes",
		"present_bytes",
		"remote_bytes",
		"vcpus",
		"kernel",
		"driver",
		"version",
		"accel",
		"cpu",
		"machine",
		"share",
		"net",
		"boot_ms",
		"sha256",
	};

	for (size_t i = 0; i < nitems(keys); i++)
		if (json_object_set_new(j, keys[i], json_null()) < 0)
			return -1;
	return 0;
}

json_t *template_json(const struct template_info *t)
{
	json_t *j = json_pack("{s:o, s:o}", "name", utf8_json_text(t->name),
			      "created", utf8_json_text(t->created));
	int r;

	if (!j)
		return NULL;
	r = t->manifest ? template_json_manifest(j, t)
			: template_json_unread(j);
	if (r < 0 ||
	    json_object_set_new(j, "dir", utf8_json_text(t->dir)) < 0 ||
	    json_object_set_new(j, "remote", utf8_json_text(t->remote)) < 0 ||
	    json_object_set_new(j, "problem", utf8_json_text(t->problem)) < 0) {
		json_decref(j);
		return NULL;
	}
	return j;
}

json_t *template_json_find(struct templates *t, const char *name)
{
	struct template_info info = templates_find(t, name);

	return info.name ? template_json(&info) : NULL;
}

void handle_templates(struct request *rq)
{
	struct templates *t = rq->api->config.templates;
	json_t *list = json_array();

	for (size_t i = 0; list && i < templates_count(t); i++) {
		struct template_info info = templates_info(t, i);

		if (json_array_append_new(list, template_json(&info)) < 0) {
			json_decref(list);
			list = NULL;
		}
	}
	request_answer(rq, MHD_HTTP_OK, list);
}

void handle_template(struct request *rq)
{
	struct templates *t = rq->api->config.templates;
	struct err e = ERR_NULL;

	if (!templates_has(t, rq->param)) {
		err_set(&e, ENOENT, "inspect template %s: no such template",
			rq->param);
		request_answer_error(rq, &e);
		return;
	}
	request_answer(rq, MHD_HTTP_OK, template_json_find(t, rq->param));
}

void handle_template_remove(struct request *rq)
{
	const struct api_config *config = &rq->api->config;
	struct err e = ERR_NULL;

	if (templates_remove(config->templates, config->registry, rq->param,
			     &e) < 0) {
		request_answer_error(rq, &e);
		return;
	}
	log_info("template=%s request=remove", rq->param);
	request_answer_empty(rq);
}

/* Everything its layer holds; ENOTSUP when it has none. */
static int template_evict(struct request *rq, const struct template_info *info,
			  uint64_t *ret, struct err *e)
{
	struct pager *pager = rq->api->config.pager;
	struct pager_layer *l = pager && info->remote
					? pager_layer_find(pager, info->dir)
					: NULL;
	const struct pager_layer_stats *s = l ? pager_layer_stats(l) : NULL;
	uint64_t bytes;
	int r;

	if (!info->remote)
		return err_set(e, ENOTSUP,
			       "evict template %s: it is not streamed, all of "
			       "it is in files",
			       info->name);
	if (!l)
		return 0; /* no guest has asked for a page yet */
	bytes = PAGER_GET(s->memory_present_bytes) +
		PAGER_GET(s->disk_present_bytes);
	r = pager_layer_evict(l, bytes);
	if (r < 0)
		return err_errno(e, -r, "evict template %s", info->name);
	*ret = bytes;
	return 0;
}

void handle_template_evict(struct request *rq)
{
	struct template_info info =
		templates_find(rq->api->config.templates, rq->param);
	struct err e = ERR_NULL;
	uint64_t bytes = 0;

	if (!info.name)
		err_set(&e, ENOENT, "evict template %s: no such template",
			rq->param);
	else
		err_drop(template_evict(rq, &info, &bytes, &e));
	if (e.code) {
		request_answer_error(rq, &e);
		return;
	}
	log_info("template=%s request=evict bytes=%llu", info.name,
		 (unsigned long long)bytes);
	request_answer(rq, MHD_HTTP_OK,
		       json_pack("{s:o, s:I}", "template",
				 utf8_json_text(info.name), "requested_bytes",
				 (json_int_t)bytes));
}
