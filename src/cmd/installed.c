/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that come with the program
 *
 *	build/release/byre    build/release/NAME
 *	/usr/local/bin/byre   /usr/local/lib/byre/NAME
 *
 * Beside the program first: a build runs without being installed.
 */
#include "cmd/installed.h"

#include "base/guard.h"
#include "base/io.h"

#include <string.h>

char *installed_path(const char *name)
{
	guard_free char *beside = NULL;
	char exe[4096], *slash;
	ssize_t n;

	n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	if (n <= 0)
		return NULL;
	exe[n] = '\0';
	slash = strrchr(exe, '/');
	if (slash)
		*slash = '\0';
	beside = io_path("%s/%s", exe, name);
	if (beside && access(beside, R_OK) == 0)
		return take(beside);
	return io_path("%s/../lib/byre/%s", exe, name);
}
