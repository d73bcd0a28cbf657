#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# `byre mem --pid` of a process tree with known numbers: a parent that touched
# 64 MiB forks, the children write some of it. No daemon involved.
. "$(dirname "$0")/lib.sh"
need cc
begin empty no-daemon

cat >"$D/tree.c" <<'END'
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIB (1ul << 20)

int main(void)
{
	char *p = mmap(NULL, 256 * MIB, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	madvise(p, 256 * MIB, MADV_NOHUGEPAGE);
	memset(p, 1, 64 * MIB);
	for (int i = 0; i < 2; i++) {
		if (fork() == 0) {
			memset(p, 2, (i + 1) * 8 * MIB);
			puts("child");
			fflush(stdout);
			pause();
		}
	}
	puts("parent");
	fflush(stdout);
	pause();
}
END
cc -O1 -o "$D/tree" "$D/tree.c" || fail "compile"
"$D/tree" >"$D/said" &
pid=$!
OURS+=($pid $(pgrep -P $pid))
disown
until_true 10 "all three are ready" eval '[ $(wc -l <"$D/said") = 3 ]'
OURS+=($(pgrep -P $pid))
run byre mem --json --pid $pid
expect 0
same "$(jq '.processes | length' <<<"$OUT")" 3 processes
same "$(jq '[.processes[] | .shared + .private + .swapped + .zero + .balloon +
	.absent == .configured] | all' <<<"$OUT")" true "buckets that add up"
jq -c '.processes[] | {pid, comm, configured, shared, private, vmm}' <<<"$OUT"
# In MiB, rounded: the parent's 64 less what both children replaced... every
# page of the first 8 MiB is the parent's alone, 8 to 16 it shares with the
# first child, the rest with both.
got=$(jq -c --argjson pid $pid '.processes | map({
	key: (if .pid == $pid then "parent" else "child" end),
	private: ((.private / 1048576) | round),
	shared: ((.shared / 1048576) | round)})' <<<"$OUT")
say "$got"
run byre mem --pid $pid
expect 0
[[ $OUT == *tree* ]] || fail "mem --pid: $OUT"
jq -e --argjson pid $pid '(.processes[] | select(.pid == $pid) | .configured)
	>= 268435456' < <(byre mem --json --pid $pid) >/dev/null ||
	fail "configured is less than what was mapped"
# The ones that wrote have at least that much of their own.
same "$(jq --argjson pid $pid '[.processes[] | select(.pid != $pid) |
	.private / 1048576 | floor] | sort | .[0] >= 8 and .[1] >= 16' \
	< <(byre mem --json --pid $pid))" true "private of the children"
for p in $(pgrep -P $pid) $pid; do
	kill -KILL "$p"
done
until_true 5 "they are gone" eval "! kill -0 $pid 2>/dev/null"
run byre mem --pid $pid
expect_error 1 $pid
run byre mem --json --pid $$
expect 0
say "ok ($SECONDS s)"
exit 0
