#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A template goes to a real S3 server in parts, and a host that has never seen it
# runs sandboxes from there; the keys come from a file on one host and from the
# environment on the other, and are nowhere else.
. "$(dirname "$0")/lib.sh"
begin base no-daemon
s3_start
secret=$AWS_SECRET_ACCESS_KEY

printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' \
	"$AWS_ACCESS_KEY_ID" "$secret" >"$D/keys"
chmod 600 "$D/keys"
(unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY; daemon_start; echo "$DAEMON" >"$D/pid")
DAEMON=$(cat "$D/pid")
run byre store add cloud s3://herd/fleet --endpoint "$S3"
expect 0
# Without keys nothing can be written.
run byre push base cloud
expect 1
[[ $ERR == *"no credentials"* ]] || fail "without keys: $ERR"
byre store rm cloud || fail "store rm"
run byre store add cloud s3://herd/fleet --endpoint "$S3" --credentials "$D/keys"
expect 0
run byre push base cloud
expect 0
run byre push base cloud
expect 0
daemon_stop

export BYRE_ROOT=$D/cold BYRE_RUN=$D/cold-run
daemon_start
run byre store add cloud s3://herd/fleet --endpoint "$S3"
expect 0
run byre pull cloud base
expect 0
byre create base --name x >/dev/null || fail create
answers x || fail "x does not answer"
byre create base --name y >/dev/null || fail "create y"
answers y || fail "y does not answer"
at_least "$(byre mem --pager --json | jq .layers[0].fetched_bytes)" 1000000 fetched
run byre image inspect base
expect 0
for file in "$D/daemon.log" "$D/root/pager.log" "$BYRE_ROOT/pager.log"; do
	[ ! -e "$file" ] || ! grep -q S3RVER "$file" || fail "a key in $file"
done
byre rm -f x y >/dev/null || fail rm
run byre pull cloud base --eager
expect 0
byre create base --name z >/dev/null || fail "create z"
answers z || fail "z does not answer"
kill -KILL "$S3_PID"
byre create base --name w >/dev/null || fail "create without a store"
answers w || fail "w does not answer"
finish
