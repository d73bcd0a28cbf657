/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel can do, found out by doing it
 *
 * Each check makes the smallest use of the interface that byre relies on, with
 * the arguments it uses. What byre has a fallback for is a warning that names
 * the fallback.
 */
#include "cmd/doctor.h"

#include "base/guard.h"
#include "base/memfd.h"
#include "base/uapi.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#define DOCTOR_PAGE 4096u
/* A huge page would fit in twice. */
#define DOCTOR_MEMFD (4u << 20)

static void doctor_kernel_version(struct doctor *d)
{
	struct utsname u;

	if (uname(&u) < 0 || strcmp(u.machine, "x86_64"))
		doctor_say(d, DOCTOR_FAIL, "use an x86-64 host",
			   "byre runs on x86-64 only");
	else
		doctor_say(d, DOCTOR_OK, "", "Linux %s", u.release);
}

/* Faults of KVM and system calls must count, so no USER_MODE_ONLY. */
static int doctor_open_userfaultfd(const char **ret_how)
{
	guard_fd int dev = -1;
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	*ret_how = "by system call";
	if (fd >= 0)
		return fd;
	dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (dev < 0)
		return -1;
	*ret_how = "through /dev/userfaultfd";
	return ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
}

static void doctor_userfaultfd(struct doctor *d)
{
	struct uffdio_api api = { .api = UFFD_API };
	const char *how = NULL;
	guard_fd int fd = doctor_open_userfaultfd(&how);

	if (fd < 0)
		doctor_say(d, DOCTOR_WARN,
			   "sysctl vm.unprivileged_userfaultfd=1, or be root",
			   "no userfaultfd (%s): images cannot be streamed",
			   strerror(errno));
	else if (ioctl(fd, UFFDIO_API, &api) < 0 ||
		 !(api.features & UFFD_FEATURE_MISSING_SHMEM))
		doctor_say(
			d, DOCTOR_WARN, "use a newer kernel",
			"userfaultfd without shared memory: images cannot be streamed");
	else
		doctor_say(d, DOCTOR_OK, "", "userfaultfd %s", how);
}

static void doctor_memfd(struct doctor *d)
{
	struct err e = ERR_NULL;
	guard_fd int fd = -1;
	int r = memfd_new("byre-doctor", DOCTOR_MEMFD, &fd, &e);

	if (r == -ENOTSUP)
		doctor_say(
			d, DOCTOR_WARN,
			"write never to /sys/kernel/mm/transparent_hugepage/shmem_enabled",
			"shared memory has huge pages: images cannot be streamed");
	else if (r < 0 ||
		 fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) < 0)
		doctor_say(d, DOCTOR_FAIL, "use a newer kernel",
			   "no sealed memfd: %s",
			   r < 0 ? e.msg : strerror(errno));
	else
		doctor_say(d, DOCTOR_OK, "", "memfd can be sealed");
}

static void doctor_pagemap_scan(struct doctor *d)
{
	guard_fd int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	struct uapi_page_region region = { 0 };
	struct uapi_pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = (uint64_t)(uintptr_t)&region & ~(DOCTOR_PAGE - 1ull),
		.vec = (uint64_t)(uintptr_t)&region,
		.vec_len = 1,
		.category_mask = UAPI_PAGE_IS_PRESENT,
		.return_mask = UAPI_PAGE_IS_PRESENT,
	};

	arg.end = arg.start + DOCTOR_PAGE;
	if (fd < 0)
		doctor_say(d, DOCTOR_FAIL, "mount /proc",
			   "open /proc/self/pagemap: %s", strerror(errno));
	else if (ioctl(fd, UAPI_PAGEMAP_SCAN, &arg) < 0)
		doctor_say(
			d, DOCTOR_WARN, "use Linux 6.7 or newer",
			"no PAGEMAP_SCAN: the ledger reads pagemap, slower, and needs root to tell zero pages");
	else
		doctor_say(d, DOCTOR_OK, "", "PAGEMAP_SCAN");
}

static void doctor_pidfd(struct doctor *d)
{
	guard_fd int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);

	if (fd < 0)
		doctor_say(d, DOCTOR_FAIL, "use Linux 5.6 or newer",
			   "no pidfd_open: %s", strerror(errno));
	else
		doctor_say(d, DOCTOR_OK, "", "pidfd_open");
}

static void doctor_cachestat(struct doctor *d)
{
	guard_fd int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct uapi_cachestat_range range = { 0 };
	struct uapi_cachestat stat = { 0 };

	if (fd >= 0 && syscall(__NR_cachestat, fd, &range, &stat, 0) == 0)
		doctor_say(d, DOCTOR_OK, "", "cachestat");
	else
		doctor_say(
			d, DOCTOR_WARN, "use Linux 6.5 or newer",
			"no cachestat: residency is counted with mincore, slower");
}

static void doctor_populate(struct doctor *d)
{
	void *p = mmap(NULL, DOCTOR_PAGE, PROT_READ,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p != MAP_FAILED && madvise(p, DOCTOR_PAGE, MADV_POPULATE_READ) == 0)
		doctor_say(d, DOCTOR_OK, "", "MADV_POPULATE_READ");
	else
		doctor_say(
			d, DOCTOR_WARN, "use Linux 5.14 or newer",
			"no MADV_POPULATE_READ: working sets fault one by one");
	if (p != MAP_FAILED)
		munmap(p, DOCTOR_PAGE);
}

const struct doctor_check doctor_kernel[] = {
	{ "kernel", doctor_kernel_version },
	{ "userfaultfd", doctor_userfaultfd },
	{ "memfd", doctor_memfd },
	{ "pagemap-scan", doctor_pagemap_scan },
	{ "pidfd", doctor_pidfd },
	{ "cachestat", doctor_cachestat },
	{ "populate-read", doctor_populate },
	{ 0 },
};
