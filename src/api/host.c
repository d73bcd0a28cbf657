/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GET /v1/host: what this daemon is, and what it runs guests with
 *
 * Everything here was found out once, when the daemon started (vmm_host_new);
 * nothing is probed on request. What changes is the ledger's: GET /v1/mem.
 */
#include "api/handlers.h"
#include "api/request.h"
#include "api/server.h"
#include "api/utf8.h"
#include "base/version.h"
#include "vmm/vmm.h"

#include <microhttpd.h>
#include <unistd.h>

void handle_host(struct request *rq)
{
	const struct api_config *config = &rq->api->config;
	const struct vmm_host_facts *f = vmm_host_facts(config->host);

	request_answer(
		rq, MHD_HTTP_OK,
		json_pack("{s:s, s:i, s:o, s:o, s:s, s:s, s:s, s:o, s:o, s:b}",
			  "version", BYRE_VERSION, "pid", (int)getpid(), "root",
			  utf8_json_text(config->root), "run",
			  utf8_json_text(config->run), "driver",
			  f->flavor.driver, "driver_version", f->flavor.version,
			  "accel", vmm_accel_name(f->accel), "accel_reason",
			  utf8_json_text(f->accel_reason), "cpu",
			  utf8_json_text(f->flavor.cpu), "unprivileged",
			  (int)f->unprivileged));
}
