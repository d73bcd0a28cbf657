#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The console is kept; -f follows it; a guest that floods it fills no disk and
# takes the daemon's time from nobody; what it said outlives it.
. "$(dirname "$0")/lib.sh"
begin base

id=$(byre create base --name talker) || fail "create"
byre create base --name other >/dev/null || fail "create"
byre exec talker -- sh -c 'for i in 1 2 3; do echo line $i >/dev/console; done'
until_true 5 "the log has line 3" has_line "line 3" byre logs talker
same "$(byre logs talker | grep -c '^line [123]')" 3 "lines in the log"

byre logs -f talker >"$D/follow" &
follow=$!
until_true 5 "what was there is shown" grep -q 'line 3' "$D/follow"
byre exec talker -- sh -c 'sleep 0.5; echo followed >/dev/console'
until_true 5 "the line comes" grep -q followed "$D/follow"
kill -0 $follow || fail "logs -f ended"

# A flood: bounded, and nobody else waits.
file=$BYRE_ROOT/sandboxes/$id/console.log
byre exec talker -- sh -c 'yes "flood flood flood flood flood flood flood flood" >/dev/console' &
flood=$!
worst=0 largest=0 end=$((SECONDS + 15))
while [ $SECONDS -lt $end ]; do
	t=$(now_ms)
	byre ls >/dev/null || fail "ls while flooded"
	t=$(($(now_ms) - t))
	[ $t -le $worst ] || worst=$t
	size=$(stat -c %s "$file")
	[ "$size" -le $largest ] || largest=$size
	sleep 0.2
done
say "while flooded: log at most $largest bytes, byre ls at most $worst ms"
at_most $largest $((1 << 20)) "bytes of the log"
at_most $worst 1500 "ms of byre ls"
answers other || fail "the other one does not answer while flooded"
answers talker || fail "the flooding one does not answer"
kill $flood
wait $flood 2>/dev/null
# Binary rubbish and long lines are only bytes.
byre exec talker -- sh -c 'head -c 200000 /dev/urandom >/dev/console; echo; echo the end >/dev/console'
until_true 20 "the end is in the log" has_line "the end" byre logs talker
byre rm -f other || fail "rm"
kill -KILL "$(get talker .pid)"
until_true 5 "talker failed" state_is talker failed
until_true 5 "logs -f ends with the sandbox" eval "! kill -0 $follow 2>/dev/null"
has_line "the end" byre logs talker || fail "the log is gone with the VMM"
daemon_stop
daemon_start
has_line "the end" byre logs talker || fail "the log is gone after a restart"
run timeout 10 "$BYRE" logs -f talker
expect 0
finish
