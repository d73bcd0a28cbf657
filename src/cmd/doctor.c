/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre doctor: what this host can do and what is missing
 *
 * Three tables of checks: the kernel's abilities (doctor_kernel.c), the host's
 * state (doctor_host.c), programs and files (doctor_tools.c). Each check tries
 * the thing itself rather than asking for a version, says what it found in one
 * line, and how to mend it if there is something to mend.
 *
 * "fail" means that byre does not work, "warn" that it works less well.
 * It needs no daemon, changes nothing, and leaves nothing behind.
 */
#include "cmd/doctor.h"

#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/opt.h"
#include "cmd/print.h"
#include "base/guard.h"
#include "base/io.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DOCTOR_ROOT "/var/lib/byre"

struct doctor_options {
	bool json;
};

static const struct opt doctor_opts[] = {
	{ 0, "json", NULL, "print {\"ok\", \"checks\"}",
	  OPT_FLAG(struct doctor_options, json) },
	OPT_END,
};

static const char *const doctor_status_names[] = {
	[DOCTOR_OK] = "ok",
	[DOCTOR_WARN] = "warn",
	[DOCTOR_FAIL] = "fail",
};
static_assert(nitems(doctor_status_names) == DOCTOR_STATUS_COUNT,
	      "a name for each status");

void doctor_say(struct doctor *d, enum doctor_status status, const char *fix,
		const char *fmt, ...)
{
	va_list ap;

	d->status = status;
	snprintf(d->fix, sizeof(d->fix), "%s", fix);
	va_start(ap, fmt);
	vsnprintf(d->detail, sizeof(d->detail), fmt, ap);
	va_end(ap);
}

int doctor_read(const char *root, const char *name, char *out, size_t size)
{
	guard_free char *path = io_path("%s/%s", root, name);
	guard_fd int fd = -1;
	ssize_t n;

	if (!path)
		return -ENOMEM;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = io_read_full(fd, out, size - 1);
	if (n < 0)
		return (int)n;
	while (n && out[n - 1] == '\n')
		n--;
	out[n] = '\0';
	return 0;
}

/* Run a table; a row for each check. */
static void doctor_table(struct doctor *d, const struct doctor_check *c,
			 json_t *rows)
{
	for (; c->name; c++) {
		doctor_say(d, DOCTOR_OK, "", "%s", "");
		c->run(d);
		json_array_append_new(rows,
				      json_pack("{s:s, s:s, s:s, s:s?}", "name",
						c->name, "status",
						doctor_status_names[d->status],
						"detail", d->detail, "fix",
						*d->fix ? d->fix : NULL));
	}
}

static json_t *doctor_run(void)
{
	json_auto_t *host = NULL;
	struct err e = ERR_NULL;
	const char *root = getenv("BYRE_ROOT");
	struct doctor d = { .proc_root = "/proc", .sys_root = "/sys" };
	json_t *rows = json_array();

	if (client_call("GET", "/v1/host", NULL, &host, &e) < 0)
		d.no_daemon = e.msg;
	d.host = host;
	d.root = root && *root ? root : DOCTOR_ROOT;
	if (*print_text(host, "root"))
		d.root = print_text(host, "root");
	doctor_table(&d, doctor_kernel, rows);
	doctor_table(&d, doctor_host, rows);
	doctor_table(&d, doctor_tools, rows);
	return rows;
}

static void doctor_print(const json_t *rows)
{
	const json_t *row;
	size_t i;

	json_array_foreach (rows, i, row) {
		printf("%-4s  %-13s  %s\n", print_text(row, "status"),
		       print_text(row, "name"), print_text(row, "detail"));
		if (*print_text(row, "fix"))
			printf("%21sfix: %s\n", "", print_text(row, "fix"));
	}
}

static bool doctor_ok(const json_t *rows)
{
	const json_t *row;
	size_t i;

	json_array_foreach (rows, i, row)
		if (!strcmp(print_text(row, "status"), "fail"))
			return false;
	return true;
}

static int doctor_main(int argc, char **argv)
{
	struct doctor_options o = { 0 };
	const struct opt_use use = { .cmd = &cmd_doctor,
				     .groups = { { doctor_opts, &o } } };
	json_auto_t *rows = NULL, *all = NULL;
	int n = 0, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	rows = doctor_run();
	if (o.json) {
		all = json_pack("{s:b, s:O}", "ok", (int)doctor_ok(rows),
				"checks", rows);
		print_json(all);
	} else {
		doctor_print(rows);
	}
	return cmd_end(doctor_ok(rows) ? CMD_OK : CMD_FAILED);
}

const struct cmd cmd_doctor = {
	.name = "doctor",
	.args = "[--json]",
	.summary = "Say what this host can do, and what is missing.",
	.run = doctor_main,
};
