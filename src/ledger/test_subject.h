/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A child process to be counted: it does one step per command and then sits
 * still, so that two counts of it must agree to the page
 */
#include "base/guard.h"
#include "base/io.h"
#include "base/test.h"

#include <signal.h>
#include <stdint.h>
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ull

/* Runs in the child, once per command; its result goes to the parent. */
typedef uint64_t (*subject_fn)(void *ctx, unsigned step);

struct subject {
	pid_t pid;
	int command_fd;
	int answer_fd;
	unsigned steps;
};

/* The child's life; its heap is its parent's, its stdio is never used. */
__attribute__((noreturn)) static inline void
subject_live(int command_fd, int answer_fd, subject_fn fn, void *ctx)
{
	uint64_t answer;
	unsigned step;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(command_fd, &step, sizeof(step)) == sizeof(step)) {
		answer = fn(ctx, step);
		if (write(answer_fd, &answer, sizeof(answer)) < 0)
			break;
	}
	_exit(0);
}

static inline struct subject subject_start(subject_fn fn, void *ctx)
{
	int down[2], up[2];
	struct subject s = { .pid = -1 };

	check(pipe2(down, 0) == 0 && pipe2(up, 0) == 0);
	s.pid = fork();
	check(s.pid >= 0);
	if (s.pid == 0) {
		close(down[1]);
		close(up[0]);
		subject_live(down[0], up[1], fn, ctx);
	}
	close(down[0]);
	close(up[1]);
	s.command_fd = down[1];
	s.answer_fd = up[0];
	return s;
}

static inline uint64_t subject_step(struct subject *s)
{
	uint64_t answer = 0;
	unsigned step = s->steps++;

	check(write(s->command_fd, &step, sizeof(step)) == sizeof(step));
	check(read(s->answer_fd, &answer, sizeof(answer)) == sizeof(answer));
	return answer;
}

/* Kill it; a zombie until subject_end(). */
static inline void subject_kill(struct subject *s)
{
	siginfo_t info = { 0 };

	kill(s->pid, SIGKILL);
	check(waitid(P_PID, (id_t)s->pid, &info, WEXITED | WNOWAIT) == 0);
}

static inline void subject_end(struct subject *s)
{
	kill(s->pid, SIGKILL);
	check(waitpid(s->pid, NULL, 0) == s->pid);
	close(s->command_fd);
	close(s->answer_fd);
}

static inline uint8_t *subject_map(uint64_t pages, int prot, int flags, int fd)
{
	void *p = mmap(NULL, pages * PAGE, prot, flags, fd, 0);

	check(p != MAP_FAILED);
	return p;
}

static inline void subject_read_page(const uint8_t *p)
{
	(void)*(const volatile uint8_t *)p;
}

/* The sum of a key over the mappings of smaps that lie in a range; bytes. */
static inline uint64_t smaps_sum(pid_t pid, uint64_t start, uint64_t end,
				 const char *key)
{
	char path[64], line[8192];
	unsigned long long from = 0, to = 0, kb, sum = 0;
	size_t len = strlen(key);
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
	f = fopen(path, "re");
	check(f);
	while (fgets(line, sizeof(line), f)) {
		if (line[0] < 'A' || line[0] > 'Z')
			check(sscanf(line, "%llx-%llx", &from, &to) == 2);
		else if (from >= start && to <= end &&
			 !strncmp(line, key, len) && line[len] == ':' &&
			 sscanf(line + len + 1, "%llu", &kb) == 1)
			sum += kb;
	}
	fclose(f);
	return sum * 1024;
}

/* Forget CAP_SYS_ADMIN in this process: frames read as 0. */
static inline void drop_sys_admin(void)
{
	struct __user_cap_header_struct head = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2] = { 0 };

	check(syscall(SYS_capget, &head, data) == 0);
	data[0].effective &= ~(1u << CAP_SYS_ADMIN);
	data[0].permitted &= ~(1u << CAP_SYS_ADMIN);
	check(syscall(SYS_capset, &head, data) == 0);
	/* the change made /proc/self root's */
	prctl(PR_SET_DUMPABLE, 1);
}

/* A file of a fixture tree. */
static inline void fixture_write(const char *dir, const char *name,
				 const char *text)
{
	guard_free char *path = io_path("%s/%s", dir, name);
	FILE *f;

	f = fopen(path, "we");
	check(f);
	check(fputs(text, f) >= 0);
	check(fclose(f) == 0);
}

static inline void fixture_word(const char *dir, const char *name,
				uint64_t index, uint64_t word)
{
	guard_free char *path = io_path("%s/%s", dir, name);
	FILE *f;

	f = fopen(path, "r+e");
	if (!f)
		f = fopen(path, "w+e");
	check(f);
	check(fseek(f, (long)(index * 8), SEEK_SET) == 0);
	check(fwrite(&word, sizeof(word), 1, f) == 1);
	check(fclose(f) == 0);
}

static inline void fixture_remove(const char *dir, const char *name)
{
	guard_free char *path = io_path("%s/%s", dir, name);

	check(unlink(path) == 0);
}
