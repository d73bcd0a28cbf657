/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre store: where templates are pushed to and pulled from
 *
 * Paths are made absolute here: the daemon's working directory is not ours. So
 * a directory may be named as it is seen from here. It need not exist yet; files
 * must, for a misspelt one would be found out late.
 */
#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/forget.h"
#include "cmd/job.h"
#include "cmd/listing.h"
#include "cmd/opt.h"
#include "cmd/print.h"
#include "cmd/table.h"
#include "base/guard.h"
#include "base/io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct cmd store_add, store_ls, store_rm;

struct store {
	const char *endpoint, *region, *credentials, *ca;
};

/* ---- add ---- */

static const struct opt store_add_opts[] = {
	{ 0, "endpoint", "URL", "s3: the server, unless it is Amazon's",
	  OPT_TEXT(struct store, endpoint) },
	{ 0, "region", "R", "s3: its region (default us-east-1)",
	  OPT_TEXT(struct store, region) },
	{ 0, "credentials", "FILE",
	  "s3: keys, in the form of ~/.aws/credentials",
	  OPT_TEXT(struct store, credentials) },
	{ 0, "ca", "FILE", "certificates to trust, instead of the system's",
	  OPT_TEXT(struct store, ca) },
	OPT_END,
};

/* Fresh. Links stay links: what they lead to may be renewed. */
static char *store_absolute(const char *path)
{
	guard_free char *cwd = *path == '/' ? NULL : getcwd(NULL, 0);

	if (*path == '/')
		return strdup(path);
	return cwd ? io_path("%s/%s", cwd, path) : NULL;
}

static int store_file(json_t *body, const char *key, const char *path,
		      struct err *e)
{
	guard_free char *absolute = path ? store_absolute(path) : NULL;

	if (path && (!absolute || access(absolute, F_OK) < 0))
		return err_errno(e, errno, "find %s %s", key, path);
	return job_set_text(body, key, absolute, e);
}

/* A URL as it is; a directory's path absolute. */
static int store_url(json_t *body, const char *url, struct err *e)
{
	guard_free char *path = strstr(url, "://") ? strdup(url)
						   : store_absolute(url);

	if (!path)
		return err_errno(e, errno, "find %s", url);
	return job_set_text(body, "url", path, e);
}

static int store_body(json_t *body, char **argv, const struct store *x,
		      struct err *e)
{
	int r = job_set_text(body, "name", argv[1], e);

	if (r == 0)
		r = store_url(body, argv[2], e);
	if (r == 0)
		r = job_set_text(body, "endpoint", x->endpoint, e);
	if (r == 0)
		r = job_set_text(body, "region", x->region, e);
	if (r == 0)
		r = store_file(body, "credentials", x->credentials, e);
	if (r == 0)
		r = store_file(body, "ca", x->ca, e);
	return r;
}

static int store_add_main(int argc, char **argv)
{
	struct store x = { 0 };
	const struct opt_use use = { .cmd = &store_add,
				     .groups = { { store_add_opts, &x } },
				     .min_args = 2,
				     .max_args = 2 };
	json_auto_t *body = json_object(), *answer = NULL;
	struct err e = ERR_NULL;
	int n = 0, r;

	r = opt_parse(&use, argc, argv, &n);
	if (r)
		return opt_status(r);
	r = store_body(body, argv, &x, &e);
	if (r == 0)
		r = client_call("POST", "/v1/stores", body, &answer, &e);
	return r < 0 ? cmd_fail(&e) : CMD_OK;
}

static const struct cmd store_add = {
	.name = "store add",
	.args = "NAME URL [--endpoint URL] [--region R] [--credentials FILE] "
		"[--ca FILE]",
	.summary = "Name a directory, a server or an S3 bucket.",
	.run = store_add_main,
};

/* ---- ls ---- */

static void store_row(struct table *t, const json_t *s)
{
	table_add(t, "%s", print_text(s, "name"));
	table_add(t, "%s", print_text(s, "url"));
	table_add(t, "%s", print_text(s, "endpoint"));
	table_add(t, "%s", print_text(s, "region"));
	table_add(t, "%s", print_text(s, "credentials"));
}

static int store_ls_main(int argc, char **argv)
{
	static const struct listing l = {
		.path = "/v1/stores",
		.head = "NAME|URL|ENDPOINT|REGION|CREDENTIALS",
		.row = store_row,
	};

	return listing_main(&store_ls, &l, argc, argv);
}

static const struct cmd store_ls = {
	.name = "store ls",
	.args = "[--json]",
	.summary = "List the stores.",
	.run = store_ls_main,
};

/* ---- rm ---- */

static int store_rm_main(int argc, char **argv)
{
	return forget_main(&store_rm, "/v1/stores/", "store", argc, argv);
}

static const struct cmd store_rm = {
	.name = "store rm",
	.args = "NAME",
	.summary = "Forget a store; what is in it stays.",
	.run = store_rm_main,
};

static int store_main(int argc, char **argv)
{
	static const struct cmd *const subs[] = { &store_add, &store_ls,
						  &store_rm, NULL };

	return cmd_dispatch(&cmd_store, subs, argc, argv);
}

const struct cmd cmd_store = {
	.name = "store",
	.args = "add|ls|rm ...",
	.summary = "Name the places that templates are pushed to.",
	.run = store_main,
};
