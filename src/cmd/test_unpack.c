/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unpacking what a hostile guest sends
 *
 * The world: T/out is where the copy goes, T/secret is what must not change,
 * T/out/trap is a link to T that was there before.
 */
#include "base/io.h"
#include "base/test.h"
#include "cmd/unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static char world[64];
static struct unpack u;
static struct err e;

static char *at(const char *name)
{
	static char path[300];

	snprintf(path, sizeof(path), "%s/%s", world, name);
	return path;
}

static void world_make(void)
{
	test_dir(world, sizeof(world));
	check(mkdir(at("out"), 0755) == 0);
	check(io_write_file(at("secret"), "mine", 4, 0600, NULL) == 0);
	check(symlink(world, at("out/trap")) == 0);
	e = (struct err)ERR_NULL;
}

static void world_check_secret(void)
{
	char *text = NULL;
	struct stat st;

	check(io_read_file(at("secret"), 100, &text, NULL, NULL) == 0);
	check_str(text, "mine");
	free(text);
	check(stat(at("secret"), &st) == 0 && (st.st_mode & 07777) == 0600);
	check(access(at("new"), F_OK) < 0 && access(at("a"), F_OK) < 0);
}

static void world_drop(void)
{
	world_check_secret();
	check(io_remove_tree(world, NULL) == 0);
}

static void begin(const char *name)
{
	int fd = open(at("out"), O_PATH | O_DIRECTORY | O_CLOEXEC);

	check(fd >= 0);
	unpack_init(&u, fd, name);
}

static int entry(enum wire_kind kind, const char *path, uint32_t mode,
		 uint64_t size, const char *link)
{
	static struct entry x;

	x = (struct entry){ .kind = kind,
			    .mode = mode,
			    .mtime_ns = 1234567890123456789ull,
			    .size = size };
	strcpy(x.path, path);
	strcpy(x.link, link);
	return unpack_entry(&u, &x, &e);
}

static int dir(const char *path)
{
	return entry(WIRE_KIND_DIR, path, 0755, 0, "");
}

static int file(const char *path, const char *text)
{
	int r = entry(WIRE_KIND_FILE, path, 0644, strlen(text), "");

	return r || !*text ? r : unpack_data(&u, text, strlen(text), &e);
}

static int sym(const char *path, const char *target)
{
	return entry(WIRE_KIND_LINK, path, 0777, 0, target);
}

static bool holds(const char *name, const char *text)
{
	char *have = NULL;
	bool same;

	if (io_read_file(at(name), 1000, &have, NULL, NULL) < 0)
		return false;
	same = !strcmp(have, text);
	free(have);
	return same;
}

static unsigned mode_of(const char *name)
{
	struct stat st;

	check(lstat(at(name), &st) == 0);
	return st.st_mode & 07777;
}

static void test_honest_tree(void)
{
	struct stat st;
	char target[20] = "";

	world_make();
	begin("t");
	check(entry(WIRE_KIND_DIR, "", 0555, 0, "") == 0);
	check(entry(WIRE_KIND_DIR, "d", 0500, 0, "") == 0);
	check(file("d/f", "hello") == 0);
	check(entry(WIRE_KIND_FILE, "d/empty", 04755, 0, "") == 0);
	check(dir("d2") == 0);
	check(sym("d2/l", "../d/f") == 0);
	check(entry(WIRE_KIND_FILE, "big", 0600, 10, "") == 0);
	check(unpack_data(&u, "12345", 5, &e) == 0);
	check(access(at("out/t/big"), F_OK) < 0); /* not before it is whole */
	check(unpack_data(&u, "67890", 5, &e) == 0);
	check(unpack_end(&u, &e) == 0);
	unpack_deinit(&u);
	check(holds("out/t/d/f", "hello") && holds("out/t/big", "1234567890"));
	check(mode_of("out/t") == 0555 && mode_of("out/t/d") == 0500);
	check(mode_of("out/t/d/empty") == 0755); /* no set-uid */
	check(readlink(at("out/t/d2/l"), target, 19) == 6);
	check_str(target, "../d/f");
	check(stat(at("out/t/d"), &st) == 0);
	check(st.st_mtim.tv_sec == 1234567890 &&
	      st.st_mtim.tv_nsec == 123456789);
	check(lstat(at("out/t/d2/l"), &st) == 0);
	check(st.st_mtim.tv_sec == 1234567890);
	world_drop();
}

