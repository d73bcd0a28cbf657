#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A template goes from one host to another by way of a directory: pushed, pushed
# again (nothing to do), pulled whole by a daemon with another root, run there.
# What cannot be done is refused with one line that names the object; a push
# that was killed goes on.
. "$(dirname "$0")/lib.sh"
begin all

store=$D/store
mkdir "$store"

# Run something as the other host.
other()
{
	local -x BYRE_ROOT=$D/root2 BYRE_RUN=$D/run2

	"$@"
}

OTHER=
other_start()
{
	local DAEMON=

	other daemon_start
	OTHER=$DAEMON
	OURS+=("$OTHER")
}

other_stop()
{
	local DAEMON=$OTHER

	daemon_stop
}

# Turn one bit in FILE at OFFSET.
flip()
{
	local byte

	byte=$(od -An -tu1 -j"$2" -N1 "$1")
	printf "\\x$(printf %x $((byte ^ 16)))" |
		dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# A value of a template on the other host.
theirs()
{
	other byre templates --json |
		jq -r ".[] | select(.name == \"$1\") | $2"
}

# ---- stores ----

run byre store add lab "$store"
expect 0
expect_out ""
run byre store add lab "$store"
expect_error 1 "add store lab"
run byre store add ftp ftp://example.org/
expect_error 1 "store ftp" URL
run byre store add bad/name "$store"
expect_error 1 name
run byre store add keys s3://bucket/prefix --credentials "$D/nowhere"
expect_error 1 "$D/nowhere"
run byre store add s3 s3://bucket/prefix --region eu-north-1
expect 0
(cd "$D" && byre store add relative store) || fail "a relative directory"
run byre store ls --json
expect 0
same "$(jq -r '.[].name' <<<"$OUT" | paste -sd' ')" "lab relative s3" names
same "$(jq -r '.[] | select(.name == "relative") | .url' <<<"$OUT")" \
	"$store" "the relative directory"
same "$(jq -r '.[] | select(.name == "s3") | .region' <<<"$OUT")" eu-north-1 \
	region
same "$(jq -r '.[0].credentials' <<<"$OUT")" null credentials
run byre store rm relative
expect 0
run byre store rm relative
expect_error 1 "remove store relative"
run byre store rm s3
expect 0

# ---- push ----

run byre push base nowhere
expect_error 1 "push base" "no store nowhere"
run byre push nothing lab
expect_error 1 "push nothing"
run byre push base lab --parent nothing
expect 1
[[ $ERR == *"no template nothing"* ]] || fail "unknown parent: $ERR"
run byre push base lab
expect 0
id=$OUT
[ -s "$store/templates/base" ] || fail "no reference"
[ -s "$store/images/$id/index" ] || fail "no index"
[ -s "$store/images/$id/pack" ] || fail "no pack"
same "$(find "$BYRE_ROOT/push" -mindepth 1 -type d)" "" "packs left"
before=$(stat -c '%i %Y' "$store/images/$id/pack" "$store/templates/base")
start=$(now_ms)
run byre push base lab --json
expect 0
at_most $(($(now_ms) - start)) 3000 "ms of a push that has nothing to do"
[[ $ERR == *"has it already"* ]] || fail "a second push: $ERR"
same "$(jq -r .image <<<"$OUT")" "$id" "image of the second push"
same "$(jq -r .sent <<<"$OUT")" false sent
same "$(stat -c '%i %Y' "$store/images/$id/pack" "$store/templates/base")" \
	"$before" "the store after a second push"

# ---- pull ----

mkdir -m 700 "$D/root2"
other_start
other byre store add lab "$store" || fail "add the store there"
run other byre pull nowhere base
expect_error 1 "pull base" "no store nowhere"
run other byre pull lab nothing
expect 1
[[ $ERR == *"no template nothing"* ]] || fail "unknown template: $ERR"
run other byre pull lab base --eager
expect 0
expect_out base
same "$(theirs base .remote)" null "remote of one that is whole"
same "$(theirs base .problem)" null problem
same "$(theirs base .remote_bytes)" 0 remote_bytes
same "$(theirs base '.sha256.memory')" "$(byre templates --json |
	jq -r '.[] | select(.name == "base") | .sha256.memory')" \
	"digest of the memory"
same "$(ls "$D/root2/pull")" "" "half-made pulls"
sandbox=$(other byre create base) || fail "create from what was pulled"
run other byre exec "$sandbox" -- echo hello from afar
expect 0
expect_out "hello from afar"
run other byre rm -f "$sandbox"
expect 0
run other byre pull lab base --eager
expect_error 1 "pull base" exists --replace
run other byre pull lab base
expect_error 1 "pull base" exists --replace
run other byre pull lab base --as second --eager --json
expect 0
same "$(jq -r .name <<<"$OUT")" second "name here"
run other byre pull lab base --as second --eager --replace
expect 0
run other byre template evict second
expect_error 1 "evict template second" "not streamed"
run other byre template rm second
expect 0

# ---- what is not there, or damaged ----

mv "$store" "$store.away"
run other byre pull lab base --as x --eager
expect 1
[[ $ERR == *lab* ]] || fail "a missing directory: $ERR"
run byre push python lab
expect 1
[[ $ERR == *lab* ]] || fail "a push into a missing directory: $ERR"
mv "$store.away" "$store"

