/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Root disks: what is in the image is what was asked for, and a failed or
 * interrupted build leaves neither image nor litter
 *
 * No network, so no Debian here; tests/scenario has that.
 */
#include "template/rootfs.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/proc.h"
#include "base/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#define SIZE (32ull << 20)

static char dir[200];
static char image[300]; /* dir/out/image */

static char *at(const char *name)
{
	static char path[8][300];
	static unsigned i;

	i = (i + 1) % nitems(path);
	snprintf(path[i], sizeof(path[i]), "%s/%s", dir, name);
	return path[i];
}

static void run(const char *command)
{
	const char *const argv[] = { "sh", "-c", command, NULL };
	guard_free char *out = NULL;
	struct err e = ERR_NULL;

	if (proc_run(argv, 65536, &out, &e)) {
		fprintf(stderr, "%s: %s\n", command, e.msg);
		exit(1);
	}
}

/* What debugfs says to a request, static. */
static const char *ask(const char *disk, const char *request)
{
	static char text[65536];
	const char *const argv[] = { "debugfs", "-R", request, disk, NULL };
	guard_free char *out = NULL;
	struct err e = ERR_NULL;

	check(!proc_run(argv, sizeof(text), &out, &e));
	snprintf(text, sizeof(text), "%s", out);
	return text;
}

static bool says(const char *disk, const char *request, const char *what)
{
	const char *text = ask(disk, request);

	if (strstr(text, what))
		return true;
	fprintf(stderr, "%s: no \"%s\" in: %s\n", request, what, text);
	return false;
}

/* Names in the test's out directory. */
static unsigned entries(void)
{
	guard_dir DIR *d = opendir(at("out"));
	struct dirent *de;
	unsigned n = 0;

	check(d);
	while ((de = readdir(d)))
		n += strcmp(de->d_name, ".") && strcmp(de->d_name, "..");
	return n;
}

static struct rootfs_options options(enum rootfs_source source)
{
	return (struct rootfs_options){
		.out = image,
		.source = source,
		.size_bytes = SIZE,
	};
}

static void built(const struct rootfs_options *o)
{
	struct err e = ERR_NULL;
	struct stat st = { 0 };
	char fsck[400];

	if (rootfs_build(o, &e)) {
		fprintf(stderr, "%s\n", e.msg);
		exit(1);
	}
	check(entries() == 1);
	check(!stat(o->out, &st));
	check((uint64_t)st.st_size == SIZE && (st.st_mode & 0777) == 0644);
	/* Sparse: these trees hold a busybox at most. */
	check(st.st_blocks * 512 < 8 << 20);
	snprintf(fsck, sizeof(fsck), "e2fsck -fn %s", o->out);
	run(fsck);
}

/* It fails with @code, says @words, and leaves an older image alone. */
static void refused(const struct rootfs_options *o, int code, const char *words)
{
	static const char old[] = "an older image";
	guard_free char *text = NULL;
	struct err e = ERR_NULL;

	check(!io_write_file(o->out, old, strlen(old), 0644, &e));
	if (!rootfs_build(o, &e) || !strstr(e.msg, words) ||
	    (code && e.code != code)) {
		fprintf(stderr, "code %d, not %d; no \"%s\" in: %s\n", e.code,
			code, words, e.msg);
		exit(1);
	}
	check(!strchr(e.msg, '\n'));
	check(entries() == 1);
	check(!io_read_file(o->out, 100, &text, NULL, &e));
	check_str(text, old);
	check(!unlink(o->out));
}

