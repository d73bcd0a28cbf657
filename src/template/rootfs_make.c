/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a root disk, step by step
 *
 *	debian: mmdebstrap -> tree.tar -.
 *	tar: ----------------------------+-> tree/ -.
 *	busybox: ---------------------------------- +-> mke2fs -> image -> OUT
 *	directory: ---------------------------------'
 *
 * Nothing here knows ext4, tar or dpkg: mke2fs, tar and mmdebstrap do the
 * work, as programs. What is ours is to start them in the right order with the
 * right words, and to say in one line what went wrong: a tool's words go to a
 * log file, and of them the one line that matters ends up in the error.
 *
 * Ownership. As root, everything is what it says. Other users get a user
 * namespace from unshare(1): for a tree unpacked here one with the caller's
 * range of subordinate ids, so that every owner is preserved; for a directory
 * read in place one in which the caller's own files are root's.
 *
 * The file system, and why. A guest's root disk lives under a copy-on-write
 * overlay and dies with the guest; saved, it is saved together with the memory
 * that belongs to it. So there is no crash to recover from: no journal, which
 * otherwise wakes a guest 5 s after a write, and writes metadata twice.
 * No metadata checksums: the template's digest covers the image, and the
 * kernel's crc32c is a table walk when the CPU is emulated. Inode tables are
 * holes of a fresh file, which nobody need zero: neither mke2fs (64 MiB in an
 * image of 4 GiB) nor a kernel thread in each guest. No blocks kept for root,
 * no 64-bit block numbers.
 *
 * Not here: what must be in /dev, /proc and /sys. The agent mounts them; we
 * only see to it that the directories exist.
 */
#include "template/rootfs_make.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/parse.h"
#include "base/proc.h"
#include "template/rootfs.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* Of a tool's log, to find its complaint in. */
#define ROOTFS_LOG_MAX (8ull << 20)
/* busybox --list-full: 400 applets of 20 bytes; plenty. */
#define ROOTFS_APPLETS_MAX 65536
/* apt-get indextargets: 200 bytes per target. */
#define ROOTFS_SOURCES_MAX 65536
/* Sources times components times architectures. */
#define ROOTFS_TARGETS_MAX 64
#define ROOTFS_ARGS_MAX 64

/* An argument vector that remembers overflow and owns its strings. */
struct rootfs_args {
	char *arg[ROOTFS_ARGS_MAX + 1];
	size_t n;
	bool broken;
};

static void rootfs_args_deinit(struct rootfs_args *a)
{
	while (a->n)
		free(a->arg[--a->n]);
}

/* Takes @s; NULL (out of memory) is remembered. */
static void rootfs_arg_take(struct rootfs_args *a, char *s)
{
	if (!s || a->n == ROOTFS_ARGS_MAX) {
		a->broken = true;
		free(s);
		return;
	}
	a->arg[a->n++] = s;
	a->arg[a->n] = NULL;
}

#define rootfs_arg(a, ...) rootfs_arg_take(a, io_path(__VA_ARGS__))

static void rootfs_step(struct rootfs_work *w, const char *fmt, ...)
	printf_like(2, 3);

static void rootfs_step(struct rootfs_work *w, const char *fmt, ...)
{
	struct rootfs_note note = { 0 };
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(note.step, sizeof(note.step), fmt, ap);
	va_end(ap);
	err_drop(io_write_full(w->note_fd, &note, sizeof(note)));
}

/* Is there such a program? */
static int rootfs_need(const char *tool, const char *package, struct err *e)
{
	const char *p = getenv("PATH");

	while (p && *p) {
		size_t len = strcspn(p, ":");
		guard_free char *path = io_path("%.*s/%s", (int)len, p, tool);

		if (!path)
			return err_errno(e, ENOMEM, "find %s", tool);
		if (!access(path, X_OK))
			return 0;
		p += len + (p[len] == ':');
	}
	return err_set(e, ENOENT, "%s is missing: apt-get install %s", tool,
		       package);
}

/*
 * The line of a log that says what went wrong: the first about a full disk,
 * else the first that begins with @mark, else the first at all. Cut out of
 * @log, in place.
 */
