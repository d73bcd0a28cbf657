#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A sandbox with a time to live is ended when it is over, within a second, also
# when it is paused, also when the daemon was down at that time.
. "$(dirname "$0")/lib.sh"
begin base

byre create base --name forever >/dev/null || fail "create"
same "$(get forever .ends)" null "end of one without ttl"
byre create base --name short --ttl 3s >/dev/null || fail "create"
t=$(now_ms)
byre create base --name paused --ttl 4s >/dev/null || fail "create"
byre create base --name down --ttl 6s >/dev/null || fail "create"
byre create base --name far --ttl 2h >/dev/null || fail "create"
byre pause paused >/dev/null || fail "pause"
same "$(jq -n --arg a "$(get far .created)" --arg b "$(get far .ends)" \
	'def s: sub("\\.[0-9]+"; "") | fromdate; ($b | s) - ($a | s)')" 7200 \
	"ends - created"
answers short || fail "short does not answer"
until_true 6 "short has ended" state_is short exited
at_least $(($(now_ms) - t)) 2500 "ms that short lived"
at_most $(($(now_ms) - t)) 4500 "ms that short lived"
[[ $(get short .cause) == *ttl*3* ]] || fail "cause: $(get short .cause)"
run byre exec short -- true
expect_error 125 ttl
until_true 5 "paused has ended" state_is paused exited
daemon_stop KILL
sleep 3
daemon_start
until_true 3 "down has ended" state_is down exited
[[ $(get down .cause) == *ttl* ]] || fail "cause: $(get down .cause)"
answers forever || fail "the one without ttl does not answer"
answers far || fail "far does not answer"
for bad in 0s -1s 1x "" 99999999999999h; do
	run byre create base --ttl "$bad"
	[ "$RC" = 2 ] || [ "$RC" = 1 ] || fail "--ttl '$bad': exit code $RC"
	[ -n "$ERR" ] || fail "--ttl '$bad': no error"
done
finish
