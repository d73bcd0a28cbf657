#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# byre pager --firecracker serves stock Firecrackers of all versions, several at
# once, from a template and beside its daemon; what is no Firecracker is refused
# with a reason, and killed where its memory would wait for ever; one that is
# killed is forgotten; from a store that is damaged a guest gets no wrong byte
# but its end, and the log says why.
#
# The Firecracker is a program of ours that does to the byte what one does
# (src/pager/test_firecracker.c): there is none in Debian.
. "$(dirname "$0")/lib.sh"
need sqlite3
CLIENT=$BYRE_BUILD/pager/test_firecracker
[ -x "$CLIENT" ] || skip "$CLIENT is not built: make units"
begin base

image=$(image_of base) || fail "no image of base"
memory=$image/memory
socket=$D/fc.sock
PAGER=

pager_start()
{
	: >"$D/pager.log"
	"$BYRE" pager --firecracker "$socket" "$@" >>"$D/pager.log" 2>&1 \
		</dev/null &
	PAGER=$!
	OURS+=("$PAGER")
	until_true 20 "the pager serves" pager_said event=serving
}

pager_said()
{
	kill -0 "$PAGER" 2>/dev/null || fail "the pager ended: $(cat "$D/pager.log")"
	grep -q -- "$1" "$D/pager.log"
}

pager_stop()
{
	kill -TERM "$PAGER"
	wait "$PAGER" || fail "the pager's exit code: $?"
	[ ! -e "$socket" ] || fail "it left its socket"
}

# A Firecracker that comes, does things at random, checks every byte, and goes.
vm()
{
	timeout "$PATIENCE" "$CLIENT" run "$socket" "$memory" "$1"
}

# One that touches a page and stays; sets VM.
vm_stays()
{
	"$CLIENT" run "$socket" "$memory" linger >"$D/vm.$1" 2>&1 </dev/null &
	VM=$!
	disown
	OURS+=("$VM")
	until_true 20 "a guest runs" grep -q touched "$D/vm.$1"
}

# Whose connection is closed ends by itself; whose memory waits is killed.
refused()
{
	run timeout 30 "$CLIENT" bad "$socket" "$memory" "$1"
	expect 0
	until_true 5 "the log says \"$2\"" \
		pager_said "event=refused.*action=close.*$2"
}

killed()
{
	run timeout 30 "$CLIENT" bad "$socket" "$memory" "$1"
	expect 137
	until_true 5 "the log says \"$2\"" \
		pager_said "action=kill.*$2"
}

no_uffd()
{
	[ -z "$(find "/proc/$PAGER/fd" -lname '*userfaultfd*')" ]
}

# ---- all versions, at once, beside the daemon ----

pager_start --image base
pids=()
for version in 1.1 1.7 1.12 gap more sweep huge; do
	vm $version &
	pids+=($!)
done
run byre run base -- echo "the daemon has not noticed"
expect 0
for pid in "${pids[@]}"; do
	wait "$pid" || fail "a Firecracker: exit code $?"
done
same "$(grep -c event=connected "$D/pager.log")" 7 "Firecrackers connected"
same "$(grep -c 'event=connected.*regions=2' "$D/pager.log")" 1 "with a gap"
until_true 5 "all have ended" no_uffd
same "$(grep -c event=ended "$D/pager.log")" 7 "Firecrackers ended"
kill -USR1 "$PAGER"
until_true 5 "the counts" \
	pager_said "event=counts guests=0 faults=[1-9].* latency_us_p99=[1-9]"

# ---- what is none ----

"$CLIENT" bad "$socket" "$memory" silent &
silent=$!
refused no-fd "no fd came with it"
killed two-fds "more than one fd"
refused other-fd "no userfaultfd"
killed no-json "no JSON"
killed half "ends too early"
killed outside "outside the image"
refused endless "too much text"
refused end "it said nothing"
killed raw "read page faults"
vm 1.12 || fail "one among strangers: exit code $?"
wait $silent || fail "who says nothing is kept"

# ---- ends ----

vm_stays a
a=$VM
vm_stays b
b=$VM
kill -KILL "$a"
until_true 5 "the end of $a" pager_said "event=ended pid=$a"
pager_stop
kill -0 "$b" || fail "the pager's end is its guest's"
kill -KILL "$b"

# ---- from a store, and another root ----

"$CLIENT" image "$D/made" || fail "no image"
memory=$D/made/whole/memory
mkdir -p "$D/other/images"
mv "$D/made/remote" "$D/other/images/1234"
sqlite3 "$D/other/byre.db" "
	CREATE TABLE templates (name TEXT PRIMARY KEY, dir TEXT NOT NULL,
		created TEXT NOT NULL);
	CREATE TABLE stores (name TEXT PRIMARY KEY, url TEXT NOT NULL,
		endpoint TEXT NOT NULL, region TEXT NOT NULL,
		credentials TEXT NOT NULL, ca TEXT NOT NULL);
	INSERT INTO templates VALUES ('far', '1234', '');
	INSERT INTO stores VALUES ('sample', '$D/made/store', '', '', '', '');"
pager_start --root "$D/other" --image far --cache-bytes 50000000
vm gap &
vm sweep || fail "streamed: exit code $?"
wait $! || fail "streamed, with a gap: exit code $?"
[ -n "$(ls "$D"/other/cache/im*/*)" ] || fail "nothing in the cache"
pager_stop
grep -q "event=counts.* fetched_bytes=[1-9].* cache_bytes=[1-9]" \
	"$D/pager.log" || fail "no counts at the end"

# ---- damaged ----

pack=$(echo "$D"/made/store/images/*/pack)
own_file "$pack"
# The pack begins with the disk's first page; behind it is memory.
printf 'byre' | dd of="$pack" bs=1 seek=6000 conv=notrunc status=none
rm -rf "$D/other/cache"
export BYRE_PAGER_DEADLINE=3
pager_start --root "$D/other" --image "$D/other/images/1234"
run vm sweep
expect 137
until_true 5 "the reason" pager_said "event=failed.*action=kill.*is damaged"
until_true 5 "it is forgotten" no_uffd
pager_stop

# ---- what cannot be served ----

run byre pager --firecracker "$socket" --image nobody
expect_error 1 "no template nobody"
run byre pager --firecracker "$socket" --image "$D/made/store"
expect_error 1 manifest.json
[ ! -e "$socket" ] || fail "a socket without a pager"
run byre pager --firecracker "$socket"
expect 2
run byre pager
expect 2
finish
