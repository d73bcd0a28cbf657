#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A store that lies, stalls, dies and comes back. Whatever passes by itself is
# waited for, and the bytes are right; what does not pass within the deadline
# ends the sandbox that needed the page, with the reason, and no other: be it a
# page of its memory or of its disk. Then a cache whose disk is full: streaming
# goes on without it.
. "$(dirname "$0")/lib.sh"
need python3
# Seconds until a page is given up; nothing is kept, so every fault asks.
export BYRE_PAGER_DEADLINE=6 BYRE_CACHE_SIZE=4K
begin base

# Of the disk a file for each way to lose it.
PATIENCE=280 byre bake blob --rootfs "$CACHE/busybox.rootfs" --memory 256M \
	--warm 'mkdir -p /mnt/t && mount -t tmpfs tmpfs /mnt/t &&
		head -c 8388608 /dev/urandom >/mnt/t/blob &&
		md5sum /mnt/t/blob >/mnt/t/sum &&
		for i in 1 2 3 4; do
			head -c 8388608 /dev/urandom >/root/cold$i
			md5sum /root/cold$i >/mnt/t/cold$i
		done; sync' >/dev/null || fail bake
mkdir "$D/store"
byre store add here "$D/store" || fail "store add"
byre push blob here >/dev/null 2>&1 || fail "push blob"
byre push base here >/dev/null 2>&1 || fail "push base"
daemon_stop

SERVER=
PORT=0

server()
{
	python3 "$TOP/tests/tools/lying-server" "$D/store" "$D/mode" \
		--port "$PORT" >"$D/port" 2>"$D/server.err" &
	SERVER=$!
	OURS+=("$SERVER")
	disown
	until_true 10 "the server listens" grep -q . "$D/port"
	PORT=$(head -n 1 "$D/port")
}

# Only for the pack: references and indexes are read before. With $2, only from
# that byte on.
mode()
{
	echo "$1 pack - ${2:-0}" >"$D/mode.new" && mv "$D/mode.new" "$D/mode"
}

server
export BYRE_ROOT=$D/cold BYRE_RUN=$D/cold-run
daemon_start
byre store add lab "http://127.0.0.1:$PORT" || fail "store add"
byre store add here "$D/store" || fail "store add"
byre pull lab blob >/dev/null 2>&1 || fail "pull blob"
byre pull here base >/dev/null 2>&1 || fail "pull base"
byre create base --name other >/dev/null || fail "create other"

sums()
{
	run byre exec "$1" -- md5sum -c /mnt/t/sum
	expect 0
	expect_out "/mnt/t/blob: OK"
}

# Its pages are gone from here; the next touch asks the store.
evict()
{
	byre template evict blob >/dev/null || fail evict
}

byre create blob --name x >/dev/null || fail "create x"
sums x

# ---- what passes ----

for m in error500 reset short drip hang; do
	mode $m
	evict
	"$BYRE" exec x -- md5sum -c /mnt/t/sum >"$D/sum" 2>"$D/sum.err" &
	pid=$!
	sleep 2
	[ ! -s "$D/sum" ] || fail "$m: it was not needed"
	mode ok
	wait $pid || fail "$m: $(cat "$D/sum.err")"
	same "$(cat "$D/sum")" "/mnt/t/blob: OK" "the sum after $m"
	say "$m for 2 s: right"
done
at_least "$(byre mem --pager --json | jq '[.layers[].retries] | add')" 5 retries

# The server itself is gone for a while.
evict
kill -KILL "$SERVER"
# shellcheck disable=SC2034
QUIET="event=page-lost\|event=disk-lost"
"$BYRE" exec x -- md5sum -c /mnt/t/sum >"$D/sum" 2>"$D/sum.err" &
pid=$!
sleep 3
: >"$D/port"
server
wait $pid || fail "store away: $(cat "$D/sum.err")"
same "$(cat "$D/sum")" "/mnt/t/blob: OK" "the sum after the store came back"

# ---- what does not ----

