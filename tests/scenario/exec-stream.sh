#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Commands in a guest as if they ran here: every byte in its stream and in its
# order, many at once, a terminal when asked for, signals, environment.
. "$(dirname "$0")/lib.sh"
begin base

byre create base --name x --env FROM=create >/dev/null || fail create

# stdout and stderr apart
run byre exec x -- sh -c 'echo out; echo err >&2; printf "no newline"; exit 9'
expect 9
expect_out "out
no newline"
same "$ERR" err "stderr"

# stdin: none, a text, a file, a lot, closed early
run byre exec x -- cat
expect 0
expect_out ""
same "$(echo text | byre exec -i x -- cat)" text "stdin"
same "$(echo text | byre exec x -- cat)" "" "stdin without -i"
head -c 20000000 /dev/urandom >"$D/big"
digest=$(sha256sum <"$D/big")
same "$(byre exec -i x -- sha256sum <"$D/big")" "$digest" "20 MB in, a file"
same "$(byre exec -i x -- sha256sum < <(cat "$D/big"))" "$digest" "20 MB in, a pipe"
same "$(byre exec -i x -- cat <"$D/big" | sha256sum)" "$digest" "20 MB in and out"
same "$(byre exec -i x -- sh -c 'sleep 0.3; tee /dev/stderr' <"$D/big" \
	2> >(sha256sum >"$D/second") | sha256sum)" "$digest" "20 MB out of two"
until_true 5 "the second digest" grep -q . "$D/second"
same "$(cat "$D/second")" "$digest" "20 MB on stderr"
same "$(byre exec -i x -- head -c 10 <"$D/big" | sha256sum)" \
	"$(head -c 10 "$D/big" | sha256sum)" "a command that reads little"
# A reader that goes away ends the command, as a pipe would.
PATIENCE=20 byre exec x -- yes | head -n 3 >"$D/yes"
same "$(wc -l <"$D/yes")" 3 "lines of yes"
until_true 5 "yes is ended" eval '! byre exec x -- sh -c "ps | grep -q [y]es"'
# All bytes there are.
for ((i = 0; i < 256; i++)); do
	printf "\\x$(printf %x $i)"
done >"$D/bytes"
byre exec -i x -- cat <"$D/bytes" | cmp - "$D/bytes" || fail "256 bytes changed"
# Arguments as they are.
run byre exec x -- printf '%s|' 'a b' '' '*' '$HOME' "it's" $'tab\there' 'ünï' --timeout -t
expect_out "a b||*|\$HOME|it's|tab	here|ünï|--timeout|-t|"

# many at once
for i in $(seq 24); do
	byre exec x -- sh -c "i=0; while [ \$i -lt 50 ]; do echo $i; i=\$((i + 1)); done" \
		>"$D/many.$i" &
	many[i]=$!
done
for i in $(seq 24); do
	wait "${many[i]}" || fail "number $i of many"
	same "$(sort "$D/many.$i" | uniq -c | sed 's/^ *//')" "50 $i" \
		"output of number $i of many"
done

# environment, directory, user
run byre exec --env A='1 2' --env B= --cwd /usr x -- sh -c 'echo "$A|$B|$FROM|$PWD|$(id -u)"'
expect_out "1 2||create|/usr|0"
run byre exec --env FROM=exec x -- sh -c 'echo $FROM'
expect_out exec
run byre exec --cwd /nonsense x -- true
[ "$RC" != 0 ] || fail "--cwd /nonsense worked"
[[ $ERR == *nonsense* ]] || fail "--cwd /nonsense: $ERR"
run byre exec --user 65534:65534 x -- sh -c 'id -u; id -g; touch /etc/x 2>/dev/null || echo denied'
expect 0
expect_out "65534
65534
denied"
run byre exec --user root x -- id -u
expect_out 0
run byre exec --user nonsense x -- true
[ "$RC" != 0 ] || fail "--user nonsense worked"
[[ $ERR == *nonsense* ]] || fail "--user nonsense: $ERR"
run byre exec --env nonsense x -- true
[ "$RC" != 0 ] || fail "--env nonsense worked"