static void test_single_things(void)
{
	world_make();
	begin("f");
	check(file("", "one") == 0 && unpack_end(&u, &e) == 0);
	unpack_deinit(&u);
	check(holds("out/f", "one"));
	begin("f"); /* replaced */
	check(file("", "two") == 0 && unpack_end(&u, &e) == 0);
	unpack_deinit(&u);
	check(holds("out/f", "two"));
	begin("l");
	check(sym("", "/etc/passwd") == 0 && unpack_end(&u, &e) == 0);
	unpack_deinit(&u);
	/* A file over a link replaces the link. */
	begin("trap");
	check(file("", "x") == 0 && unpack_end(&u, &e) == 0);
	unpack_deinit(&u);
	check(holds("out/trap", "x"));
	/* The contents of a directory, into one that is here. */
	begin("");
	check(dir("") == 0 && file("n", "y") == 0 && unpack_end(&u, &e) == 0);
	unpack_deinit(&u);
	check(holds("out/n", "y") && mode_of("out") == 0755);
	world_drop();
}

/* A link, then things below it; links that were here before. */
static void test_through_links(void)
{
	world_make();
	begin("t");
	check(dir("") == 0 && sym("a", world) == 0);
	check(file("a/new", "x") < 0);
	check(dir("a/new") < 0);
	check(sym("a/new", "x") < 0);
	check(dir("a") == -ENOTDIR);
	check(sym("b", "..") == 0 && dir("b/c") < 0);
	check(file("b", "now a file") == 0); /* replaces the link */
	unpack_deinit(&u);

	begin("");
	check(dir("") == 0 && file("trap/new", "x") < 0);
	check(file("trap/secret", "x") < 0);
	unpack_deinit(&u);
	begin("trap");
	check(dir("") == -ENOTDIR);
	unpack_deinit(&u);
	world_drop();
}

/* What entry_read() lets through is what unpack gets. */
static void test_paths(void)
{
	static const char *const bad[] = {
		"/",   "/etc", "..",   "../x", "a/..", "a/../b",    ".",
		"./a", "a/.",  "a//b", "a/",   "//",   "a/../../b",
	};
	char name[ENTRY_NAME_MAX + 1];

	for (size_t i = 0; i < nitems(bad); i++)
		check(!entry_path_ok(bad[i]));
	check(entry_path_ok("") && entry_path_ok("a") &&
	      entry_path_ok("a/b/...") && entry_path_ok("..a/b.."));
	memset(name, 'x', sizeof(name));
	name[ENTRY_NAME_MAX] = '\0';
	check(!entry_path_ok(name));
	name[ENTRY_NAME_MAX - 1] = '\0';
	check(entry_path_ok(name));
}

static int read_entry(const char *path, size_t path_len, uint64_t kind,
		      uint64_t mode, uint64_t size)
{
	static uint8_t mem[WIRE_FRAME_MAX];
	static struct entry x;
	struct wire_out o;
	struct wire_frame f = { 0 };
	size_t used = 0;
	int len;

	wire_begin(&o, mem, sizeof(mem), WIRE_ENTRY, 0, 1);
	wire_put(&o, WIRE_K_PATH, path, path_len);
	wire_put_u64(&o, WIRE_K_KIND, kind);
	wire_put_u64(&o, WIRE_K_MODE, mode);
	wire_put_u64(&o, WIRE_K_SIZE, size);
	len = wire_end(&o);
	check(len > 0);
	check(wire_next(mem, (size_t)len, &f, &used, NULL) == 0);
	return entry_read(&f, &x, &e);
}

static void test_frames(void)
{
	static char longer[ENTRY_PATH_MAX + 1];

	check(read_entry("a/b", 3, WIRE_KIND_FILE, 0644, 3) == 0);
	check(read_entry("a/../b", 6, WIRE_KIND_FILE, 0644, 3) == -EBADMSG);
	check(read_entry("a\0b", 3, WIRE_KIND_FILE, 0644, 3) == -EBADMSG);
	check(read_entry("a", 1, WIRE_KIND_COUNT, 0644, 3) == -EBADMSG);
	check(read_entry("a", 1, UINT64_MAX, 0644, 3) == -EBADMSG);
	check(read_entry("a", 1, WIRE_KIND_FILE, 010000, 3) == -EBADMSG);
	check(read_entry("a", 1, WIRE_KIND_FILE, 0, UINT64_MAX) == -EBADMSG);
	check(read_entry("a", 1, WIRE_KIND_LINK, 0, 0) == -EBADMSG);
	for (size_t i = 0; i < ENTRY_PATH_MAX; i++)
		longer[i] = i % 2 ? '/' : 'a';
	check(read_entry(longer, ENTRY_PATH_MAX, WIRE_KIND_FILE, 0, 0) ==
	      -EBADMSG);
}