# $1: object, $2: command that damages it; the error names the object.
damaged()
{
	local object=$1 good=$D/good

	cp "$store/$object" "$good"
	eval "$2" || fail "damage: $2"
	run other byre pull lab base --as x --eager
	expect 1
	[[ $ERR == *"${3:-$object}"* ]] || fail "$2: not named: $ERR"
	same "$(theirs x .name)" "" "a template from a damaged store"
	same "$(ls "$D/root2/pull")" "" "half-made pulls"
	rm -f "${store:?}/$object"
	mv "$good" "$store/$object"
}

damaged templates/base 'echo rubbish >$store/templates/base'
damaged templates/base 'head -c 100000 /dev/urandom >$store/templates/base'
damaged templates/base 'rm $store/templates/base' "no template base"
damaged "images/$id/index" 'flip $store/images/$id/index 5000'
damaged "images/$id/index" 'truncate -s -1 $store/images/$id/index'
damaged "images/$id/index" 'truncate -s +1 $store/images/$id/index'
damaged "images/$id/index" 'rm $store/images/$id/index'
damaged "images/$id/pack" 'flip $store/images/$id/pack 70000' "pack of $id"
damaged "images/$id/pack" 'rm $store/images/$id/pack' "images/$id/pack"
run other byre pull lab base --as y --eager
expect 0

# A store that was damaged is mended by pushing again.
rm "$store/images/$id/pack"
run byre push base lab
expect 0
expect_out "$id"
run other byre pull lab base --as z --eager
expect 0

# One whose bytes have changed has the right sizes: it is found by reading all of
# it, and mended by sending all of it.
run byre image verify base --store lab
expect 0
[[ $OUT == *"pack "*" good, "* ]] || fail "verify a store: $OUT"
run byre image verify nothing --store lab
expect_error 1 "store lab has no template nothing"
run byre image verify base --store nowhere
expect_error 1 "no store nowhere"
flip "$store/images/$id/pack" 70000
run byre image verify base --store lab
expect 1
[[ $OUT == *"pack "*" damaged: "*"in the pack of $id"* ]] ||
	fail "a damaged pack: $OUT"
run byre push base lab
expect 0
[[ $ERR == *"has it already"* ]] || fail "a push that sees no damage: $ERR"
run byre image verify base --store lab
expect 1
run byre push base lab --force --json
expect 0
same "$(jq -r .image <<<"$OUT")" "$id" "image of a forced push"
same "$(jq -r .sent <<<"$OUT")" true "sent by force"
same "$(jq -r .parent <<<"$OUT")" null "parent of a forced push"
run byre image verify base --store lab
expect 0
flip "$store/images/$id/index" 5000
run byre image verify base --store lab
expect 1
[[ $OUT == *"index "*" damaged: images/$id/index"* ]] ||
	fail "a damaged index: $OUT"
flip "$store/images/$id/pack" 70000
# Upon itself: it is sent whole all the same.
run byre push base lab --force
expect 0
expect_out "$id"
run byre push base lab --force --parent base
expect 0
expect_out "$id"
run byre image verify base --store lab
expect 0
run other byre pull lab base --as forced --eager
expect 0
same "$(find "$BYRE_ROOT/push" -mindepth 1 -type d)" "" "packs left"

# ---- killed ----

# Kills the daemon with a push of python under way, when the command says so.
killed()
{
	byre push python lab >"$D/push.out" 2>"$D/push.err" &
	until "$@"; do
		[ -e "$store/templates/python" ] && return 1
		kill -0 $! 2>/dev/null || fail "push: $(cat "$D/push.err")"
	done
	kill -KILL "$DAEMON"
	wait $!
	until_true 20 "the daemon ends" daemon_gone
	DAEMON=
	[ -e "$store/templates/python" ] && return 1
	[ -s "$D/push.err" ] || fail "the client says nothing"
	daemon_start
}

making()
{
	compgen -G "$BYRE_ROOT/push/im*.making/pack" >/dev/null
}

made()
{
	compgen -G "$BYRE_ROOT/push/im*-none/index" >/dev/null
}

killed making || fail "the push ended before it was killed"
same "$(find "$BYRE_ROOT/push" -name '*.making')" "" "half-made packs"
if killed made; then
	run byre push python lab
	expect 0
	[[ $ERR != *pack:* && $ERR != pack* ]] || fail "packed again: $ERR"
else
	say "the upload was too quick to be killed"
	[ -n "$DAEMON" ] || daemon_start
	run byre push python lab
	expect 0
fi
same "$(find "$BYRE_ROOT/push" -mindepth 1 -type d)" "" "packs left"
# A client that hangs up: nothing is left of its pull.
BYRE_RUN=$D/run2 "$BYRE" pull lab python --eager >/dev/null 2>&1 &
until compgen -G "$D/root2/pull/*" >/dev/null; do
	kill -0 $! 2>/dev/null || fail "the pull ended at once"
done
kill $!
wait $! 2>/dev/null
empty()
{
	[ -z "$(ls "$D/root2/pull")" ]
}
until_true 20 "the pull is given up" empty
same "$(theirs python .name)" "" "a template that nobody waited for"

PATIENCE=200 run other byre pull lab python --eager
expect 0
sandbox=$(other byre create python) || fail "create from the second image"
run other byre exec "$sandbox" -- python3 -c 'print(6 * 7)'
expect 0
expect_out 42
run other byre rm -f "$sandbox"
expect 0

# A daemon that is started anew still knows them.
other_stop
other_start
same "$(other byre store ls --json | jq -r '.[].name')" lab "stores, later"
until_true 60 "python is verified" \
	[ "$(theirs python .problem)" = null ]
other_stop
finish
