/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pager for Firecrackers, and a Firecracker, as far as a pager can tell
 *
 *	test_firecracker			the unit test
 *	test_firecracker run SOCKET MEMORY VERSION
 *	test_firecracker bad SOCKET MEMORY HOW
 *	test_firecracker image DIR		for the scenario: whole, store,
 *						remote below DIR
 *
 * run is what src/vmm/src/persist.rs does of a snapshot load, byte for byte:
 * anonymous, private memory without reserve, a userfaultfd that does not block,
 * UFFDIO_API with EVENT_REMOVE, MISSING, and one sendmsg. Then threads fault,
 * discard and write at random, and every byte is compared with MEMORY. VERSION:
 * 1.1, 1.7, 1.12 (keys), gap (two regions), more (unknown keys), linger (touch
 * a page, say so, wait), sweep (every page in order), huge (the same, and pages
 * are said to be of 2 MiB).
 *
 * bad is what no Firecracker does; it ends well when the connection is closed
 * upon it. Who sends a userfaultfd with it should not come so far: it is killed.
 */
#include "pager/firecracker.h"

#include "base/clock.h"
#include "base/proc.h"
#include "image/store.h"
#include "pager/handshake.h"
#include "pager/test_image.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

#define MIB (1ull << 20)
#define MEMORY (22 * MIB)
/* The second region's, of the gap. */
#define ABOVE (6 * MIB)
#define THREADS 3
#define HUGE_BYTES (2 * MIB)

struct region {
	uint8_t *p;
	uint64_t bytes, offset;
};

struct machine {
	struct region region[2];
	unsigned n;
	uint64_t bytes;
	const uint8_t *image; /* what memory was */
	int uffd, fd;
};

/* ---- a Firecracker ---- */

static uint8_t *machine_at(const struct machine *m, uint64_t offset)
{
	const struct region *r = &m->region[m->n - 1];

	return offset >= r->offset ? r->p + (offset - r->offset)
				   : m->region[0].p + offset;
}

/* Aligned to 2 MiB, as Firecracker's regions are. */
static uint8_t *machine_map(uint64_t bytes)
{
	uint8_t *p = mmap(NULL, bytes + HUGE_BYTES, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uintptr_t up;

	check(p != MAP_FAILED);
	up = ((uintptr_t)p + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES;
	return (uint8_t *)up;
}

static int machine_uffd(void)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_EVENT_REMOVE };

	if (fd < 0)
		test_skip("userfaultfd is not permitted");
	check(ioctl(fd, UFFDIO_API, &api) == 0);
	return fd;
}

static struct machine machine_new(const char *memory, bool gap)
{
	struct machine m = { .n = 1, .uffd = machine_uffd(), .fd = -1 };
	int fd = open(memory, O_RDONLY | O_CLOEXEC);
	struct stat st = { 0 };

	check(fd >= 0 && fstat(fd, &st) == 0);
	m.bytes = (uint64_t)st.st_size;
	m.image = mmap(NULL, m.bytes, PROT_READ, MAP_SHARED, fd, 0);
	check(m.image != MAP_FAILED);
	close(fd);
	m.region[0].bytes = m.bytes - (gap ? ABOVE : 0);
	m.region[1].bytes = ABOVE;
	m.region[1].offset = m.region[0].bytes;
	m.n += gap;
	for (unsigned i = 0; i < m.n; i++) {
		struct uffdio_register r = {
			.mode = UFFDIO_REGISTER_MODE_MISSING
		};

		m.region[i].p = machine_map(m.region[i].bytes);
		r.range.start = (uintptr_t)m.region[i].p;
		r.range.len = m.region[i].bytes;
		check(ioctl(m.uffd, UFFDIO_REGISTER, &r) == 0);
	}
	return m;
}

static int machine_connect(const char *path)
{
	struct err e = ERR_NULL;
	int fd = -1;

	/* The pager listens before all else, but it has to be started. */
	for (int i = 0; io_connect_unix(path, false, &fd, &e) < 0; i++) {
		check(i < 500);
		usleep(20000);
	}
	return fd;
}

