#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Bakes that cannot work: one line says why, and nothing of them is left.
. "$(dirname "$0")/lib.sh"
begin base

rootfs=$CACHE/busybox.rootfs
standing=$(byre create base) || fail "create"
images=$(ls "$BYRE_ROOT/images")

nothing_left()
{
	only_these "$standing"
	same "$(ls "$BYRE_ROOT/images")" "$images" "images"
	same "$(byre templates --json | jq -c 'map(.name)')" '["base"]' templates
}

# bad WORDS... -- OPTIONS: the bake fails with one line that has the words.
bad()
{
	local words=() last t

	while [ "$1" != -- ]; do
		words+=("$1")
		shift
	done
	shift
	t=$(now_ms)
	run byre bake bad --memory 128M --timeout "${LIMIT:-15s}" "$@"
	last=$(grep -v '^[0-9]/[0-9]' <<<"$ERR")
	say "$(($(now_ms) - t)) ms: $last"
	ERR=$last
	expect_error 1 ${words[@]+"${words[@]}"}
	nothing_left
}

# the disk
bad "$D/none" "No such file" -- --rootfs "$D/none"
bad "$D" -- --rootfs "$D"
: >"$D/empty"
bad "$D/empty" -- --rootfs "$D/empty"
head -c 1000 /dev/urandom >"$D/odd"
bad "$D/odd" -- --rootfs "$D/odd"
head -c 1048576 /dev/urandom >"$D/garbage"
bad root -- --rootfs "$D/garbage"
head -c 40960 "$rootfs" >"$D/cut"
bad root -- --rootfs "$D/cut"
mkdir -p "$D/tree/etc" "$D/tree/bin"
echo x >"$D/tree/etc/x"
byre rootfs build "$D/noshell" --from "$D/tree" || fail "rootfs build --from"
bad sh -- --rootfs "$D/noshell"
echo 'no program' >"$D/tree/bin/sh"
chmod 755 "$D/tree/bin/sh"
rm -f "$D/noshell"
byre rootfs build "$D/noshell" --from "$D/tree" || fail "rootfs build --from"
bad sh -- --rootfs "$D/noshell"

# the kernel
bad "$D/none" -- --rootfs "$rootfs" --kernel "$D/none"
bad -- --rootfs "$rootfs" --kernel "$D/garbage"
bad -- --rootfs "$rootfs" --kernel "$D/empty"
bad panic -- --rootfs "$rootfs" --initrd "$D/garbage"
bad panic -- --rootfs "$rootfs" --cmdline "rdinit=/nonsense"
# It boots but nobody answers.
LIMIT=6s bad "time limit" panic -- --rootfs "$rootfs" --cmdline "byre.nonsense=1 maxcpus=1 loglevel=7 rdinit=/nonsense panic=0"

# memory and CPUs
for memory in 1M 63M 65.5M 1T; do
	run byre bake bad --rootfs "$rootfs" --memory $memory
	[ "$RC" = 1 ] || [ "$RC" = 2 ] || fail "--memory $memory: exit code $RC"
	[[ $ERR == *memory* ]] || fail "--memory $memory: $ERR"
done
run byre bake bad --rootfs "$rootfs" --vcpus 1000
[ "$RC" = 1 ] || [ "$RC" = 2 ] || fail "--vcpus 1000: exit code $RC"
nothing_left
# The least that is allowed: either it works or it says why not.
run byre bake small --rootfs "$rootfs" --memory 80M --timeout 20s
if [ "$RC" = 0 ]; then
	run byre run small -- echo works
	expect_out works
	byre template rm small || fail "template rm small"
else
	say "80M: $(tail -n 1 <<<"$ERR")"
	expect 1
fi
until_true 5 "images are deleted" eval "[ \"\$(ls $BYRE_ROOT/images)\" = '$images' ]"
nothing_left

# warm-up commands
bad '"exit 7"' 7 -- --rootfs "$rootfs" --warm "exit 7"
bad '"exit 124" ended with code 124' -- --rootfs "$rootfs" --warm "exit 124"
bad "signal 9" -- --rootfs "$rootfs" --warm 'kill -9 $$'
LIMIT=4s bad '"sleep 100" did not end within 4 s' -- --rootfs "$rootfs" --warm "sleep 100"
bad -- --rootfs "$rootfs" --warm "sync; echo o >/proc/sysrq-trigger; sleep 9"

# names
run byre bake 'a/b' --rootfs "$rootfs"
expect 1
run byre bake base --rootfs "$rootfs"
expect_error 1 base exists
nothing_left

# Ctrl-C, early and late
for step in prepare boot trial; do
	byre bake bad --rootfs "$rootfs" --memory 128M \
		>"$D/bake.out" 2>"$D/bake.err" &
	bake=$!
	until_true 30 "the bake comes to $step" grep -q " $step" "$D/bake.err"
	kill -INT "$(pgrep -P $bake)" 2>/dev/null || kill -INT $bake
	wait $bake
	rc=$?
	[ $rc != 0 ] || fail "a bake given up at $step ended with 0"
	until_true 10 "the bake given up at $step is gone" eval \
		"[ \"\$(ls $BYRE_ROOT/sandboxes)\" = '$standing' ]"
	nothing_left
done

# Two at once: one wins.
byre bake twin --rootfs "$rootfs" --memory 128M >"$D/twin1" 2>&1 &
one=$!
byre bake twin --rootfs "$rootfs" --memory 128M >"$D/twin2" 2>&1 &
two=$!
wait $one
one=$?
wait $two
two=$?
same "$((one + two))" 1 "exit codes of two bakes of one name ($one, $two)"
grep -hq exists "$D/twin1" "$D/twin2" ||
	fail "the loser said: $(tail -n 1 "$D/twin1" "$D/twin2")"
run byre run twin -- echo works
expect_out works
only_these "$standing"

# Baked anew while one of the old template lives.
old=$(byre create twin) || fail "create twin"
run byre bake twin --replace --rootfs "$rootfs" --memory 128M --timeout 30s
if [ "$RC" = 0 ]; then
	answers "$old" || fail "one of the replaced template does not answer"
	same "$(get "$(byre create twin)" .memory_bytes)" $((128 << 20)) \
		"memory after --replace"
fi
answers "$standing" || fail "the bystander does not answer"
finish
