#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A store on a real S3 server: signed requests, refused keys, a small object,
# a large one in parts, an upload that is interrupted and goes on, another
# that is given up.
. "$(dirname "$0")/lib.sh"
STORE=$BYRE_BUILD/image/test_store
[ -x "$STORE" ] || skip "no $STORE: make units"
D=$(mktemp -d /tmp/byre-sc.XXXXXX)
trap 'cleanup; exit' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

s3_start

store()
{
	timeout 60 "$STORE" --url s3://herd/some/prefix --endpoint "$S3" \
		--ms 20000 "$@"
}

# Expect a failure that says all of the words.
refused()
{
	local word

	expect 1
	for word; do
		[[ $ERR == *"$word"* ]] || fail "\"$RAN\": no \"$word\" in \"$ERR\""
	done
	[[ $ERR != *S3RVER* ]] || fail "a key in a sentence: $ERR"
}

head -c 100000 /dev/urandom >"$D/small"
head -c 80000000 /dev/urandom >"$D/large"

run store put templates/x "$D/small"
expect 0
store all templates/x 100000 | cmp - "$D/small" || fail "not what was put"
store get templates/x 5000 700 |
	cmp - <(tail -c +5001 "$D/small" | head -c 700) || fail "not the range"
run store head templates/x
expect_out 100000
run store head templates/y
expect 2
run store get templates/y 0 1
expect 2
run store get templates/x 99999 2
refused "ends at 100000"
run store get templates/x 100000 2
refused "no bytes 100000-100001"
run store all templates/x 99999
refused "more than 99999"

# Keys: wrong secret, unknown key, none.
AWS_SECRET_ACCESS_KEY=wrong run store get templates/x 0 10
refused SignatureDoesNotMatch
AWS_SECRET_ACCESS_KEY=wrong run store put templates/x "$D/large"
refused SignatureDoesNotMatch
AWS_ACCESS_KEY_ID=unknown run store get templates/x 0 10
refused InvalidAccessKeyId
run env -u AWS_ACCESS_KEY_ID -u AWS_SECRET_ACCESS_KEY timeout 20 "$STORE" \
	--url s3://herd/a --endpoint "$S3" put b "$D/small"
refused "no credentials" AWS_ACCESS_KEY_ID
printf '[default]\naws_access_key_id = S3RVER\naws_secret_access_key = S3RVER\n' \
	>"$D/keys"
chmod 644 "$D/keys"
run store --credentials "$D/keys" head templates/x
refused "chmod 600"
chmod 600 "$D/keys"
AWS_SECRET_ACCESS_KEY=wrong run store --credentials "$D/keys" head templates/x
expect_out 100000
run store --url s3://elsewhere put a "$D/small"
refused "no such bucket"

# In parts; interrupted behind the third of five.
run store upload images/a "$D/large" "$D/note" 50000000
expect 3
[ -s "$D/note" ] || fail "no note"
run store head images/a
expect 2
run store --counts upload images/a "$D/large" "$D/note"
expect 0
# A question, two pages of parts, two parts, the completion, a question.
[[ $ERR == requests=7\ * ]] || fail "did not go on where it was: $ERR"
[ ! -e "$D/note" ] || fail "the note is still there"
store get images/a 0 80000000 | cmp - "$D/large" || fail "not what was sent"
# Again: it is there.
run store --counts upload images/a "$D/large" "$D/note"
expect 0
[[ $ERR == requests=1\ * ]] || fail "sent again: $ERR"

# An upload that the server has forgotten begins anew.
run store upload images/b "$D/large" "$D/note" 20000000
expect 3
sed -i 's/^handle .*/handle 0123456789abcdef/' "$D/note"
run store upload images/b "$D/large" "$D/note"
expect 0
store get images/b 0 80000000 | cmp - "$D/large" || fail "not what was sent"

# The server goes away.
run store head images/b
kill -KILL "$S3_PID"
wait "$S3_PID" 2>/dev/null
run store --ms 1000 head images/b
refused "deadline" "onnect"

[ -z "$(own_processes)" ] || fail "processes left"
say "ok (${SECONDS} s)"
exit 0