/* serde's output: keys in the struct's order, no spaces. */
static void machine_json(const struct machine *m, const char *version,
			 char *out, size_t size)
{
	const char *more = "";
	size_t len = 0;

	if (!strcmp(version, "1.7"))
		more = ",\"page_size_kib\":4096";
	else if (!strcmp(version, "huge"))
		more = ",\"page_size\":2097152,\"page_size_kib\":2097152";
	else if (!strcmp(version, "more"))
		more = ",\"page_size\":4096,\"page_size_kib\":4096,"
		       "\"gpa_start\":0,\"flags\":[\"x\",{}]";
	else if (strcmp(version, "1.1") != 0)
		more = ",\"page_size\":4096,\"page_size_kib\":4096";
	for (unsigned i = 0; i < m->n; i++)
		len += (size_t)snprintf(
			out + len, size - len,
			"%s{\"base_host_virt_addr\":%" PRIu64
			",\"size\":%" PRIu64 ",\"offset\":%" PRIu64 "%s}",
			i ? "," : "[", (uint64_t)(uintptr_t)m->region[i].p,
			m->region[i].bytes, m->region[i].offset, more);
	snprintf(out + len, size - len, "]");
}

/* ---- what its guest does ---- */

struct vcpu {
	const struct machine *m;
	uint64_t first, pages; /* this thread's alone */
	unsigned seed;
	uint8_t *zero; /* per page: discarded; 2: written */
};

static unsigned vcpu_random(struct vcpu *v)
{
	v->seed = v->seed * 1103515245 + 12345;
	return v->seed >> 8;
}

static void vcpu_compare(const struct vcpu *v, uint64_t i)
{
	static const uint8_t zeros[INDEX_PAGE];
	const uint8_t *p = machine_at(v->m, (v->first + i) * INDEX_PAGE);

	if (v->zero[i] == 2) {
		for (unsigned k = 0; k < INDEX_PAGE; k += 64)
			check(p[k] == (uint8_t)(i + k));
		return;
	}
	check(!memcmp(p,
		      v->zero[i] ? zeros
				 : v->m->image + (v->first + i) * INDEX_PAGE,
		      INDEX_PAGE));
}

static void vcpu_write(const struct vcpu *v, uint64_t i)
{
	uint8_t *p = machine_at(v->m, (v->first + i) * INDEX_PAGE);

	for (unsigned k = 0; k < INDEX_PAGE; k += 64)
		p[k] = (uint8_t)(i + k);
	v->zero[i] = 2;
}

static void vcpu_discard(struct vcpu *v, uint64_t i)
{
	uint64_t n = 1 + vcpu_random(v) % 16;
	uint64_t at = (v->first + i) * INDEX_PAGE;

	n = min(n, v->pages - i);
	/* Not over a region's end. */
	if (v->m->n > 1 && at < v->m->region[1].offset)
		n = min(n, (v->m->region[1].offset - at) / INDEX_PAGE);
	check(madvise(machine_at(v->m, at), n * INDEX_PAGE, MADV_DONTNEED) ==
	      0);
	memset(v->zero + i, 1, n);
}

static void *vcpu_main(void *arg)
{
	struct vcpu *v = arg;

	for (unsigned k = 0; k < 3 * v->pages; k++) {
		uint64_t i = vcpu_random(v) % v->pages;
		unsigned what = vcpu_random(v) % 32;

		if (what == 0)
			vcpu_discard(v, i);
		else if (what < 4)
			vcpu_write(v, i);
		else
			vcpu_compare(v, i);
	}
	for (uint64_t i = 0; i < v->pages; i++)
		vcpu_compare(v, i);
	return NULL;
}