static char *rootfs_complaint(char *log, const char *mark)
{
	char *at = strstr(log, strerror(ENOSPC));

	for (char *l = log; !at && mark && l; l = strchr(l, '\n')) {
		l += *l == '\n';
		if (!strncmp(l, mark, strlen(mark)))
			at = l;
	}
	if (!at)
		at = log + strspn(log, " \t\r\n");
	while (at > log && at[-1] != '\n')
		at--;
	at[strcspn(at, "\r\n")] = 0;
	return at;
}

/*
 * Run a tool of which only success matters, for @what ("unpack x.tar"). As
 * another user than root it runs in a user namespace: @ns names the options of
 * unshare(1). @mark: how the interesting line of its output begins.
 */
static int rootfs_run(struct rootfs_work *w, const struct rootfs_args *a,
		      const char *ns, const char *mark, const char *what,
		      struct err *e)
{
	const char *argv[ROOTFS_ARGS_MAX + 10];
	/* Not a file beside the image: the disk may be full. */
	guard_fd int fd = memfd_create("rootfs-log", MFD_CLOEXEC);
	guard_free char *path = io_path("/proc/%d/fd/%d", getpid(), fd);
	guard_free char *log = NULL;
	size_t n = 0;
	ssize_t len;
	char *line;
	int r;

	if (fd < 0 || !path || a->broken)
		return err_errno(e, ENOMEM, "%s", what);
	argv[n++] = "sh";
	argv[n++] = "-c";
	argv[n++] = "exec >\"$0\" 2>&1 </dev/null; exec \"$@\"";
	argv[n++] = path;
	if (!w->root && ns) {
		argv[n++] = "unshare";
		argv[n++] = "--map-root-user";
		if (*ns)
			argv[n++] = ns;
		argv[n++] = "--";
	}
	for (size_t i = 0; i < a->n; i++)
		argv[n++] = a->arg[i];
	argv[n] = NULL;

	r = proc_run(argv, 4096, NULL, e);
	if (!r)
		return 0;
	log = calloc(1, ROOTFS_LOG_MAX + 1);
	len = log ? io_pread_full(fd, log, ROOTFS_LOG_MAX, 0) : -ENOMEM;
	line = len > 0 ? rootfs_complaint(log, mark) : NULL;
	if (!line || !*line)
		return err_prefix(e, "%s", what);
	if (strstr(line, strerror(ENOSPC)))
		r = -ENOSPC;
	return err_set(e, -r, "%s: %s", what, line);
}

static int rootfs_put(const char *dir, const char *name, const char *text,
		      mode_t mode, struct err *e)
{
	guard_free char *path = io_path("%s/%s", dir, name);

	if (!path)
		return err_errno(e, ENOMEM, "write %s", name);
	return io_write_file(path, text, strlen(text), mode, e);
}

/* 0 when @path is an ELF program that needs no dynamic linker. */
static int rootfs_static(const char *path, struct err *e)
{
	guard_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	Elf64_Ehdr h = { 0 };

	if (fd < 0 && errno == ENOENT)
		return err_set(e, ENOENT,
			       "%s is missing: apt-get install busybox-static",
			       path);
	if (fd < 0)
		return err_errno(e, errno, "open %s", path);
	if (io_pread_full(fd, &h, sizeof(h), 0) != sizeof(h) ||
	    memcmp(h.e_ident, ELFMAG, SELFMAG) ||
	    h.e_ident[EI_CLASS] != ELFCLASS64)
		return err_set(e, ENOEXEC, "%s is no 64-bit program", path);
	for (unsigned i = 0; i < h.e_phnum; i++) {
		Elf64_Phdr p = { 0 };

		if (io_pread_full(fd, &p, sizeof(p),
				  h.e_phoff + i * sizeof(p)) != sizeof(p))
			return err_set(e, ENOEXEC, "%s is cut short", path);
		if (p.p_type == PT_INTERP)
			return err_set(
				e, ENOEXEC,
				"%s is not static: apt-get install busybox-static",
				path);
	}
	return 0;
}

