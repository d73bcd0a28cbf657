#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Paused: nothing runs, memory stays as it is to the byte; resumed: everything
# goes on where it was, also what was in the middle of a command.
. "$(dirname "$0")/lib.sh"
begin base

id=$(byre create base --name p) || fail "create"
byre create base --name other >/dev/null || fail "create"
byre exec p -- sh -c 'i=0; while :; do i=$((i + 1)); echo $i; sleep 0.05; done' \
	>"$D/counter" 2>"$D/counter.err" &
counter=$!
until_true 20 "the counter counts" grep -qx 5 "$D/counter"
byre logs -f p >"$D/follow" &
follow=$!
run byre pause p
expect 0
same "$(get p .state)" paused state
sleep 0.3
ticks()
{
	awk '{ print $14 + $15 }' "/proc/$(get p .pid)/stat"
}
seen=$(wc -l <"$D/counter")
used=$(ticks)
ledger=$(byre mem --json p | jq -c '.sandboxes[0]')
sleep 2
same "$(wc -l <"$D/counter")" "$seen" "lines counted while paused"
at_most $(($(ticks) - used)) 3 "ticks used while paused"
same "$(byre mem --json p | jq -c '.sandboxes[0]')" "$ledger" "ledger while paused"
run byre exec p -- true
expect_error 125 "$id" paused
run byre cp "$D/out" p:/tmp/x
expect 1
answers other || fail "the other one does not answer"
run byre resume p
expect 0
same "$(get p .state)" running state
until_true 10 "the counter goes on" eval "[ \$(wc -l <$D/counter) -gt $((seen + 3)) ]"
cp "$D/counter" "$D/counted" # it goes on while we count
same "$(sort -n "$D/counted" | uniq | wc -l)" "$(wc -l <"$D/counted")" \
	"no line twice"
same "$(tail -n 1 "$D/counted")" "$(wc -l <"$D/counted")" "no line lost"
# Clock: the time paused has passed for the guest too, or will be set right.
for i in 1 2 3 4 5; do
	byre pause p >/dev/null && byre resume p >/dev/null || fail "round $i"
done
answers p || fail "it does not answer after five rounds"
# Many at once for the same sandbox: one wins, the others are told.
for i in 1 2 3 4 5 6; do
	byre pause p >/dev/null 2>"$D/many$i" &
	many[i]=$!
done
won=0
for i in 1 2 3 4 5 6; do
	wait "${many[i]}" && won=$((won + 1))
done
same $won 1 "pauses that worked"
kill $counter
wait $counter
# A paused one can be removed, and its followers are told.
run byre rm p
expect_error 1 paused
run byre rm -f p
expect 0
until_true 5 "logs -f ends" eval "! kill -0 $follow 2>/dev/null"
# And with another paused one: the daemon ends and comes back.
byre pause other >/dev/null
daemon_stop
daemon_start
same "$(get other .state)" paused "state after a restart"
byre resume other >/dev/null || fail resume
answers other || fail "the other one does not answer after a restart"
finish