static void test_busybox(void)
{
	struct rootfs_options o = options(ROOTFS_BUSYBOX);

	built(&o);
	check(says(o.out, "stat /bin/sh", "\"/bin/busybox\""));
	check(says(o.out, "stat /bin/busybox", "Mode:  0755"));
	check(says(o.out, "stat /bin/busybox", "User:     0   Group:     0"));
	check(says(o.out, "stat /tmp", "Mode:  01777"));
	check(says(o.out, "stat /usr/bin/env", "Type: symlink"));
	check(says(o.out, "cat /etc/passwd", "root:x:0:0:"));
	check(says(o.out, "cat /etc/hostname", "byre\n"));
	check(says(o.out, "stat /etc/machine-id", "Size: 0"));
	check(says(o.out, "stats", "Filesystem volume name:   byre"));
	check(!strstr(ask(o.out, "stats"), "has_journal"));
	/* Again, over the first. */
	built(&o);
	check(!unlink(o.out));
}

static void make_tree(void)
{
	char command[2000];

	snprintf(command, sizeof(command),
		 "mkdir -p %1$s/tree/etc %1$s/tree/tmp && cd %1$s/tree && "
		 "echo hello >etc/greeting && chmod 640 etc/greeting && "
		 "ln -s greeting etc/link && ln etc/greeting etc/twin && "
		 "chmod 700 tmp && "
		 "if [ $(id -u) = 0 ]; then chown 7:8 etc/greeting; fi && "
		 "tar -cf ../tree.tar . && gzip -k ../tree.tar && "
		 "xz -k ../tree.tar && "
		 "head -c 100 ../tree.tar.gz >../cut.tar.gz && "
		 "head -c 9000 /dev/urandom >../junk.tar && cd .. && "
		 "mkdir big && head -c 40000000 /dev/zero | tr '\\0' x "
		 ">big/file && tar -cf big.tar big && "
		 "head -c 5000 big.tar >cut.tar && rm big.tar",
		 dir);
	run(command);
}

static void check_tree(void)
{
	check(says(image, "cat /etc/greeting", "hello\n"));
	check(says(image, "stat /etc/greeting", "Mode:  0640"));
	check(says(image, "stat /etc/greeting", "Links: 2"));
	check(says(image, "stat /etc/greeting",
		   geteuid() ? "User:     0" : "User:     7   Group:     8"));
	check(says(image, "stat /etc/link", "\"greeting\""));
	/* What it had stays as it was; what it lacked is there. */
	check(says(image, "stat /tmp", "Mode:  0700"));
	check(says(image, "stat /proc", "Type: directory"));
	check(says(image, "stat /dev", "Type: directory"));
}

static void test_from(void)
{
	static const char *const from[] = { "tree", "tree.tar", "tree.tar.gz",
					    "tree.tar.xz" };

	/* Owners in an archive need uidmap when we are not root. */
	for (size_t i = 0; i < (geteuid() ? 1 : nitems(from)); i++) {
		struct rootfs_options o = options(ROOTFS_FROM);

		o.from = at(from[i]);
		built(&o);
		check_tree();
		check(!unlink(o.out));
	}
}

static void test_refused(void)
{
	struct rootfs_options o = options(ROOTFS_FROM);
	struct rootfs_options b = options(ROOTFS_BUSYBOX);
	struct rootfs_options d = options(ROOTFS_DEBIAN);
	struct err e = ERR_NULL;

	o.from = at("nothing");
	refused(&o, ENOENT, "/nothing: No such file");
	o.from = at("big");
	refused(&o, 0, "fill 32 MiB from ");
	o.from = at("tree");
	o.size_bytes = 12345678;
	refused(&o, EINVAL, "size 12345678");
	o.size_bytes = 4096;
	refused(&o, EINVAL, "size 4096");
	if (!geteuid()) {
		o.size_bytes = SIZE;
		o.from = at("junk.tar");
		refused(&o, 0, "does not look like a tar archive");
		o.from = at("cut.tar");
		refused(&o, 0, "unpack ");
		o.from = at("cut.tar.gz");
		refused(&o, 0, "unexpected end of file");
	}

	b.busybox = at("nothing");
	refused(&b, ENOENT, "apt-get install busybox-static");
	b.busybox = "/bin/sh";
	refused(&b, ENOEXEC, "is not static");
	b.busybox = at("tree/etc/greeting");
	refused(&b, ENOEXEC, "is no 64-bit program");

	refused(&d, EINVAL, "no Debian suite");
	d.suite = "two words";
	refused(&d, EINVAL, "no Debian suite");
	d.suite = "--help";
	refused(&d, EINVAL, "no Debian suite");

	b.busybox = NULL;
	b.out = "/dev/null";
	check(rootfs_build(&b, &e) == -EEXIST);
	b.out = at("nowhere/image");
	check(rootfs_build(&b, &e) == -ENOENT);
	b.out = "";
	check(rootfs_build(&b, &e) == -EINVAL);
	check(entries() == 0);
}

