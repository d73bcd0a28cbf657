/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of the host: CPU, memory, policy, disk
 *
 * Numbers that make a warning are chosen for a small herd: below them the demo
 * (20 guests of 2 GiB) is likely to fail, above them a user knows best.
 */
#include "cmd/doctor.h"

#include "cmd/print.h"
#include "base/guard.h"
#include "base/io.h"
#include "base/parse.h"
#include "ledger/host.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

/* A VMM's own 25 MiB for each of 20 guests, a template, and the daemon. */
#define DOCTOR_MEMORY_WARN (1ull << 30)
/* A root disk, two templates with memory, and overlays. */
#define DOCTOR_DISK_WARN (8ull << 30)
#define DOCTOR_DISK_FAIL (1ull << 30)
/* Ten fds for each sandbox, for 400 of them. */
#define DOCTOR_FILES_WARN 4096u

/* ---- acceleration ---- */

static bool doctor_has_flag(const struct doctor *d)
{
	guard_free char *path = io_path("%s/cpuinfo", d->proc_root);
	guard_free char *text = NULL;

	if (!path || io_read_file(path, 16u << 20, &text, NULL, NULL) < 0)
		return false;
	return strstr(text, " vmx") || strstr(text, " svm");
}

static void doctor_kvm(struct doctor *d)
{
	guard_fd int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int open_errno = errno;
	const char *forced = getenv("BYRE_ACCEL");

	if (forced && *forced)
		doctor_say(d, DOCTOR_OK, "", "BYRE_ACCEL says %s", forced);
	else if (!doctor_has_flag(d))
		doctor_say(
			d, DOCTOR_WARN,
			"use a host with vmx or svm (switched on in firmware, or nested)",
			"TCG: guests are emulated, slow; the CPU has neither vmx nor svm");
	else if (fd < 0)
		doctor_say(
			d, DOCTOR_WARN,
			"modprobe kvm_intel or kvm_amd, and be allowed to open /dev/kvm",
			"TCG: guests are emulated, slow; open /dev/kvm: %s",
			strerror(open_errno));
	else
		doctor_say(d, DOCTOR_OK, "", "KVM");
}

/* ---- memory ---- */

static bool doctor_memory(struct doctor *d, struct host_memory *h)
{
	struct err e = ERR_NULL;

	if (host_memory_read(d->proc_root, h, &e) == 0)
		return true;
	doctor_say(d, DOCTOR_FAIL, "mount /proc", "%s", e.msg);
	return false;
}

static void doctor_ram(struct doctor *d)
{
	struct host_memory h = { 0 };
	char total[16], available[16];

	if (!doctor_memory(d, &h))
		return;
	doctor_say(
		d,
		h.mem_available < DOCTOR_MEMORY_WARN ? DOCTOR_WARN : DOCTOR_OK,
		h.mem_available < DOCTOR_MEMORY_WARN ? "free some memory" : "",
		"%s, of which %s available", format_bytes(h.mem_total, total),
		format_bytes(h.mem_available, available));
}

static void doctor_swap(struct doctor *d)
{
	struct host_memory h = { 0 };
	char total[16], free_[16];

	if (!doctor_memory(d, &h))
		return;
	if (!h.swap_total)
		doctor_say(
			d, DOCTOR_WARN, "make a swap file (mkswap, swapon)",
			"no swap: what guests have dirtied must stay in memory");
	else
		doctor_say(d, DOCTOR_OK, "", "%s, of which %s free",
			   format_bytes(h.swap_total, total),
			   format_bytes(h.swap_free, free_));
}

static void doctor_overcommit(struct doctor *d)
{
	struct host_memory h = { 0 };
	char limit[16], committed[16];

	if (!doctor_memory(d, &h))
		return;
	format_bytes(h.commit_limit, limit);
	format_bytes(h.committed_as, committed);
	if (h.overcommit_memory == 2)
		doctor_say(
			d, DOCTOR_WARN, "sysctl vm.overcommit_memory=0",
			"vm.overcommit_memory is 2: promises end at CommitLimit, %s (%s are committed)",
			limit, committed);
	else
		doctor_say(
			d, DOCTOR_OK, "",
			"vm.overcommit_memory is %d (%s committed, CommitLimit %s is not enforced)",
			h.overcommit_memory, committed, limit);
}

/* The word in brackets of "always [madvise] never". */
static void doctor_thp(struct doctor *d)
{
	char text[128], *from, *to;

	if (doctor_read(d->sys_root, "kernel/mm/transparent_hugepage/enabled",
			text, sizeof(text)) < 0) {
		doctor_say(d, DOCTOR_OK, "", "no transparent huge pages");
		return;
	}
	from = strchr(text, '[');
	to = from ? strchr(from, ']') : NULL;
	if (to)
		*to = '\0';
	doctor_say(d, DOCTOR_OK, "",
		   "transparent huge pages: %s (switched off in VMMs)",
		   to ? from + 1 : text);
}

static void doctor_psi(struct doctor *d)
{
	char text[256];

	if (doctor_read(d->proc_root, "pressure/memory", text, sizeof(text)) <
	    0)
		doctor_say(d, DOCTOR_WARN,
			   "boot with psi=1 on the kernel's command line",
			   "no pressure stall information");
	else
		doctor_say(d, DOCTOR_OK, "", "pressure stall information");
}

