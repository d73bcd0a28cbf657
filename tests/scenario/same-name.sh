#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Many creates of one name at once: exactly one wins, the others are told, and
# nothing of them is left.
. "$(dirname "$0")/lib.sh"
begin base

for round in 1 2 3; do
	for i in 1 2 3 4 5 6; do
		byre create base --name web >"$D/w$i" 2>"$D/e$i" &
		pid[i]=$!
	done
	won=0
	for i in 1 2 3 4 5 6; do
		if wait "${pid[i]}"; then
			won=$((won + 1))
			id=$(cat "$D/w$i")
		else
			grep -q 'web.*taken' "$D/e$i" ||
				fail "a loser was told: $(cat "$D/e$i")"
			same "$(wc -l <"$D/e$i")" 1 "lines of error"
		fi
	done
	same $won 1 "winners"
	same "$(get web .id)" "$id" "id of the winner"
	only_these "$id"
	answers web || fail "the winner does not answer"
	# A name taken by one that has ended is taken still.
	if [ $round = 2 ]; then
		kill -KILL "$(get web .pid)"
		until_true 3 "web failed" state_is web failed
		run byre create base --name web
		expect_error 1 web taken
	fi
	byre rm -f web || fail "rm"
done
# The id of one is no name for another.
id=$(byre create base) || fail "create"
run byre create base --name "$id"
expect_error 1 "$id"
finish
