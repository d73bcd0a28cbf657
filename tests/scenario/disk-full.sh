#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The file system of BYRE_ROOT runs full: a bake and a create end with an error
# that says so, nothing half-made stays; a guest whose disk cannot grow is
# paused, not lost, and goes on when there is room again: also when the disk is
# streamed, and every other error of it would end the sandbox.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || skip "needs root, for a loop mount"
need mkfs.ext4 losetup
begin empty no-daemon
QUIET=event=record # a database that cannot be written is said

truncate -s 300M "$D/disk.img"
mkfs.ext4 -q -m 0 "$D/disk.img" || fail "mkfs.ext4"
mkdir "$D/mnt"
mount -o loop "$D/disk.img" "$D/mnt" 2>"$D/err" || skip "mount: $(cat "$D/err")"
BYRE_ROOT=$D/mnt/root
cp -a --sparse=always "$SEED/base" "$BYRE_ROOT" || fail "copy the root"
daemon_start
standing=$(byre create base --name standing) || fail create
answers standing || fail "standing does not answer"
images=$(ls "$BYRE_ROOT/images")

# Leave $1 KiB, more or less.
fill()
{
	local free i

	rm -f "$D/mnt/filler"
	# What was deleted is free once the journal knows.
	sync -f "$D/mnt"
	for i in 1 2 3; do
		free=$(df --output=avail -k "$D/mnt" | tail -n 1)
		[ "$free" -gt "$1" ] || break
		head -c $(((free - $1) * 1024)) /dev/zero >>"$D/mnt/filler" \
			2>/dev/null
		sync -f "$D/mnt"
	done
}

# A bake that runs out early, in the middle, late.
for room in 1000 20000 60000; do
	fill $room
	run byre bake full --rootfs "$CACHE/busybox.rootfs" --memory 128M \
		--timeout 20s
	ERR=$(grep -v '^[0-9]/[0-9]' <<<"$ERR")
	say "bake with $room KiB: $ERR"
	if [ "$RC" = 0 ]; then
		byre template rm full
		continue
	fi
	expect_error 1 full
	[[ $ERR == *"No space left"* ]] || [[ $ERR == *"is full"* ]] ||
		fail "bake: no word of a full disk in: $ERR"
	only_these "$standing"
	same "$(ls "$BYRE_ROOT/images")" "$images" images
	answers standing || fail "standing does not answer"
done

# The database cannot be written: the bake says so, and whose error that is.
if chattr +i "$BYRE_ROOT/byre.db-wal" 2>/dev/null; then
	run byre bake full --rootfs "$CACHE/busybox.rootfs" --memory 128M
	chattr -i "$BYRE_ROOT/byre.db-wal"
	say "bake without a database: $ERR"
	expect_error 1 "byre: bake full: database: record a bake: "
	only_these "$standing"
fi

# Creates until there is no room.
for room in 300 0; do
	fill $room
	made=()
	for i in $(seq 60); do
		run byre create base
		[ "$RC" = 0 ] || break
		made+=("$OUT")
	done
	say "create with $room KiB: ${#made[@]} made, then: $ERR"
	expect_error 1 "create from base"
	[[ $ERR == *"No space left"* ]] || [[ $ERR == *"is full"* ]] ||
		fail "create: no word of a full disk in: $ERR"
	answers standing || fail "standing does not answer"
	# Removing works with a full disk.
	if [ ${#made[@]} != 0 ]; then
		run byre rm -f "${made[@]}"
		expect 0
	fi
	rm -f "$D/mnt/filler"
	only_these "$standing"
done

# Sandbox $1 is paused, and everybody who asks is told why: $2.
says_why()
{
	same "$(get "$1" .paused_because)" "$2" paused_because
	same "$(get "$1" .cause)" null "cause of one that lives"
	run byre exec "$1" -- true
	expect_error 125 "is paused: $2; resume it when there is space"
	run byre ls
	[[ $OUT == *paused*"$2"* ]] || fail "byre ls does not say why: $OUT"
}

# A guest, $1, that writes more than there is room for.
writes_too_much()
{
	local writer

	fill 3000
	byre exec "$1" -- sh -c 'echo begun; head -c 30000000 /dev/urandom >/root/big &&
		sync && echo done; sha256sum </root/big' \
		>"$D/writer" 2>"$D/writer.err" &
	writer=$!
	OURS+=($writer)
	until_true 40 "the guest is paused" state_is "$1" paused
	say "paused: $(grep event=stopped "$D/daemon.log" | tail -n 1 |
		cut -d ' ' -f 4-)"
	says_why "$1" "the disk of the host is full"
	# Resuming too early: paused again, still not lost.
	run byre resume "$1"
	expect 0
	until_true 20 "the guest is paused again" state_is "$1" paused
	says_why "$1" "the disk of the host is full"
	rm -f "$D/mnt/filler"
	run byre resume "$1"
	expect 0
	same "$(get "$1" .paused_because)" null "paused_because once resumed"
	wait $writer
	same $? 0 "exit code of the writer ($(cat "$D/writer.err"))"
	grep -q '^done' "$D/writer" || fail "the writer said: $(cat "$D/writer")"
	same "$(tail -n 1 "$D/writer")" \
		"$(byre exec "$1" -- sh -c 'echo 3 >/proc/sys/vm/drop_caches; sha256sum </root/big')" \
		"digest of what was written"
	state_is "$1" running || fail "state: $(get "$1" .state)"
}

writes_too_much standing
same "$(byre pause --json standing | jq .paused_because)" null \
	"paused_because of one that was paused by request"
byre resume standing || fail resume
run byre run base -- echo again
expect_out again

# Stopped before a daemon's end, or while there is none: the next one says so.
write_later()
{
	byre exec standing -- sync || fail sync
	fill 3000
	byre exec standing -- sh -c "(sleep $1; cd /root
		head -c 30000000 /dev/urandom >later-$1; sync) >/dev/null 2>&1 &" ||
		fail "exec"
}
write_later 1
until_true 40 "the guest is paused" state_is standing paused
daemon_stop KILL
daemon_start
says_why standing "the disk of the host is full"
rm -f "$D/mnt/filler"
byre resume standing >/dev/null || fail resume
write_later 3
daemon_stop KILL
sleep 9
daemon_start
until_true 20 "the guest is adopted, tries again and is paused" \
	state_is standing paused
says_why standing "the disk of the host is full"
rm -f "$D/mnt/filler"
byre resume standing >/dev/null || fail resume
byre exec standing -- sync || fail sync

# The disk is full and the daemon starts.
for signal in KILL TERM; do
	daemon_stop $signal
	fill 0
	daemon_start
	answers standing || fail "no answer after a start on a full disk"
	byre ls >/dev/null || fail "ls on a full disk"
done
byre rm -f standing || fail "rm on a full disk"
only_these
rm -f "$D/mnt/filler"

# The same of a streamed disk.
mkdir "$D/store"
byre store add here "$D/store" || fail "store add"
byre push base here >/dev/null 2>"$D/err" || fail "push: $(cat "$D/err")"
daemon_stop
rm -rf "$BYRE_ROOT"
export BYRE_RUN=$D/cold-run
daemon_start
byre store add here "$D/store" || fail "store add"
byre pull here base >/dev/null 2>"$D/err" || fail "pull: $(cat "$D/err")"
byre create base --name streamed >/dev/null || fail "create streamed"
writes_too_much streamed
finish
