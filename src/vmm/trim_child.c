/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trimming an emulated guest's VMM (part of libbyre-zygote.so)
 *
 * Under TCG a guest's code is translated before it runs, and the translations
 * stay: 5 MiB for a restore, 11 after the first command, 30 after Python has
 * run. For a guest that idles they are most of what it costs. Throwing them
 * away is something QEMU does by itself whenever the buffer is full (tb_flush);
 * we do it for an idle guest, and give the pages back. The next command is
 * translated again: it takes some 60 ms longer.
 *
 * A thread waits on an eventfd. It must not touch translations while the vCPU
 * may run them, so it hands the work to the vCPU thread as exclusive work, in
 * which QEMU lets nothing else run. The functions are those the program exports
 * for its own modules; without them (other VMMs, other versions) there is no
 * thread. With KVM there are no translations, and nobody writes to the eventfd.
 *
 * Invariants:
 *  1. Pages are dropped in exclusive context only, right after the flush: no
 *     translation exists then.
 *  2. The start of the buffer stays: the prologue that enters translated code
 *     lives there.
 */
#include "vmm/trim_child.h"

#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* The prologue is below 4 KiB in QEMU 7.2. */
#define TRIM_KEEP 65536u
/* A mapping below this is not the translation buffer (we ask for 32 MiB). */
#define TRIM_BUFFER_MIN (4ul << 20)
/* The thread reads one number and calls one function. */
#define TRIM_STACK 65536u

struct trim_cpu; /* QEMU's CPUState */

/* run_on_cpu_data is a union of one word, passed like one. */
typedef void (*trim_work_fn)(struct trim_cpu *cpu, uint64_t data);

static struct {
	int fd;
	struct trim_cpu *(*get_cpu)(int index);
	void (*flush)(struct trim_cpu *cpu);
	void (*run_exclusive)(struct trim_cpu *cpu, trim_work_fn fn,
			      uint64_t data);
	char *buffer;
	size_t len;
} trim = { .fd = -1 };

/* The only mapping that is writable and executable. */
static bool trim_find_buffer(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned long start, end;
	char mode[8], line[512];

	if (!f)
		return false;
	while (!trim.buffer && fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx-%lx %7s", &start, &end, mode) == 3 &&
		    !strcmp(mode, "rwxp") && end - start >= TRIM_BUFFER_MIN) {
			trim.buffer = (char *)start;
			trim.len = end - start;
		}
	fclose(f);
	return trim.buffer != NULL;
}

/* On the vCPU's thread, alone. */
static void trim_work(struct trim_cpu *cpu, uint64_t data)
{
	(void)data;
	trim.flush(cpu);
	madvise(trim.buffer + TRIM_KEEP, trim.len - TRIM_KEEP, MADV_DONTNEED);
}

static void *trim_thread(void *arg)
{
	uint64_t count;

	while (read(trim.fd, &count, sizeof(count)) == sizeof(count)) {
		struct trim_cpu *cpu = trim.get_cpu(0);

		if (cpu && (trim.buffer || trim_find_buffer()))
			trim.run_exclusive(cpu, trim_work, 0);
		malloc_trim(0);
	}
	return arg;
}

void trim_start(int fd)
{
	sigset_t all, old;
	pthread_attr_t attr;
	pthread_t thread;

	*(void **)&trim.get_cpu = dlsym(RTLD_DEFAULT, "qemu_get_cpu");
	*(void **)&trim.flush = dlsym(RTLD_DEFAULT, "tb_flush");
	*(void **)&trim.run_exclusive =
		dlsym(RTLD_DEFAULT, "async_safe_run_on_cpu");
	if (!trim.get_cpu || !trim.flush || !trim.run_exclusive)
		return;
	trim.fd = fd;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, TRIM_STACK);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	/* Without the thread the guest is just not trimmed. */
	pthread_create(&thread, &attr, trim_thread, NULL);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}
