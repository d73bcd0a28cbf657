#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Every command once, as a newcomer would meet them: names, exit codes, and the
# JSON keys that scripts rely on.
. "$(dirname "$0")/lib.sh"
begin base

# Keys of a JSON text, sorted, on one line.
keys()
{
	jq -c 'keys' <<<"$1"
}

sandbox_keys='["cause","created","ends","id","memory_bytes","name","net","paused_because","pid","state","template","timings_ms","vcpus"]'
ledger_keys='["absent","balloon","configured","id","private","shared","swapped","template","vmm","zero"]'
host_keys='["billed","commit_limit","committed_as","mem_available","mem_total","overcommit_memory","promised"]'

# No daemon needed, or none there.
run byre version
expect 0
run byre help
expect 0
for verb in doctor serve rootfs bake templates template store push pull image \
	create exec run cp ls inspect logs rm pause resume mem bench pager \
	version; do
	[[ $OUT == *"  $verb "* ]] || fail "byre help does not know $verb"
	for ask in "$verb --help" "$verb -h" "help $verb"; do
		# shellcheck disable=SC2086
		run byre $ask
		expect 0
		[[ $OUT == "usage: byre $verb"* ]] || fail "byre $ask: $OUT"
	done
	run byre help
done
run byre rootfs build --help
expect 0
run byre rootfs build "$D/disk" --busy
expect 2
[[ $ERR == *"unknown option --busy"* ]] || fail "--busy: $ERR"
run byre rootfs build "$D/disk" --busybox --from /tmp
expect 2
run byre
expect 2
run byre nonsense
expect_error 2 "no verb nonsense" "byre help"
run byre ls --nonsense
expect_error 2 "byre ls: unknown option --nonsense" "usage: byre ls"
run byre create
expect_error 2 "byre create: an argument is missing" "usage: byre create"
run byre create base --ttl soon
expect_error 2 "byre create: --ttl soon" "usage: byre create"
run byre exec
expect 2
run byre mem --pid nonsense
expect 2
# 0 is given, too, and is none.
for zero in "mem --pid 0" "bake x --rootfs /dev/null --vcpus 0" \
	"bake x --rootfs /dev/null --memory 0" "create base --ttl 0" \
	"exec --timeout 0 x -- true" "bench create --template base -n 0"; do
	# shellcheck disable=SC2086
	run byre $zero
	expect 2
done
run env BYRE_RUN="$D/nowhere" timeout 20 "$BYRE" ls
expect_error 1 "$D/nowhere/api.sock"
run env BYRE_RUN="$D/nowhere" timeout 20 "$BYRE" exec x -- true
expect_error 125 "$D/nowhere/api.sock"
run byre doctor --json
[ "$RC" -le 1 ] || fail "doctor ended with $RC"
same "$(keys "$OUT")" '["checks","ok"]' "keys of doctor --json"

# Templates.
run byre templates --json
expect 0
same "$(jq -c 'map(.name)' <<<"$OUT")" '["base"]' "templates"
run byre templates
expect 0
[[ $OUT == *base* ]] || fail "templates: $OUT"

# create
run byre create nonsense
expect_error 1 create nonsense "does not exist"
run byre create base --name 'a b'
expect_error 1 'create sandbox: name "a b": not a name' letters
run byre bake 'a b' --rootfs /dev/null
expect_error 1 'bake: name "a b": not a name' letters
run byre bake x --rootfs /dev/null --memory 1M
expect_error 1 "bake x: memory of 1 MiB: not between 80 MiB and 64 GiB"
run byre create base --name web --ttl 200000h
expect_error 1 "create sandbox web: ttl of 8333 d"
for empty in "rm" "template rm" "inspect" "logs" "mem" "pause" "create"; do
	# shellcheck disable=SC2086
	run byre $empty ''
	expect 2
	[[ $ERR == "byre $empty: argument 1 is empty"* ]] ||
		fail "byre $empty '': $ERR"
done
run byre exec '' -- true
expect 2
run byre create base --name web --ttl 10m --env GREETING=moin --json
expect 0
same "$(keys "$OUT")" "$sandbox_keys" "keys of create --json"
same "$(jq -c '.timings_ms | keys' <<<"$OUT")" \
	'["identity","load","ready","spawn","total"]' "keys of timings_ms"
same "$(jq -r .state <<<"$OUT")" running state
same "$(jq -r .name <<<"$OUT")" web name
same "$(jq -r .template <<<"$OUT")" base template
same "$(jq -r .cause <<<"$OUT")" null cause
same "$(jq -r .paused_because <<<"$OUT")" null paused_because
same "$(jq -r '.id | type' <<<"$OUT")" string "type of id"
same "$(jq '.timings_ms | .total > 0 and
	((.spawn + .load + .identity + .ready - .total) | fabs) < 1' <<<"$OUT")" \
	true "timings that add up"
kill -0 "$(jq -r .pid <<<"$OUT")" || fail "no process $OUT"
id=$(jq -r .id <<<"$OUT")
run byre create base
expect 0
other=$OUT
[[ $other == sb???????????? ]] || fail "create said \"$OUT\""

# An id that cannot be printed: no sandbox is left that nobody knows of.
for json in "" --json; do
	# shellcheck disable=SC2086
	timeout 60 "$BYRE" create base $json >/dev/full 2>"$D/err"
	same "$? $(cat "$D/err")" "1 byre: write to stdout: No space left on device" \
		"create $json >/dev/full"
