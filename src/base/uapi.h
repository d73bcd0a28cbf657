/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Kernel interfaces newer than Debian 12's linux-libc-dev (6.1)
 *
 * Constants and layouts from the kernel's include/uapi. Whether the running
 * kernel has them is found out by trying, never by version.
 */
#include <linux/ioctl.h>
#include <linux/types.h>
#include <stdint.h>

/* pidfd_getfd and friends have numbers in 6.1; cachestat does not. */
#ifndef __NR_cachestat
#define __NR_cachestat 451 /* 6.5 */
#endif

struct uapi_cachestat_range {
	uint64_t off;
	uint64_t len;
};

struct uapi_cachestat {
	uint64_t nr_cache;
	uint64_t nr_dirty;
	uint64_t nr_writeback;
	uint64_t nr_evicted;
	uint64_t nr_recently_evicted;
};

/* PAGEMAP_SCAN, 6.7: include/uapi/linux/fs.h */
struct uapi_page_region {
	uint64_t start;
	uint64_t end;
	uint64_t categories;
};

struct uapi_pm_scan_arg {
	uint64_t size;
	uint64_t flags;
	uint64_t start;
	uint64_t end;
	uint64_t walk_end;
	uint64_t vec;
	uint64_t vec_len;
	uint64_t max_pages;
	uint64_t category_inverted;
	uint64_t category_mask;
	uint64_t category_anyof_mask;
	uint64_t return_mask;
};

#define UAPI_PAGEMAP_SCAN _IOWR('f', 16, struct uapi_pm_scan_arg)
#define UAPI_PAGE_IS_WPALLOWED (1u << 0)
#define UAPI_PAGE_IS_WRITTEN (1u << 1)
#define UAPI_PAGE_IS_FILE (1u << 2)
#define UAPI_PAGE_IS_PRESENT (1u << 3)
#define UAPI_PAGE_IS_SWAPPED (1u << 4)
#define UAPI_PAGE_IS_PFNZERO (1u << 5)
#define UAPI_PAGE_IS_HUGE (1u << 6)

/* PIDFD_GET_INFO, 6.13; the exit code, 6.15: include/uapi/linux/pidfd.h */
struct uapi_pidfd_info {
	uint64_t mask;
	uint64_t cgroupid;
	uint32_t pid;
	uint32_t tgid;
	uint32_t ppid;
	uint32_t ruid;
	uint32_t rgid;
	uint32_t euid;
	uint32_t egid;
	uint32_t suid;
	uint32_t sgid;
	uint32_t fsuid;
	uint32_t fsgid;
	int32_t exit_code;
};

#define UAPI_PIDFD_GET_INFO _IOWR(0xFF, 11, struct uapi_pidfd_info)
#define UAPI_PIDFD_INFO_EXIT (1ull << 3)

#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15) /* 6.7 */
#endif

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* 5.14 */
#endif
