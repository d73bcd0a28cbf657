/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pager process, told what to do by a daemon of ours
 *
 * The "VMM" is this process: it maps the layer and faults. What the pager takes
 * for the VMM's process is a child that sleeps.
 */
#include "pager/serve.h"

#include "base/clock.h"
#include "base/proc.h"
#include "pager/proto.h"
#include "pager/stats.h"
#include "pager/test_image.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define MEMORY (14u << 20)
#define DISK (9u << 20)
#define PAGES (MEMORY / INDEX_PAGE)
#define LAYER 5u

static char top[200], whole[300], store_dir[300], remote[300];
static struct pager_stats *stats;
static int stats_fd, memory_fd, disk_fd, index_fd, listen_fd = -1;
static int control;
static pid_t pager;

/* ---- the daemon's side ---- */

/* What a pager says is nobody's business here. */
static void log_to_file(void)
{
	guard_free char *path = sample_file(top, "log");
	guard_fd int fd =
		open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	check(fd >= 0 && dup2(fd, STDERR_FILENO) >= 0);
}

static void start_sliced(uint64_t slice_bytes)
{
	guard_free char *run = sample_file(top, "run");
	struct serve_config config = { .root = top,
				       .run = run,
				       .cache_bytes = 64 << 20,
				       .stats_fd = stats_fd,
				       .slice_bytes = slice_bytes };
	struct err e = ERR_NULL;
	int pair[2];

	sample_ok(io_mkdirs(run, 0700, &e), &e);
	check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
	pager = fork();
	check(pager >= 0);
	if (pager == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(pair[0]);
		log_to_file();
		config.control_fd = pair[1];
		if (serve_daemon(&config, &e) < 0) {
			fprintf(stderr, "%s\n", e.msg);
			_exit(1);
		}
		_exit(0);
	}
	close(pair[1]);
	control = pair[0];
}

static void start(void)
{
	start_sliced(0);
}

