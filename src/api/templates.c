/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /v1/templates: what can be restored
 *
 * A template whose manifest cannot be read is still listed, with the reason
 * and null for everything that only the manifest knows: hiding it would leave
 * its name taken by nothing one can see.
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
#include "template/template.h"

#include <errno.h>
#include <microhttpd.h>
#include <string.h>

/* Everything that only the manifest knows; the same keys in both. */
static int template_json_manifest(json_t *j, const struct image_manifest *m,
				  uint64_t resident_bytes)
{
	json_t *part = json_pack(
		"{s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:s, s:o, s:s, s:o, s:o,"
		" s:s, s:s, s:f, s:{s:s, s:s, s:s}}",
		"memory_bytes", (json_int_t)m->memory_bytes, "zero_bytes",
		(json_int_t)m->zero_bytes, "image_bytes",
		(json_int_t)(m->memory_bytes - m->zero_bytes),
		"workingset_bytes", (json_int_t)m->workingset_bytes,
		"resident_bytes", (json_int_t)resident_bytes, "vcpus",
		(json_int_t)m->vcpus, "kernel", utf8_json_text(m->kernel),
		"driver", m->driver, "version", utf8_json_text(m->version),
		"accel", m->accel, "cpu", utf8_json_text(m->cpu), "machine",
		utf8_json_text(m->machine), "share",
		m->share ? "template" : "none", "net", m->net ? "user" : "none",
		"boot_ms", m->boot_ms, "sha256", "memory",
		m->file[IMAGE_MEMORY].sha256, "state",
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
	r = t->manifest
		    ? template_json_manifest(j, t->manifest, t->resident_bytes)
		    : template_json_unread(j);
	if (r < 0 ||
	    json_object_set_new(j, "problem", utf8_json_text(t->problem)) < 0) {
		json_decref(j);
		return NULL;
	}
	return j;
}

json_t *template_json_find(struct templates *t, const char *name)
{
	for (size_t i = 0; i < templates_count(t); i++) {
		struct template_info info = templates_info(t, i);

		if (strcmp(info.name, name) == 0)
			return template_json(&info);
	}
	return NULL;
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
