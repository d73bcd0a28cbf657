/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory figures, settling, power
 *
 * Settling is for the moment before a template is photographed. What lies in
 * the page cache then is stored with the image and mapped by every sandbox, so
 * whether to drop it is the host's choice; compaction gathers free pages, so
 * that zeros come in long runs that the image does not store.
 *
 * Power off means that the VMM ends. A microVM without ACPI cannot switch
 * itself off: its kernel would turn the request into a halt and sit there for
 * ever. There a reset is asked for, which ends a VMM started with -no-reboot.
 */
#include "agent/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <unistd.h>

static ssize_t machine_read(const char *proc, const char *name, char *out,
			    size_t size, struct err *e)
{
	char path[128];
	ssize_t n;
	int fd, r;

	snprintf(path, sizeof(path), "%s/%s", proc, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(e, errno, "open %s", path);
	n = read(fd, out, size - 1);
	r = errno;
	close(fd);
	if (n < 0)
		return err_errno(e, r, "read %s", path);
	out[n] = 0;
	return n;
}

static int machine_write(const char *proc, const char *name, const char *text,
			 struct err *e)
{
	char path[128];
	int fd, r = 0;

	snprintf(path, sizeof(path), "%s/%s", proc, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(e, errno, "open %s", path);
	if (write(fd, text, strlen(text)) < 0)
		r = err_errno(e, errno, "write %s", path);
	close(fd);
	return r;
}

/* "Name:   1234 kB" somewhere in the text, as bytes; 0 when absent. */
static uint64_t machine_field(const char *text, const char *name)
{
	const char *at = strstr(text, name);

	return at ? strtoull(at + strlen(name), NULL, 10) * 1024 : 0;
}

int machine_memory(const char *proc, struct machine_memory *ret, struct err *e)
{
	/* The fields wanted are the first four or five lines of some fifty. */
	char text[4096];
	ssize_t n;

	n = machine_read(proc, "meminfo", text, sizeof(text), e);
	if (n < 0)
		return (int)n;
	ret->total_bytes = machine_field(text, "MemTotal:");
	ret->free_bytes = machine_field(text, "MemFree:");
	ret->available_bytes = machine_field(text, "MemAvailable:");
	ret->cached_bytes = machine_field(text, "\nCached:");
	return 0;
}

int machine_settle(const char *proc, bool drop, struct err *e)
{
	int r;

	sync();
	if (!drop)
		return 0;
	r = machine_write(proc, "sys/vm/drop_caches", "3", e);
	/* Absent in a kernel built without compaction. */
	err_drop(machine_write(proc, "sys/vm/compact_memory", "1", NULL));
	return r;
}

void machine_quiesce(void)
{
	sync();
	err_drop(mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL));
}

void machine_power_off(void)
{
	if (access("/sys/firmware/acpi/tables", F_OK) == 0)
		reboot(RB_POWER_OFF);
	reboot(RB_AUTOBOOT);
	/* Not reached by PID 1; anybody else lacked the right. */
	_exit(1);
}