static void machine_run(const struct machine *m)
{
	uint64_t pages = m->bytes / INDEX_PAGE, part = pages / THREADS;
	struct vcpu v[THREADS] = { 0 };
	pthread_t thread[THREADS];

	for (unsigned i = 0; i < THREADS; i++) {
		v[i].m = m;
		v[i].first = i * part;
		v[i].pages = i == THREADS - 1 ? pages - v[i].first : part;
		v[i].seed = i * 7919 + (unsigned)getpid();
		v[i].zero = calloc(1, v[i].pages);
		check(v[i].zero);
		check(!pthread_create(&thread[i], NULL, vcpu_main, &v[i]));
	}
	for (unsigned i = 0; i < THREADS; i++) {
		check(!pthread_join(thread[i], NULL));
		free(v[i].zero);
	}
}

static void machine_sweep(const struct machine *m)
{
	for (uint64_t at = 0; at < m->bytes; at += INDEX_PAGE)
		check(!memcmp(machine_at(m, at), m->image + at, INDEX_PAGE));
}

static int client_run(const char *path, const char *memory, const char *version)
{
	struct machine m = machine_new(memory, !strcmp(version, "gap"));
	char json[4096];

	machine_json(&m, version, json, sizeof(json));
	m.fd = machine_connect(path);
	sample_send(m.fd, json, strlen(json), &m.uffd, 1);
	if (!strcmp(version, "1.1") || !strcmp(version, "1.7"))
		close(m.fd); /* kept open since 1.12 */
	if (!strcmp(version, "linger")) {
		check(!memcmp(m.region[0].p, m.image, INDEX_PAGE));
		puts("touched");
		fflush(stdout);
		for (;;)
			pause();
	}
	if (!strcmp(version, "sweep") || !strcmp(version, "huge"))
		machine_sweep(&m);
	else
		machine_run(&m);
	return 0;
}

/* ---- nobody's Firecracker ---- */

static void bad_send(const struct machine *m, const char *how, const char *json)
{
	guard_free char *big = malloc(HANDSHAKE_BYTES_MAX + 4096);
	const int two[] = { m->uffd, m->uffd };
	char copy[4096];
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC), raw;

	check(big);
	snprintf(copy, sizeof(copy), "%s", json);
	if (!strcmp(how, "no-fd")) {
		sample_send(m->fd, json, strlen(json), NULL, 0);
		shutdown(m->fd, SHUT_WR);
	} else if (!strcmp(how, "two-fds")) {
		sample_send(m->fd, json, strlen(json), two, 2);
	} else if (!strcmp(how, "other-fd")) {
		sample_send(m->fd, json, strlen(json), &null, 1);
	} else if (!strcmp(how, "no-json")) {
		copy[3] = '\0';
		sample_send(m->fd, "hello", 5, &m->uffd, 1);
	} else if (!strcmp(how, "half")) {
		sample_send(m->fd, json, strlen(json) / 2, &m->uffd, 1);
		shutdown(m->fd, SHUT_WR);
	} else if (!strcmp(how, "slow")) {
		sample_send(m->fd, json, strlen(json) / 2, &m->uffd, 1);
	} else if (!strcmp(how, "outside")) {
		snprintf(copy, sizeof(copy),
			 "[{\"base_host_virt_addr\":%" PRIu64
			 ",\"size\":%" PRIu64 ",\"offset\":4096}]",
			 (uint64_t)(uintptr_t)m->region[0].p, m->bytes);
		sample_send(m->fd, copy, strlen(copy), &m->uffd, 1);
	} else if (!strcmp(how, "endless")) {
		memset(big, ' ', HANDSHAKE_BYTES_MAX + 4096);
		/* It may be closed upon us in the middle. */
		err_drop((int)send(m->fd, big, HANDSHAKE_BYTES_MAX + 4096,
				   MSG_NOSIGNAL));
	} else if (!strcmp(how, "end")) {
		shutdown(m->fd, SHUT_WR);
	} else if (!strcmp(how, "raw")) {
		raw = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
		check(raw >= 0);
		sample_send(m->fd, json, strlen(json), &raw, 1);
	} else {
		check(!strcmp(how, "silent"));
	}
	close(null);
}

