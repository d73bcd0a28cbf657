/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs and files byre uses
 *
 * The package names are Debian's. What only `byre rootfs build` uses is a
 * warning: root disks can be made elsewhere.
 */
#include "cmd/doctor.h"

#include "cmd/installed.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

/* Tools say their version in a line or two. */
#define DOCTOR_OUTPUT_MAX 4096u

/* Run "PROGRAM OPTION" and keep its first line. */
static int doctor_first_line(const char *program, const char *option, char *out,
			     size_t size)
{
	const char *const argv[] = { program, option, NULL };
	guard_free char *text = NULL;
	struct err e = ERR_NULL;
	int r;

	r = proc_run(argv, DOCTOR_OUTPUT_MAX, &text, &e);
	if (r < 0) {
		snprintf(out, size, "%s", e.msg);
		return r;
	}
	snprintf(out, size, "%.*s", (int)strcspn(text, "\n"), text);
	return 0;
}

static void doctor_program(struct doctor *d, const char *program,
			   const char *option, enum doctor_status missing,
			   const char *fix)
{
	char line[ERR_MSG_MAX];

	if (doctor_first_line(program, option, line, sizeof(line)) < 0)
		doctor_say(d, missing, fix, "%s", line);
	else
		doctor_say(d, DOCTOR_OK, "", "%s", line);
}

static void doctor_qemu(struct doctor *d)
{
	doctor_program(d, "/usr/bin/qemu-system-x86_64", "--version",
		       DOCTOR_FAIL, "apt-get install qemu-system-x86");
}

static void doctor_qemu_img(struct doctor *d)
{
	doctor_program(d, "qemu-img", "--version", DOCTOR_FAIL,
		       "apt-get install qemu-utils");
}

static void doctor_mke2fs(struct doctor *d)
{
	doctor_program(d, "mke2fs", "-V", DOCTOR_WARN,
		       "apt-get install e2fsprogs");
}

static void doctor_mmdebstrap(struct doctor *d)
{
	doctor_program(d, "mmdebstrap", "--version", DOCTOR_WARN,
		       "apt-get install mmdebstrap");
}

static void doctor_busybox(struct doctor *d)
{
	if (access("/bin/busybox", X_OK) == 0)
		doctor_say(d, DOCTOR_OK, "", "/bin/busybox");
	else
		doctor_say(d, DOCTOR_WARN, "apt-get install busybox-static",
			   "/bin/busybox: %s", strerror(errno));
}

/* Looked for where the daemon looks for them. */
static void doctor_guest(struct doctor *d)
{
	static const char *const files[] = { "vmlinuz", "initrd" };
	const char *given = getenv("BYRE_GUEST");
	guard_free char *dir = given && *given ? strdup(given)
					       : installed_path("guest");
	char version[128] = "?";

	for (size_t i = 0; i < nitems(files); i++) {
		guard_free char *path =
			io_path("%s/%s", dir ? dir : "", files[i]);

		if (path && access(path, R_OK) == 0)
			continue;
		doctor_say(d, DOCTOR_FAIL, "make guest (or set BYRE_GUEST)",
			   "no kernel and initramfs for guests in %s",
			   dir ? dir : "?");
		return;
	}
	if (doctor_read(dir, "kernel.version", version, sizeof(version)) < 0)
		strcpy(version, "of unknown version");
	doctor_say(d, DOCTOR_OK, "", "Linux %s in %s", version, dir);
}

/* Something the daemon preloads into VMMs. */
static void doctor_library(struct doctor *d, const char *name)
{
	guard_free char *path = installed_path(name);

	if (path && access(path, R_OK) == 0)
		doctor_say(d, DOCTOR_OK, "", "%s", path);
	else
		doctor_say(d, DOCTOR_FAIL, "make, or make install", "%s: %s",
			   path ? path : name, strerror(errno));
}

static void doctor_shim(struct doctor *d)
{
	doctor_library(d, "libbyre-gmem.so");
}

static void doctor_zygote(struct doctor *d)
{
	doctor_library(d, "libbyre-zygote.so");
}

const struct doctor_check doctor_tools[] = {
	{ "qemu", doctor_qemu },
	{ "qemu-img", doctor_qemu_img },
	{ "guest-kernel", doctor_guest },
	{ "shim", doctor_shim },
	{ "zygote", doctor_zygote },
	{ "mke2fs", doctor_mke2fs },
	{ "mmdebstrap", doctor_mmdebstrap },
	{ "busybox", doctor_busybox },
	{ NULL, NULL },
};
