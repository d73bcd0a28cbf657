/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's side of the pager, against a stand-in: this program, started as
 * "byre pager", writes down what it is told and does what it is asked to
 */
#include "pager/client.h"

#include "base/clock.h"
#include "base/fdpass.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/test.h"
#include "image/index_write.h"
#include "pager/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define MEMORY (8ull << 20)
#define DISK (4ull << 20)
/* Orders for the stand-in: sizes of evictions, and a guest's memory. */
#define ORDER_WHOLE 4096
#define ORDER_RUBBISH 8192
#define ORDER_EXIT 12288
#define ORDER_DEAF 16384
#define ORDER_LOST 20480
#define ORDER_FAIL (3ull << 20)
#define PATIENCE_NS (10 * NS_PER_SEC)

static char dir[256], root[300], run[300], said_path[400];

/* ---- the stand-in ---- */

static void standin_say(int fd, const struct pager_message *m, size_t len)
{
	check(send(fd, m, len, MSG_NOSIGNAL) == (ssize_t)len);
}

static bool standin_fds_ok(const struct pager_message *m, const int *fds,
			   size_t n)
{
	struct stat st = { 0 };

	if (m->type == PAGER_GUEST)
		return n == 2;
	if (m->type != PAGER_LAYER)
		return n == 0;
	return n == 4 && (fcntl(fds[0], F_GETFL) & O_ACCMODE) == O_RDONLY &&
	       (fcntl(fds[1], F_GETFL) & O_ACCMODE) == O_RDWR &&
	       fstat(fds[1], &st) == 0 && st.st_size == MEMORY &&
	       (fcntl(fds[2], F_GETFL) & O_ACCMODE) == O_RDWR &&
	       fstat(fds[2], &st) == 0 && st.st_size == DISK &&
	       fstat(fds[3], &st) == 0 && S_ISSOCK(st.st_mode);
}

static void standin_obey(int control, const struct pager_message *m)
{
	struct pager_message r = { .magic = PAGER_MAGIC, .layer = m->layer };

	if (m->type == PAGER_GUEST && m->ram_bytes == ORDER_FAIL) {
		r.type = PAGER_GUEST_FAILED;
		r.guest = m->guest;
		r.code = ETIMEDOUT;
		snprintf(r.text, sizeof(r.text), "the store is away");
		standin_say(control, &r, sizeof(r));
		standin_say(control, &r, sizeof(r)); /* once is enough */
	}
	if (m->type != PAGER_EVICT)
		return;
	switch (m->bytes) {
	case ORDER_WHOLE:
		r.type = PAGER_WHOLE;
		standin_say(control, &r, sizeof(r));
		break;
	case ORDER_LOST:
		r.type = PAGER_DISK_LOST;
		r.code = EBADMSG;
		snprintf(r.text, sizeof(r.text), "it is damaged");
		standin_say(control, &r, sizeof(r));
		break;
	case ORDER_RUBBISH:
		standin_say(control, &r, 17);
		break;
	case ORDER_EXIT:
		exit(3);
	case ORDER_DEAF:
		for (;;)
			pause();
	}
}

static bool standin_turn(int control, FILE *said)
{
	struct pager_message m = { 0 };
	int fds[8];
	size_t n = 0;
	ssize_t len =
		fdpass_receive(control, &m, sizeof(m), fds, nitems(fds), &n, 0);

	if (len <= 0)
		return false;
	check(len == sizeof(m) && m.magic == PAGER_MAGIC);
	fprintf(said, "%u:%u:%" PRIu64 ":%u%s ", m.type, m.layer, m.guest,
		m.all, standin_fds_ok(&m, fds, n) ? "" : "!");
	fflush(said);
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
	standin_obey(control, &m);
	return true;
}

static bool standin_has(const char *order, const char *its_root)
{
	char path[400];

	snprintf(path, sizeof(path), "%s/../%s", its_root, order);
	return access(path, F_OK) == 0;
}

