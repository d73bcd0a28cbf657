/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the daemon holds of one streamed layer: index, memory, disk
 *
 * Memory and disk begin as holes and are filled by the pager. They are made
 * here, not there, because they must outlive a pager: the next one gets the
 * same fds, and finds in them what the last one had fetched.
 *
 * Invariants:
 *  1. Nobody but the daemon and the pager ever has a writable fd of the memory.
 *     A VMM's is read-only, and the file's mode lets nobody else open it anew
 *     (DESIGN 3.3). Its size is sealed.
 *  2. What a VMM hands back after a daemon's death is believed only when it is
 *     a memfd of the right size with our seals, our mode and our owner: a VMM
 *     with a user id of its own cannot make such a one. Others would share
 *     what it holds.
 *  3. disk.part counts only within the boot it was written in: what a power cut
 *     leaves of a file that nobody synced may look like data and be zeros.
 *  4. A layer has the same number for as long as a guest of it lives, over
 *     daemons: the number is the name of the NBD socket to which the guest's
 *     VMM connects again.
 *
 * Nothing here waits for the disk: disk.boot is written in place and not
 * synced. A torn one is that of another boot, which costs a few fetches.
 */
#include "pager/hold.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/memfd.h"
#include "base/parse.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define HOLD_BOOT_ID "/proc/sys/kernel/random/boot_id"
/* A UUID, a blank, a number below PAGER_LAYERS_MAX, a newline. */
#define HOLD_BOOT_MAX 64
#define HOLD_SEALS (F_SEAL_GROW | F_SEAL_SHRINK)
#define HOLD_MODE 0400

void hold_deinit(struct hold *h)
{
	h->index = index_free(h->index);
	fd_close(&h->index_fd);
	fd_close(&h->memory_fd);
	fd_close(&h->vmm_fd);
	fd_close(&h->disk_fd);
}

bool hold_is(const struct hold *h, int fd)
{
	struct stat a = { 0 }, b = { 0 };

	return fstat(h->memory_fd, &a) == 0 && fstat(fd, &b) == 0 &&
	       a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

void hold_forget(const char *dir)
{
	guard_free char *part = io_path("%s/disk.part", dir);

	if (part)
		err_drop(unlink(part));
}

/* ---- of which boot, which number ---- */

static int hold_boot_id(char id[HOLD_BOOT_MAX])
{
	guard_free char *text = NULL;
	int r = io_read_file(HOLD_BOOT_ID, HOLD_BOOT_MAX - 8, &text, NULL,
			     NULL);

	if (r < 0)
		return r;
	text[strcspn(text, "\n")] = '\0';
	snprintf(id, HOLD_BOOT_MAX, "%s", text);
	return 0;
}

bool hold_number(const char *dir, uint32_t *ret)
{
	guard_free char *path = io_path("%s/disk.boot", dir);
	guard_free char *text = NULL;
	char id[HOLD_BOOT_MAX], *blank;
	uint64_t number = 0;

	if (!path || hold_boot_id(id) < 0 ||
	    io_read_file(path, HOLD_BOOT_MAX, &text, NULL, NULL) < 0)
		return false;
	text[strcspn(text, "\n")] = '\0';
	blank = strchr(text, ' ');
	if (!blank)
		return false;
	*blank = '\0';
	if (strcmp(text, id) != 0 || parse_u64(blank + 1, &number) < 0 ||
	    number > UINT32_MAX)
		return false;
	*ret = (uint32_t)number;
	return true;
}

static int hold_note(const char *dir, uint32_t number, struct err *e)
{
	guard_free char *path = io_path("%s/disk.boot", dir);
	char id[HOLD_BOOT_MAX], line[HOLD_BOOT_MAX + 16];
	guard_fd int fd = -1;
	int r;

	if (!path)
		return err_errno(e, ENOMEM, "layer %s", dir);
	r = hold_boot_id(id);
	if (r < 0)
		return err_errno(e, -r, "read %s", HOLD_BOOT_ID);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_errno(e, errno, "open %s", path);
	snprintf(line, sizeof(line), "%s %" PRIu32 "\n", id, number);
	r = io_write_full(fd, line, strlen(line));
	return r < 0 ? err_errno(e, -r, "write %s", path) : 0;
}

/* ---- the parts ---- */

static int hold_index(struct hold *h, const char *dir, struct err *e)
{
	guard_free char *path = io_path("%s/index", dir);
	int r;

	if (!path)
		return err_errno(e, ENOMEM, "layer %s", dir);
	h->index_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (h->index_fd < 0)
		return err_errno(e, errno, "open %s", path);
	r = index_open(h->index_fd, &h->index, e);
	return r < 0 ? err_prefix(e, "%s", path) : 0;
}

static int hold_again(int fd, int flags)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, flags | O_CLOEXEC);
}