/* The order and amount of things. */
static void test_disorder(void)
{
	world_make();
	begin("t");
	check(file("x", "in nothing") == -EBADMSG);
	unpack_deinit(&u);
	begin("t");
	check(unpack_end(&u, &e) == -EBADMSG);
	check(unpack_data(&u, "x", 1, &e) == -EBADMSG);
	unpack_deinit(&u);

	begin("t");
	check(dir("") == 0);
	check(unpack_data(&u, "x", 1, &e) == -EBADMSG);
	check(dir("") == -EBADMSG); /* the top twice */
	check(file("nowhere/x", "x") == -ENOENT);
	check(file("f", "x") == 0);
	check(unpack_data(&u, "x", 1, &e) == -EBADMSG);
	check(file("f/x", "x") < 0); /* below a file */
	check(dir("f") == -ENOTDIR);
	check(dir("d") == 0 && dir("d") == 0 && file("d", "x") == -EISDIR);
	check(sym("d", "x") == -EISDIR);
	/* More than it said, and less. */
	check(entry(WIRE_KIND_FILE, "g", 0600, 3, "") == 0);
	check(unpack_data(&u, "1234", 4, &e) == -EBADMSG);
	check(unpack_data(&u, "12", 2, &e) == 0);
	check(dir("h") == -EBADMSG);
	check(unpack_end(&u, &e) == -EBADMSG);
	unpack_deinit(&u);
	check(access(at("out/t/g"), F_OK) < 0);
	/* Nothing of ours is left but what was whole. */
	check(io_remove_tree(at("out/t/d"), NULL) == 0);
	check(unlink(at("out/t/f")) == 0 && rmdir(at("out/t")) == 0);

	begin("t");
	check(file("", "x") == 0 && file("y", "x") == -EBADMSG);
	check(file("", "x") == -EBADMSG);
	unpack_deinit(&u);
	begin("");
	check(file("", "x") == -ENOTDIR);
	unpack_deinit(&u);
	world_drop();
}

/* A file that was there stays as it was until the new one is whole. */
static void test_half_a_file(void)
{
	world_make();
	check(io_write_file(at("out/f"), "old", 3, 0644, NULL) == 0);
	begin("f");
	check(entry(WIRE_KIND_FILE, "", 0600, 100, "") == 0);
	check(unpack_data(&u, "new", 3, &e) == 0);
	check(holds("out/f", "old"));
	unpack_deinit(&u);
	unpack_deinit(&u); /* idempotent */
	check(holds("out/f", "old"));
	check(unlink(at("out/f")) == 0 && unlink(at("out/trap")) == 0);
	check(rmdir(at("out")) == 0); /* no temporary file either */
	check(mkdir(at("out"), 0755) == 0);
	world_drop();
}

static void test_depth(void)
{
	char path[ENTRY_PATH_MAX] = "";
	int r = 0, depth = 0;

	world_make();
	begin("t");
	check(dir("") == 0);
	while (r == 0 && depth < 1000) {
		strcat(path, depth ? "/a" : "a");
		r = dir(path);
		depth++;
	}
	check(r == -EBADMSG && depth == UNPACK_DEPTH_MAX);
	unpack_deinit(&u);
	world_drop();
}

/* From here on this process lives on a kernel without openat2(). */
static void no_openat2(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog filter = { nitems(code), code };

	check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	check(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
	check(syscall(SYS_openat2, -1, "", NULL, 0) < 0 && errno == ENOSYS);
}

static void test_all(void)
{
	test_honest_tree();
	test_single_things();
	test_through_links();
	test_disorder();
	test_half_a_file();
	test_depth();
}

int main(void)
{
	test_paths();
	test_frames();
	test_all();
	no_openat2();
	test_all();
	return 0;
}
