/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trees of files, put and got
 */
#include "agent/test_agent.h"

#include <dirent.h>
#include <ftw.h>
#include <sys/stat.h>

static char test_tmp[256];

static const char *test_path(const char *name)
{
	static char path[4][512];
	static unsigned i;

	snprintf(path[++i % 4], sizeof(path[0]), "%s%s", test_tmp, name);
	return path[i % 4];
}

static void test_entry(uint32_t stream, const char *path, uint64_t kind,
		       uint64_t mode, uint64_t size, const char *link)
{
	test_begin(WIRE_ENTRY, 0, stream);
	wire_put_str(&test_o, WIRE_K_PATH, path);
	wire_put_u64(&test_o, WIRE_K_KIND, kind);
	wire_put_u64(&test_o, WIRE_K_MODE, mode);
	wire_put_u64(&test_o, WIRE_K_UID, geteuid());
	wire_put_u64(&test_o, WIRE_K_GID, getegid());
	wire_put_u64(&test_o, WIRE_K_MTIME, 1000000000500000000ull);
	wire_put_u64(&test_o, WIRE_K_SIZE, size);
	if (link)
		wire_put_str(&test_o, WIRE_K_LINK, link);
	test_send();
}

static struct test_stream *test_put(uint32_t stream, const char *path)
{
	memset(&test_a.s[stream], 0, sizeof(test_a.s[stream]));
	test_begin(WIRE_PUT, 0, stream);
	wire_put_str(&test_o, WIRE_K_PATH, path);
	test_send();
	return test_wait_started(stream);
}

static struct test_stream *test_put_end(uint32_t stream)
{
	test_simple(WIRE_EOF, WIRE_STDIN, stream);
	return test_wait(stream);
}

static struct test_stream *test_get(uint32_t stream, const char *path)
{
	memset(&test_a.s[stream], 0, sizeof(test_a.s[stream]));
	test_begin(WIRE_GET, 0, stream);
	wire_put_str(&test_o, WIRE_K_PATH, path);
	return test_run(stream);
}

static unsigned test_find_entry(const struct test_stream *s, const char *path)
{
	unsigned i;

	for (i = 0; i < s->entries; i++)
		if (!strcmp(s->entry[i], path))
			return i;
	check(!"the entry is missing");
	return 0;
}

static int test_remove(const char *path, const struct stat *st, int type,
		       struct FTW *where)
{
	(void)st;
	(void)type;
	(void)where;
	return remove(path);
}