static int hold_memory_new(struct hold *h, uint64_t bytes, struct err *e)
{
	int r = memfd_new("byre-layer", bytes, &h->memory_fd, e);

	if (r < 0)
		return err_prefix(e, "make a layer's memory");
	if (fcntl(h->memory_fd, F_ADD_SEALS, HOLD_SEALS) < 0 ||
	    fchmod(h->memory_fd, HOLD_MODE) < 0)
		return err_errno(e, errno, "seal a layer's memory");
	return 0;
}

/* Invariant 2. */
static int hold_memory_check(int fd, uint64_t bytes, struct err *e)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st = { 0 };

	if (seals < 0 || (seals & HOLD_SEALS) != HOLD_SEALS ||
	    fstat(fd, &st) < 0 || (uint64_t)st.st_size != bytes ||
	    st.st_uid != geteuid() || (st.st_mode & 07777) != HOLD_MODE)
		return err_set(e, EBADMSG,
			       "what the VMM holds is not the layer's memory");
	return 0;
}

static int hold_memory_adopt(struct hold *h, int fd, uint64_t bytes,
			     struct err *e)
{
	int r = hold_memory_check(fd, bytes, e);

	if (r < 0)
		return r;
	h->memory_fd = hold_again(fd, O_RDWR);
	if (h->memory_fd < 0 && errno == EACCES && fchmod(fd, 0600) == 0) {
		h->memory_fd = hold_again(fd, O_RDWR);
		if (fchmod(fd, HOLD_MODE) < 0)
			fd_close(&h->memory_fd);
	}
	if (h->memory_fd < 0)
		return err_errno(e, errno, "open a layer's memory again");
	return 0;
}

static int hold_memory(struct hold *h, int fd, struct err *e)
{
	uint64_t bytes = index_layer_bytes(h->index, INDEX_MEMORY);
	int r = fd < 0 ? hold_memory_new(h, bytes, e)
		       : hold_memory_adopt(h, fd, bytes, e);

	if (r < 0)
		return r;
	h->vmm_fd = hold_again(h->memory_fd, O_RDONLY);
	if (h->vmm_fd < 0)
		return err_errno(e, errno, "open a layer's memory to read");
	return 0;
}

static int hold_disk(struct hold *h, const char *dir, struct err *e)
{
	uint64_t bytes = index_layer_bytes(h->index, INDEX_DISK);
	guard_free char *whole = io_path("%s/disk", dir);
	guard_free char *part = io_path("%s/disk.part", dir);
	uint32_t number;

	if (!whole || !part)
		return err_errno(e, ENOMEM, "layer %s", dir);
	h->disk_fd = open(whole, O_RDWR | O_CLOEXEC);
	if (h->disk_fd >= 0)
		return 0;
	if (errno != ENOENT)
		return err_errno(e, errno, "open %s", whole);
	if (!hold_number(dir, &number) && unlink(part) < 0 && errno != ENOENT)
		return err_errno(e, errno, "remove %s", part);
	h->disk_fd = open(part, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (h->disk_fd < 0)
		return err_errno(e, errno, "open %s", part);
	if (ftruncate(h->disk_fd, (off_t)bytes) < 0)
		return err_errno(e, errno, "size %s", part);
	return 0;
}

int hold_init(struct hold *h, const char *dir, uint32_t number, int memory_fd,
	      struct err *e)
{
	int r;

	*h = (struct hold)HOLD_NULL;
	r = hold_index(h, dir, e);
	if (r == 0)
		r = hold_memory(h, memory_fd, e);
	if (r == 0)
		r = hold_disk(h, dir, e);
	if (r == 0)
		r = hold_note(dir, number, e);
	if (r < 0)
		hold_deinit(h);
	return r;
}