static void doctor_cgroup(struct doctor *d)
{
	guard_free char *path = io_path("%s/self/mounts", d->proc_root);
	guard_free char *text = NULL;
	char controllers[256];

	if (!path || io_read_file(path, 1u << 20, &text, NULL, NULL) < 0)
		text = NULL;
	if (doctor_read(d->sys_root, "fs/cgroup/cgroup.controllers",
			controllers, sizeof(controllers)) == 0 &&
	    strstr(controllers, "memory"))
		doctor_say(d, DOCTOR_OK, "", "cgroup v2 with memory");
	else if (text && strstr(text, "/fs/cgroup/memory cgroup "))
		doctor_say(d, DOCTOR_OK, "", "cgroup v1 with memory");
	else
		doctor_say(d, DOCTOR_WARN, "mount cgroup2 on /sys/fs/cgroup",
			   "no cgroup memory controller");
}

/* ---- disk ---- */

/* Open BYRE_ROOT, or what exists of its path. */
static int doctor_open_root(const struct doctor *d, char *path, size_t size)
{
	char *slash;
	int fd;

	snprintf(path, size, "%s", d->root);
	for (;;) {
		fd = open(*path ? path : "/",
			  O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd >= 0 || errno != ENOENT)
			return fd;
		slash = strrchr(path, '/');
		if (!slash)
			return -1;
		*slash = '\0';
	}
}

static void doctor_disk(struct doctor *d)
{
	char path[400], room[16];
	guard_fd int fd = doctor_open_root(d, path, sizeof(path));
	enum doctor_status status = DOCTOR_OK;
	struct statvfs v = { 0 };
	struct statfs fs = { 0 };
	uint64_t free_bytes;
	bool tmpfs;

	if (fd < 0 || fstatvfs(fd, &v) < 0 || fstatfs(fd, &fs) < 0) {
		doctor_say(d, DOCTOR_FAIL, "set BYRE_ROOT to a directory",
			   "open %s: %s", d->root, strerror(errno));
		return;
	}
	free_bytes = (uint64_t)v.f_bavail * v.f_frsize;
	tmpfs = fs.f_type == TMPFS_MAGIC;
	format_bytes(free_bytes, room);
	if (free_bytes < DOCTOR_DISK_WARN || tmpfs)
		status = free_bytes < DOCTOR_DISK_FAIL ? DOCTOR_FAIL
						       : DOCTOR_WARN;
	doctor_say(d, status,
		   status == DOCTOR_OK ? ""
		   : tmpfs ? "set BYRE_ROOT to a directory on a disk"
			   : "set BYRE_ROOT to where there is room",
		   "%s free under %s%s", room, d->root,
		   tmpfs ? ", a tmpfs: its files are memory, and gone after a "
			   "reboot"
			 : "");
}

/* A nameless file of one block. */
static int doctor_temp(int dir, bool filled)
{
	static const char block[4096];
	guard_fd int fd =
		openat(dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	if (filled && io_write_full(fd, block, sizeof(block)) < 0)
		return -EIO;
	return fd_take(&fd);
}

static void doctor_reflink(struct doctor *d)
{
	char path[400];
	guard_fd int dir = doctor_open_root(d, path, sizeof(path));
	guard_fd int from = dir < 0 ? -errno : doctor_temp(dir, true);
	guard_fd int to = dir < 0 ? -errno : doctor_temp(dir, false);

	if (from < 0 || to < 0)
		doctor_say(d, DOCTOR_WARN, "be root, or set BYRE_ROOT",
			   "write under %s: %s", d->root,
			   strerror(from < 0 ? -from : -to));
	else if (ioctl(to, FICLONE, from) < 0)
		doctor_say(d, DOCTOR_OK, "",
			   "no reflinks under %s: files are copied", d->root);
	else
		doctor_say(d, DOCTOR_OK, "", "reflinks under %s", d->root);
}

/* ---- who and how many ---- */

static void doctor_nofile(struct doctor *d)
{
	struct rlimit l = { 0 };

	if (getrlimit(RLIMIT_NOFILE, &l) < 0)
		doctor_say(d, DOCTOR_WARN, "", "%s", strerror(errno));
	else if (l.rlim_max != RLIM_INFINITY && l.rlim_max < DOCTOR_FILES_WARN)
		doctor_say(d, DOCTOR_WARN, "ulimit -Hn 65536",
			   "at most %" PRIu64 " open files, about %" PRIu64
			   " sandboxes",
			   (uint64_t)l.rlim_max, (uint64_t)l.rlim_max / 10);
	else
		doctor_say(d, DOCTOR_OK, "", "at most %" PRIu64 " open files",
			   (uint64_t)l.rlim_max);
}

static void doctor_user(struct doctor *d)
{
	if (geteuid() == 0)
		doctor_say(d, DOCTOR_OK, "",
			   "root: each VMM gets a user id of its own");
	else
		doctor_say(d, DOCTOR_WARN, "run byre serve as root",
			   "user %u: all VMMs run as this user",
			   (unsigned)geteuid());
}

static void doctor_daemon(struct doctor *d)
{
	if (d->host)
		doctor_say(d, DOCTOR_OK, "",
			   "byre %s, %s %s, %s, root %s, pid %" PRIu64,
			   print_text(d->host, "version"),
			   print_text(d->host, "driver"),
			   print_text(d->host, "driver_version"),
			   print_text(d->host, "accel"),
			   print_text(d->host, "root"),
			   print_number(d->host, "pid"));
	else
		doctor_say(d, DOCTOR_WARN, "byre serve", "%s", d->no_daemon);
}

const struct doctor_check doctor_host[] = {
	{ "kvm", doctor_kvm },
	{ "memory", doctor_ram },
	{ "swap", doctor_swap },
	{ "overcommit", doctor_overcommit },
	{ "huge-pages", doctor_thp },
	{ "pressure", doctor_psi },
	{ "cgroup", doctor_cgroup },
	{ "disk", doctor_disk },
	{ "reflink", doctor_reflink },
	{ "open-files", doctor_nofile },
	{ "user", doctor_user },
	{ "daemon", doctor_daemon },
	{ 0 },
};