static void test_files(void)
{
	struct test_stream *s;
	struct stat st;
	char text[64] = { 0 };
	unsigned i;
	int fd;

	test_start();
	s = test_put(1, test_path("/tree"));
	check(s->started && !s->has_kind);
	test_entry(1, "", WIRE_KIND_DIR, 0750, 0, NULL);
	test_entry(1, "a", WIRE_KIND_FILE, 04711, 5, NULL);
	test_data(1, "he", 2);
	test_data(1, "llo", 3);
	test_entry(1, "d", WIRE_KIND_DIR, 0500, 0, NULL);
	test_entry(1, "d/empty", WIRE_KIND_FILE, 0600, 0, NULL);
	test_entry(1, "d/e", WIRE_KIND_DIR, 0755, 0, NULL);
	test_entry(1, "d/e/deep", WIRE_KIND_FILE, 0444, 3, NULL);
	test_data(1, "abc", 3);
	test_entry(1, "dd", WIRE_KIND_LINK, 0, 0, "d/e/../empty");
	s = test_put_end(1);
	check(!s->error && s->code == 0);

	check(stat(test_path("/tree"), &st) == 0);
	check((st.st_mode & 07777) == 0750);
	check(st.st_mtim.tv_sec == 1000000000);
	check(st.st_mtim.tv_nsec == 500000000);
	check(stat(test_path("/tree/a"), &st) == 0 && st.st_size == 5);
	check((st.st_mode & 07777) == 04711);
	check(st.st_mtim.tv_sec == 1000000000);
	check(stat(test_path("/tree/d"), &st) == 0);
	check((st.st_mode & 07777) == 0500);
	check(st.st_mtim.tv_sec == 1000000000);
	check(lstat(test_path("/tree/dd"), &st) == 0 && S_ISLNK(st.st_mode));
	check(st.st_mtim.tv_sec == 1000000000);
	fd = open(test_path("/tree/d/e/deep"), O_RDONLY);
	check(read(fd, text, sizeof(text)) == 3 && !strcmp(text, "abc"));
	close(fd);

	check(mkfifo(test_path("/tree/pipe"), 0600) == 0); /* skipped */
	s = test_get(2, test_path("/tree"));
	check(s->code == 0 && !s->error && s->entries == 7);
	check_str(s->entry[0], "");
	check(s->entry_kind[0] == WIRE_KIND_DIR && s->entry_mode[0] == 0750);
	i = test_find_entry(s, "a");
	check(s->entry_size[i] == 5 && s->entry_mode[i] == 04711);
	check(s->entry_mtime[i] == 1000000000500000000ull);
	i = test_find_entry(s, "dd");
	check(s->entry_kind[i] == WIRE_KIND_LINK);
	check_str(s->entry_link[i], "d/e/../empty");
	check(test_find_entry(s, "d/e/deep") > test_find_entry(s, "d/e"));
	check(test_find_entry(s, "d/e") > test_find_entry(s, "d"));
	test_find_entry(s, "d/empty");
	check(s->len[WIRE_STDIN] == 8);

	/* One file, one link, through a link, nothing. */
	s = test_get(2, test_path("/tree/a"));
	check(s->entries == 1 && s->entry_kind[0] == WIRE_KIND_FILE);
	check_str(s->entry[0], "");
	check_str(s->out[WIRE_STDIN], "hello");
	s = test_get(2, test_path("/tree/dd"));
	check(s->entries == 1 && s->entry_kind[0] == WIRE_KIND_LINK);
	check(symlink("tree", test_path("/alias")) == 0);
	s = test_get(2, test_path("/alias/"));
	check(s->entries == 7);
	s = test_get(2, test_path("/missing"));
	check(s->error == ENOENT && strstr(s->message, "/missing"));
	s = test_get(2, test_path("/tree/pipe"));
	check(s->error == EINVAL);
	s = test_get(2, "relative");
	check(s->error == EINVAL);

	/* What exists is told, and merged or kept. */
	s = test_put(3, test_path("/alias"));
	check(s->has_kind && s->kind == WIRE_KIND_DIR);
	test_entry(3, "", WIRE_KIND_DIR, 0700, 0, NULL);
	test_entry(3, "a", WIRE_KIND_FILE, 0600, 2, NULL);
	test_data(3, "hi", 2);
	s = test_put_end(3);
	check(s->code == 0 && !s->error);
	check(stat(test_path("/tree"), &st) == 0);
	check((st.st_mode & 07777) == 0750);
	check(stat(test_path("/tree/a"), &st) == 0 && st.st_size == 2);
	s = test_put(3, test_path("/tree/a"));
	check(s->has_kind && s->kind == WIRE_KIND_FILE);
	test_simple(WIRE_CLOSE, 0, 3);
	check(test_wait(3)->error == ECANCELED);
	test_stop();
}

static struct test_stream *test_put_one(const char *path, const char *entry,
					uint64_t kind, uint64_t size)
{
	test_put(5, path);
	test_entry(5, entry, kind, 0644, size, "target");
	return &test_a.s[5];
}