static int standin(int argc, char **argv)
{
	const struct pager_message ready = { .magic = PAGER_MAGIC,
					     .type = PAGER_READY };
	struct pager_stats *stats;
	int control = -1, fd = -1;
	FILE *said = NULL;
	char path[400];

	for (int i = 2; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--control-fd"))
			control = atoi(argv[i + 1]);
		if (!strcmp(argv[i], "--stats-fd"))
			fd = atoi(argv[i + 1]);
		if (!strcmp(argv[i], "--cache-bytes"))
			check(!strcmp(argv[i + 1], "12345"));
		if (!strcmp(argv[i], "--root")) {
			snprintf(path, sizeof(path), "%s/said", argv[i + 1]);
			said = fopen(path, "a");
		}
	}
	check(control > 2 && fd > 2 && said && getsid(0) == getpid());
	stats = mmap(NULL, sizeof(*stats), PROT_READ | PROT_WRITE, MAP_SHARED,
		     fd, 0);
	check(stats != MAP_FAILED);
	PAGER_COUNT(stats->starts, 1);
	fprintf(said, "| ");
	fflush(said);
	if (standin_has("die", argv[5]))
		return 1;
	if (!standin_has("mute", argv[5]))
		standin_say(control, &ready, sizeof(ready));
	while (standin_turn(control, said))
		;
	fprintf(said, "alone ");
	fflush(said);
	alarm(60); /* as if there were guests */
	for (;;)
		pause();
}

/* ---- what a test needs ---- */

static struct loop loop;
static struct pager *pager;
static unsigned n_whole, n_failed;
static char failed_why[ERR_MSG_MAX];

static void on_whole(unused void *arg, struct pager_layer *l)
{
	check(pager_layer_whole(l));
	n_whole++;
}

static void on_failed(void *arg, const struct err *e)
{
	check(arg == &n_failed && e->code == ETIMEDOUT);
	snprintf(failed_why, sizeof(failed_why), "%s", e->msg);
	n_failed++;
}

static void turn_until(bool (*done)(const void *arg), const void *arg)
{
	uint64_t end_ns = clock_mono_ns() + PATIENCE_NS;
	struct err e = ERR_NULL;

	while (!done(arg)) {
		if (clock_mono_ns() > end_ns)
			fprintf(stderr, "in vain: %s\n",
				arg ? (const char *)arg : "?");
		check(clock_mono_ns() < end_ns);
		check(loop_turn(&loop, 5, &e) == 0);
	}
}

static bool was_said(const void *arg)
{
	guard_free char *text = NULL;

	return io_read_file(said_path, 1 << 20, &text, NULL, NULL) == 0 &&
	       !strcmp(text, arg);
}

/* Exactly that, since the last time; | is the start of a pager. */
static void said(const char *text)
{
	turn_until(was_said, text);
	check(truncate(said_path, 0) == 0);
}

static bool pid_changed(const void *arg)
{
	return pager_pid(pager) > 0 && pager_pid(pager) != *(const pid_t *)arg;
}

static void kill_and_wait(void)
{
	pid_t pid = pager_pid(pager);

	check(pid > 0 && kill(pid, SIGKILL) == 0);
	turn_until(pid_changed, &pid);
}

static void pager_up(const char *program)
{
	struct pager_config config = {
		.loop = &loop,
		.root = root,
		.run = run,
		.program = program,
		.cache_bytes = 12345,
		.whole = on_whole,
	};
	struct err e = ERR_NULL;

	if (pager_new(&config, &pager, &e) < 0)
		fprintf(stderr, "%s\n", e.msg);
	check(!e.code);
}

/* The process of the last one does not go with the object. */
static void pager_down(void)
{
	guard_fd int pidfd = -1;

	if (pager_pid(pager))
		pidfd = pidfd_open(pager_pid(pager), 0);
	pager = pager_free(pager);
	if (pidfd >= 0) {
		siginfo_t si;

		check(pidfd_send_signal(pidfd, SIGKILL, NULL, 0) == 0);
		check(waitid(P_PIDFD, (id_t)pidfd, &si, WEXITED) == 0);
	}
	check(truncate(said_path, 0) == 0);
}