/* One applet, as busybox names it ("usr/bin/env"), as a link to busybox. */
static int rootfs_applet(const char *tree, const char *applet, struct err *e)
{
	guard_free char *path = io_path("%s/%s", tree, applet);
	char *slash;
	int r;

	if (!path)
		return err_errno(e, ENOMEM, "link %s", applet);
	slash = strrchr(path, '/');
	*slash = 0;
	r = io_mkdirs(path, 0755, e);
	*slash = '/';
	if (r)
		return r;
	if (symlink("/bin/busybox", path) && errno != EEXIST)
		return err_errno(e, errno, "link %s", path);
	return 0;
}

/* As small as a tree can be in which commands run. */
static int rootfs_busybox(struct rootfs_work *w, const char *tree,
			  struct err *e)
{
	static const char *const dirs[] = { "bin",  "dev", "etc",  "home",
					    "proc", "run", "root", "sbin",
					    "sys",  "tmp", "usr",  "var" };
	static const struct {
		const char *name;
		const char *text;
	} files[] = {
		{ "etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"
				"nobody:x:65534:65534:nobody:/:/bin/sh\n" },
		{ "etc/group", "root:x:0:\nnogroup:x:65534:\n" },
		{ "etc/hostname", "byre\n" },
		{ "etc/hosts", "127.0.0.1 localhost byre\n::1 localhost\n" },
		{ "etc/machine-id", "" },
		/* The name server QEMU's user network plays. */
		{ "etc/resolv.conf", "nameserver 10.0.2.3\n" },
		{ "etc/profile",
		  "export PATH=/usr/sbin:/usr/bin:/sbin:/bin\n" },
	};
	const char *program = w->o->busybox ?: "/bin/busybox";
	const char *const list[] = { program, "--list-full", NULL };
	guard_free char *copy = io_path("%s/bin/busybox", tree);
	guard_free char *tmp = io_path("%s/tmp", tree);
	guard_free char *applets = NULL;
	guard_fd int from = -1;
	guard_fd int to = -1;
	char *save;
	int r;

	if (!copy || !tmp)
		return err_errno(e, ENOMEM, "make a busybox tree");
	rootfs_step(w, "copy busybox");
	r = rootfs_static(program, e);
	if (r)
		return r;
	r = proc_run(list, ROOTFS_APPLETS_MAX, &applets, e);
	if (r)
		return r;
	for (size_t i = 0; i < nitems(dirs); i++) {
		guard_free char *path = io_path("%s/%s", tree, dirs[i]);

		if (!path)
			return err_errno(e, ENOMEM, "mkdir %s", dirs[i]);
		r = io_mkdirs(path, 0755, e);
		if (r)
			return r;
	}
	if (chmod(tmp, 01777))
		return err_errno(e, errno, "chmod %s", tmp);
	for (size_t i = 0; i < nitems(files); i++) {
		r = rootfs_put(tree, files[i].name, files[i].text, 0644, e);
		if (r)
			return r;
	}
	from = open(program, O_RDONLY | O_CLOEXEC);
	if (from < 0)
		return err_errno(e, errno, "open %s", program);
	to = open(copy, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
	if (to < 0)
		return err_errno(e, errno, "create %s", copy);
	r = io_copy_file(from, to, e);
	if (r)
		return r;
	for (char *a = strtok_r(applets, "\n", &save); a;
	     a = strtok_r(NULL, "\n", &save)) {
		/* What it prints are names below /; anything else is not
		 * busybox speaking. */
		if (*a == '/' || strstr(a, ".."))
			return err_set(e, ENOEXEC, "%s --list-full says '%s'",
				       program, a);
		r = rootfs_applet(tree, a, e);
		if (r)
			return r;
	}
	return 0;
}

/* Value of VERSION_CODENAME in the text of os-release(5); NULL: none. */
static char *rootfs_codename(char *text)
{
	char *at = strstr(text, "\nVERSION_CODENAME=");

	if (!at)
		return NULL;
	at = strchr(at, '=') + 1;
	at += *at == '"';
	at[strcspn(at, "\"\n")] = 0;
	return at;
}

struct rootfs_target {
	char *release;
	char *entry; /* "/etc/apt/sources.list:3" */
	char *uri;
	char *component;
};

/* The machine's own source files for @suite, each once. Returns how many. */
static size_t rootfs_own_mirrors(struct rootfs_args *a, const char *suite,
				 const struct rootfs_target *t, size_t n)
{
	size_t start = a->n;

	for (size_t i = 0; i < n; i++) {
		int len = (int)(strrchr(t[i].entry, ':') - t[i].entry);
		bool known = false;

		for (size_t k = start; k < a->n; k++)
			known = known ||
				((size_t)len == strlen(a->arg[k]) &&
				 !strncmp(a->arg[k], t[i].entry, (size_t)len));
		if (!known && !strcmp(t[i].release, suite))
			rootfs_arg(a, "%.*s", len, t[i].entry);
	}
	return a->n - start;
}

/*
 * Add mmdebstrap's MIRROR arguments: the machine's own source files for this
 * suite, with their keys and options; when it has none, where this machine's
 * own release comes from, asked for the other suite.
 */
static int rootfs_mirrors(struct rootfs_args *a, const char *suite,
			  struct err *e)
{
	const char *const argv[] = { "apt-get",
				     "indextargets",
				     "--format",
				     "$(RELEASE) $(SOURCESENTRY) $(REPO_URI) "
				     "$(COMPONENT)",
				     "Created-By: Packages",
				     NULL };
	struct rootfs_target t[ROOTFS_TARGETS_MAX] = { 0 };
	guard_free char *targets = NULL;
	guard_free char *release = NULL;
	struct err ignore = ERR_NULL;
	char *codename = NULL;
	size_t start = a->n;
	size_t n = 0;
	char *lines;
	int r;

