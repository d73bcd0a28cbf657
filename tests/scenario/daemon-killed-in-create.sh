#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# kill -9 of the daemon at any moment of creating and removing, and at every
# step of a bake: what the next daemon has is whole, and nothing else is there.
. "$(dirname "$0")/lib.sh"
begin base
KILLS=${KILLS:-24}

# Every sandbox there is runs and answers; no other trace of any.
whole()
{
	local id ids

	mapfile -t ids < <(byre ls -q)
	for id in ${ids[@]+"${ids[@]}"}; do
		same "$(get "$id" .state)" running "state of $id"
		answers "$id" || fail "$id does not answer"
	done
	only_these ${ids[@]+"${ids[@]}"}
}

# Creates and removals under way, more of them than cores.
client()
{
	local id

	while id=$(byre create base 2>/dev/null); do
		echo "$id" >>"$D/made"
		[ $((RANDOM % 2)) = 0 ] || byre rm -f "$id" >/dev/null 2>&1
	done
}

for ((i = 0; i < KILLS; i++)); do
	clients=()
	for c in 1 2 3; do
		client &
		clients+=($!)
	done
	sleep "0.$(printf %03d $((RANDOM % 400)))"
	daemon_stop KILL
	wait "${clients[@]}"
	daemon_start
	whole
	id=$(byre create base --name next) || fail "create after a kill"
	answers next || fail "next does not answer"
	# Not all each time: adoption of many is part of the story.
	for id in $(byre ls -q | shuf -n 6) next; do
		byre rm -f "$id" >/dev/null 2>&1
	done
done
say "$KILLS kills in creates, $(wc -l <"$D/made") sandboxes made"
for id in $(byre ls -q); do
	byre rm -f "$id"
done
only_these

# Nothing but base, soon: a start deletes old images behind our back.
only_base()
{
	[ "$(ls "$BYRE_ROOT/images")" = "$images" ]
}

images=$(ls "$BYRE_ROOT/images")
for step in prepare boot boot warm settle save seal trial trial publish; do
	byre bake half --rootfs "$CACHE/busybox.rootfs" --memory 128M \
		>"$D/bake.out" 2>"$D/bake.err" &
	bake=$!
	until_true 60 "the bake comes to $step" grep -q " $step" "$D/bake.err"
	sleep "0.$(printf %03d $((RANDOM % 700)))"
	daemon_stop KILL
	wait $bake
	rc=$?
	daemon_start
	if [ $rc = 0 ]; then
		# It was faster than we.
		run byre run half -- echo baked
		expect_out baked
		run byre template rm half
		expect 0
	elif byre templates --json | jq -e 'any(.name == "half")' >/dev/null; then
		# Published, only the answer was cut off.
		run byre run half -- echo baked
		expect_out baked
		run byre template rm half
		expect 0
	else
		[ -s "$D/bake.err" ] || fail "the client of a bake said nothing"
	fi
	until_true 5 "the half-made image of $step is deleted" only_base
	only_these
done
run byre bake half --rootfs "$CACHE/busybox.rootfs" --memory 128M
expect 0
run byre run half -- echo baked
expect_out baked
finish