/* An image without a page that is not zero. */
static void make_image(const char *name, char path[400])
{
	const uint64_t bytes[] = { MEMORY, DISK };
	struct index_writer w = INDEX_WRITER_NULL;
	guard_free void *p = NULL;
	struct err e = ERR_NULL;
	char file[500];
	size_t len = 0;

	snprintf(path, 400, "%s/images/%s", root, name);
	check(io_mkdirs(path, 0700, &e) == 0);
	check(index_writer_init(&w, bytes, &e) == 0);
	for (unsigned l = 0; l < INDEX_LAYER_COUNT; l++)
		for (uint64_t i = 0; i < w.zeromap[l].n; i++)
			bitmap_set(&w.zeromap[l], i);
	for (unsigned b = 0; b < INDEX_BLOB_COUNT; b++)
		check(index_writer_blob(&w, b, "{}", 2, &e) == 0);
	if (index_writer_print(&w, &p, &len, &e) < 0)
		fprintf(stderr, "%s\n", e.msg);
	check(p);
	index_writer_deinit(&w);
	snprintf(file, sizeof(file), "%s/index", path);
	check(io_write_file(file, p, len, 0600, &e) == 0);
}

static const struct store_spec store = { .name = "s", .url = "/nowhere" };

static struct pager_layer *open_layer(const char *image)
{
	struct pager_layer *l = NULL;
	struct err e = ERR_NULL;

	if (pager_layer_open(pager, image, &store, &l, &e) < 0)
		fprintf(stderr, "%s\n", e.msg);
	check(l);
	return l;
}

static struct pager_guest *add_guest(struct pager_layer *l, uint64_t bytes)
{
	guard_fd int pidfd = pidfd_open(getpid(), 0);
	struct pager_guest *g = NULL;
	struct err e = ERR_NULL;
	int uffd = open("/dev/null", O_RDWR | O_CLOEXEC);

	check(pager_guest_add(l, uffd, pidfd, 4096, bytes, on_failed, &n_failed,
			      &g, &e) == 0);
	return g;
}

/* ---- tests ---- */

static void test_layer(const char *image)
{
	struct pager_layer *l, *again;
	char path[500];
	struct stat st;
	void *p;

	pager_up("/proc/self/exe");
	check(pager_pid(pager) == 0 && !pager_layer_find(pager, image));
	l = open_layer(image);
	said("| 1:0:0:0 5:0:0:0 ");
	check(pager_pid(pager) > 0 && pager_stats(pager)->starts == 1);
	again = open_layer(image);
	check(again == l && pager_layer_find(pager, image) == l);
	pager_layer_unref(again);
	check(pager_layer_number(l) == 0 && !pager_layer_whole(l));
	check_str(pager_layer_dir(l), image);
	check(index_layer_bytes(pager_layer_index(l), INDEX_MEMORY) == MEMORY);
	/* A VMM's fd is no way to change the layer. */
	check(fstat(pager_layer_fd(l), &st) == 0);
	check(st.st_size == MEMORY && (st.st_mode & 07777) == 0400);
	check(write(pager_layer_fd(l), "x", 1) < 0 && errno == EBADF);
	p = mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, pager_layer_fd(l), 0);
	check(p == MAP_FAILED && errno == EACCES);
	check(ftruncate(pager_layer_memory_fd(l), 0) < 0 && errno == EPERM);
	check(pwrite(pager_layer_memory_fd(l), "x", 1, 0) == 1);
	/* The disk is a file of holes. */
	snprintf(path, sizeof(path), "%s/disk.part", image);
	check(stat(path, &st) == 0 && st.st_size == DISK && !st.st_blocks);
	check(pager_layer_prefetch(l, true) == 0);
	said("5:0:0:1 ");
	check(pager_layer_evict(l, 4095) == 0);
	said("6:0:0:0 ");
	/* Without references it stays, until it is forgotten. */
	pager_layer_unref(l);
	check(pager_layer_find(pager, image) == l);
	pager_forget(pager, image);
	check(!pager_layer_find(pager, image));
	said("4:0:0:0 ");
	pager_down();
}

