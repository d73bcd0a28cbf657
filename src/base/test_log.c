/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log: form of a line, levels, what a peer can put into it
 */
#include "base/log.h"

#include "base/test.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>

/* What stderr has received since the last call. */
static const char *test_said(int fd)
{
	static char text[2 * PIPE_BUF];
	ssize_t n = read(fd, text, sizeof(text) - 1);

	text[n < 0 ? 0 : n] = '\0';
	return text;
}

#define TIME                                         \
	"[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T" \
	"[0-2][0-9]:[0-5][0-9]:[0-6][0-9].[0-9][0-9][0-9]Z"

int main(void)
{
	int old = dup(STDERR_FILENO), fds[2], ok = 1;
	char longer[2 * PIPE_BUF];
	const char *s;

	check(old >= 0);
	check(pipe2(fds, O_NONBLOCK | O_CLOEXEC) == 0);
	check(dup2(fds[1], STDERR_FILENO) >= 0);

	errno = EXDEV;
	log_info("sandbox=%s state=%s", "ox", "running");
	ok &= errno == EXDEV;
	s = test_said(fds[0]);
	ok &= !fnmatch(TIME " info  sandbox=ox state=running\n", s, 0);

	log_debug("not=now");
	ok &= !*test_said(fds[0]);
	log_set_level(LOG_LEVEL_DEBUG);
	log_debug("now=yes");
	ok &= !fnmatch(TIME " debug now=yes\n", test_said(fds[0]), 0);
	log_set_level(LOG_LEVEL_ERROR);
	log_warn("not=this");
	ok &= !*test_said(fds[0]);
	log_error("bad=x");
	ok &= !fnmatch(TIME " error bad=x\n", test_said(fds[0]), 0);

	log_error("name=%s", "a\nb\033[1m\x7f\xc3\xa4");
	ok &= !fnmatch(TIME " error name=a[?]b[?][[]1m[?]\xc3\xa4\n",
		       test_said(fds[0]), 0);

	memset(longer, 'x', sizeof(longer));
	longer[sizeof(longer) - 1] = '\0';
	log_error("%s", longer);
	s = test_said(fds[0]);
	ok &= strlen(s) == PIPE_BUF && strchr(s, '\n') == s + PIPE_BUF - 1;

	/* A full pipe: the line is lost, we are not. */
	for (int i = 0; i < 64; i++)
		log_error("%s", longer);

	check(dup2(old, STDERR_FILENO) >= 0);
	check(ok);
	return 0;
}
