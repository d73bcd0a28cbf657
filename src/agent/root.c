/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the initramfs to the disk
 *
 * The initramfs holds this program and a few modules. Once the disk is mounted
 * all of it is deleted, for what stays would be stored in every template and
 * mapped by every sandbox; the running program keeps its own pages. Then the
 * mount is moved over "/". That is switch_root(8) without the exec.
 *
 * A disk that cannot be written (erofs, squashfs) becomes the lower layer of an
 * overlay whose upper layer is memory.
 */
#include "agent/root.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The block device shows up when its driver has probed; on a loaded host under
 * emulation that takes a second, never five. */
#define ROOT_WAIT_MS 5000
#define ROOT_POLL_MS 5

/* Where super blocks tell what they are. */
static const struct {
	const char *type;
	off_t offset;
	uint8_t len;
	uint8_t magic[4];
} root_magics[] = {
	{ "ext4", 1024 + 56, 2, { 0x53, 0xef } },
	{ "erofs", 1024, 4, { 0xe2, 0xe1, 0xf5, 0xe0 } },
	{ "squashfs", 0, 4, { 'h', 's', 'q', 's' } },
};

static void root_sleep_ms(unsigned ms)
{
	struct timespec ts = { .tv_nsec = (long)ms * 1000000 };

	nanosleep(&ts, NULL);
}

static int root_wait(const char *device)
{
	unsigned ms;
	int fd;

	for (ms = 0;; ms += ROOT_POLL_MS) {
		fd = open(device, O_RDONLY | O_CLOEXEC);
		if (fd >= 0)
			return fd;
		if ((errno != ENOENT && errno != ENXIO) || ms >= ROOT_WAIT_MS)
			return -errno;
		root_sleep_ms(ROOT_POLL_MS);
	}
}

static const char *root_probe(int fd)
{
	uint8_t got[4] = { 0 };
	size_t i;

	for (i = 0; i < nitems(root_magics); i++)
		if (pread(fd, got, root_magics[i].len, root_magics[i].offset) ==
			    root_magics[i].len &&
		    !memcmp(got, root_magics[i].magic, root_magics[i].len))
			return root_magics[i].type;
	return NULL;
}

static bool root_is_read_only(const char *type)
{
	return !strcmp(type, "erofs") || !strcmp(type, "squashfs");
}

static int root_mount_overlay(const char *device, const char *type)
{
	mkdir("/lower", 0755);
	mkdir("/upper", 0755);
	if (mount(device, "/lower", type, MS_RDONLY | MS_NOATIME, NULL) < 0 ||
	    mount("tmpfs", "/upper", "tmpfs", 0, "mode=0755") < 0)
		return -errno;
	mkdir("/upper/up", 0755);
	mkdir("/upper/work", 0755);
	if (mount("overlay", "/root", "overlay", MS_NOATIME,
		  "lowerdir=/lower,upperdir=/upper/up,workdir=/upper/work") < 0)
		return -errno;
	return 0;
}

/*
 * ext4's kernel thread would read block bitmaps ahead and fill inode tables, in
 * the first seconds after the mount: in every sandbox, at the time of its first
 * command, 1,500 blocks of kernel code that an emulator translates for this alone.
 * A kernel that does not know these options mounts without them.
 */
#define ROOT_EXT4_QUIET "noinit_itable,no_prefetch_block_bitmaps"

static int root_mount_writable(const char *device, const char *type)
{
	if (!strcmp(type, "ext4") &&
	    mount(device, "/root", type, MS_NOATIME, ROOT_EXT4_QUIET) == 0)
		return 0;
	return mount(device, "/root", type, MS_NOATIME, NULL) < 0 ? -errno : 0;
}

int root_mount(const char *device, const char *type, struct err *e)
{
	int fd, r = 0;

	fd = root_wait(device);
	if (fd < 0)
		return err_errno(e, -fd, "mount %s", device);
	if (!type[0])
		type = root_probe(fd);
	close(fd);
	if (!type)
		return err_set(e, EINVAL,
			       "mount %s: neither ext4, erofs nor squashfs",
			       device);
	mkdir("/root", 0755);
	if (root_is_read_only(type))
		r = root_mount_overlay(device, type);
	else
		r = root_mount_writable(device, type);
	if (r < 0)
		return err_errno(e, -r, "mount %s (%s)", device, type);
	return 0;
}

/* Delete what is in @fd (taken) on the initramfs itself, not on what is mounted
 * there. Deeper than modules lie there is nothing. */
static void root_empty(int fd, dev_t dev, unsigned depth)
{
	struct dirent *d;
	struct stat st;
	DIR *dir;
	int sub;

	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return;
	}
	while ((d = readdir(dir))) {
		if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, "..") ||
		    fstatat(fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    st.st_dev != dev)
			continue;
		if (!S_ISDIR(st.st_mode)) {
			unlinkat(fd, d->d_name, 0);
			continue;
		}
		sub = depth ? openat(fd, d->d_name,
				     O_RDONLY | O_DIRECTORY | O_NOFOLLOW |
					     O_CLOEXEC)
			    : -1;
		if (sub >= 0)
			root_empty(sub, dev, depth - 1);
		unlinkat(fd, d->d_name, AT_REMOVEDIR);
	}
	closedir(dir);
}

int root_switch(struct err *e)
{
	static const char *const moved[] = { "/dev", "/proc", "/sys" };
	char target[32];
	struct stat st;
	size_t i;
	int fd;

	fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_errno(e, errno, "open /");
	for (i = 0; i < nitems(moved); i++) {
		snprintf(target, sizeof(target), "/root%s", moved[i]);
		if (mkdir(target, 0755) < 0 && errno != EEXIST)
			return err_errno(e, errno, "make %s on the root disk",
					 moved[i]);
		if (mount(moved[i], target, NULL, MS_MOVE, NULL) < 0)
			return err_errno(e, errno, "move %s to the root disk",
					 moved[i]);
	}
	if (chdir("/root") < 0)
		return err_errno(e, errno, "enter /root");
	root_empty(fd, st.st_dev, 16);
	if (mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
	    chdir("/") < 0)
		return err_errno(e, errno, "switch to the root disk");
	return 0;
}