static void test_guests(const char *image)
{
	struct pager_guest *a, *b;
	struct pager_layer *l;

	pager_up("/proc/self/exe");
	l = open_layer(image);
	a = add_guest(l, MEMORY);
	said("| 1:0:0:0 5:0:0:0 2:0:1:0 ");
	b = add_guest(l, ORDER_FAIL);
	check(n_failed == 0 && pager_layer_guests(l) == 2);
	said("2:0:2:0 ");
	while (!n_failed)
		check(loop_turn(&loop, 5, NULL) == 0);
	check_str(failed_why, "the store is away");
	/* Killed: the next one hears all of it, but not of the lost one. */
	check(pwrite(pager_layer_memory_fd(l), "kept", 4, 4096) == 4);
	kill_and_wait();
	said("| 1:0:0:0 2:0:1:0 5:0:0:0 ");
	check(pager_stats(pager)->starts == 2 && n_failed == 1);
	check(pager_guest_free(b) == NULL);
	pager_guest_free(a);
	said("3:0:1:0 ");
	check(pager_layer_guests(l) == 0);
	/* Forgotten, it goes with its last reference. */
	pager_forget(pager, image);
	pager_layer_unref(l);
	said("4:0:0:0 ");
	pager_down();
	n_failed = 0;
}

static bool is_whole(const void *arg)
{
	return pager_layer_whole(arg);
}

static bool is_lost(const void *arg)
{
	struct err e = ERR_NULL;

	return pager_layer_disk_lost(arg, 0, &e) && e.code == EBADMSG &&
	       !strcmp(e.msg, "it is damaged");
}

/* Why the disk could not be read is kept, with the time. */
static void test_disk_lost(const char *image)
{
	struct pager_layer *l;
	struct err e = ERR_NULL;

	pager_up("/proc/self/exe");
	l = open_layer(image);
	said("| 1:0:0:0 5:0:0:0 ");
	check(!pager_layer_disk_lost(l, 0, &e));
	check(pager_layer_evict(l, ORDER_LOST) == 0);
	turn_until(is_lost, l);
	check(!pager_layer_disk_lost(l, loop.now_ns + 1, &e) && !e.code);
	pager_layer_unref(l);
	pager_down();
}

/* It exits, it talks rubbish, it says the same twice. */
static void test_bad_pager(const char *image)
{
	struct pager_layer *l;
	pid_t pid;

	pager_up("/proc/self/exe");
	l = open_layer(image);
	said("| 1:0:0:0 5:0:0:0 ");
	pid = pager_pid(pager);
	check(pager_layer_evict(l, ORDER_EXIT) == 0);
	turn_until(pid_changed, &pid);
	said("6:0:0:0 | 1:0:0:0 5:0:0:0 ");
	pid = pager_pid(pager);
	check(pager_layer_evict(l, ORDER_RUBBISH) == 0);
	turn_until(pid_changed, &pid);
	said("6:0:0:0 | 1:0:0:0 5:0:0:0 ");
	check(pager_layer_evict(l, ORDER_WHOLE) == 0);
	turn_until(is_whole, l);
	check(n_whole == 1);
	kill_and_wait();
	/* Nothing left to fetch ahead. */
	said("6:0:0:0 | 1:0:0:0 ");
	check(pager_layer_evict(l, ORDER_WHOLE) == 0);
	said("6:0:0:0 ");
	for (int i = 0; i < 20; i++)
		check(loop_turn(&loop, 2, NULL) == 0);
	check(n_whole == 1);
	pager_layer_unref(l);
	pager_down();
	n_whole = 0;
}

