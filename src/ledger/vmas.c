/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mappings
 *
 * A VMM's guest RAM may be thousands of mappings (one per zero run of its
 * plan), and whoever counts what is outside of it wants to skip them all.
 * /proc/PID/maps cannot be entered at an address: its text is made and read
 * from the start. PROCMAP_QUERY (Linux 6.11) on the same file finds "the
 * mapping at or behind this address" without any text.
 *
 * Measured with 1220 mappings and 3000 more of guest RAM: 0.5 ms by query,
 * 2.2 ms by text. Text remains for older kernels and for fixture trees.
 *
 * Special mappings: [vvar] and its kin are kernel pages that every process
 * maps. They look present and anonymous in a page map. They are told by name;
 * a query asks for a name only where one is possible, because names of files
 * cost a path walk each.
 *
 * The two ways must agree; test_vmas.c compares them on a live process.
 * Mappings that come and go between two steps are not an error: the answer is
 * then about some moment during the walk.
 */
#include "ledger/vmas.h"

#include "base/guard.h"
#include "ledger/procdir.h"
#include "ledger/proctext.h"

#include <errno.h>
#include <linux/ioctl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

/* include/uapi/linux/fs.h of 6.11 */
struct procmap_query_arg {
	uint64_t size;
	uint64_t query_flags;
	uint64_t query_addr;
	uint64_t vma_start;
	uint64_t vma_end;
	uint64_t vma_flags;
	uint64_t vma_page_size;
	uint64_t vma_offset;
	uint64_t inode;
	uint32_t dev_major;
	uint32_t dev_minor;
	uint32_t vma_name_size;
	uint32_t build_id_size;
	uint64_t vma_name_addr;
	uint64_t build_id_addr;
};

#define QUERY_IOCTL _IOWR('f', 17, struct procmap_query_arg)
#define QUERY_READABLE 0x01u
#define QUERY_WRITABLE 0x02u
#define QUERY_EXECUTABLE 0x04u
#define QUERY_SHARED 0x08u
#define QUERY_COVERING_OR_NEXT 0x10u

/* Names of kernel mappings are short; of others ENAMETOOLONG is an answer. */
#define SPECIAL_NAME_MAX 32

static bool vma_name_special(const char *name)
{
	return strncmp(name, "[vvar", 5) == 0 ||
	       strncmp(name, "[vdso", 5) == 0 ||
	       strncmp(name, "[vsyscall", 9) == 0;
}

/* ---- text ---- */

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

/* Digits of @base followed by @stop, which is passed. */
static int vma_number(const char **s, unsigned base, char stop, uint64_t *ret)
{
	uint64_t n = 0;
	const char *p = *s;
	int digit;

	for (; (digit = hex_digit(*p)) >= 0 && digit < (int)base; p++)
		if (__builtin_mul_overflow(n, base, &n) ||
		    __builtin_add_overflow(n, (unsigned)digit, &n))
			return -EINVAL;
	if (p == *s || *p != stop)
		return -EINVAL;
	*s = p + 1;
	*ret = n;
	return 0;
}

static int vma_permissions(const char **s, struct vma *v)
{
	const char *p = *s;

	if ((p[0] != 'r' && p[0] != '-') || (p[1] != 'w' && p[1] != '-') ||
	    (p[2] != 'x' && p[2] != '-') || (p[3] != 's' && p[3] != 'p') ||
	    p[4] != ' ')
		return -EINVAL;
	v->read = p[0] == 'r';
	v->write = p[1] == 'w';
	v->exec = p[2] == 'x';
	v->shared = p[3] == 's';
	*s = p + 5;
	return 0;
}

static int vma_numbers(const char **s, struct vma *v)
{
	uint64_t offset, dev_major, dev_minor;

	if (vma_number(s, 16, ' ', &offset) < 0 ||
	    vma_number(s, 16, ':', &dev_major) < 0 ||
	    vma_number(s, 16, ' ', &dev_minor) < 0)
		return -EINVAL;
	/* behind the inode the kernel always has a blank, an editor may not */
	if (vma_number(s, 10, ' ', &v->inode) < 0 &&
	    vma_number(s, 10, '\n', &v->inode) < 0 &&
	    vma_number(s, 10, '\0', &v->inode) < 0)
		return -EINVAL;
	if (dev_major > UINT32_MAX || dev_minor > UINT32_MAX)
		return -EINVAL;
	v->dev = makedev((unsigned)dev_major, (unsigned)dev_minor);
	return 0;
}