for m in full200 wrong-bytes stale error500 hang; do
	byre create blob --name "v-$m" >/dev/null || fail "create v-$m"
	mode $m
	evict
	run byre exec "v-$m" -- md5sum -c /mnt/t/sum
	[ "$RC" != 0 ] || fail "$m: $OUT"
	[[ $OUT != *OK* ]] || fail "$m: a sum of pages that cannot be"
	until_true 20 "v-$m is failed" state_is "v-$m" failed
	cause=$(get "v-$m" .cause)
	say "$m: $cause"
	[[ $cause == *lab* ]] || fail "$m: the cause does not name the store"
	answers other || fail "$m: the sandbox of another template suffered"
	mode ok
	byre rm "v-$m" >/dev/null || fail "rm v-$m"
	run byre create blob --name y
	expect 0
	sums y
	byre rm -f y >/dev/null || fail "rm y"
done

# ---- the same of the disk ----

# From the disk: what the guest has in its page cache is memory.
cold()
{
	run byre exec "$1" -- sh -c "echo 3 >/proc/sys/vm/drop_caches
		md5sum -c /mnt/t/cold$2"
	expect 0
	expect_out "/root/cold$2: OK"
}

# In a pack the cold part of the disk comes last.
from=$(byre image inspect --json "$(image_of blob)" |
	jq '.own_stored_bytes - .disk.cold_stored_bytes')
at_least "$from" 1000000 "the disk in the pack"
i=0
for m in wrong-bytes error500 hang; do
	i=$((i + 1))
	mode ok
	byre create blob --name "d-$m" >/dev/null || fail "create d-$m"
	byre create blob --name "e-$m" >/dev/null || fail "create e-$m"
	answers "e-$m" || fail "e-$m does not answer"
	mode $m "$from"
	run byre exec "d-$m" -- sh -c "echo 3 >/proc/sys/vm/drop_caches
		md5sum /root/cold$i; echo 'it saw that'"
	[ "$RC" != 0 ] && [ -z "$OUT" ] || fail "$m: the guest saw it: $OUT$ERR"
	until_true 20 "d-$m is failed" state_is "d-$m" failed
	cause=$(get "d-$m" .cause)
	say "disk, $m: $cause"
	[[ $cause == *disk*lab* ]] || fail "$m: the cause names no disk, no store"
	answers other || fail "$m: the sandbox of another template suffered"
	answers "e-$m" || fail "$m: a sandbox that did not read it suffered"
	mode ok
	cold "e-$m" $i
	byre rm -f "d-$m" "e-$m" >/dev/null || fail "rm"
done
# While there is no daemon nobody can say so: the guest is stopped, and the next
# daemon lets it try again.
byre create blob --name d >/dev/null || fail "create d"
mode error500 "$from"
"$BYRE" exec d -- sh -c 'echo 3 >/proc/sys/vm/drop_caches
	md5sum /root/cold4' >/dev/null 2>&1 &
sleep 2
daemon_stop KILL
sleep 8
mode ok
daemon_start
until_true 20 "d runs" state_is d running
cold d 4
byre rm -f d >/dev/null || fail "rm d"
grep -q event=disk-lost "$BYRE_ROOT/pager.log" || fail "the pager's log is silent"

# ---- a cache that has no room ----

# A zombie, which somebody else's init may leave for a while, does not live.
pager_ended()
{
	! readlink "/proc/$(cut -d ' ' -f 1 "$BYRE_RUN/pager.pid")/exe" >/dev/null
}

cache_errs()
{
	[ "$(byre mem --pager --json | jq .cache.errors)" -ge 1 ]
}

daemon_stop
unset BYRE_CACHE_SIZE
daemon_start
ids=$(byre ls -q) || fail "ls"
# shellcheck disable=SC2086
byre rm -f $ids >/dev/null || fail "rm"
daemon_stop
until_true 10 "the pager ends" pager_ended
rm -rf "$BYRE_ROOT/cache"
mkdir "$BYRE_ROOT/cache"
if mount -t tmpfs -o size=256k tmpfs "$BYRE_ROOT/cache" 2>/dev/null; then
	daemon_start
	byre create blob --name full >/dev/null || fail "create full"
	sums full
	until_true 5 "errors of a full cache are counted" cache_errs
	say "cache full: right"
fi
kill -KILL "$SERVER"
# shellcheck disable=SC2034
QUIET="event=page-lost\|event=disk-lost"
finish
