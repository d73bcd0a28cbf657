/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The note beside an upload under way
 *
 * Five lines of text, "word value", replaced in one step. It is ours and
 * local, but a disk may have been full or a file be another's: what cannot be
 * read as a note is none, and the upload begins anew.
 *
 * Invariants:
 *  1. A note is on disk before the half that it names grows: what a crash
 *     leaves in a store, the next upload finds.
 *  2. A handle has no white space and no slash: as a file's name it stays in
 *     its directory.
 *
 * It holds no credentials and no check of the content: that two uploads of one
 * object and size hold the same bytes is the caller's promise, by the id in the
 * object's name (image/pack.h).
 */
#include "image/store_note.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/parse.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define NOTE_TITLE "byre-upload 1\n"
/* All five lines at their longest, and a little. */
#define NOTE_BYTES_MAX 4096

/* "word value\n" at *@s; moves behind it. */
static bool note_line(char **s, const char *word, char *ret, size_t size)
{
	size_t skip = strlen(word);
	char *end = strchr(*s, '\n');
	size_t len;

	if (!end || strncmp(*s, word, skip) != 0 || (*s)[skip] != ' ')
		return false;
	len = (size_t)(end - *s) - skip - 1;
	if (len >= size)
		return false;
	memcpy(ret, *s + skip + 1, len);
	ret[len] = '\0';
	*s = end + 1;
	return true;
}

static bool note_parse(char *s, struct store_note *n)
{
	char bytes[24];

	if (strncmp(s, NOTE_TITLE, strlen(NOTE_TITLE)) != 0)
		return false;
	s += strlen(NOTE_TITLE);
	return note_line(&s, "url", n->url, sizeof(n->url)) &&
	       note_line(&s, "endpoint", n->endpoint, sizeof(n->endpoint)) &&
	       note_line(&s, "object", n->object, sizeof(n->object)) &&
	       note_line(&s, "bytes", bytes, sizeof(bytes)) &&
	       note_line(&s, "handle", n->handle, sizeof(n->handle)) &&
	       parse_u64(bytes, &n->bytes) == 0 && store_object_ok(n->object) &&
	       n->handle[0] && !strpbrk(n->handle, " \t\r/");
}

int store_note_load(const char *path, struct store_note *ret, struct err *e)
{
	struct store_note n = { 0 };
	guard_free char *text = NULL;
	struct err why = ERR_NULL;
	size_t len;
	int r;

	r = io_read_file(path, NOTE_BYTES_MAX, &text, &len, &why);
	if (r == -ENOENT || r == -EFBIG)
		return STORE_MISS;
	if (r < 0)
		return err_set(e, -r, "%s", why.msg);
	if (strlen(text) != len || !note_parse(text, &n))
		return STORE_MISS;
	*ret = n;
	return 0;
}

int store_note_save(const char *path, const struct store_note *n, struct err *e)
{
	guard_free char *text = io_path(
		NOTE_TITLE "url %s\nendpoint %s\nobject %s\nbytes %" PRIu64
			   "\nhandle %s\n",
		n->url, n->endpoint, n->object, n->bytes, n->handle);

	if (!text)
		return err_errno(e, ENOMEM, "write %s", path);
	return io_write_file(path, text, strlen(text), 0600, e);
}

void store_note_remove(const char *path)
{
	struct err e = ERR_NULL;

	/* A note that stays costs the next upload one question. */
	if (unlink(path) == 0)
		err_drop(io_sync_parent(path, &e));
}

void store_note_init(struct store_note *n, const struct store *s,
		     const struct store_upload *u)
{
	*n = (struct store_note){ .bytes = u->bytes };
	memcpy(n->url, s->spec.url, sizeof(n->url));
	memcpy(n->endpoint, s->spec.endpoint, sizeof(n->endpoint));
	must(strlen(u->object) < sizeof(n->object));
	strcpy(n->object, u->object);
}

bool store_note_ours(const struct store_note *n, const struct store *s)
{
	return !strcmp(n->url, s->spec.url) &&
	       !strcmp(n->endpoint, s->spec.endpoint);
}

bool store_note_fits(const struct store_note *n, const struct store *s,
		     const struct store_upload *u)
{
	return store_note_ours(n, s) && !strcmp(n->object, u->object) &&
	       n->bytes == u->bytes;
}