int vma_parse(const char *line, struct vma *ret)
{
	const char *s = line;
	struct vma v = { 0 };

	if (vma_number(&s, 16, '-', &v.start) < 0 ||
	    vma_number(&s, 16, ' ', &v.end) < 0 || v.start >= v.end ||
	    v.start % 4096 || v.end % 4096 || vma_permissions(&s, &v) < 0 ||
	    vma_numbers(&s, &v) < 0)
		return -EINVAL;
	if (v.inode == 0 && s[-1] == ' ') {
		while (*s == ' ')
			s++;
		v.special = vma_name_special(s);
	}
	*ret = v;
	return 0;
}

static int vmas_next_text(struct vmas *v, uint64_t from, struct vma *ret,
			  struct err *e)
{
	char quote[PROCTEXT_QUOTE];
	ssize_t n;

	while (v->last.end <= from) {
		errno = 0;
		n = getline(&v->line, &v->line_size, v->text);
		if (n < 0 && errno == ESRCH)
			return procdir_gone(v->pid, e);
		if (n < 0 && errno)
			return err_errno(e, errno, "read maps of process %d",
					 (int)v->pid);
		if (n < 0)
			return VMAS_END;
		if (vma_parse(v->line, &v->last) < 0)
			return err_set(
				e, EPROTO, "maps of process %d: bad line: %s",
				(int)v->pid,
				proctext_quote(v->line, quote, sizeof(quote)));
	}
	*ret = v->last;
	return 0;
}

/* ---- query ---- */

static int vmas_query(const struct vmas *v, uint64_t addr,
		      struct procmap_query_arg *ret, char *name,
		      uint32_t name_size)
{
	struct procmap_query_arg arg = {
		.size = sizeof(arg),
		.query_flags = QUERY_COVERING_OR_NEXT,
		.query_addr = addr,
		.vma_name_size = name_size,
		.vma_name_addr = (uintptr_t)name,
	};

	if (ioctl(fileno(v->text), QUERY_IOCTL, &arg) < 0)
		return -errno;
	*ret = arg;
	return 0;
}

/* [vvar] is r--p, [vdso] r-xp: only such anonymous ones are asked for names. */
static bool vmas_special(const struct vmas *v, const struct vma *a)
{
	struct procmap_query_arg arg = { 0 };
	char name[SPECIAL_NAME_MAX] = "";

	if (a->inode || a->shared || a->write || !a->read)
		return false;
	if (vmas_query(v, a->start, &arg, name, sizeof(name)) < 0)
		return false;
	return arg.vma_name_size && vma_name_special(name);
}

static int vmas_next_query(const struct vmas *v, uint64_t from, struct vma *ret,
			   struct err *e)
{
	struct procmap_query_arg arg = { 0 };
	int r;

	r = vmas_query(v, from, &arg, NULL, 0);
	if (r == -ENOENT)
		return VMAS_END;
	if (r == -ESRCH)
		return procdir_gone(v->pid, e);
	if (r < 0)
		return err_errno(e, -r, "PROCMAP_QUERY of process %d",
				 (int)v->pid);
	*ret = (struct vma){
		.start = arg.vma_start,
		.end = arg.vma_end,
		.read = arg.vma_flags & QUERY_READABLE,
		.write = arg.vma_flags & QUERY_WRITABLE,
		.exec = arg.vma_flags & QUERY_EXECUTABLE,
		.shared = arg.vma_flags & QUERY_SHARED,
		.dev = makedev(arg.dev_major, arg.dev_minor),
		.inode = arg.inode,
	};
	ret->special = vmas_special(v, ret);
	return 0;
}

/* ---- both ---- */

int vmas_open(struct vmas *v, int dir_fd, pid_t pid, struct err *e)
{
	struct procmap_query_arg arg = { 0 };
	struct vmas new = VMAS_NULL;
	int r;

	new.pid = pid;
	r = procdir_stream(dir_fd, pid, "maps", &new.text, e);
	if (r < 0)
		return r;
	r = vmas_query(&new, 0, &arg, NULL, 0);
	new.query = r == 0 || r == -ENOENT;
	*v = new;
	return 0;
}

void vmas_close(struct vmas *v)
{
	guard_fclosep(&v->text);
	v->text = NULL;
	free(v->line);
	v->line = NULL;
}

int vmas_next(struct vmas *v, uint64_t from, struct vma *ret, struct err *e)
{
	if (v->query)
		return vmas_next_query(v, from, ret, e);
	return vmas_next_text(v, from, ret, e);
}
