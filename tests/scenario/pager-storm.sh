#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The pager dies in a storm of faults: eight guests checksum their streamed
# memory throughout, the pager is killed twenty times while its pages are being
# dropped under them, and no guest ever sees a wrong byte or stops. Then daemon
# and pager die together, and the next daemon takes everything back.
. "$(dirname "$0")/lib.sh"
begin base

GUESTS=8
KILLS=20

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

# Each guest: checksum after checksum, a line for every one.
storm()
{
	local i

	for ((i = 0; i < GUESTS; i++)); do
		"$BYRE" exec "g$i" -- sh -c 'while :; do
			md5sum -c /mnt/t/sum || exit 1; done' \
			>"$D/sums.$i" 2>"$D/sums.$i.err" &
		OURS+=($!)
		disown
	done
}

lines()
{
	cat "$D"/sums.[0-9] | wc -l
}

# Every guest has finished one checksum more.
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

all_right()
{
	local bad

	bad=$(cat "$D"/sums.[0-9] | grep -v '^/mnt/t/blob: OK$')
	[ -z "$bad" ] || fail "wrong bytes: $bad"
	bad=$(byre ls --json | jq -c 'map(select(.state != "running"))')
	same "$bad" "[]" "sandboxes that do not run"
}

for ((i = 0; i < GUESTS; i++)); do
	byre create blob --name "g$i" >/dev/null || fail "create g$i"
done
storm
declare -a SEEN
seen
for ((k = 0; k < KILLS; k++)); do
	old=$(pager)
	byre template evict blob >/dev/null || fail "evict"
	sleep 0.0$((k % 10))
	kill -KILL "$old"
	until_true 10 "another pager" other_pager "$old"
done
seen
until_true 60 "every guest goes on" all_go_on
all_right
starts=$(byre mem --pager --json | jq .starts)
at_least "$starts" $((KILLS + 1)) "starts of pagers"
say "$KILLS pagers killed, $(lines) checksums right," \
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
for ((i = 0; i < GUESTS; i++)); do
	run byre exec "g$i" -- md5sum -c /mnt/t/sum
	expect 0
done
storm
seen
until_true 60 "every guest goes on" all_go_on
all_right

# Only the daemon: the pager goes on without one.
daemon_stop KILL
sleep 0.5
pager_alive || fail "the pager ended with the daemon"
daemon_start
for ((i = 0; i < GUESTS; i++)); do
	run byre exec "g$i" -- md5sum -c /mnt/t/sum
	expect 0
done
finish