static void test_missing_tool(void)
{
	struct rootfs_options o = options(ROOTFS_DEBIAN);
	guard_free char *path = strdup(getenv("PATH"));

	o.suite = "bookworm";
	check(path);
	/* The build adds where mke2fs is, but not where mmdebstrap is. */
	check(!setenv("PATH", dir, 1));
	refused(&o, ENOENT, "mmdebstrap is missing: apt-get install");
	check(!setenv("PATH", path, 1));
}

/* A tool that hangs, in the place of busybox's: signals must end it. */
static void test_signal(int sig)
{
	struct rootfs_options o = options(ROOTFS_FROM);
	char text[600];
	struct err e = ERR_NULL;
	pid_t pid;
	int status;

	/* tar is looked up in PATH, so is its stand-in. */
	snprintf(text, sizeof(text), "#!/bin/sh\n: >%s/hanging\nsleep 1000\n",
		 dir);
	check(!io_mkdirs(at("bin"), 0755, &e));
	check(!io_write_file(at("bin/tar"), text, strlen(text), 0755, &e));
	o.from = at("tree.tar");
	pid = fork();
	check(pid >= 0);
	if (!pid) {
		snprintf(text, sizeof(text), "%s/bin:%s", dir, getenv("PATH"));
		check(!setenv("PATH", text, 1));
		_exit(rootfs_build(&o, &e) == -EINTR ? 0 : 1);
	}
	for (unsigned i = 0; access(at("hanging"), F_OK); i++) {
		check(i < 1000);
		usleep(10000);
	}
	check(!unlink(at("hanging")));
	check(entries() == 1);
	check(!kill(pid, sig));
	check(waitpid(pid, &status, 0) == pid);
	if (sig != SIGKILL) {
		check(WIFEXITED(status) && !WEXITSTATUS(status));
		check(entries() == 0);
		return;
	}
	/* Nobody could clean up: the next build of the same image does. */
	check(entries() == 1);
	o.source = ROOTFS_BUSYBOX;
	for (unsigned i = 0; i < 1000; i++) {
		check(!rootfs_build(&o, &e));
		if (entries() == 1)
			break;
		/* Its worker is still on its way out, holding the lock. */
		usleep(10000);
	}
	check(entries() == 1);
	check(!unlink(o.out));
}

int main(void)
{
	struct err e = ERR_NULL;

	check(!setenv("LC_ALL", "C", 1));
	if (system("command -v mke2fs debugfs xz >/dev/null 2>&1"))
		test_skip("no mke2fs, debugfs or xz in PATH");
	if (access("/bin/busybox", X_OK))
		test_skip("no /bin/busybox");
	test_dir(dir, sizeof(dir));
	snprintf(image, sizeof(image), "%s/out/image", dir);
	check(!io_mkdirs(at("out"), 0755, &e));
	make_tree();
	test_busybox();
	test_from();
	test_refused();
	test_missing_tool();
	if (!geteuid()) {
		test_signal(SIGTERM);
		test_signal(SIGINT);
		test_signal(SIGKILL);
	}
	check(!io_remove_tree(dir, &e));
	return 0;
}
