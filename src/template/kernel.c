/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding a kernel's release in its file
 *
 * A bzImage points to its version string from the setup header; a vmlinux has
 * the banner it will print, somewhere. The file is the user's: nothing in it is
 * believed beyond its length, and what is no plain text is not repeated.
 */
#include "template/kernel.h"

#include "base/guard.h"
#include "base/io.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* Up to the first blank; nothing when it is no plain text. */
static void kernel_release_text(char *text, char *out, size_t size)
{
	text[strcspn(text, " ")] = '\0';
	for (const char *p = text; *p; p++)
		if (*p < ' ' || *p == 127)
			return;
	if (*text)
		snprintf(out, size, "%s", text);
}

/* A vmlinux: init/version.c's banner is somewhere in it. */
static void kernel_release_elf(int fd, char *out, size_t size)
{
	static const char banner[] = "Linux version ";
	char text[128] = "";
	struct stat st;
	const char *p, *at;

	if (fstat(fd, &st) < 0 || st.st_size == 0)
		return;
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return;
	at = memmem(p, (size_t)st.st_size, banner, strlen(banner));
	if (at && p + st.st_size - at > (ptrdiff_t)sizeof(text))
		memcpy(text, at + strlen(banner), sizeof(text) - 1);
	munmap((void *)(uintptr_t)p, (size_t)st.st_size);
	kernel_release_text(text, out, size);
}

/* The kernel's release; of a bzImage, from the setup header's version string
 * (Documentation/x86/boot.rst: offset 0x20e, "HdrS" at 0x202). */
void kernel_release(const char *path, char *out, size_t size)
{
	guard_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	char head[0x210], text[128];
	uint16_t at;
	ssize_t n;

	snprintf(out, size, "unknown");
	if (fd < 0 || io_pread_full(fd, head, sizeof(head), 0) != sizeof(head))
		return;
	if (!memcmp(head, "\177ELF", 4)) {
		kernel_release_elf(fd, out, size);
		return;
	}
	memcpy(&at, head + 0x20e, sizeof(at));
	if (memcmp(head + 0x202, "HdrS", 4) != 0 || !at)
		return;
	n = io_pread_full(fd, text, sizeof(text) - 1, 0x200ull + at);
	text[max(n, 0)] = '\0';
	kernel_release_text(text, out, size);
}
