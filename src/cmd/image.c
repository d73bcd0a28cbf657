/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre image: look at an image, where it lies
 *
 * These verbs read files, and need no daemon but to learn where a template's
 * are. An image directory has a manifest; what was packed for a store has an
 * index, whose manifest is inside; what was pulled has both.
 */
#include "cmd/image.h"

#include "base/guard.h"
#include "base/io.h"
#include "cmd/client.h"
#include "cmd/print.h"
#include "image/index.h"
#include "image/pack.h"
#include "image/pack_files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

void image_at_deinit(struct image_at *at)
{
	free(at->dir);
	index_free(at->index);
	*at = (struct image_at)IMAGE_AT_NULL;
}

int image_at_file(const struct image_at *at, const char *name, struct err *e)
{
	guard_free char *path = io_path("%s/%s", at->dir, name);
	int fd;

	if (!path)
		return err_errno(e, ENOMEM, "open %s", name);
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	return fd < 0 ? err_errno(e, errno, "open %s", path) : fd;
}

/* The daemon knows where a template's image is. */
static int image_at_find(struct image_at *at, const char *what, struct err *e)
{
	guard_free char *path = NULL;
	json_auto_t *template = NULL;
	const char *dir = what;
	int r;

	if (!strchr(what, '/')) {
		path = client_path("/v1/templates/", what, "");
		if (!path)
			return err_errno(e, ENOMEM, "image %s", what);
		r = client_call("GET", path, NULL, &template, e);
		if (r < 0)
			return r;
		dir = print_text(template, "dir");
		if (!*dir)
			return err_set(
				e, ENOENT,
				"image %s: the daemon does not say where it is",
				what);
	}
	at->dir = strdup(dir);
	return at->dir ? 0 : err_errno(e, ENOMEM, "image %s", what);
}

static int image_at_manifest(struct image_at *at, struct err *e)
{
	guard_free char *path = io_path("%s/" IMAGE_MANIFEST_NAME, at->dir);
	guard_free char *text = NULL;
	size_t len = 0;
	int r;

	if (!path)
		return err_errno(e, ENOMEM, "open %s", IMAGE_MANIFEST_NAME);
	r = io_read_file(path, IMAGE_MANIFEST_MAX, &text, &len, e);
	if (r == -ENOENT && at->index) {
		*e = (struct err)ERR_NULL;
		return pack_manifest(at->index, &at->manifest, NULL, NULL, e);
	}
	if (r < 0)
		return r;
	r = image_manifest_parse(text, len, &at->manifest, e);
	if (r < 0)
		err_prefix(e, "%s", path);
	at->has_manifest = r == 0;
	return r;
}

static int image_at_remote(struct image_at *at, struct err *e)
{
	guard_free char *path = io_path("%s/" IMAGE_REMOTE_NAME, at->dir);
	guard_free char *text = NULL;
	struct err why = ERR_NULL;
	int r;

	if (!path)
		return err_errno(e, ENOMEM, "open %s", IMAGE_REMOTE_NAME);
	r = io_read_file(path, IMAGE_REMOTE_MAX, &text, NULL, &why);
	if (r == -ENOENT)
		return 0;
	if (r < 0) {
		*e = why;
		return r;
	}
	snprintf(at->remote, sizeof(at->remote), "%.*s",
		 (int)strcspn(text, "\n"), text);
	return 0;
}

static int image_at_index(struct image_at *at, struct err *e)
{
	guard_fd int fd = image_at_file(at, IMAGE_INDEX_NAME, e);
	guard_fd int pack = -1;
	int r;

	if (fd < 0)
		return fd;
	r = index_open(fd, &at->index, e);
	if (r < 0) {
		err_prefix(e, "%s", at->dir);
		return r;
	}
	pack = image_at_file(at, PACK_NAME, NULL);
	at->has_pack = pack >= 0;
	return 0;
}

int image_at_open(const char *what, struct image_at *ret, struct err *bad_index,
		  struct err *e)
{
	guard(image_at_deinit) struct image_at at = IMAGE_AT_NULL;
	struct err index = ERR_NULL, manifest = ERR_NULL;
	int r;

	r = image_at_find(&at, what, e);
	if (r < 0)
		return r;
	r = image_at_index(&at, &index);
	if (r < 0 && r != -ENOENT && !bad_index) {
		*e = index;
		return r;
	}
	if (r < 0 && r != -ENOENT)
		*bad_index = index;
	r = image_at_manifest(&at, &manifest);
	/* A directory with a bad index and nothing else has that to say. */
	if (r == -ENOENT && bad_index && bad_index->code)
		manifest = *bad_index;
	if (r < 0) {
		*e = manifest;
		return r;
	}
	r = image_at_remote(&at, e);
	if (r < 0)
		return r;
	*ret = at;
	at = (struct image_at)IMAGE_AT_NULL;
	return 0;
}

static int image_main(int argc, char **argv)
{
	static const struct cmd *const subs[] = { &cmd_image_inspect,
						  &cmd_image_verify, NULL };

	return cmd_dispatch(&cmd_image, subs, argc, argv);
}

const struct cmd cmd_image = {
	.name = "image",
	.args = "inspect|verify NAME|DIR",
	.summary = "Look at an image: what it is made of, whether it is whole.",
	.run = image_main,
};
