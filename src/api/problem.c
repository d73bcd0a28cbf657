/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Problem documents (RFC 9457): how an error looks on the wire
 *
 *	{"type": "about:blank", "title": "Not Found", "status": 404,
 *	 "detail": "remove sandbox web: no such sandbox", "errno": "ENOENT"}
 *
 * The detail is struct err's sentence, untouched: it was made where the error
 * happened. The title says no more than the status, as RFC 9457 has it for
 * about:blank. The errno's name is for programs, the status for HTTP's own
 * machinery, and the sentence for people.
 *
 * Invariant: the table in doc/api.md is problem_statuses below.
 */
#include "api/problem.h"

#include "api/utf8.h"
#include "base/must.h"

#include <errno.h>
#include <microhttpd.h>
#include <string.h>

static const struct {
	int code;
	unsigned status;
} problem_statuses[] = {
	{ EINVAL, MHD_HTTP_BAD_REQUEST },
	{ ENOENT, MHD_HTTP_NOT_FOUND },
	/* the state something is in forbids what was asked */
	{ EEXIST, MHD_HTTP_CONFLICT },
	{ EBUSY, MHD_HTTP_CONFLICT },
	{ ESRCH, MHD_HTTP_CONFLICT },
	{ ENOTCONN, MHD_HTTP_CONFLICT },
	{ ESTALE, MHD_HTTP_CONFLICT },
	{ ENOTSUP, MHD_HTTP_CONFLICT },
	{ ECANCELED, MHD_HTTP_CONFLICT },
	{ E2BIG, MHD_HTTP_CONTENT_TOO_LARGE },
	{ ENOSPC, MHD_HTTP_INSUFFICIENT_STORAGE },
	{ ENOMEM, MHD_HTTP_SERVICE_UNAVAILABLE },
	{ EAGAIN, MHD_HTTP_SERVICE_UNAVAILABLE },
	{ ETIMEDOUT, MHD_HTTP_GATEWAY_TIMEOUT },
};

unsigned problem_status(int code)
{
	for (size_t i = 0; i < nitems(problem_statuses); i++)
		if (problem_statuses[i].code == code)
			return problem_statuses[i].status;
	return MHD_HTTP_INTERNAL_SERVER_ERROR;
}

json_t *problem_json(unsigned status, int code, const char *detail)
{
	const char *name = strerrorname_np(code);

	return json_pack("{s:s, s:s, s:i, s:o, s:s}", "type", "about:blank",
			 "title", MHD_get_reason_phrase_for(status), "status",
			 (int)status, "detail", utf8_json_text(detail), "errno",
			 name ? name : "EIO");
}
