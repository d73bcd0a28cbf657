/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Checks of this host
 */
#include "base/must.h"

#include <jansson.h>

enum doctor_status {
	DOCTOR_OK,
	DOCTOR_WARN, /* byre works, but not as well as it could */
	DOCTOR_FAIL, /* byre does not work */
	DOCTOR_STATUS_COUNT,
};

/* What all checks may look at, and what one found. */
struct doctor {
	const char *proc_root, *sys_root;
	const char *root; /* BYRE_ROOT, the daemon's if one answers */
	const json_t *host; /* GET /v1/host; NULL: no daemon */
	const char *no_daemon; /* why */
	enum doctor_status status;
	char detail[400];
	char fix[240];
};

struct doctor_check {
	const char *name;
	void (*run)(struct doctor *d);
};

/* The tables; each ends with a NULL name. */
extern const struct doctor_check doctor_kernel[];
extern const struct doctor_check doctor_host[];
extern const struct doctor_check doctor_tools[];

/* What a check found. @fix is "" when there is nothing to be done. */
void doctor_say(struct doctor *d, enum doctor_status status, const char *fix,
		const char *fmt, ...) printf_like(4, 5);

/* The file's first bytes without the last newline: 0, -errno. */
int doctor_read(const char *root, const char *name, char *out,
		size_t size) must_check;
