#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The daemon dies and no sandbox notices: five run, one is paused, the daemon is
# killed, the next one has all of them. Then the same with SIGTERM, and with one
# whose VMM died while nobody watched.
. "$(dirname "$0")/lib.sh"
begin base

ids=()
for i in 1 2 3 4 5 6; do
	ids+=("$(byre create base --name "s$i" --env "N=$i")") ||
		fail "create number $i"
	byre exec "s$i" -- sh -c "echo mark $i >/tmp/mark"
done
byre pause s6 >/dev/null || fail "pause"
# Somebody is in the middle of a command.
byre exec s1 -- sh -c 'echo begun; sleep 600' >"$D/cut" 2>"$D/cut.err" &
cut=$!
until_true 20 "the command runs" grep -q begun "$D/cut"

# What must be the same before and after.
facts()
{
	byre ls --json | jq -c 'sort_by(.id) | map({id, name, state, pid,
		created, memory_bytes, timings_ms: (.timings_ms |
			{spawn, load, identity, known: (.total > 0)})})'
}

# shared and private change while guests run; the rest must not, much.
buckets_differ_little()
{
	jq -n --argjson a "$1" --argjson b "$2" '
		[$a.sandboxes, $b.sandboxes | sort_by(.id)] as [$x, $y] |
		($x | length) == ($y | length) and
		([range($x | length)] | all(
			$x[.].id == $y[.].id and
			$x[.].configured == $y[.].configured and
			($y[.] | .shared + .private + .swapped + .zero +
				.balloon + .absent == .configured) and
			($y[.].private - $x[.].private | fabs) < 16000000 and
			$x[.].balloon <= $y[.].balloon + 4194304))'
}

paused_ledger()
{
	byre mem --json s6 | jq -c '.sandboxes[0] | del(.vmm)'
}

facts_before=$(facts)
paused_before=$(paused_ledger)
ledger_before=$(byre mem --json)

for signal in KILL TERM; do
	daemon_stop $signal
	same "$(own_vmms | wc -l)" 6 "VMMs alive without a daemon"
	t=$(now_ms)
	daemon_start
	say "adopted after SIG$signal in $(($(now_ms) - t)) ms"
	same "$(facts)" "$facts_before" "sandboxes after SIG$signal"
	for i in 1 2 3 4 5; do
		run byre exec "s$i" -- sh -c 'cat /tmp/mark; echo $N'
		expect 0
		expect_out "mark $i
$i"
	done
	run byre exec s6 -- true
	expect_error 125 paused
	same "$(paused_ledger)" "$paused_before" \
		"ledger of the paused one after SIG$signal"
	same "$(buckets_differ_little "$ledger_before" "$(byre mem --json)")" \
		true "ledger after SIG$signal"
	only_these "${ids[@]}"
done

# The client whose command was cut off was told.
until_true 10 "the client ends" eval "! kill -0 $cut 2>/dev/null"
wait $cut
same $? 125 "exit code of a client whose daemon was killed"
[ -s "$D/cut.err" ] || fail "that client said nothing"
# Its command is gone: the agent's new host ended it.
run byre exec s1 -- sh -c 'ps | grep "[s]leep 600"'
expect 1

run byre resume s6
expect 0
run byre exec s6 -- sh -c 'cat /tmp/mark; echo $N'
expect_out "mark 6
6"

# One dies while nobody watches.
pid=$(get s2 .pid)
daemon_stop KILL
kill -KILL "$pid"
until_true 5 "VMM $pid is gone" eval "! kill -0 $pid 2>/dev/null"
daemon_start
same "$(get s2 .state)" failed "state of the one that died"
[[ $(get s2 .cause) == *"no daemon"* ]] || fail "cause: $(get s2 .cause)"
same "$(get s2 .pid)" null "pid of the one that died"
answers s3 || fail "s3 does not answer"
# Its name can be used again once it is removed.
run byre rm s2
expect 0
# Logs go on.
byre exec s3 -- sh -c 'echo after adoption >/dev/console'
until_true 5 "the console is kept" has_line "after adoption" byre logs s3
# New ones can be made beside the adopted ones.
run byre create base --name s2
expect 0
answers s2 || fail "the new s2 does not answer"

# A second daemon for the same root is refused, and disturbs nothing.
run timeout 20 "$BYRE" serve --root "$BYRE_ROOT" --run "$D/run2"
expect_error 1 "in use" "$DAEMON"
answers s4 || fail "s4 does not answer after a second daemon"
finish