static int client_bad(const char *path, const char *memory, const char *how)
{
	struct machine m = machine_new(memory, false);
	struct pollfd p = { .events = POLLIN };
	char json[4096], byte;

	machine_json(&m, "1.12", json, sizeof(json));
	m.fd = p.fd = machine_connect(path);
	bad_send(&m, how, json);
	/* As a Firecracker, which does not look at its connection again. */
	if (!strcmp(how, "outside"))
		return m.region[0].p[0];
	if (!strcmp(how, "raw"))
		pause();
	check(poll(&p, 1, 15000) == 1);
	check(read(m.fd, &byte, 1) <= 0);
	return 0;
}

static int client_image(const char *dir)
{
	guard_free char *whole = sample_file(dir, "whole");
	guard_free char *store = sample_file(dir, "store");
	guard_free char *remote = sample_file(dir, "remote");

	sample_image(whole, MEMORY, MIB);
	sample_push(whole, store, remote);
	return 0;
}

/* ---- the unit test ---- */

static char top[200];

static const char *path_of(const char *name)
{
	static char paths[4][300];
	static unsigned next;
	char *p = paths[next++ % nitems(paths)];

	snprintf(p, sizeof(paths[0]), "%s/%s", top, name);
	return p;
}

static pid_t spawn_pager(const char *dir, const struct store_spec *store)
{
	struct firecracker_config config = { .socket = path_of("fc.sock"),
					     .dir = dir,
					     .store = store };
	struct err e = ERR_NULL;
	pid_t pid = fork();
	int fd;

	check(pid >= 0);
	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	fd = open(path_of("log"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
		  0600);
	check(fd >= 0 && dup2(fd, STDERR_FILENO) >= 0);
	if (firecracker(&config, &e) < 0) {
		fprintf(stderr, "%s\n", e.msg);
		_exit(1);
	}
	_exit(0);
}

static pid_t spawn_client(int (*fn)(const char *, const char *, const char *),
			  const char *how)
{
	pid_t pid = fork();

	check(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		check(freopen("/dev/null", "w", stdout));
		_exit(fn(path_of("fc.sock"), path_of("whole/memory"), how));
	}
	return pid;
}

static int ended(pid_t pid)
{
	int status = -1;

	check(waitpid(pid, &status, 0) == pid);
	return status;
}

/* Within some seconds. */
static void said(const char *words)
{
	struct err e = ERR_NULL;

	for (int i = 0;; i++) {
		guard_free char *text = NULL;

		sample_ok(
			io_read_file(path_of("log"), 1 << 20, &text, NULL, &e),
			&e);
		if (strstr(text, words))
			return;
		if (i == 500) {
			fprintf(stderr, "no \"%s\" in\n%s", words, text);
			exit(1);
		}
		usleep(10000);
	}
}

/* The number behind @key in the last line of counts. */
static uint64_t counted(const char *key)
{
	guard_free char *text = NULL;
	struct err e = ERR_NULL;
	char *line = NULL, *p;

	sample_ok(io_read_file(path_of("log"), 1 << 20, &text, NULL, &e), &e);
	for (p = text; (p = strstr(p, "event=counts")); p++)
		line = p;
	check(line);
	line[strcspn(line, "\n")] = '\0';
	p = strstr(line, key);
	check(p);
	return strtoull(p + strlen(key), NULL, 10);
}

static void stop(pid_t pager)
{
	check(kill(pager, SIGTERM) == 0);
	check(ended(pager) == 0);
	said("event=counts");
	check(access(path_of("fc.sock"), F_OK) < 0);
	check(unlink(path_of("log")) == 0);
}

static void test_versions(void)
{
	static const char *const version[] = { "1.1",  "1.7",   "1.12", "gap",
					       "more", "sweep", "huge" };
	pid_t pid[nitems(version)];

	for (size_t i = 0; i < nitems(version); i++)
		pid[i] = spawn_client(client_run, version[i]);
	for (size_t i = 0; i < nitems(version); i++)
		check(ended(pid[i]) == 0);
	said("event=connected");
	said("regions=2");
	said("page_bytes=2097152");
	said("event=ended");
}

/* Who is refused ends by itself when its connection does. A Firecracker whose
 * memory is registered would not: it is @killed. */
static void refused(pid_t pid, bool killed)
{
	int status = ended(pid);

	if (killed)
		check(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	else
		check(status == 0);
}

/* Asked for, while it serves. */
static void test_counts(pid_t pager)
{
	pid_t a = spawn_client(client_run, "linger");
	char words[64];

	snprintf(words, sizeof(words), "event=connected pid=%d", a);
	said(words);
	check(kill(pager, SIGUSR1) == 0);
	said("event=counts guests=1 faults=");
	check(counted(" faults=") == counted(" faults_present=") +
					     counted(" faults_zero=") +
					     counted(" faults_waited="));
	check(counted(" faults_present=") > MEMORY / INDEX_PAGE);
	check(counted(" faults_zero=") > 0);
	check(counted(" memory_present_bytes=") > 0);
	check(counted(" latency_us_p99=") >= counted(" latency_us_p50="));
	check(kill(a, SIGKILL) == 0);
	check(WIFSIGNALED(ended(a)));
}

static uint64_t cpu_ns(pid_t pid)
{
	struct timespec t;
	clockid_t clock;

	check(clock_getcpuclockid(pid, &clock) == 0);
	check(clock_gettime(clock, &t) == 0);
	return (uint64_t)t.tv_sec * NS_PER_SEC + (uint64_t)t.tv_nsec;
}

static rlim_t lowest_free_fd(pid_t pid)
{
	char path[64];

	for (rlim_t n = 0;; n++) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%u", pid,
			 (unsigned)n);
		if (faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
			return n;
	}
}

/* Without an fd to spare it waits, and does nothing else; so does who connects,
 * who is served then. */
static void test_starved(pid_t pager)
{
	struct rlimit was, l;
	uint64_t ns;
	pid_t a;

	check(prlimit(pager, RLIMIT_NOFILE, NULL, &was) == 0);
	l = was;
	l.rlim_cur = lowest_free_fd(pager);
	check(prlimit(pager, RLIMIT_NOFILE, &l, NULL) == 0);
	a = spawn_client(client_run, "sweep");
	said("event=starved error=\"accept: Too many");
	ns = cpu_ns(pager);
	sleep(1);
	check(cpu_ns(pager) - ns < 100 * NS_PER_MS);
	check(prlimit(pager, RLIMIT_NOFILE, &was, NULL) == 0);
	check(ended(a) == 0);
}

static void test_nonsense(void)
{
	static const struct {
		const char *how, *words;
		bool killed;
	} bad[] = {
		{ "no-fd", "action=close error=\"no fd came with it", false },
		{ "two-fds", "action=kill error=\"more than one fd", true },
		{ "other-fd", "action=close error=\"the fd is no user", false },
		{ "no-json", "action=kill error=\"no JSON", true },
		{ "half", "action=kill error=\"the JSON ends too early", true },
		{ "outside", "is outside the image", true },
		{ "endless", "action=close error=\"too much text", false },
		{ "end", "action=close error=\"it said nothing", false },
		{ "raw", "action=kill error=\"read page faults", true },
	};
	pid_t silent = spawn_client(client_bad, "silent");
	pid_t slow = spawn_client(client_bad, "slow");

	for (size_t i = 0; i < nitems(bad); i++) {
		refused(spawn_client(client_bad, bad[i].how), bad[i].killed);
		said(bad[i].words);
	}
	/* Others are served meanwhile. */
	check(ended(spawn_client(client_run, "1.12")) == 0);
	refused(silent, false);
	refused(slow, true);
}

/* One is killed, the others stay; the pager ends, they freeze. */
static void test_killed(pid_t pager)
{
	pid_t a = spawn_client(client_run, "linger");
	pid_t b = spawn_client(client_run, "linger");
	char words[64];

	snprintf(words, sizeof(words), "event=connected pid=%d", a);
	said(words);
	snprintf(words, sizeof(words), "event=connected pid=%d", b);
	said(words);
	check(kill(a, SIGKILL) == 0);
	check(WIFSIGNALED(ended(a)));
	snprintf(words, sizeof(words), "event=ended pid=%d", a);
	said(words);
	stop(pager);
	usleep(20000);
	check(waitpid(b, NULL, WNOHANG) == 0);
	check(kill(b, SIGKILL) == 0);
	check(WIFSIGNALED(ended(b)));
}

static void damage(void)
{
	guard_free char *store = sample_file(top, "store");
	guard_fd int fd = open(path_of("remote/index"), O_RDONLY | O_CLOEXEC);

	sample_spoil(fd, store);
}

static void test_remote(void)
{
	struct store_spec store = { .name = SAMPLE_STORE };
	pid_t pager, a;
	int status;

	snprintf(store.url, sizeof(store.url), "%s/store", top);
	pager = spawn_pager(path_of("remote"), &store);
	a = spawn_client(client_run, "gap");
	check(ended(spawn_client(client_run, "1.12")) == 0);
	check(ended(a) == 0);
	stop(pager);
	damage();
	pager = spawn_pager(path_of("remote"), &store);
	status = ended(spawn_client(client_run, "sweep"));
	check(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	said("event=failed");
	said("action=kill");
	said("is damaged");
	stop(pager);
}

/* The file of an image becomes shorter while it is served. */
static void test_cut(void)
{
	const char *whole = path_of("whole"), *cut = path_of("cut");
	struct err e = ERR_NULL;
	pid_t pager;
	int status;

	sample_ok(proc_run((const char *[]){ "/bin/cp", "-a", "--sparse=always",
					     whole, cut, NULL },
			   4096, NULL, &e),
		  &e);
	pager = spawn_pager(cut, NULL);
	check(ended(spawn_client(client_run, "sweep")) == 0);
	check(truncate(path_of("cut/memory"), MEMORY / 2) == 0);
	status = ended(spawn_client(client_run, "sweep"));
	check(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	said("action=kill");
	stop(pager);
}

static void test_refused(void)
{
	pid_t pager = spawn_pager(path_of("store"), NULL);
	int status = ended(pager);

	check(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	said("manifest.json");
	check(unlink(path_of("log")) == 0);
	/* Remote, and nobody says where. */
	pager = spawn_pager(path_of("remote"), NULL);
	status = ended(pager);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	said("store sample is not known");
	check(unlink(path_of("log")) == 0);
	check(access(path_of("fc.sock"), F_OK) < 0);
}

static void test_all(void)
{
	struct err e = ERR_NULL;
	pid_t pager;

	close(machine_uffd());
	check(setenv("BYRE_PAGER_DEADLINE", "3", 1) == 0);
	test_dir(top, sizeof(top));
	client_image(top);
	pager = spawn_pager(path_of("whole"), NULL);
	test_versions();
	test_counts(pager);
	test_starved(pager);
	test_nonsense();
	test_killed(pager);
	test_cut();
	test_remote();
	test_refused();
	sample_ok(io_remove_tree(top, &e), &e);
}

int main(int argc, char **argv)
{
	if (argc == 5 && !strcmp(argv[1], "run"))
		return client_run(argv[2], argv[3], argv[4]);
	if (argc == 5 && !strcmp(argv[1], "bad"))
		return client_bad(argv[2], argv[3], argv[4]);
	if (argc == 3 && !strcmp(argv[1], "image"))
		return client_image(argv[2]);
	check(argc == 1);
	test_all();
	return 0;
}