/* One that does not listen stops nobody. */
static void test_deaf(const char *image)
{
	struct pager_guest *g[500];
	char text[16 * 500 + 64] = "| 1:0:0:0 ";
	struct pager_layer *l;
	uint64_t t;

	pager_up("/proc/self/exe");
	l = open_layer(image);
	said("| 1:0:0:0 5:0:0:0 ");
	check(pager_layer_evict(l, ORDER_DEAF) == 0);
	said("6:0:0:0 ");
	t = clock_mono_ns();
	for (unsigned i = 0; i < nitems(g); i++)
		g[i] = add_guest(l, MEMORY);
	/* Some are in the socket, some are not; both may leave. */
	g[0] = pager_guest_free(g[0]);
	g[499] = pager_guest_free(g[499]);
	check(clock_mono_ns() - t < 5 * NS_PER_SEC);
	kill_and_wait();
	for (unsigned i = 1; i < nitems(g) - 1; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text),
			 "2:0:%u:0 ", i + 1);
	strcat(text, "5:0:0:0 ");
	said(text);
	for (unsigned i = 1; i < nitems(g) - 1; i++)
		pager_guest_free(g[i]);
	pager_layer_unref(l);
	pager_down();
}

static bool half_a_second(const void *arg)
{
	return clock_mono_ns() - *(const uint64_t *)arg > NS_PER_SEC / 2;
}

static bool is_down(unused const void *arg)
{
	return pager_pid(pager) == 0;
}

static bool lives(unused const void *arg)
{
	return pager_pid(pager) > 0 && was_said("| 1:0:0:0 5:0:0:0 ");
}

/* One that dies at once is not started all the time. */
static void test_haste(const char *image)
{
	struct pager_layer *l;
	uint64_t t = clock_mono_ns(), starts;
	char path[400];
	struct err e = ERR_NULL;

	snprintf(path, sizeof(path), "%s/die", dir);
	check(io_write_file(path, "", 0, 0600, &e) == 0);
	pager_up("/proc/self/exe");
	l = open_layer(image);
	turn_until(half_a_second, &t);
	/* Pauses of 10 ms, 12 ms, 14.4 ms: the 20th start is no sooner than
	 * after a second and a half. */
	starts = pager_stats(pager)->starts;
	check(starts >= 2 && starts <= 20);
	/* In a pause: whoever is started from here on lives. */
	turn_until(is_down, NULL);
	check(unlink(path) == 0);
	check(truncate(said_path, 0) == 0);
	turn_until(lives, NULL);
	check(pager_stats(pager)->starts > starts);
	pager_layer_unref(l);
	pager_down();
}

static bool is_ready(unused const void *arg)
{
	return pager_pid(pager) > 0 && pager->ready;
}

static bool is_old(unused const void *arg)
{
	return is_ready(NULL) &&
	       clock_mono_ns() > pager->started_ns + NS_PER_SEC / 8;
}

/* One that lived is followed at once, however often; one that was killed
 * young, or was never up, after a pause that grows. */
static void test_killed(const char *image)
{
	const uint64_t pauses_us[] = { 10000, 12000, 14400 };
	struct pager_layer *l;
	struct err e = ERR_NULL;
	char path[400];

	pager_up("/proc/self/exe");
	l = open_layer(image);
	for (unsigned i = 0; i < 12; i++) {
		turn_until(is_old, NULL);
		kill_and_wait();
		check(pager->pause_ns == 0);
	}
	for (unsigned i = 0; i < nitems(pauses_us); i++) {
		turn_until(is_ready, NULL);
		kill_and_wait();
		if (!pager->pause_ns)
			break; /* a busy machine let it grow old */
		check(pager->pause_ns == pauses_us[i] * 1000);
	}
	turn_until(is_old, NULL);
	snprintf(path, sizeof(path), "%s/mute", dir);
	check(io_write_file(path, "", 0, 0600, &e) == 0);
	kill_and_wait();
	check(pager->pause_ns == 0);
	while (clock_mono_ns() < pager->started_ns + NS_PER_SEC / 8)
		check(loop_turn(&loop, 5, NULL) == 0);
	kill_and_wait();
	check(pager->pause_ns == pauses_us[0] * 1000);
	check(unlink(path) == 0);
	pager_layer_unref(l);
	pager_down();
}

static bool is_gone(const void *arg)
{
	return kill(*(const pid_t *)arg, 0) < 0 && errno == ESRCH;
}