	r = proc_run(argv, ROOTFS_SOURCES_MAX, &targets, e);
	if (r)
		return r;
	for (char *l = strtok_r(targets, "\n", &lines); l && n < nitems(t);
	     l = strtok_r(NULL, "\n", &lines)) {
		char *words;

		t[n].release = strtok_r(l, " ", &words);
		t[n].entry = strtok_r(NULL, " ", &words);
		t[n].uri = strtok_r(NULL, " ", &words);
		t[n].component = strtok_r(NULL, " ", &words);
		/* A flat repository has no component, and no suite either. */
		if (t[n].component && strchr(t[n].entry, ':'))
			n++;
	}
	if (rootfs_own_mirrors(a, suite, t, n))
		return 0;

	if (!io_read_file("/etc/os-release", 65536, &release, NULL, &ignore))
		codename = rootfs_codename(release);
	for (size_t i = 0; i < n; i++)
		if (codename && !strcmp(t[i].release, codename))
			rootfs_arg(a, "deb %s %s %s", t[i].uri, suite,
				   t[i].component);
	if (a->n == start)
		return err_set(e, ENOENT,
			       "apt has no source for %s on this machine",
			       suite);
	return 0;
}

/* What a guest has no use for, and what must be there, in a tree mmdebstrap
 * made ($1). Runs as the tree's root. */
static const char rootfs_finish[] =
	"cd \"$1\" && echo byre >etc/hostname && "
	"printf '127.0.0.1 localhost byre\\n::1 localhost\\n' >etc/hosts && "
	"rm -f etc/resolv.conf && "
	/* The name server QEMU's user network plays. */
	"echo 'nameserver 10.0.2.3' >etc/resolv.conf && : >etc/machine-id && "
	"rm -rf var/lib/apt/lists/* var/cache/apt/* var/cache/ldconfig/* "
	"var/cache/debconf/*-old var/lib/dpkg/*-old && "
	"find var/log -type f -delete";

static int rootfs_debian(struct rootfs_work *w, const char *tar, struct err *e)
{
	static const char *const excludes[] = {
		"/usr/share/doc/*",    "/usr/share/man/*",
		"/usr/share/info/*",   "/usr/share/lintian/*",
		"/usr/share/locale/*", "/usr/share/bug/*",
	};
	guard(rootfs_args_deinit) struct rootfs_args a = { 0 };
	const struct rootfs_options *o = w->o;
	guard_free char *what = NULL;
	int r;

	r = rootfs_need("mmdebstrap", "mmdebstrap", e);
	if (!r && !w->root)
		r = rootfs_need("newuidmap", "uidmap", e);
	if (r)
		return r;
	rootfs_step(w, "install Debian %s", o->suite);
	rootfs_arg(&a, "mmdebstrap");
	rootfs_arg(&a, "--mode=%s", w->root ? "root" : "unshare");
	rootfs_arg(&a, "--format=tar");
	rootfs_arg(&a, "--variant=%s", o->variant ?: "essential");
	if (o->include && *o->include)
		rootfs_arg(&a, "--include=%s", o->include);
	for (size_t i = 0; i < nitems(excludes); i++)
		rootfs_arg(&a, "--dpkgopt=path-exclude=%s", excludes[i]);
	/* The licences stay; dpkg must not sync what is thrown away on failure
	 * anyway. */
	rootfs_arg(&a, "--dpkgopt=path-include=/usr/share/doc/*/copyright");
	rootfs_arg(&a, "--dpkgopt=force-unsafe-io");
	rootfs_arg(&a, "--customize-hook=%s", rootfs_finish);
	rootfs_arg(&a, "%s", o->suite);
	rootfs_arg(&a, "%s", tar);
	r = rootfs_mirrors(&a, o->suite, e);
	if (r)
		return r;
	what = io_path("install Debian %s", o->suite);
	return rootfs_run(w, &a, NULL, "E: ", what ?: o->suite, e);
}

static int rootfs_untar(struct rootfs_work *w, const char *tar,
			const char *tree, struct err *e)
{
	guard(rootfs_args_deinit) struct rootfs_args a = { 0 };
	guard_free char *what = io_path("unpack %s", tar);
	int r = w->root ? 0 : rootfs_need("newuidmap", "uidmap", e);

	if (r)
		return r;
	rootfs_step(w, "unpack");
	rootfs_arg(&a, "tar");
	rootfs_arg(&a, "--extract");
	rootfs_arg(&a, "--file=%s", tar);
	rootfs_arg(&a, "--directory=%s", tree);
	rootfs_arg(&a, "--preserve-permissions");
	rootfs_arg(&a, "--same-owner");
	rootfs_arg(&a, "--numeric-owner");
	rootfs_arg(&a, "--xattrs");
	rootfs_arg(&a, "--xattrs-include=*");
	/* Device nodes: a user namespace cannot make them, and the agent
	 * mounts devtmpfs there. */
	rootfs_arg(&a, "--anchored");
	rootfs_arg(&a, "--exclude=./dev/*");
	rootfs_arg(&a, "--exclude=dev/*");
	return rootfs_run(w, &a, "--map-auto", NULL, what ?: tar, e);
}

/* Directories the agent mounts on, or a shell cannot do without. Trees made
 * elsewhere (a container's) often lack them. */
static int rootfs_mountpoints(struct rootfs_work *w, const char *tree,
			      const char *image, struct err *e)
{
	static const char *const dirs[] = { "dev", "proc", "sys",
					    "run", "root", "tmp" };
	guard(rootfs_args_deinit) struct rootfs_args a = { 0 };
	guard_free char *script = io_path("%s/debugfs", w->dir);
	guard_free char *text = io_path("%s", "");

	for (size_t i = 0; text && i < nitems(dirs); i++) {
		guard_free char *path = io_path("%s/%s", tree, dirs[i]);
		guard_free char *more = NULL;
		struct stat st = { 0 };

		if (path && (!lstat(path, &st) || errno != ENOENT))
			continue;
		more = io_path("%smkdir %s\n%s", text, dirs[i],
			       strcmp(dirs[i], "tmp")
				       ? ""
				       : "set_inode_field tmp mode 041777\n");
		free(text);
		text = take(more);
	}
	if (!script || !text)
		return err_errno(e, ENOMEM, "finish %s", image);
	if (!*text)
		return 0;
	rootfs_arg(&a, "debugfs");
	rootfs_arg(&a, "-w");
	rootfs_arg(&a, "-f");
	rootfs_arg(&a, "%s", script);
	rootfs_arg(&a, "%s", image);
	{
		int r = io_write_file(script, text, strlen(text), 0600, e);

		return r
			       ?: rootfs_run(w, &a, NULL, NULL,
					     "finish the file system", e);
	}
}

static const char *rootfs_source_name(const struct rootfs_options *o)
{
	switch (o->source) {
	case ROOTFS_DEBIAN:
		return o->suite;
	case ROOTFS_BUSYBOX:
		return "busybox";
	case ROOTFS_FROM:
		return o->from;
	case ROOTFS_SOURCE_COUNT:
		break;
	}
	must(!"a source");
	return NULL;
}

/* The tree into a fresh file system. @ns: the user namespace in which the
 * tree's owners are what they shall be. */
static int rootfs_image(struct rootfs_work *w, const char *tree, const char *ns,
			const char *image, struct err *e)
{
	guard(rootfs_args_deinit) struct rootfs_args a = { 0 };
	guard_free char *what = NULL;
	guard_fd int fd = -1;
	char size[16];
	int r;

	rootfs_step(w, "write the file system");
	what = io_path("fill %s from %s", format_bytes(w->size_bytes, size),
		       rootfs_source_name(w->o));
	fd = open(image, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return err_errno(e, errno, "create %s", image);
	if (ftruncate(fd, (off_t)w->size_bytes))
		return err_errno(e, errno, "make %s of %s", image, size);
	rootfs_arg(&a, "mke2fs");
	rootfs_arg(&a, "-qF");
	rootfs_arg(&a, "-text4");
	rootfs_arg(&a, "-b4096");
	rootfs_arg(&a, "-I256");
	rootfs_arg(&a, "-i16384");
	rootfs_arg(&a, "-m0");
	rootfs_arg(&a, "-Lbyre");
	rootfs_arg(&a, "-O^has_journal,^metadata_csum,^64bit");
	rootfs_arg(&a, "-Eassume_storage_prezeroed=1,root_owner=0:0");
	rootfs_arg(&a, "-d%s", tree);
	rootfs_arg(&a, "%s", image);
	rootfs_arg(&a, "%llu", (unsigned long long)(w->size_bytes / 4096));
	r = rootfs_run(w, &a, ns, NULL, what ?: tree, e);
	if (r)
		return r;
	r = rootfs_mountpoints(w, tree, image, e);
	if (r)
		return r;
	if (fsync(fd))
		return err_errno(e, errno, "sync %s", image);
	if (rename(image, w->out))
		return err_errno(e, errno, "rename %s", w->out);
	return io_sync_parent(w->out, e);
}

int rootfs_make(struct rootfs_work *w, struct err *e)
{
	const struct rootfs_options *o = w->o;
	guard_free char *tree = io_path("%s/tree", w->dir);
	guard_free char *image = io_path("%s/image", w->dir);
	guard_free char *tar = io_path("%s/tree.tar", w->dir);
	const char *archive = o->from;
	struct stat st = { 0 };
	int r;

	if (!tree || !image || !tar)
		return err_errno(e, ENOMEM, "build %s", o->out);
	r = rootfs_need("mke2fs", "e2fsprogs", e);
	if (r)
		return r;
	if (mkdir(tree, 0755))
		return err_errno(e, errno, "mkdir %s", tree);

	switch (o->source) {
	case ROOTFS_BUSYBOX:
		r = rootfs_busybox(w, tree, e);
		return r ?: rootfs_image(w, tree, "", image, e);
	case ROOTFS_DEBIAN:
		r = rootfs_debian(w, tar, e);
		if (r)
			return r;
		archive = tar;
		break;
	case ROOTFS_FROM:
		if (stat(archive, &st))
			return err_errno(e, errno, "open %s", archive);
		if (access(archive, R_OK))
			return err_errno(e, errno, "read %s", archive);
		if (S_ISDIR(st.st_mode))
			return rootfs_image(w, archive, "", image, e);
		break;
	case ROOTFS_SOURCE_COUNT:
		must(!"a source");
	}
	r = rootfs_untar(w, archive, tree, e);
	if (r)
		return r;
	/* Its room may be needed for the image. */
	if (archive == tar && unlink(tar))
		return err_errno(e, errno, "unlink %s", tar);
	return rootfs_image(w, tree, "--map-auto", image, e);
}
