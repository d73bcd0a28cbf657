/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Boot: from the kernel's first process to an open port
 *
 * All of it happens once per template and never again: sandboxes are restored
 * behind it. It still matters how long it takes under emulation, and what it
 * leaves in memory. The sequence is in init_start(), top to bottom.
 *
 * Kernel command line:
 *	byre.root=DEVICE	default /dev/vda
 *	byre.rootfstype=TYPE	default: what the super block says
 *	byre.hostname=NAME
 *
 * /modules.list names the modules to load, one path per line, in order; the
 * host put only what is needed there, so there is no dependency search.
 *
 * Two things one would expect are left out. PID 1 needs no oom_score_adj: the
 * kernel never kills it for memory, and children start with the neutral score
 * that they would have to be given back. And there is no udev: devtmpfs has
 * all the names.
 */
#include "agent/init.h"
#include "agent/identity.h"
#include "agent/kmsg.h"
#include "agent/net.h"
#include "agent/root.h"
#include "agent/wire.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The console driver announces its ports a moment after it has probed. */
#define INIT_PORT_WAIT_MS 10000
#define INIT_PORT_POLL_MS 5
/* As systemd has it: few enough that select() works by default, and room for
 * those who ask. */
#define INIT_NOFILE_SOFT 1024
#define INIT_NOFILE_HARD 524288
/* The most there is. */
#define INIT_NICE (-20)

struct init_options {
	char net[2]; /* \"1\": configure the network card */
	char root[64];
	char root_type[16];
	char hostname[65];
};

static void init_mount(const char *type, const char *target,
		       unsigned long flags, const char *data)
{
	if (mkdir(target, 0755) < 0 && errno != EEXIST)
		kmsg_error("mkdir %s: %s", target, strerror(errno));
	if (mount(type, target, type, flags, data) < 0 && errno != EBUSY)
		kmsg_error("mount %s: %s", target, strerror(errno));
}

/* fds 0 to 2 must be taken, or a pipe to a child would get their numbers. */
static void init_stdio(void)
{
	int fd;

	fd = open("/dev/console", O_RDWR | O_NOCTTY);
	if (fd < 0)
		fd = open("/dev/null", O_RDWR);
	if (fd < 0)
		return;
	dup2(fd, STDIN_FILENO);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}

static size_t init_read_file(const char *path, char *mem, size_t size)
{
	ssize_t n;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? 0 : read(fd, mem, size - 1);
	if (fd >= 0)
		close(fd);
	mem[max(n, 0)] = 0;
	return (size_t)max(n, 0);
}

static void init_option(const char *word, const char *name, char *out,
			size_t size)
{
	size_t len = strlen(name);

	if (!strncmp(word, name, len))
		snprintf(out, size, "%s", word + len);
}

static void init_read_options(struct init_options *o)
{
	char line[4096], *at = line, *word;

	init_read_file("/proc/cmdline", line, sizeof(line));
	while ((word = strsep(&at, " \n"))) {
		init_option(word, "byre.root=", o->root, sizeof(o->root));
		init_option(word, "byre.rootfstype=", o->root_type,
			    sizeof(o->root_type));
		init_option(word, "byre.net=", o->net, sizeof(o->net));
		init_option(word, "byre.hostname=", o->hostname,
			    sizeof(o->hostname));
	}
}

static void init_load_module(const char *path)
{
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		kmsg_error("open %s: %s", path, strerror(errno));
		return;
	}
	/* Loaded or built in already, or no device for it: all is well. */
	if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST &&
	    errno != ENODEV)
		kmsg_error("load %s: %s", path, strerror(errno));
	close(fd);
}

static void init_load_modules(void)
{
	char list[4096], *at = list, *path;

	init_read_file("/modules.list", list, sizeof(list));
	while ((path = strsep(&at, "\n")))
		if (path[0])
			init_load_module(path);
}

