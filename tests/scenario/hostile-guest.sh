#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A guest may hurt itself; its neighbours answer within limits, the daemon stays
# small, and the guest can be removed at any time.
. "$(dirname "$0")/lib.sh"
begin base

for n in bomb flood hog liar quiet; do
	byre create base --name $n >/dev/null || fail "create $n"
done

daemon_rss()
{
	awk '/^VmRSS/ { print $2 }' "/proc/$DAEMON/status"
}

# The neighbour answers a command, and the daemon a list, within these ms; with
# a guest that burns a core under emulation, and another engineer on the rest.
neighbours_fine()
{
	local t worst=0 i

	for i in 1 2 3; do
		t=$(now_ms)
		answers quiet || fail "$1: the neighbour does not answer"
		t=$(($(now_ms) - t))
		[ $t -le $worst ] || worst=$t
		t=$(now_ms)
		byre ls >/dev/null || fail "$1: byre ls"
		t=$(($(now_ms) - t))
		at_most $t 2000 "$1: ms of byre ls"
	done
	at_most $worst 10000 "$1: ms of the neighbour's answer"
	say "$1: neighbour at most $worst ms, daemon $(daemon_rss) KiB"
}

neighbours_fine "in peace"
rss=$(daemon_rss)

# A fork bomb with a time limit: the agent comes first, and the guest is well
# again when the bomb is gone.
bomb='b() { b | b & }; b; while :; do :; done'
t=$(now_ms)
run byre exec --timeout 3s bomb -- sh -c "$bomb"
expect 124
at_most $(($(now_ms) - t)) 12000 "ms of a bomb limited to 3 s"
until_true 20 "the guest answers after its bomb" answers bomb

# A guest that cannot run keeps neither limit nor signal from ending the client.

end_of()
{
	local code

	wait "$1"
	code=$?
	cat "$D/frozen.err" >&2
	return $code
}

# frozen CODE FREEZE THAW OPTION...: with 143 the client is sent SIGTERM.
frozen()
{
	local code=$1 freeze=$2 thaw=$3 client

	shift 3
	"$BYRE" exec "$@" hog -- sh -c 'echo begun; sleep 60' \
		>"$D/frozen" 2>"$D/frozen.err" </dev/null &
	client=$!
	until_true 10 "it runs" grep -q begun "$D/frozen"
	$freeze || fail "$freeze"
	[ "$code" = 124 ] || kill -TERM $client
	t=$(now_ms)
	run end_of $client
	$thaw || fail "$thaw"
	expect_error "$code" hog "does not answer"
	at_most $(($(now_ms) - t)) 15000 "ms of a client whose guest is frozen"
	until_true 20 "its command is ended" eval \
		'! byre exec hog -- sh -c "ps | grep -q \"[s]leep 60\""'
}

vmm=$(get hog .pid)
frozen 124 "byre pause hog" "byre resume hog" --timeout 3s
frozen 143 "byre pause hog" "byre resume hog"
frozen 124 "kill -STOP $vmm" "kill -CONT $vmm" --timeout 3s
frozen 143 "kill -STOP $vmm" "kill -CONT $vmm"

# A fork bomb, and one that also burns the CPU.
byre exec bomb -- sh -c "$bomb" >/dev/null 2>&1 &
OURS+=($!)
ticks()
{
	awk '{ print $14 + $15 }' "/proc/$(get bomb .pid)/stat"
}
used=$(ticks)
sleep 1
neighbours_fine "fork bomb"
at_least $(($(ticks) - used)) 50 "ticks the bomb used: does it burn at all?"
run byre rm -f bomb
expect 0

# A flood to a reader that does not read: the client stops, the daemon keeps one
# window, the guest waits.
mkfifo "$D/fifo"
exec 7<>"$D/fifo"
for i in 1 2 3 4; do
	"$BYRE" exec flood -- sh -c 'yes; echo' >"$D/fifo" 2>/dev/null &
	flood[i]=$!
done
OURS+=("${flood[@]}")
sleep 2
neighbours_fine "four floods nobody reads"
answers flood || fail "the flooding guest does not answer"
at_most $(($(daemon_rss) - rss)) 8192 "KiB that floods cost the daemon"
kill -KILL "${flood[@]}"
wait "${flood[@]}" 2>/dev/null
exec 7>&-
# Their commands are ended with them.
until_true 10 "yes is ended in the guest" eval \
	'! byre exec flood -- sh -c "ps | grep -q [y]es"'

# A flood that is read by nobody because the client is stopped, hundreds of MB
# into /dev/null beside it.
"$BYRE" exec flood -- yes >/dev/null &
stopped=$!
disown
OURS+=("$stopped")
sleep 0.5
kill -STOP $stopped
byre exec flood -- sh -c 'head -c 100000000 /dev/zero' >/dev/null &
OURS+=($!)
sleep 1
neighbours_fine "a stopped reader"
kill -KILL $stopped
answers flood || fail "the flooding guest does not answer"

# Input that nobody in the guest reads.
timeout 5 "$BYRE" exec -i flood -- sleep 60 </dev/zero >/dev/null 2>&1
at_most $(($(daemon_rss) - rss)) 8192 "KiB that unread input costs the daemon"
answers flood || fail "the guest does not answer after unread input"

# More commands than the agent has places for: refused or served, not stuck.
for i in $(seq 80); do
	byre exec flood -- sleep 3 >/dev/null 2>"$D/many.$i" &
	many[i]=$!
done
served=0 refused=0
for i in $(seq 80); do
	wait "${many[i]}"
	case $? in
	0) served=$((served + 1)) ;;
	125) refused=$((refused + 1)) ;;
	*) fail "one of 80 commands: $(cat "$D/many.$i")" ;;
	esac
done
say "80 commands at once: $served served, $refused refused ($(cat "$D"/many.* |
	sort | uniq -c | sort -n | tail -n 1 | sed 's/^ *//'))"
at_least $served 32 "commands served of 80 at once"
answers flood || fail "the guest does not answer after 80 commands"

# Memory: the guest runs out, its host does not.
byre exec hog -- sh -c 'x=$(yes aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa)' \
	>/dev/null 2>&1 &
OURS+=($!)
sleep 2
neighbours_fine "memory hog"
at_most "$(ledger hog private)" $((256 << 20)) "private memory of the hog"
run byre rm -f hog
expect 0

# The guest speaks on the agent's port itself, and attacks its agent.
byre exec liar -- sh -c 'kill -9 1; kill -STOP 1; kill -TERM 1; echo alive' \
	>"$D/liar" 2>&1
grep -q alive "$D/liar" || fail "kill 1: $(cat "$D/liar")"
answers liar || fail "the agent is gone after kill 1"
byre exec liar -- sh -c 'for p in /dev/vport*; do
	head -c 300000 /dev/urandom >$p & done; sleep 2' >/dev/null 2>&1
neighbours_fine "garbage on the port"
answers liar || say "liar has lost its agent"
byre exec liar -- sh -c 'echo 1 >/proc/sys/kernel/panic_on_oops; umount -a; rm -rf /* 2>/dev/null' >/dev/null 2>&1
neighbours_fine "rm -rf /"
# A create while all this goes on.
run byre run base -- echo new
expect 0
expect_out new
run byre rm -f liar flood
expect 0
at_most $(($(daemon_rss) - rss)) 8192 "KiB that it all cost the daemon"
finish