/* It must end by itself now. */
static void ends(void)
{
	int status = -1;

	for (int i = 0; waitpid(pager, &status, WNOHANG) == 0; i++) {
		check(i < 2000);
		usleep(10000);
	}
	check(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void say_raw(const void *p, size_t len, const int *fds, size_t n)
{
	sample_send(control, p, len, fds, n);
}

static void say(struct pager_message m, const int *fds, size_t n)
{
	m.magic = PAGER_MAGIC;
	say_raw(&m, sizeof(m), fds, n);
}

/* The next message of that type; other ones before it are no error. */
static struct pager_message hear(uint32_t type)
{
	struct pager_message m = { 0 };
	struct pollfd p = { .fd = control, .events = POLLIN };

	do {
		check(poll(&p, 1, 20000) == 1);
		check(recv(control, &m, sizeof(m), 0) == sizeof(m));
		check(m.magic == PAGER_MAGIC);
	} while (m.type != type);
	return m;
}

/* As the daemon makes it: connecting works before there is a pager. */
static void make_listener(void)
{
	guard_free char *dir = io_path("%s/run/nbd", top);
	guard_free char *path = io_path("%s/run/nbd/%u", top, LAYER);
	struct err e = ERR_NULL;

	check(dir && path && io_mkdirs(dir, 0711, &e) == 0);
	check(io_listen_unix(path, 0666, &listen_fd, &e) == 0);
}

static void say_layer(void)
{
	struct pager_message m = { .type = PAGER_LAYER, .layer = LAYER };
	const int fds[] = { index_fd, memory_fd, disk_fd, listen_fd };

	snprintf(m.store.name, sizeof(m.store.name), SAMPLE_STORE);
	snprintf(m.store.url, sizeof(m.store.url), "%s", store_dir);
	say(m, fds, 4);
}

/* ---- the VMM's side ---- */

struct vmm {
	uint8_t *p;
	int uffd, pidfd;
	pid_t pid;
};

static int uffd_new(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		test_skip("userfaultfd is not permitted");
	check(ioctl(fd, UFFDIO_API, &api) == 0);
	return fd;
}

static struct vmm vmm_new(void)
{
	struct vmm v = { .uffd = uffd_new() };
	struct uffdio_register r = { .mode = UFFDIO_REGISTER_MODE_MISSING };

	v.p = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_NORESERVE, memory_fd, 0);
	check(v.p != MAP_FAILED);
	r.range.start = (uintptr_t)v.p;
	r.range.len = MEMORY;
	check(ioctl(v.uffd, UFFDIO_REGISTER, &r) == 0);
	v.pid = fork();
	check(v.pid >= 0);
	if (v.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pause();
		_exit(0);
	}
	v.pidfd = pidfd_open(v.pid, 0);
	check(v.pidfd >= 0);
	return v;
}

static void vmm_end(struct vmm *v)
{
	check(kill(v->pid, SIGKILL) == 0);
	check(waitpid(v->pid, NULL, 0) == v->pid);
	close(v->pidfd);
	close(v->uffd);
	munmap(v->p, MEMORY);
}

static void say_guest(const struct vmm *v, uint64_t guest)
{
	const int fds[] = { v->uffd, v->pidfd };

	say((struct pager_message){ .type = PAGER_GUEST,
				    .layer = LAYER,
				    .guest = guest,
				    .ram_addr = (uintptr_t)v->p,
				    .ram_bytes = MEMORY },
	    fds, 2);
}

static void vmm_same(const struct vmm *v, uint64_t step)
{
	uint32_t page[INDEX_PAGE / 4];

	for (uint64_t i = 0; i < PAGES; i += step) {
		sample_page(i, 1, page);
		check(!memcmp(v->p + i * INDEX_PAGE, page, INDEX_PAGE));
	}
}

/* ---- the disk ---- */

/* A connection with the bytes on their way, or the error that came instead. */
static uint32_t disk_read(uint64_t offset, uint32_t len, int *ret_fd)
{
	struct {
		uint32_t magic;
		uint16_t flags, command;
		uint64_t cookie, offset;
		uint32_t len;
	} __attribute__((packed)) q = { .magic = htobe32(0x25609513),
					.offset = htobe64(offset),
					.len = htobe32(len) };
	struct {
		uint64_t magic;
		uint32_t option, len;
		char name[4];
	} __attribute__((packed)) o = { .magic = htobe64(0x49484156454f5054),
					.option = htobe32(1),
					.len = htobe32(4),
					.name = { 'd', 'i', 's', 'k' } };
	guard_free char *path = io_path("%s/run/nbd/%u", top, LAYER);
	guard_fd int fd = -1;
	uint32_t flags = htobe32(3), error;
	uint8_t head[18];
	struct err e = ERR_NULL;

	/* Until the pager has come to the layer; an earlier one's socket may
	 * be there still. */
	for (int i = 0; io_connect_unix(path, false, &fd, &e) < 0; i++) {
		check(i < 1000);
		usleep(10000);
	}
	check(io_read_full(fd, head, 18) == 18);
	check(io_write_full(fd, &flags, 4) == 0);
	check(io_write_full(fd, &o, sizeof(o)) == 0);
	check(io_read_full(fd, head, 10) == 10);
	check(io_write_full(fd, &q, sizeof(q)) == 0);
	check(io_read_full(fd, head, 16) == 16);
	memcpy(&error, head + 4, sizeof(error));
	*ret_fd = fd_take(&fd);
	return be32toh(error);
}

static void disk_same(uint64_t offset, uint32_t len)
{
	guard_free uint8_t *p = malloc(len);
	uint32_t page[INDEX_PAGE / 4];
	guard_fd int fd = -1;

	check(disk_read(offset, len, &fd) == 0);
	check(io_read_full(fd, p, len) == (ssize_t)len);
	for (uint64_t i = 0; i < len / INDEX_PAGE; i++) {
		sample_page(offset / INDEX_PAGE + i, 2, page);
		check(!memcmp(p + i * INDEX_PAGE, page, INDEX_PAGE));
	}
}

/* ---- stories ---- */

static void test_pid_file(void)
{
	guard_free char *path = sample_file(top, "run/pager.pid");
	guard_free char *text = NULL;
	struct proc_id id = { 0 };
	struct err e = ERR_NULL;
	char want[64];

	check(proc_identify(pager, &id) == 0);
	snprintf(want, sizeof(want), "%d %" PRIu64 "\n", pager, id.start_ticks);
	sample_ok(io_read_file(path, 64, &text, NULL, &e), &e);
	check_str(text, want);
	check(PAGER_GET(stats->starts) >= 1);
}

/* Each is dropped; the pager goes on. */
static void test_nonsense(void)
{
	struct pager_message m = { .type = PAGER_LAYER, .layer = LAYER };
	const int many[8] = { index_fd, memory_fd, disk_fd, listen_fd };

	say_raw("hello", 5, NULL, 0);
	say_raw(&m, sizeof(m), NULL, 0); /* no magic */
	m.magic = PAGER_MAGIC;
	say(m, many, 2);
	say(m, many, 5);
	say(m, many, 6);
	say(m, many, 8);
	m.layer = PAGER_LAYERS_MAX;
	say(m, many, 4);
	m.layer = LAYER;
	memset(m.store.url, 'x', sizeof(m.store.url));
	say(m, many, 4);
	say((struct pager_message){ .type = 77 }, NULL, 0);
	say((struct pager_message){ .type = PAGER_WHOLE }, NULL, 0);
	say((struct pager_message){ .type = PAGER_PREFETCH, .layer = 9 }, NULL,
	    0);
	say((struct pager_message){ .type = PAGER_LAYER_GONE, .layer = 9 },
	    NULL, 0);
	say((struct pager_message){ .type = PAGER_GUEST_GONE, .guest = 9 },
	    NULL, 0);
	say((struct pager_message){ .type = PAGER_GUEST,
				    .guest = 7,
				    .ram_addr = 4097,
				    .ram_bytes = 4096 },
	    many, 2);
	/* A guest of a layer that nobody knows. */
	say((struct pager_message){ .type = PAGER_GUEST,
				    .guest = 7,
				    .layer = 9,
				    .ram_addr = 4096,
				    .ram_bytes = 4096 },
	    many, 2);
	m = hear(PAGER_GUEST_FAILED);
	check(m.guest == 7 && m.layer == 9 && m.code > 0 && m.text[0]);
	/* A layer that cannot be had is what its guest fails of. */
	m = (struct pager_message){ .type = PAGER_LAYER, .layer = 9 };
	say(m, (const int[]){ disk_fd, memory_fd, disk_fd, listen_fd }, 4);
	say((struct pager_message){ .type = PAGER_GUEST,
				    .guest = 8,
				    .layer = 9,
				    .ram_addr = 4096,
				    .ram_bytes = 4096 },
	    many, 2);
	m = hear(PAGER_GUEST_FAILED);
	check(m.guest == 8 && m.layer == 9 && strstr(m.text, "index"));
}

static void test_serves(struct vmm *a)
{
	struct pager_message m;

	say_layer();
	say_guest(a, 1);
	vmm_same(a, 1);
	check(PAGER_GET(stats->layer[LAYER].faults) > 0);
	check(PAGER_GET(stats->layer[LAYER].guests) == 1);
	disk_same(0, 1 << 20);
	disk_same(DISK - (2 << 20), 2 << 20);
	check(PAGER_GET(stats->layer[LAYER].disk_reads) == 2);
	check(PAGER_GET(stats->layer[LAYER].disk_read_bytes) == 3 << 20);
	say((struct pager_message){ .type = PAGER_PREFETCH,
				    .layer = LAYER,
				    .all = 1 },
	    NULL, 0);
	m = hear(PAGER_WHOLE);
	check(m.layer == LAYER);
	say((struct pager_message){ .type = PAGER_EVICT,
				    .layer = LAYER,
				    .bytes = 1 << 20 },
	    NULL, 0);
	m = hear(PAGER_EVICTED);
	check(m.layer == LAYER && m.bytes >= 1 << 20);
	vmm_same(a, 1);
}

/* The pager ends; its successor serves the same guests. */
static void test_again(struct vmm *a)
{
	struct vmm b = vmm_new();

	check(kill(pager, SIGTERM) == 0);
	ends();
	close(control);
	start();
	say_layer();
	say_guest(a, 1);
	say_guest(&b, 2);
	vmm_same(&b, 1);
	vmm_same(a, 3);
	say((struct pager_message){ .type = PAGER_GUEST_GONE, .guest = 2 },
	    NULL, 0);
	vmm_end(&b);
	check(PAGER_GET(stats->starts) == 2);
}

/* An eviction of everything is many, and keeps nobody waiting: what is said
 * after it is answered first. */
static void test_slices(struct vmm *a)
{
	const uint64_t before = PAGER_GET(stats->layer[LAYER].evicted_bytes);
	struct pager_message m = { 0 };

	check(kill(pager, SIGTERM) == 0);
	ends();
	close(control);
	start_sliced(64 << 10);
	say_layer();
	say_guest(a, 1);
	vmm_same(a, 1);
	/* Both at once. */
	check(kill(pager, SIGSTOP) == 0);
	say((struct pager_message){ .type = PAGER_EVICT,
				    .layer = LAYER,
				    .bytes = MEMORY },
	    NULL, 0);
	say((struct pager_message){ .type = PAGER_GUEST,
				    .guest = 7,
				    .layer = 9,
				    .ram_addr = 4096,
				    .ram_bytes = 4096 },
	    (const int[]){ index_fd, index_fd }, 2);
	check(kill(pager, SIGCONT) == 0);
	while (m.type != PAGER_GUEST_FAILED) {
		check(recv(control, &m, sizeof(m), 0) == sizeof(m));
		check(m.type != PAGER_EVICTED);
	}
	m = hear(PAGER_EVICTED);
	check(m.layer == LAYER && m.bytes > 1 << 20);
	check(PAGER_GET(stats->layer[LAYER].evicted_bytes) - before == m.bytes);
	check(PAGER_GET(stats->layer[LAYER].memory_present_bytes) == 0);
	vmm_same(a, 1);
}

/* The daemon is gone: it serves the guest it has, and ends with it. */
static void test_alone(struct vmm *a)
{
	say((struct pager_message){ .type = PAGER_EVICT,
				    .layer = LAYER,
				    .bytes = MEMORY },
	    NULL, 0);
	hear(PAGER_EVICTED);
	close(control);
	usleep(50000);
	check(waitpid(pager, NULL, WNOHANG) == 0);
	vmm_same(a, 1);
	disk_same(0, 4096);
	vmm_end(a);
	ends();
}

/* Without a guest it has no reason to stay. */
static void test_idle(void)
{
	start();
	say_layer();
	disk_same(0, 4096);
	close(control);
	ends();
}

static void *test_touch(void *arg)
{
	const struct vmm *v = arg;

	return (void *)(uintptr_t) * (volatile uint8_t *)v->p;
}

static void damage(void)
{
	guard_free char *cache = sample_file(top, "cache");
	struct err e = ERR_NULL;

	sample_spoil_part(index_fd, store_dir, INDEX_MEMORY);
	sample_spoil_part(index_fd, store_dir, INDEX_DISK);
	/* Not from what was kept. */
	sample_ok(io_remove_tree(cache, &e), &e);
	check(fallocate(memory_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			0, MEMORY) == 0);
	check(fallocate(disk_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			DISK) == 0);
}

/* The disk's first frame is not what the index says, either: who reads it gets
 * an error, and the daemon hears why. */
static void test_damaged_disk(void)
{
	struct pager_message m;
	guard_fd int fd = -1;

	check(disk_read(0, 4096, &fd) == EIO);
	m = hear(PAGER_DISK_LOST);
	check(m.layer == LAYER && m.code == EBADMSG);
	check(strstr(m.text, "damaged") && strstr(m.text, SAMPLE_STORE));
	disk_same(DISK - (2 << 20), 2 << 20);
}

/* The first frame, a hot one of memory, is not what the index says: the guest
 * that needs it fails, it is told, and nothing else happens. */
static void test_damaged(void)
{
	struct uffdio_range range = { .len = MEMORY };
	struct pager_message m;
	struct vmm a, b;
	pthread_t thread;

	damage();
	check(setenv("BYRE_PAGER_DEADLINE", "2", 1) == 0);
	start();
	say_layer();
	a = vmm_new();
	b = vmm_new();
	say_guest(&a, 3);
	say_guest(&b, 4);
	check(!pthread_create(&thread, NULL, test_touch, &a));
	m = hear(PAGER_GUEST_FAILED);
	check(m.guest == 3 && m.layer == LAYER && m.code > 0);
	check(strstr(m.text, "damaged"));
	check(PAGER_GET(stats->layer[LAYER].bad_frames) > 0);
	/* The other one, beyond the bad frame's chunk. */
	for (uint64_t i = INDEX_CHUNK_PAGES; i < PAGES; i++) {
		uint32_t page[INDEX_PAGE / 4];

		sample_page(i, 1, page);
		check(!memcmp(b.p + i * INDEX_PAGE, page, INDEX_PAGE));
	}
	/* Ours to release: the pager does not touch it any more. */
	range.start = (uintptr_t)a.p;
	check(ioctl(a.uffd, UFFDIO_UNREGISTER, &range) == 0);
	check(!pthread_join(thread, NULL));
	test_damaged_disk();
	close(control);
	vmm_end(&a);
	usleep(50000);
	check(waitpid(pager, NULL, WNOHANG) == 0);
	vmm_end(&b);
	ends();
}

static void setup(void)
{
	guard_free char *index = NULL, *disk = NULL;

	test_dir(top, sizeof(top));
	snprintf(whole, sizeof(whole), "%s/whole", top);
	snprintf(store_dir, sizeof(store_dir), "%s/store", top);
	snprintf(remote, sizeof(remote), "%s/remote", top);
	sample_image(whole, MEMORY, DISK);
	sample_push(whole, store_dir, remote);
	index = sample_file(remote, "index");
	disk = sample_file(remote, "disk.part");
	index_fd = open(index, O_RDONLY | O_CLOEXEC);
	disk_fd = open(disk, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	make_listener();
	memory_fd = memfd_create("layer", MFD_CLOEXEC);
	stats_fd = memfd_create("stats", MFD_CLOEXEC);
	check(index_fd >= 0 && disk_fd >= 0 && memory_fd >= 0 && stats_fd >= 0);
	check(ftruncate(disk_fd, DISK) == 0 &&
	      ftruncate(memory_fd, MEMORY) == 0 &&
	      ftruncate(stats_fd, sizeof(*stats)) == 0);
	stats = mmap(NULL, sizeof(*stats), PROT_READ | PROT_WRITE, MAP_SHARED,
		     stats_fd, 0);
	check(stats != MAP_FAILED);
}

int main(void)
{
	struct err e = ERR_NULL;
	struct vmm a;

	close(uffd_new());
	setup();
	start();
	hear(PAGER_READY);
	test_nonsense();
	test_pid_file();
	a = vmm_new();
	test_serves(&a);
	test_again(&a);
	test_slices(&a);
	test_alone(&a);
	test_idle();
	test_damaged();
	sample_ok(io_remove_tree(top, &e), &e);
	return 0;
}