done
mkfifo "$D/fifo"
exec 6<>"$D/fifo" 7>"$D/fifo" 6<&-
timeout 60 "$BYRE" create base >&7 2>"$D/err"
same "$? $(cat "$D/err")" "1 byre: write to stdout: Broken pipe" "create | nobody"
exec 7>&-
same "$(byre ls -q | paste -sd' ')" "$id $other" "sandboxes whose id was printed"

# exec: codes
run byre exec web -- echo hello
expect 0
expect_out hello
run byre exec "$id" -- false
expect 1
run byre exec "$id" sh -c 'exit 42'
expect 42
run byre exec "$id" -- sh -c 'kill -TERM $$'
expect 143
run byre exec "$id" -- sh -c 'kill -KILL $$'
expect 137
run byre exec --timeout 300ms "$id" -- sleep 30
expect 124
run byre exec "$id" -- /no/such/command
expect_error 127 /no/such/command
run byre exec "$id" -- nosuchcommand
expect_error 127 nosuchcommand
run byre exec "$id" -- /etc
expect_error 126 /etc
run byre exec nobody -- true
expect_error 125 "run a command in nobody: no such sandbox"
run byre exec "$id" -- sh -c 'echo $GREETING $HELLO' --env HELLO=no
expect 0
expect_out moin
run byre exec --env HELLO=you --cwd /tmp "$id" -- sh -c 'echo $GREETING $HELLO $PWD'
expect 0
expect_out "moin you /tmp"

# run
run byre run base --env A=b -- sh -c 'echo $A; exit 3'
expect 3
expect_out b
run byre run nonsense -- true
expect_error 125 nonsense
same "$(byre ls -q | wc -l)" 2 "sandboxes after run"

# cp
echo "some text" >"$D/file"
run byre cp "$D/file" web:/tmp/file
expect 0
run byre cp web:/tmp/file "$D/back"
expect 0
cmp "$D/file" "$D/back" || fail "cp changed the file"
run byre cp web:/no/such/file "$D/back"
expect_error 1 /no/such/file
run byre cp "$D/no such file" web:/tmp
expect_error 1 "no such file"
run byre cp nobody:/file "$D/back"
expect_error 1 "copy nobody:/file to $D/back: no such sandbox"
run byre cp "$D/file" "$D/back"
expect 2

# ls, inspect, logs
run byre ls --json
expect 0
same "$(jq -c 'map(keys) | unique' <<<"$OUT")" "[$sandbox_keys]" "keys of ls"
same "$(jq -c 'map(.id)' <<<"$OUT")" "[\"$id\",\"$other\"]" "ids of ls"
run byre ls
expect 0
[[ $OUT == *"$id"*web*base*running* ]] || fail "ls: $OUT"
run byre inspect --json web
expect 0
same "$(keys "$OUT")" "$sandbox_keys" "keys of inspect --json"
run byre inspect nobody
expect_error 1 nobody "no such sandbox"
run byre logs web
expect 0
run byre logs nobody
expect_error 1 nobody

# pause, resume
run byre pause web
expect 0
run byre exec web -- true
expect_error 125 "run a command in web: sandbox $id is paused"
run byre pause web
expect_error 1 paused
run byre resume web
expect 0
run byre resume web
expect_error 1 running
run byre exec web -- true
expect 0

# mem
run byre mem --json
expect 0
same "$(keys "$OUT")" '["host","sandboxes","templates"]' "keys of mem"
same "$(jq -c '.host | keys' <<<"$OUT")" "$host_keys" "keys of mem's host"
same "$(jq -c '.templates | map(keys) | unique' <<<"$OUT")" \
	'[["configured","name","present","remote","replaced","resident","streamed","zero"]]' \
	"keys of mem's templates"
same "$(jq -c '.sandboxes | map(keys) | unique' <<<"$OUT")" "[$ledger_keys]" \
	"keys of mem's sandboxes"
same "$(jq '.sandboxes | map(.shared + .private + .swapped + .zero + .balloon +
	.absent == .configured) | all' <<<"$OUT")" true "buckets that add up"
same "$(jq '.host.promised == (.sandboxes | map(.configured) | add)' \
	<<<"$OUT")" true "promised"
run byre mem
expect 0
run byre mem --json web
expect 0
same "$(jq -r '.sandboxes | map(.id) | join(" ")' <<<"$OUT")" "$id" "mem ID"
run byre mem --json --pid $$
expect 0
same "$(jq -c '.host | keys' <<<"$OUT")" "$host_keys" "keys of mem --pid's host"
run byre mem nobody
expect_error 1 nobody

# bench
run byre bench create --template base -n 2 --warmup 0 --json
expect 0
jq -e . <<<"$OUT" >/dev/null || fail "bench create --json: $OUT"
run byre bench density --template base -n 2
expect 0
same "$(byre ls -q | wc -l)" 2 "sandboxes after bench"

# rm
run byre template rm base
expect_error 1 base use
run byre rm web
expect_error 1 "$id" running
run byre rm -f web "$other"
expect 0
run byre rm nobody
expect_error 1 nobody "no such sandbox"
same "$(byre ls -q)" "" "sandboxes after rm"
run byre template rm base
expect 0
run byre templates --json
expect_out "[]"
run byre template rm base
expect_error 1 base "does not exist"
finish
