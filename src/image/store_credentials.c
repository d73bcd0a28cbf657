/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys of an S3 store
 *
 * Either a file, when the store's spec names one, or the environment:
 *
 *	[default]
 *	aws_access_key_id = ...		AWS_ACCESS_KEY_ID
 *	aws_secret_access_key = ...	AWS_SECRET_ACCESS_KEY
 *	aws_session_token = ...		AWS_SESSION_TOKEN
 *
 * Sections but [default] and words that are not known are passed over: the
 * file may be shared with other programs.
 *
 * Invariants:
 *  1. A file that others can read is refused: the permission is checked on the
 *     open file, before a byte of it is read.
 *  2. No value gets into a sentence; what is wrong is named by its line's
 *     number or the word.
 *  3. Every copy is wiped: the file's text here, the struct by who asked.
 *  4. A key without a secret is an error, not anonymity.
 */
#include "image/store_credentials.h"

#include "base/guard.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

/* A few profiles with tokens. */
#define CREDENTIALS_FILE_MAX ((size_t)64 << 10)

void credentials_wipe(struct credentials *c)
{
	explicit_bzero(c, sizeof(*c));
}

struct credentials_word {
	const char *word, *variable;
	size_t offset, size;
};

#define CREDENTIALS_WORD(field)              \
	offsetof(struct credentials, field), \
		sizeof(((struct credentials *)0)->field)

static const struct credentials_word credentials_words[] = {
	{ "aws_access_key_id", "AWS_ACCESS_KEY_ID", CREDENTIALS_WORD(key) },
	{ "aws_secret_access_key", "AWS_SECRET_ACCESS_KEY",
	  CREDENTIALS_WORD(secret) },
	{ "aws_session_token", "AWS_SESSION_TOKEN", CREDENTIALS_WORD(token) },
};

/* Visible characters only: it becomes part of a header. */
static bool credentials_set(struct credentials *c,
			    const struct credentials_word *w, const char *value)
{
	size_t len = strlen(value);

	if (len >= w->size)
		return false;
	for (size_t i = 0; i < len; i++)
		if (value[i] <= ' ' || value[i] > '~')
			return false;
	memcpy((char *)c + w->offset, value, len + 1);
	return true;
}

static char *credentials_trim(char *s)
{
	size_t len;

	s += strspn(s, " \t\r");
	len = strlen(s);
	while (len && strchr(" \t\r", s[len - 1]))
		s[--len] = '\0';
	return s;
}

/* A line of [default]. */
static int credentials_line(char *line, unsigned number, struct credentials *c,
			    struct err *e)
{
	char *value = strchr(line, '=');

	if (!value)
		return err_set(e, EINVAL, "line %u: no \"=\"", number);
	*value++ = '\0';
	line = credentials_trim(line);
	value = credentials_trim(value);
	for (size_t i = 0; i < nitems(credentials_words); i++)
		if (!strcmp(line, credentials_words[i].word) &&
		    !credentials_set(c, &credentials_words[i], value))
			return err_set(
				e, EINVAL,
				"line %u: too long, or with spaces inside",
				number);
	return 0;
}

static int credentials_whole(const struct credentials *c, struct err *e)
{
	if (!c->key[0] != !c->secret[0])
		return err_set(e, EINVAL, "no %s beside the %s",
			       c->key[0] ? "secret" : "key",
			       c->key[0] ? "key" : "secret");
	return 0;
}

int credentials_parse(char *text, struct credentials *ret, struct err *e)
{
	bool ours = false;
	unsigned number = 0;
	char *line;
	int r;

	while ((line = strsep(&text, "\n"))) {
		number++;
		line = credentials_trim(line);
		if (line[0] == '[')
			ours = !strcmp(line, "[default]");
		if (!ours || strchr("[#;", line[0])) /* empty lines too */
			continue;
		r = credentials_line(line, number, ret, e);
		if (r < 0)
			return r;
	}
	r = credentials_whole(ret, e);
	if (r == 0 && !ret->key[0])
		return err_set(e, EINVAL, "no key under [default]");
	return r;
}

static int credentials_file(const char *path, struct credentials *ret,
			    struct err *e)
{
	guard_fd int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	guard_free char *text = NULL;
	struct stat st = { 0 };
	ssize_t n;
	int r;

	if (fd < 0)
		return err_errno(e, errno, "open %s", path);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return err_set(e, EINVAL, "%s is not a file", path);
	if (st.st_mode & 077)
		return err_set(e, EACCES,
			       "%s can be read by others: chmod 600 it", path);
	text = calloc(1, CREDENTIALS_FILE_MAX);
	if (!text)
		return err_errno(e, ENOMEM, "read %s", path);
	n = io_read_full(fd, text, CREDENTIALS_FILE_MAX - 1);
	if (n < 0) {
		r = err_errno(e, (int)-n, "read %s", path);
	} else {
		r = credentials_parse(text, ret, e);
		if (r < 0)
			err_prefix(e, "%s", path);
	}
	explicit_bzero(text, CREDENTIALS_FILE_MAX);
	return r;
}

static int credentials_environment(struct credentials *ret, struct err *e)
{
	for (size_t i = 0; i < nitems(credentials_words); i++) {
		const struct credentials_word *w = &credentials_words[i];
		const char *value = getenv(w->variable);

		if (value && !credentials_set(ret, w, value))
			return err_set(e, EINVAL,
				       "%s is too long, or has spaces inside",
				       w->variable);
	}
	if (credentials_whole(ret, e) < 0)
		return err_prefix(e, "environment");
	return 0;
}

int credentials_load(const char *file, struct credentials *ret, struct err *e)
{
	credentials_wipe(ret);
	if (file[0])
		return credentials_file(file, ret, e);
	return credentials_environment(ret, e);
}
