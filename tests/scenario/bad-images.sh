#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A template's files are cut, bent, lost, or come from another host: creating
# from it is refused with one line that names the file and what is wrong,
# `byre templates` says the same, nobody else notices; repaired, it works again.
. "$(dirname "$0")/lib.sh"
need sqlite3
begin all

image=$(image_of base) || fail "no image of base"
running=$(byre create base) || fail "create"
other=$(byre create python) || fail "create from python"

# Turn one bit in FILE at OFFSET.
flip()
{
	local byte

	byte=$(od -An -tu1 -j"$2" -N1 "$1")
	printf "\\x$(printf %x $((byte ^ 16)))" |
		dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# $1: file, $2: command that damages it, run in the image's directory; the rest:
# words the error must hold. OFFLINE=1: while there is no daemon; UNKNOWN=1:
# besides, the manifest's digest is not known, as in a database of before it was
# recorded.
damaged()
{
	local file=$1 how=$2 OFFLINE=${OFFLINE:-${UNKNOWN:-}}

	shift 2
	[ "$OFFLINE" != 1 ] || daemon_stop
	mv "$image/$file" "$D/good" || fail "$file"
	cp -a --sparse=always "$D/good" "$image/$file"
	(cd "$image" && eval "$how") || fail "damage: $how"
	[ "${UNKNOWN:-}" != 1 ] || sqlite3 "$BYRE_ROOT/byre.db" \
		"UPDATE templates SET manifest_sha256 = ''" || fail sqlite3
	[ "$OFFLINE" != 1 ] || daemon_start
	run byre create base
	expect_error 1 "create from base" "template base" "$@"
	run byre templates --json
	expect 0
	problem=$(jq -r '.[] | select(.name == "base") | .problem' <<<"$OUT")
	for word; do
		[[ $problem == *"$word"* ]] ||
			fail "$how: no \"$word\" in the problem \"$problem\""
	done
	same "$(jq -r '.[] | select(.name == "python") | .problem' <<<"$OUT")" \
		null "problem of the other template"
	run byre templates
	expect 0
	[[ $OUT == *base*"$1"* ]] || fail "$how: byre templates: $OUT"
	rm -f "$image/$file"
	mv "$D/good" "$image/$file"
	run byre run base -- echo repaired
	expect 0
	expect_out repaired
	only_these "$running" "$other"
}

# Change the manifest with a jq program.
manifest()
{
	local how=$1

	shift
	damaged manifest.json "jq '$how' $D/good >manifest.json" "$@"
}

half='$(($(stat -c %s FILE) / 2))'
for file in memory state disk overlay zeromap workingset; do
	damaged $file "truncate -s ${half/FILE/$file} $file" "$file"
	damaged $file "rm $file" "$file"
done
damaged memory "truncate -s 0 memory" memory
damaged memory "truncate -s +4096 memory" memory
# 16 MiB: the kernel's code.
OFFLINE=1 damaged memory "flip memory $(((16 << 20) + 123))" memory
# A page that should be zero: the last one.
damaged memory "printf x | dd of=memory bs=1 conv=notrunc status=none \
	seek=$(((256 << 20) - 5))" memory
damaged state "flip state 1000" state
damaged disk "flip disk 1080" disk
damaged overlay "flip overlay 10" overlay
damaged zeromap "flip zeromap 2000" zeromap
damaged workingset "flip workingset 40" workingset
# Only needed while the memory is not known to be good.
OFFLINE=1 damaged memory.digests "flip memory.digests 10" memory
OFFLINE=1 damaged memory.digests "rm memory.digests" memory.digests
damaged state "rm state; ln -s /etc/passwd state" state
damaged state "rm state; mkfifo state" state

damaged manifest.json "truncate -s ${half/FILE/manifest.json} manifest.json" \
	manifest
OFFLINE=1 damaged manifest.json "rm manifest.json" manifest.json
damaged manifest.json "head -c 3000 /dev/urandom >manifest.json" manifest
damaged manifest.json "truncate -s 100M manifest.json" manifest
# What might as well be true: only its digest tells.
not_recorded="manifest.json: its digest is not the recorded one"
OFFLINE=1 manifest '.vcpus = 3' "$not_recorded"
manifest '.share = (.share | not)' "$not_recorded"
manifest '.net = (.net | not)' "$not_recorded"
manifest '.name = "bare"' "$not_recorded"
manifest '.boot_ms += 1' "$not_recorded"
manifest '.kernel = "6.1.0-57-clown-amd64"' "$not_recorded"
manifest '.created = "2024-05-01T12:34:56Z"' "$not_recorded"
manifest '.accel = (if .accel == "kvm" then "tcg" else "kvm" end)' \
	"$not_recorded"
manifest '. + {"colour": "green"}' "$not_recorded"
damaged manifest.json "flip manifest.json 30" "$not_recorded"
# Where that is not known, whatever is no manifest, or another host's.
UNKNOWN=1 manifest '. + {"colour": "green"}' manifest colour
UNKNOWN=1 manifest '.format = 99' manifest format
UNKNOWN=1 manifest '.vcpus = 100000' manifest vcpus
UNKNOWN=1 manifest '.name = "bare"' manifest bare
UNKNOWN=1 manifest '.version = "8.1.0"' version 8.1.0 7.
UNKNOWN=1 manifest \
	'.accel = (if .accel == "kvm" then "tcg" else "kvm" end)' accel
UNKNOWN=1 manifest '.cpu = "Pentium"' CPU Pentium
UNKNOWN=1 manifest '.driver = "firecracker"' firecracker qemu
UNKNOWN=1 manifest '.machine = "pc"' machine pc
# A database of before is completed by the first good image.
same "$(rows "SELECT count(*) FROM templates WHERE manifest_sha256 = ''")" 0 \
	"templates without a digest"

answers "$running" || fail "the one that ran all the time does not answer"
answers "$other" || fail "the one of the other template does not answer"
finish