static void init_limits(void)
{
	struct rlimit files = { INIT_NOFILE_SOFT, INIT_NOFILE_HARD };
	struct rlimit none = { RLIM_INFINITY, RLIM_INFINITY };

	setrlimit(RLIMIT_NOFILE, &files);
	/* The kernel's default is half its threads. What a guest may do to
	 * itself is its own business; memory bounds it in the end. */
	setrlimit(RLIMIT_NPROC, &none);
	setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, RLIM_INFINITY });
}

/* A guest full of processes, a fork bomb's above all, still obeys its host: we
 * are next whenever we have something to do, and what we start is ordinary. */
static void init_priority(void)
{
	const struct sched_param none = { 0 };

	if (sched_setscheduler(0, SCHED_OTHER | SCHED_RESET_ON_FORK, &none) <
		    0 ||
	    setpriority(PRIO_PROCESS, 0, INIT_NICE) < 0)
		kmsg_error("priority: %s", strerror(errno));
}

/* The mounts that programs expect, on the final root. */
static void init_mount_rest(void)
{
	struct statvfs fs = { 0 };
	struct stat st;

	init_mount("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC,
		   "mode=0620,gid=5,ptmxmode=0666");
	init_mount("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
	init_mount("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755");
	init_mount("cgroup2", "/sys/fs/cgroup",
		   MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	if (stat("/tmp", &st) < 0 ||
	    (statvfs("/", &fs) == 0 && (fs.f_flag & ST_RDONLY)))
		init_mount("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777");
	/* devtmpfs has none of these; shells and scripts use them. */
	err_drop(symlink("/proc/self/fd", "/dev/fd"));
	err_drop(symlink("fd/0", "/dev/stdin"));
	err_drop(symlink("fd/1", "/dev/stdout"));
	err_drop(symlink("fd/2", "/dev/stderr"));
}

static int init_open_port(void)
{
	const char *class = "/sys/class/virtio-ports";
	char path[384], name[64];
	struct dirent *d;
	DIR *dir;
	int fd = -1;

	dir = opendir(class);
	if (!dir)
		return -1;
	while (fd < 0 && (d = readdir(dir))) {
		snprintf(path, sizeof(path), "%s/%s/name", class, d->d_name);
		init_read_file(path, name, sizeof(name));
		name[strcspn(name, "\n")] = 0;
		if (strcmp(name, WIRE_PORT))
			continue;
		snprintf(path, sizeof(path), "/dev/%s", d->d_name);
		fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	}
	closedir(dir);
	return fd;
}

static int init_wait_port(int *ret_fd, struct err *e)
{
	struct timespec ts = { .tv_nsec = INIT_PORT_POLL_MS * 1000000l };
	unsigned ms;

	for (ms = 0; ms < INIT_PORT_WAIT_MS; ms += INIT_PORT_POLL_MS) {
		*ret_fd = init_open_port();
		if (*ret_fd >= 0)
			return 0;
		nanosleep(&ts, NULL);
	}
	return err_set(e, ENXIO, "no virtio port named " WIRE_PORT);
}

int init_start(int *ret_port_fd, struct err *broken, struct err *e)
{
	struct init_options o = { .root = "/dev/vda" };
	struct err net = ERR_NULL;
	int r;

	umask(022);
	init_mount("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	init_mount("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	init_mount("devtmpfs", "/dev", MS_NOSUID, "mode=0755");
	init_stdio();
	kmsg_open();
	kmsg_catch_crashes();
	reboot(RB_DISABLE_CAD);
	init_limits();
	init_priority();
	init_read_options(&o);
	init_load_modules();
	r = root_mount(o.root, o.root_type, broken);
	if (r == 0)
		r = root_switch(broken);
	if (r < 0)
		kmsg_error("%s", broken->msg);
	init_mount_rest();
	if (o.hostname[0] && sethostname(o.hostname, strlen(o.hostname)) < 0)
		kmsg_error("sethostname: %s", strerror(errno));
	if (net_up(&net) < 0 || (o.net[0] == '1' && net_attach(&net) < 0))
		kmsg_error("network: %s", net.msg);
	identity_place();
	return init_wait_port(ret_port_fd, e);
}
