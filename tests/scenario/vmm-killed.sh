#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A VMM process is killed: noticed at once, recorded with its cause; clients in
# the middle of a command are told; the others go on.
. "$(dirname "$0")/lib.sh"
begin base

id=$(byre create base --name victim) || fail "create"
byre create base --name other >/dev/null || fail "create"
pid=$(get victim .pid)
byre exec victim -- sh -c 'echo begun; sleep 600' >"$D/cut" 2>"$D/cut.err" &
cut=$!
byre logs -f victim >"$D/follow" &
follow=$!
byre exec other -- sh -c 'echo begun; sleep 2; echo ended' >"$D/long" &
long=$!
until_true 20 "the command runs" grep -q begun "$D/cut"
kill -KILL "$pid"
t=$(now_ms)
until [ "$(get victim .state)" = failed ]; do
	[ $(($(now_ms) - t)) -lt 2000 ] || fail "not noticed within 2 s"
done
say "noticed within $(($(now_ms) - t)) ms"
same "$(get victim .pid)" null pid
cause=$(get victim .cause)
[[ $cause == *"signal 9"* ]] || fail "cause: $cause"
[[ $cause != *warning* ]] || fail "cause: $cause"
say "cause: $cause"
wait $cut
same $? 125 "exit code of the command's client"
grep -q . "$D/cut.err" || fail "the client of the command said nothing"
same "$(wc -l <"$D/cut.err")" 1 "lines of error"
until_true 5 "logs -f ends" eval "! kill -0 $follow 2>/dev/null"
wait $follow
same $? 0 "exit code of logs -f"
wait $long
same $? 0 "exit code of the bystander's command"
same "$(tail -n 1 "$D/long")" ended "the bystander's output"
run byre exec victim -- true
expect_error 125 victim "signal 9"
run byre exec "$id" -- true
expect_error 125 "$id" failed
run byre pause victim
expect_error 1 failed
run byre mem --json
same "$(jq '.sandboxes | length' <<<"$OUT")" 1 "sandboxes in the ledger"
run byre mem victim
expect 1
run byre logs victim
expect 0
run byre ls
[[ $OUT == *victim*failed*"signal 9"* ]] || fail "ls: $OUT"
# What it had on disk but its log is gone.
left=$(ls "$BYRE_ROOT/sandboxes/$id" | sort | paste -sd' ')
[[ $left == *disk* ]] && fail "files of a dead one: $left"
run byre rm victim
expect 0
run byre create base --name victim
expect 0
answers victim || fail "the new victim does not answer"
answers other || fail "the bystander does not answer"

# Several at once, one of them paused, one while it is being created.
for i in 1 2 3; do
	byre create base --name "k$i" >/dev/null || fail "create"
done
byre pause k3 >/dev/null || fail "pause"
kill -KILL "$(get k1 .pid)" "$(get k2 .pid)" "$(get k3 .pid)"
for i in 1 2 3; do
	until_true 3 "k$i failed" state_is "k$i" failed
	[[ $(get "k$i" .cause) == *"signal 9"* ]] ||
		fail "cause of k$i: $(get "k$i" .cause)"
done
hit=0
for try in 1 2 3 4 5 6 7 8; do
	before=$(ls "$BYRE_ROOT/sandboxes")
	PATIENCE=20 byre create base --name young >"$D/young" 2>"$D/young.err" &
	create=$!
	pid=
	for ((i = 0; i < 300; i++)); do
		[ -n "${new:-}" ] || new=$(ls "$BYRE_ROOT/sandboxes" |
			grep -vxF "$before")
		[ -n "$new" ] && pid=$(pgrep -f "^[^ ]*qemu.*-name byre-$new") &&
			break
	done
	new=
	# A little later each time.
	sleep "0.0$((try - 1))"
	[ -n "$pid" ] && kill -KILL "$pid"
	wait $create
	rc=$?
	if [ $rc = 0 ]; then
		# It was made before we were there.
		until_true 3 "young failed" state_is young failed
		byre rm young || fail "rm young"
	else
		same $rc 1 "exit code of a create whose VMM is killed"
		same "$(wc -l <"$D/young.err")" 1 "lines of error"
		hit=$((hit + 1))
		say "killed in create: $(cat "$D/young.err")"
	fi
done
at_least $hit 1 "creates that were met in the middle"
run byre create base --name young
expect 0
finish