static void test_files_refused(void)
{
	static uint8_t big[WIRE_PAYLOAD_MAX];
	struct test_stream *s;
	struct dirent *d;
	struct stat st;
	unsigned i;
	DIR *dir;

	test_start();
	test_put_one(test_path("/tree"), "", WIRE_KIND_FILE, 0);
	check(test_wait(5)->error == EISDIR);
	test_put_one(test_path("/tree"), "d", WIRE_KIND_FILE, 1);
	s = test_wait(5);
	check(s->error == EISDIR && strstr(s->message, "d"));
	test_put_one(test_path("/tree"), "a", WIRE_KIND_DIR, 0);
	check(test_wait(5)->error == ENOTDIR);
	test_put_one(test_path("/tree"), "a/b", WIRE_KIND_FILE, 0);
	check(test_wait(5)->error == ENOTDIR);
	test_put_one(test_path("/tree"), "none/b", WIRE_KIND_FILE, 0);
	check(test_wait(5)->error == ENOENT);
	test_put_one(test_path("/tree"), "d/../../b", WIRE_KIND_FILE, 0);
	check(test_wait(5)->error == EINVAL);
	test_put_one(test_path("/tree"), "..", WIRE_KIND_LINK, 0);
	check(test_wait(5)->error == EINVAL);
	test_put_one(test_path("/tree"), "/abs", WIRE_KIND_FILE, 0);
	check(test_wait(5)->error == EINVAL);
	test_put_one(test_path("/tree"), "x", 99, 0);
	check(test_wait(5)->error == EPROTO);
	/* Never through a link below PATH. */
	check(symlink("/tmp", test_path("/tree/out")) == 0);
	test_put_one(test_path("/tree"), "out/b", WIRE_KIND_FILE, 0);
	check(test_wait(5)->error == ENOTDIR);
	test_put(5, "/no/such/place");
	check(test_wait(5)->error == ENOENT);

	/* Too much, too little, out of turn: nothing half is left. */
	test_put_one(test_path("/half"), "", WIRE_KIND_FILE, 3);
	test_data(5, "abcd", 4);
	check(test_wait(5)->error == EPROTO);
	test_put_one(test_path("/half"), "", WIRE_KIND_FILE, 3);
	test_data(5, "ab", 2);
	check(test_put_end(5)->error == EPROTO);
	test_put_one(test_path("/half"), "", WIRE_KIND_FILE, 3);
	test_hello();
	check(stat(test_path("/half"), &st) < 0);
	dir = opendir(test_path(""));
	check(dir);
	while ((d = readdir(dir)))
		check(strncmp(d->d_name, ".byre", 5));
	closedir(dir);

	/* A full disk; data sent after the RESULT is ignored. */
	if (access("/dev/full", W_OK) == 0 && geteuid() == 0) {
		test_put(6, "/proc/self/x");
		test_entry(6, "", WIRE_KIND_FILE, 0600, 100, NULL);
		s = test_wait(6);
		check(s->error && strstr(s->message, "x"));
		test_data(6, "late", 4);
	}

	/* Many windows one way and the other. */
	for (i = 0; i < sizeof(big); i++)
		big[i] = (uint8_t)(i ^ i >> 8);
	test_put(7, test_path("/big"));
	test_entry(7, "", WIRE_KIND_FILE, 0600, 40 * sizeof(big), NULL);
	for (i = 0; i < 40; i++) {
		while ((i + 1) * sizeof(big) > WIRE_WINDOW + test_a.s[7].credit)
			check(test_poll(TEST_PATIENCE_MS));
		test_data(7, big, sizeof(big));
	}
	s = test_put_end(7);
	check(s->code == 0 && !s->error);
	s = test_get(8, test_path("/big"));
	check(s->len[WIRE_STDIN] == 40 * sizeof(big));
	check(!memcmp(s->out[WIRE_STDIN], big, 4096));

	/* A file that shrinks while it is read: its ENTRY was not kept. */
	test_a.give_credit = false;
	memset(&test_a.s[9], 0, sizeof(test_a.s[9]));
	test_begin(WIRE_GET, 0, 9);
	wire_put_str(&test_o, WIRE_K_PATH, test_path("/big"));
	test_send();
	while (test_a.s[9].len[WIRE_STDIN] < WIRE_WINDOW)
		check(test_poll(TEST_PATIENCE_MS));
	check(truncate(test_path("/big"), 1000) == 0);
	test_a.give_credit = true;
	test_number(WIRE_CREDIT, WIRE_STDIN, 9, WIRE_K_BYTES, WIRE_WINDOW);
	s = test_wait(9);
	check(s->error == EIO && s->len[WIRE_STDIN] == WIRE_WINDOW);
	check_str(s->message, "it shrank meanwhile");
	test_stop();
}

