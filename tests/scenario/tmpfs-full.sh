#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# BYRE_ROOT on a tmpfs that runs full: there a hole of a file that is mapped
# needs a page when it is touched, and a guest that touches one when there is
# none would die. So templates have their pages beforehand: who has no room is
# told, and whoever runs goes on.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || skip "needs root, for a tmpfs"
begin empty no-daemon
QUIET=event=record # a database that cannot be written is said

mkdir "$D/mnt"
mount -t tmpfs -o size=220m none "$D/mnt" 2>"$D/err" ||
	skip "mount: $(cat "$D/err")"
BYRE_ROOT=$D/mnt/root
cp -a --sparse=always "$SEED/base" "$BYRE_ROOT" || fail "copy the root"

# Leave $1 KiB.
fill()
{
	local free

	rm -f "$D/mnt/filler"
	free=$(df --output=avail -k "$D/mnt" | tail -n 1)
	[ "$free" -le "$1" ] ||
		head -c $(((free - $1) * 1024)) /dev/zero >"$D/mnt/filler"
}

# Every free page of a guest is written, the holes of its template among them.
dirty()
{
	byre exec "$1" -- sh -c 'head -c 100000000 /dev/zero >/dev/shm/x
		rm /dev/shm/x; echo done'
}

# A root that was copied there, and there is no room for its holes.
fill 500
daemon_start
run byre create base
expect_error 1 "create from base" "template base" memory holes "No space left"
[[ $(byre templates --json | jq -r '.[].problem') == *holes*"No space left"* ]] ||
	fail "problem: $(byre templates --json)"
rm "$D/mnt/filler"
standing=$(byre create base) || fail "create where there is room"
untouched=$(byre create base) || fail "create where there is room"

fill 0
same "$(dirty "$standing")" "done" "a guest that writes to all its memory"
answers "$standing" || fail "standing does not answer"
same "$(dirty "$untouched")" "done" "its neighbour"
answers "$untouched" || fail "untouched does not answer"

# A bake that runs out early, in the middle, late: its error, and nobody else's.
images=$(ls "$BYRE_ROOT/images")
for room in 3000 30000 60000 75000 80000; do
	fill $room
	run byre bake full --rootfs "$CACHE/busybox.rootfs" --memory 128M \
		--timeout 20s
	ERR=$(grep -v '^[0-9]/[0-9]' <<<"$ERR")
	say "bake with $room KiB: $ERR"
	if [ "$RC" = 0 ]; then
		byre template rm full
		until_true 5 "its image is deleted" \
			eval "[ \"\$(ls $BYRE_ROOT/images)\" = '$images' ]"
		continue
	fi
	expect_error 1 "bake full"
	[[ $ERR == *"No space left"* ]] || [[ $ERR == *"is full"* ]] ||
		fail "bake: no word of a full disk in: $ERR"
	only_these "$standing" "$untouched"
	same "$(ls "$BYRE_ROOT/images")" "$images" images
	fill 0
	dirty "$standing" >/dev/null
	answers "$standing" || fail "standing does not answer"
	answers "$untouched" || fail "untouched does not answer"
done

# One that shares nothing has a copy of its own, holes and all.
rm -f "$D/mnt/filler"
byre rm -f "$standing" "$untouched" || fail rm
run byre bake base --replace --rootfs "$CACHE/busybox.rootfs" --memory 256M \
	--share none
expect 0
loner=$(byre create base) || fail "create one that shares nothing"
fill 0
same "$(dirty "$loner")" "done" "one that shares nothing"
answers "$loner" || fail "the loner does not answer"
run byre create base
expect_error 1 "create from base" "No space left"
only_these "$loner"
run byre doctor --json
[[ $(jq -r '.checks[] | select(.name == "disk") | .detail' <<<"$OUT") == *tmpfs* ]] ||
	fail "byre doctor: $(jq -c '.checks[] | select(.name == "disk")' <<<"$OUT")"
rm -f "$D/mnt/filler"
finish