/* A daemon that is not the parent any more: somebody reaps. */
static bool is_zombie(const void *arg)
{
	return waitpid(*(const pid_t *)arg, NULL, WNOHANG) != 0 || is_gone(arg);
}

static void adopt(const char *image, int fd, int want)
{
	struct pager_layer *l = NULL;
	struct err e = ERR_NULL;

	check(pager_layer_adopt(pager, image, &store, fd, &l, &e) == want);
	check(want == 0 ? l != NULL : e.code == -want && *e.msg);
	if (l)
		check(pager_layer_number(l) == 1);
}

/* The daemon goes, the pager stays, and the next daemon takes over. */
static void test_adopt(const char *image, const char *other)
{
	guard_fd int memory = -1, false_memory = -1;
	struct pager_layer *l, *first;
	struct pager_guest *g;
	char byte[8] = "";
	struct stat st;
	pid_t pid;

	pager_up("/proc/self/exe");
	first = open_layer(other);
	l = open_layer(image);
	g = add_guest(l, MEMORY);
	said("| 1:0:0:0 5:0:0:0 1:1:0:0 5:1:0:0 2:1:1:0 ");
	check(pwrite(pager_layer_memory_fd(l), "kept", 4, 4096) == 4);
	check(pwrite(pager_layer_disk_fd(l), "disk", 4, 0) == 4);
	memory = fcntl(pager_layer_fd(l), F_DUPFD_CLOEXEC, 0);
	check(memory >= 0);
	pid = pager_pid(pager);
	pager_leave(pager);
	pager_guest_free(g);
	pager_layer_unref(l);
	pager_layer_unref(first);
	check(pager_free(pager) == NULL);
	said("alone ");
	check(kill(pid, 0) == 0);

	pager_up("/proc/self/exe");
	check(kill(pid, 0) == 0); /* not before there is another */
	/* Of the right size, but not ours. */
	false_memory = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	check(false_memory >= 0 && ftruncate(false_memory, MEMORY) == 0);
	adopt(image, false_memory, -EBADMSG);
	adopt(image, memory, 0);
	turn_until(is_zombie, &pid);
	adopt(image, memory, 0);
	adopt(image, false_memory, -EBADMSG);
	l = pager_layer_find(pager, image);
	said("| 1:1:0:0 5:1:0:0 ");
	check(pread(pager_layer_memory_fd(l), byte, 4, 4096) == 4);
	check_str(byte, "kept");
	check(pread(pager_layer_disk_fd(l), byte, 4, 0) == 4);
	check_str(byte, "disk");
	check(pwrite(pager_layer_memory_fd(l), "more", 4, 8192) == 4);
	check(write(pager_layer_fd(l), "x", 1) < 0);
	check(fstat(memory, &st) == 0 && (st.st_mode & 07777) == 0400);
	pager_layer_unref(l);
	pager_layer_unref(l);

	/* And nobody comes to adopt: the old one has no business. */
	pid = pager_pid(pager);
	check(pager_free(pager) == NULL);
	said("alone ");
	pager_up("/proc/self/exe");
	turn_until(is_zombie, &pid);
	/* What is open is not lost with the pid file of somebody else. */
	pager_down();
	said("");
}

