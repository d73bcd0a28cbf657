#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A guest ends by itself: power off, reboot, panic. The state says whether that
# was orderly, the cause says what happened.
. "$(dirname "$0")/lib.sh"
begin base

for n in off reboot panic bystander; do
	byre create base --name $n >/dev/null || fail "create $n"
done
# sysrq needs no init: o is power off, b reboot, c panic.
byre exec off -- sh -c 'echo last words >/dev/console; sync; echo o >/proc/sysrq-trigger; sleep 20' 2>"$D/err1"
rc=$?
same $rc 125 "exit code of a command whose guest powered off"
until_true 5 "off has ended" state_is off exited
[[ $(get off .cause) == *"powered off"* ]] || fail "cause: $(get off .cause)"
run byre logs off
expect 0
[[ $OUT == *"last words"* ]] || fail "the log of off: $OUT"

byre exec reboot -- sh -c 'echo b >/proc/sysrq-trigger; sleep 20' 2>/dev/null
until_true 5 "reboot has ended" eval '[ "$(get reboot .state)" != running ]'
[[ $(get reboot .cause) == *reboot* ]] || fail "cause: $(get reboot .cause)"
byre exec panic -- sh -c 'echo c >/proc/sysrq-trigger; sleep 20' 2>/dev/null
until_true 15 "panic has ended" eval '[ "$(get panic .state)" != running ]'
same "$(get panic .state)" failed "state of panic"
same "$(get reboot .state)" exited "state of reboot"
[[ $(get panic .cause) == *panicked*sysrq* ]] || fail "cause: $(get panic .cause)"
has_line 'Kernel panic' byre logs panic || fail "no panic in the log of panic"
say "$(byre ls --json | jq -r 'map("\(.name): \(.state), \(.cause)") | join("; ")')"
for n in off reboot panic; do
	same "$(get $n .pid)" null "pid of $n"
	run byre resume $n
	expect 1
	run byre rm $n
	expect 0
done
answers bystander || fail "the bystander does not answer"
finish