/* One file as read() has it, its ENTRY before it. */
static void test_get_like(const char *path)
{
	static char want[8192];
	struct test_stream *s;
	int fd = open(path, O_RDONLY);
	size_t len = 0;
	ssize_t n;

	if (fd < 0)
		return; /* another kernel */
	while ((n = read(fd, want + len, sizeof(want) - 1 - len)) > 0)
		len += (size_t)n;
	close(fd);
	s = test_get(1, path);
	check(s->code == 0 && !s->error && s->entries == 1);
	check(s->entry_size[0] == s->len[WIRE_STDIN]);
	check(len && len < sizeof(want) - 1);
	check(s->len[WIRE_STDIN] == len && !memcmp(s->out[0], want, len));
}

/* Files whose size is made up: 0 in /proc, a page in /sys. */
static void test_files_made_up(void)
{
	struct test_stream *s;

	test_start();
	test_get_like("/proc/version");
	test_get_like("/proc/filesystems");
	test_get_like("/sys/kernel/uevent_seqnum");
	test_get_like("/sys/kernel/mm/transparent_hugepage/enabled");
	/* Changes meanwhile, but is not empty. */
	s = test_get(1, "/proc/self/status");
	check(s->code == 0 && !s->error && s->len[WIRE_STDIN] > 100);
	check(s->entry_size[0] == s->len[WIRE_STDIN]);
	/* Longer than is read ahead, where it is. */
	s = test_get(1, "/proc/kallsyms");
	if (s->error)
		check(s->error == EFBIG && strstr(s->message, "1 MiB") &&
		      !s->entries);
	else
		check(s->entry_size[0] == s->len[WIRE_STDIN]);
	/* Empty is empty. */
	check(close(open(test_path("/empty"), O_CREAT | O_WRONLY, 0600)) == 0);
	s = test_get(1, test_path("/empty"));
	check(s->code == 0 && !s->error && s->entries == 1);
	check(!s->entry_size[0] && !s->len[WIRE_STDIN]);
	test_stop();
}

/* A walk as deep as it goes, and one too deep. */
static void test_files_deep(void)
{
	struct test_stream *s;
	char path[1024];
	size_t len;
	unsigned i;

	test_start();
	len = (size_t)snprintf(path, sizeof(path), "%s/deep", test_tmp);
	check(mkdir(path, 0755) == 0);
	for (i = 0; i < 64; i++) {
		len += (size_t)snprintf(path + len, sizeof(path) - len, "/d");
		check(mkdir(path, 0755) == 0);
	}
	s = test_get(1, test_path("/deep/d"));
	check(s->code == 0 && !s->error && s->entries == 64);
	s = test_get(1, test_path("/deep"));
	check(s->error == ENAMETOOLONG && s->message[0]);
	test_stop();
}

int main(void)
{
	test_prepare();
	test_dir(test_tmp, sizeof(test_tmp));
	test_files();
	test_files_refused();
	test_files_made_up();
	test_files_deep();
	/* Not root: what cannot be written cannot be emptied. */
	check(chmod(test_path("/tree/d"), 0700) == 0);
	check(nftw(test_tmp, test_remove, 16, FTW_DEPTH | FTW_PHYS) == 0);
	return 0;
}
