/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Files, directories, sockets: the few calls that everybody needs
 *
 * All fds are close-on-exec. Paths in errors are the caller's.
 */
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct buf;

/* Read or write everything, over EINTR and short counts. io_read_full returns
 * the number of bytes read, less than @len only at the end of the file. */
ssize_t io_read_full(int fd, void *p, size_t len) must_check;
int io_write_full(int fd, const void *p, size_t len) must_check;
ssize_t io_pread_full(int fd, void *p, size_t len, uint64_t offset) must_check;
int io_pwrite_full(int fd, const void *p, size_t len,
		   uint64_t offset) must_check;

/* A whole file, /proc's included, into a fresh, zero-terminated allocation. Refuses more than
 * @max bytes with EFBIG. @ret_len may be NULL. */
int io_read_file(const char *path, size_t max, char **ret, size_t *ret_len,
		 struct err *e) must_check;

/* Replace a file in one step: temporary beside it, fsync, rename, fsync of the
 * directory. @mode holds whatever the umask. A crash may leave the temporary,
 * PATH.<16 hex digits>.tmp. */
int io_write_file(const char *path, const void *p, size_t len, mode_t mode,
		  struct err *e) must_check;

/* mkdir -p; the umask applies. */
int io_mkdirs(const char *path, mode_t mode, struct err *e) must_check;

/* rm -rf, not following links; a missing path is no error. ELOOP below a depth
 * of 256 directories. */
int io_remove_tree(const char *path, struct err *e) must_check;

/* Make @to a copy of the whole of @from, sharing blocks where the file system
 * can: FICLONE, then copy_file_range, then read and write; holes stay holes.
 * What @to held is lost, and @from's file position moves. The sentence names
 * the cause only; the caller knows the paths. */
int io_copy_file(int from, int to, struct err *e) must_check;

/* fsync the directory that holds @path. */
int io_sync_parent(const char *path, struct err *e) must_check;

/* A listening, non-blocking unix stream socket at @path (an old socket is
 * removed; anything else is EEXIST), made with @mode whatever the umask. Paths
 * may be longer than sun_path. */
int io_listen_unix(const char *path, mode_t mode, int *ret_fd,
		   struct err *e) must_check;
/* A connected one. With @nonblock the fd is, and a full backlog is EAGAIN
 * rather than a wait. */
int io_connect_unix(const char *path, bool nonblock, int *ret_fd,
		    struct err *e) must_check;

int io_set_nonblock(int fd, bool on) must_check;

/* printf into a fresh string; NULL when out of memory. */
char *io_path(const char *fmt, ...) printf_like(1, 2);

/* @len random bytes from the kernel; cannot fail on a booted system. */
void io_random(void *p, size_t len);
