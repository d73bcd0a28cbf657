#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The pager dies in a storm of faults: eight guests checksum their streamed
# memory throughout, the pager is killed twenty times while its pages are being
# dropped under them, and no guest ever sees a wrong byte or stops for long. Then
# daemon and pager die together, and the next daemon takes everything back.
#
# How long a guest stood still it says itself (tests/tools/stall.c); the numbers
# are printed, with kills and without.
. "$(dirname "$0")/lib.sh"
STALL=$BYRE_BUILD/tools/stall
[ -x "$STALL" ] || fail "no $STALL: make units"
begin base

GUESTS=8
KILLS=20
# Half a second is what a kill may cost. Eight emulated guests on a busy machine
# wait for each other that long without any.
STALL_MAX_US=5000000

# 16 MiB that nobody can guess, in the template's memory.
PATIENCE=280 byre bake blob --rootfs "$CACHE/busybox.rootfs" --memory 256M \
	--warm 'mkdir -p /mnt/t && mount -t tmpfs tmpfs /mnt/t &&
		head -c 16777216 /dev/urandom >/mnt/t/blob &&
		md5sum /mnt/t/blob >/mnt/t/sum' >/dev/null || fail bake
mkdir "$D/store"
byre store add here "$D/store" || fail "store add"
byre push blob here >/dev/null 2>"$D/push.err" ||
	fail "push: $(cat "$D/push.err")"
daemon_stop

# A host that has never seen it.
export BYRE_ROOT=$D/cold BYRE_RUN=$D/cold-run
daemon_start
byre store add here "$D/store" || fail "store add"
byre pull here blob >/dev/null 2>"$D/pull.err" ||
	fail "pull: $(cat "$D/pull.err")"

pager()
{
	cut -d ' ' -f 1 "$BYRE_RUN/pager.pid"
}

pager_alive()
{
	kill -0 "$(pager)" 2>/dev/null
}

other_pager()
{
	[ "$(pager)" != "$1" ] && pager_alive
}

# Each guest: pass after pass over the blob, a line for every one.
storm()
{
	local i

	for ((i = 0; i < GUESTS; i++)); do
		"$BYRE" exec "g$i" -- /mnt/t/stall /mnt/t/blob \
			>"$D/sums.$i" 2>"$D/sums.$i.err" &
		OURS+=($!)
		disown
	done
}

lines()
{
	cat "$D"/sums.[0-9] | wc -l
}

# Every guest has finished one pass more.
all_go_on()
{
	local i n

	for ((i = 0; i < GUESTS; i++)); do
		n=$(wc -l <"$D/sums.$i")
		[ "$n" -gt "${SEEN[$i]}" ] || return 1
	done
}

seen()
{
	local i

	for ((i = 0; i < GUESTS; i++)); do
		SEEN[i]=$(wc -l <"$D/sums.$i")
	done
}

# The longest that a guest stood still since seen(), in microseconds.
longest()
{
	local i

	for ((i = 0; i < GUESTS; i++)); do
		tail -n "+$((SEEN[i] + 1))" "$D/sums.$i"
	done | cut -d ' ' -f 2 | sort -n | tail -n 1
}

# All sums are that of the first pass, whose bytes md5sum has seen.
all_right()
{
	local bad

	bad=$(cat "$D"/sums.[0-9] | grep -v "^$SUM [0-9]*$")
	[ -z "$bad" ] || fail "wrong bytes: $bad"
	bad=$(byre ls --json | jq -c 'map(select(.state != "running"))')
	same "$bad" "[]" "sandboxes that do not run"
}

all_md5()
{
	local i

	for ((i = 0; i < GUESTS; i++)); do
		run byre exec "g$i" -- md5sum -c /mnt/t/sum
		expect 0
	done
}

for ((i = 0; i < GUESTS; i++)); do
	byre create blob --name "g$i" >/dev/null || fail "create g$i"
	byre cp "$STALL" "g$i:/mnt/t/stall" || fail "cp to g$i"
done
all_md5
declare -a SEEN
storm
for ((i = 0; i < GUESTS; i++)); do
	until_true 60 "g$i's first pass" test -s "$D/sums.$i"
done
SUM=$(head -n 1 "$D/sums.0" | cut -d ' ' -f 1)

# The same without kills first: what dropping costs by itself.
seen
for ((k = 0; k < KILLS; k++)); do
	byre template evict blob >/dev/null || fail "evict"
	sleep "0.1$((k % 10))"
done
until_true 60 "every guest goes on" all_go_on
without=$(longest)
seen
for ((k = 0; k < KILLS; k++)); do
	old=$(pager)
	byre template evict blob >/dev/null || fail "evict"
	sleep 0.0$((k % 10))
	kill -KILL "$old"
	until_true 10 "another pager" other_pager "$old"
done
until_true 60 "every guest goes on" all_go_on
with=$(longest)
# And those who were in a pass of before the last kill.
seen
until_true 60 "every guest goes on" all_go_on
with=$(printf '%s\n' "$with" "$(longest)" | sort -n | tail -n 1)
all_right
all_md5
say "longest stall: $((with / 1000)) ms with $KILLS kills," \
	"$((without / 1000)) ms without"
at_most "$with" $STALL_MAX_US "longest stall in microseconds"
starts=$(byre mem --pager --json | jq .starts)
at_least "$starts" $((KILLS + 1)) "starts of pagers"
say "$KILLS pagers killed, $(lines) passes right," \
	"$(byre mem --pager --json | jq '.layers[0].faults') faults"

# Both at once. The clients go with the daemon, the guests stay.
old=$(pager)
kill -KILL "$old" "$DAEMON"
until_true 10 "the daemon is gone" daemon_gone
DAEMON=
same "$(own_vmms | wc -l)" $GUESTS "VMMs without daemon and pager"
daemon_start
until_true 10 "another pager" other_pager "$old"
byre template evict blob >/dev/null || fail "evict after adoption"
all_md5
storm
seen
until_true 60 "every guest goes on" all_go_on
all_right

# Only the daemon: the pager goes on without one.
daemon_stop KILL
sleep 0.5
pager_alive || fail "the pager ended with the daemon"
daemon_start
all_md5
finish