# timeout: also for one that ignores SIGTERM, with all its children
t=$(now_ms)
run byre exec --timeout 500ms x -- sh -c 'echo begun; sleep 60'
expect 124
expect_out begun
at_most $(($(now_ms) - t)) 3000 "ms for a timeout of 500"
run byre exec --timeout 300ms x -- sh -c 'trap "" TERM; sleep 61 & while :; do sleep 1; done'
expect 124
run byre exec x -- sh -c 'ps | grep -c "[s]leep 6[01]"'
expect_out 0

# signals: the client's become the command's
"$BYRE" exec x -- sh -c 'trap "echo got it; exit 5" INT; echo ready; while :; do sleep 0.1; done' \
	>"$D/signal" &
pid=$!
until_true 10 "the trap is set" grep -q ready "$D/signal"
kill -INT $pid
wait $pid
same $? 5 "exit code after SIGINT"
grep -q 'got it' "$D/signal" || fail "SIGINT did not come through"
"$BYRE" exec x -- sh -c 'echo ready; exec sleep 62' >"$D/signal" &
pid=$!
until_true 10 "it runs" grep -q ready "$D/signal"
kill -TERM $pid
wait $pid
same $? 143 "exit code after SIGTERM"
# The client dies: so does its command.
"$BYRE" exec x -- sh -c 'echo ready; sleep 63; echo >/tmp/survived' >"$D/signal" &
pid=$!
disown
until_true 10 "it runs" grep -q ready "$D/signal"
kill -KILL $pid
until_true 5 "the command of a killed client is ended" eval \
	'! byre exec x -- sh -c "ps | grep -q \"[s]leep 63\""'

# a command that leaves something behind in the background does not hang
t=$(now_ms)
run timeout 20 "$BYRE" exec x -- sh -c 'sleep 5 & echo left'
expect_out left
say "a background job left behind: exec took $(($(now_ms) - t)) ms"

# a terminal
run byre exec x -- sh -c 'test -t 1'
expect 1
# In a terminal of script(1), at most 60 s. SIGTERM would be passed on to the
# command, and an interactive shell ignores it: hence -k.
in_terminal()
{
	timeout -k 1 60 script -qec "$1" "$D/typescript" >"$D/out" 2>&1
}

# Wait until the terminal shows a line that matches, at most 20 s.
shown()
{
	local end=$((SECONDS + 20))

	until grep -q "$1" <(tr -d '\r' <"$D/out"); do
		[ $SECONDS -lt $end ] || return
		sleep 0.1
	done
}

# Typed, echoed, answered; Ctrl-C reaches what runs in the foreground.
typing()
{
	shown '/ # '
	printf 'echo an""swer\r'
	shown '^answer'
	printf 'echo be""gun; sleep 64\r'
	shown '^begun'
	sleep 0.5
	printf '\003'
	shown '\^C'
	printf 'exit 3\r'
	sleep 1
}

if command -v script >/dev/null; then
	in_terminal "stty rows 33 cols 101; exec $BYRE exec -i -t x -- sh -c 'test -t 0 && test -t 1 && test -t 2 && stty size; echo TERM=\$TERM; exit 7'" \
		</dev/null
	same $? 7 "exit code in a terminal ($(cat "$D/out"))"
	grep -q '33 101' "$D/out" || fail "size in a terminal: $(cat "$D/out")"
	: >"$D/out"
	typing | in_terminal "exec $BYRE exec -i -t x -- sh"
	same $? 3 "exit code of a shell in a terminal ($(cat "$D/out"))"
	grep -q '^answer' <(tr -d '\r' <"$D/out") || fail "terminal: $(cat "$D/out")"
fi
finish