/* Of another boot, or of none that is known. */
static void test_boot(const char *image)
{
	struct pager_layer *l;
	char path[500], byte[8] = "";
	struct err e = ERR_NULL;
	struct stat st;

	pager_up("/proc/self/exe");
	l = open_layer(image);
	check(pwrite(pager_layer_disk_fd(l), "disk", 4, 0) == 4);
	pager_layer_unref(l);
	pager_down();
	/* The same boot: what was fetched counts. */
	pager_up("/proc/self/exe");
	l = open_layer(image);
	check(pread(pager_layer_disk_fd(l), byte, 4, 0) == 4);
	check_str(byte, "disk");
	pager_layer_unref(l);
	pager_down();
	snprintf(path, sizeof(path), "%s/disk.boot", image);
	check(io_write_file(path, "another 0\n", 10, 0600, &e) == 0);
	pager_up("/proc/self/exe");
	l = open_layer(image);
	check(fstat(pager_layer_disk_fd(l), &st) == 0 && st.st_size == DISK);
	check(st.st_blocks == 0);
	/* Forgotten: what was fetched goes with who has it open. */
	snprintf(path, sizeof(path), "%s/disk.part", image);
	check(access(path, F_OK) == 0);
	pager_forget(pager, image);
	check(access(path, F_OK) < 0 && errno == ENOENT);
	check(pwrite(pager_layer_disk_fd(l), "disk", 4, 0) == 4);
	pager_layer_unref(l);
	/* A disk that is complete is used as it is. */
	snprintf(path, sizeof(path), "%s/disk", image);
	check(io_write_file(path, "whole", 5, 0600, &e) == 0);
	l = open_layer(image);
	check(pread(pager_layer_disk_fd(l), byte, 5, 0) == 5);
	check_str(byte, "whole");
	pager_layer_unref(l);
	check(unlink(path) == 0);
	pager_down();
}

/* More layers than numbers: those that nobody uses give theirs. */
static void test_many(void)
{
	struct pager_layer *l[PAGER_LAYERS_MAX], *more = NULL;
	struct err e = ERR_NULL;
	char image[400], name[32];

	pager_up("/proc/self/exe");
	for (unsigned i = 0; i < nitems(l); i++) {
		snprintf(name, sizeof(name), "many%u", i);
		make_image(name, image);
		l[i] = open_layer(image);
		check(pager_layer_number(l[i]) == i);
	}
	make_image("more", image);
	check(pager_layer_open(pager, image, &store, &more, &e) == -ENOSPC);
	check(strstr(e.msg, "64"));
	pager_layer_unref(l[7]);
	more = open_layer(image);
	check(pager_layer_number(more) == 7);
	for (unsigned i = 0; i < nitems(l); i++)
		if (i != 7)
			pager_layer_unref(l[i]);
	pager_layer_unref(more);
	pager_down();
}

static void test_errors(const char *image)
{
	struct pager_layer *l = NULL;
	struct err e = ERR_NULL;

	pager_up("/no/such/program");
	check(pager_layer_open(pager, image, &store, &l, &e) == -ENOENT);
	check(strstr(e.msg, "start the pager") && !l);
	check(!pager_layer_find(pager, image));
	e = (struct err)ERR_NULL;
	check(pager_layer_open(pager, "/no/such", &store, &l, &e) == -ENOENT);
	check(strstr(e.msg, "/no/such/index"));
	e = (struct err)ERR_NULL;
	check(pager_layer_adopt(pager, "/no/such", &store, 0, &l, &e) ==
	      -ENOENT);
	check(strstr(e.msg, "/no/such: "));
	pager_leave(pager);
	e = (struct err)ERR_NULL;
	check(pager_layer_open(pager, image, &store, &l, &e) == -ECANCELED);
	check(pager_free(pager) == NULL && pager_free(NULL) == NULL);
}

int main(int argc, char **argv)
{
	char image[400], other[400];
	struct err e = ERR_NULL;

	if (argc > 2 && !strcmp(argv[1], "pager"))
		return standin(argc, argv);
	log_set_level(LOG_LEVEL_ERROR);
	test_dir(dir, sizeof(dir));
	snprintf(root, sizeof(root), "%s/root", dir);
	snprintf(run, sizeof(run), "%s/run", dir);
	snprintf(said_path, sizeof(said_path), "%s/said", root);
	check(io_mkdirs(root, 0700, &e) == 0 && io_mkdirs(run, 0700, &e) == 0);
	check(loop_init(&loop, &e) == 0);
	make_image("im1", image);
	make_image("im2", other);
	test_layer(image);
	test_guests(image);
	test_disk_lost(image);
	test_bad_pager(image);
	test_deaf(image);
	test_haste(image);
	test_killed(image);
	test_adopt(image, other);
	test_boot(image);
	test_many();
	test_errors(image);
	loop_deinit(&loop);
	check(io_remove_tree(dir, &e) == 0);
	return 0;
}
